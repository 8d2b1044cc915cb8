"""Every source gives its model, or one line that says what to do."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_spec
from safetensors.torch import save_file
from torch import nn

from reportgen.errors import ModelError
from reportgen.manifest import ModelSpec, parse_source
from reportgen.sources import load_model

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.linear = nn.Linear(width, 2)
    def forward(self, x): return self.linear(x)

def make(width=3): return Net(width)
def number(): return 7
class Box:
    inner = Net
constant = 5
def broken(): return undefined_name
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(CODE)
    return tmp_path


def spec_of(folder: Path, source: str, **fields: Any) -> ModelSpec:
    parsed = parse_source(source, folder)
    return make_spec("x=batch,3", **fields).model_copy(update={"source": parsed})


def load(folder: Path, source: str, **fields: Any) -> nn.Module:
    return load_model(spec_of(folder, source, **fields))


def refusal(folder: Path, source: str, **fields: Any) -> str:
    with pytest.raises(ModelError) as caught:
        load(folder, source, **fields)
    text = f"{caught.value.message} ({caught.value.hint})"
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("factory", ["Net", "make", "Box.inner"])
def test_a_class_or_function_of_a_file_is_a_source(folder: Path, factory: str) -> None:
    model = load(folder, f"nets.py:{factory}", arguments={"width": 5})
    assert model.linear.weight.shape == (2, 5)
    assert not model.training


def test_a_package_is_a_source(tmp_path: Path) -> None:
    assert isinstance(load(tmp_path, "torch.nn:Identity"), nn.Identity)


def test_torchvision_builds_without_downloading(tmp_path: Path) -> None:
    model = load(tmp_path, "torchvision:squeezenet1_1", arguments={"num_classes": 7})
    assert model.classifier[1].out_channels == 7


def test_a_segmentation_model_builds_its_backbone_offline(tmp_path: Path) -> None:
    load(tmp_path, "torchvision:lraspp_mobilenet_v3_large")


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(folder: Path) -> None:
    first, again, other = (load(folder, "nets.py:Net", seed=s).linear.weight for s in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("source", "arguments", "words"),
    [
        ("torchvision:resnet51", {}, "did you mean 'resnet50'?"),
        ("torchvision:resnet18", {"weights": "DEFAULT"}, "would download"),
        ("torchvision:resnet18", {"num_clases": 3}, "num_clases"),
        ("nets.py:Nett", {}, "did you mean 'Net'?"),
        ("nets.py:constant", {}, "cannot be called"),
        ("nets.py:number", {}, "gave int, not a torch.nn.Module"),
        ("nets.py:broken", {}, "NameError: name 'undefined_name' is not defined (nets.py:"),
        ("no_such_package.sub:Net", {}, "install 'no_such_package'"),
        ("timm:resnet18", {}, "this version reads"),
        ("torchvison:resnet18", {}, "did you mean 'torchvision'?"),
    ],
)
def test_a_source_that_gives_no_model_is_refused_in_one_line(
    folder: Path, source: str, arguments: dict[str, Any], words: str
) -> None:
    assert words in refusal(folder, source, arguments=arguments)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import not_there\n", "install 'not_there'"),
        ("raise SystemExit(4)\n", "sys.exit(4)"),
        ("1/0\n", "ZeroDivisionError: division by zero (bad.py:1)"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_in_one_line(
    tmp_path: Path, code: str, words: str
) -> None:
    (tmp_path / "bad.py").write_text(code)
    assert words in refusal(tmp_path, "bad.py:Net")


def state(width: int = 3) -> dict[str, torch.Tensor]:
    return {"linear.weight": torch.ones(2, width), "linear.bias": torch.zeros(2)}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_are_loaded(folder: Path, suffix: str, wrapped: bool) -> None:
    path = folder / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state()} if wrapped else state(), path)
    else:
        save_file(state(), path)
    model = load(folder, "nets.py:Net", weights=path)
    assert torch.equal(model.linear.weight, torch.ones(2, 3))


def test_weights_that_do_not_fit_are_listed(folder: Path) -> None:
    path = folder / "other.safetensors"
    save_file({"linear.weight": torch.ones(2, 9), "head.bias": torch.ones(1)}, path)
    text = refusal(folder, "nets.py:Net", weights=path)
    assert "1 missing: linear.bias" in text
    assert "1 unknown: head.bias" in text
    assert "1 of another shape: linear.weight (2, 9) instead of (2, 3)" in text


def test_a_prefix_left_by_data_parallel_is_named(folder: Path) -> None:
    path = folder / "parallel.pth"
    torch.save({f"module.{key}": value for key, value in state().items()}, path)
    assert "DataParallel" in refusal(folder, "nets.py:Net", weights=path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/reportgen-was-here",)


def test_a_file_that_would_run_code_is_refused_with_the_reason(folder: Path) -> None:
    trace = Path("/tmp/reportgen-was-here")
    trace.unlink(missing_ok=True)
    torch.save({"a": Bomb()}, folder / "zip.pth")
    (folder / "plain.pth").write_bytes(pickle.dumps(Bomb(), protocol=2))
    torch.save(nn.Linear(2, 2), folder / "module.pth")
    for name in ("zip.pth", "plain.pth", "module.pth"):
        text = refusal(folder, "nets.py:Net", weights=folder / name)
        assert "would run code" in text, text
        assert "save the state dict alone" in text
    assert not trace.exists()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(folder: Path) -> None:
    path = folder / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 200_000_000)
    assert path.stat().st_size < 1_000_000
    assert "larger inside than outside" in refusal(folder, "nets.py:Net", weights=path)


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "empty.pth", "empty.safetensors"])
def test_a_damaged_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    torch.save(state(), path) if name.endswith("pth") else save_file(state(), path)
    path.write_bytes(path.read_bytes()[:-60] if name.startswith("cut") else b"")
    assert name in refusal(folder, "nets.py:Net", weights=path)
