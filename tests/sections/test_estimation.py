"""`reportgen estimate` loads a model once, and a second time only when it requires weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reportgen.cuda_memory.step import Step
from reportgen.errors import ReportgenError
from reportgen.manifest import ModelSpec, parse_shape_argument
from reportgen.sections.memory import estimation
from reportgen.sources import Loaded, load_model

CODE = """
import torch
from torch import nn

def plain():
    return nn.Linear(4, 2)

class ReadsValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.width = int(torch.full((), 4))
    def forward(self, x): return self.linear(x)
"""


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The default device of each call of `load_model`, in order."""
    calls: list[str] = []

    def counted(spec: ModelSpec) -> Loaded:
        calls.append(torch.get_default_device().type)
        return load_model(spec)

    (tmp_path / "nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimation, "load_model", counted)
    return calls


@pytest.mark.parametrize(
    ("source", "shape", "expected"),
    [
        ("nets.py:plain", "batch,4", ["meta"]),
        ("torchvision:squeezenet1_1", None, ["meta"]),
        ("nets.py:ReadsValues", "batch,4", ["meta", "cpu"]),
    ],
)
def test_the_real_model_is_loaded_only_if_meta_fails(
    devices: list[str], source: str, shape: str | None, expected: list[str]
) -> None:
    inputs: Any = () if shape is None else (parse_shape_argument(shape),)
    step = Step(mode="inference")
    answer = estimation.estimate_step(source, inputs, batch=2, step=step)
    assert devices == expected
    assert answer.estimate.peak_allocated_bytes > 0


@pytest.mark.parametrize("name", ["B", "N", "samples"])
def test_the_batch_may_have_any_name(name: str) -> None:
    inputs = (parse_shape_argument(f"x={name},3,32,32"),)
    step = Step(mode="inference")
    found = estimation.estimate_step("torchvision:resnet18", inputs, batch=2, step=step)
    usual = (parse_shape_argument("x=batch,3,32,32"),)
    same = estimation.estimate_step("torchvision:resnet18", usual, batch=2, step=step)
    assert found.estimate == same.estimate


def test_any_other_dim_needs_a_size() -> None:
    inputs = (parse_shape_argument("x=N,3,H,32"),)
    with pytest.raises(ReportgenError, match="'H' in --input has no size"):
        estimation.estimate_step("torchvision:resnet18", inputs, batch=2, step=Step())


def test_an_input_without_dtype_has_that_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half.py").write_text(
        "import torch\ndef make(): return torch.nn.Linear(8, 8).to(torch.bfloat16)\n"
    )
    monkeypatch.chdir(tmp_path)
    step = Step(mode="inference")
    found = estimation.estimate_step(
        "half.py:make", (parse_shape_argument("batch,8"),), batch=2, step=step
    )
    assert any("bfloat16, as the weights have" in note for note in found.notes)
    given = (parse_shape_argument("batch,8:float32"),)
    with pytest.raises(ReportgenError, match="same dtype"):
        estimation.estimate_step("half.py:make", given, batch=2, step=step)
