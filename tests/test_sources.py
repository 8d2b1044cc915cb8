"""Every source returns its model, or a one-line error with a hint."""

from __future__ import annotations

import json
import logging
import os
import pickle
import sys
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_spec
from safetensors.torch import save_file
from torch import nn

from reportgen.errors import EnvironmentFault, ManifestError, ModelError
from reportgen.manifest import ModelSpec, parse_source
from reportgen.sources import Loaded, is_weightless, load_model, weightless
from reportgen.sources.from_onnx import read_onnx_source

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
ready = Net()
def exits(): raise SystemExit(3)
def sized(width): return Net(width)
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
    return load_model(spec_of(folder, source, **fields)).model


def error_text(folder: Path, source: str, **fields: Any) -> str:
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


def test_a_class_of_a_package_is_a_source(tmp_path: Path) -> None:
    assert isinstance(load(tmp_path, "torch.nn:Identity"), nn.Identity)


def test_torchvision_builds_without_downloading(tmp_path: Path) -> None:
    model = load(tmp_path, "torchvision:squeezenet1_1", arguments={"num_classes": 7})
    assert model.classifier[1].out_channels == 7


def test_torchvision_builds_a_backbone_without_downloading(tmp_path: Path) -> None:
    load(tmp_path, "torchvision:lraspp_mobilenet_v3_large")


def test_weights_depend_on_the_seed(folder: Path) -> None:
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
        ("nets.py:constant", {}, "is not callable"),
        ("nets.py:number", {}, "returned int, expected a torch.nn.Module"),
        ("nets.py:broken", {}, "NameError: name 'undefined_name' is not defined (nets.py:"),
        ("nets.py:exits", {}, "called sys.exit(3)"),
        ("nets.py:broken", {}, "the same call fails in plain Python"),
        ("nets.py:sized", {}, "under 'arguments'"),
        ("nets.py:ready", {}, "is a model instance"),
        ("no_such_package.sub:Net", {}, "install 'no_such_package'"),
        ("timm:resnet19", {}, "did you mean 'resnet18'?"),
        ("timm:resnet18.a9_in1k", {}, "has no tag 'a9_in1k'"),
        ("timm:resnet18", {"pretrained": True}, "would load weights"),
        ("transformers:brt", {}, "did you mean 'bert'?"),
        ("transformers:BertForSequence", {}, "did you mean 'BertFor"),
        ("transformers:BertConfig", {}, "did you mean 'transformers:bert'?"),
        ("transformers:bert-large-uncased", {}, "nothing is downloaded"),
        ("transformers:someone/else", {}, "nothing is downloaded"),
        ("transformers:bert", {"hidden_sizes": 8}, "did you mean 'hidden_size'?"),
        ("transformers:clip", {"text_config": {"hidden_sise": 8}}, "no field 'text_config.hidd"),
        ("transformers:bert", {"dtype": "float33"}, "'float33' is not a dtype"),
        ("transformers:time_series_transformer", {}, "prediction_length"),
        ("transformers:bark", {}, "no forward method"),
        ("transformers:lfm2_moe", {}, "raised TypeError"),
        ("transformers:sapiens2_head", {}, "no transformers model is built from"),
        ("torchvison:resnet18", {}, "did you mean 'torchvision'?"),
    ],
)
def test_a_source_without_a_model_gives_one_line(
    folder: Path, source: str, arguments: dict[str, Any], words: str
) -> None:
    assert words in error_text(folder, source, arguments=arguments)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def broken(:\n", "SyntaxError"),
        ("import not_there\n", "install 'not_there'"),
        ("raise SystemExit(4)\n", "sys.exit(4)"),
        ("1/0\n", "ZeroDivisionError: division by zero (bad.py:1)"),
    ],
)
def test_a_file_that_cannot_be_imported_gives_one_line(
    tmp_path: Path, code: str, words: str
) -> None:
    (tmp_path / "bad.py").write_text(code)
    assert words in error_text(tmp_path, "bad.py:Net")


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


def test_weights_that_do_not_match_are_listed(folder: Path) -> None:
    path = folder / "other.safetensors"
    save_file({"linear.weight": torch.ones(2, 9), "head.bias": torch.ones(1)}, path)
    text = error_text(folder, "nets.py:Net", weights=path)
    assert "1 missing: linear.bias" in text
    assert "1 unknown: head.bias" in text
    assert "1 with a different shape: linear.weight (2, 9) instead of (2, 3)" in text


def notes_of(folder: Path, content: object, name: str = "w.pth") -> tuple[str, ...]:
    """The notes of loading `content`, whose weights must all arrive."""
    torch.save(content, folder / name)
    loaded = load_model(spec_of(folder, "nets.py:Net", weights=folder / name))
    assert torch.equal(loaded.model.linear.weight, torch.ones(2, 3))
    return loaded.notes


def under(prefix: str, values: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in (values or state()).items()}


@pytest.mark.parametrize("prefix", ["module.", "model.", "net.", "student.enc."])
@pytest.mark.parametrize("other", [{}, {"n_averaged": torch.tensor(3)}])
def test_one_prefix_of_all_keys_is_removed(
    folder: Path, prefix: str, other: dict[str, Any]
) -> None:
    (note,) = notes_of(folder, under(prefix) | other)
    assert repr(prefix) in note
    assert ("'n_averaged'" in note) == bool(other)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "linear._orig_mod."])
def test_the_wrapper_of_torch_compile_is_removed(folder: Path, prefix: str) -> None:
    values = {
        key.replace("linear.", prefix) if "linear" in prefix else prefix + key: value
        for key, value in state().items()
    }
    assert "'_orig_mod'" in notes_of(folder, values)[0]


def test_a_prefix_that_the_file_lacks_is_added(folder: Path) -> None:
    values = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    assert "'linear.' added" in notes_of(folder, values)[0]


def test_two_matching_prefixes_are_an_error(folder: Path) -> None:
    torch.save(under("student.") | under("teacher."), folder / "w.pth")
    text = error_text(folder, "nets.py:Net", weights=folder / "w.pth")
    assert "'student.', 'teacher.'" in text


def test_of_equal_modules_the_one_with_the_right_shapes_is_loaded(folder: Path) -> None:
    wide = {"linear.weight": torch.ones(2, 9), "linear.bias": torch.zeros(2)}
    assert "'b.'" in notes_of(folder, under("a.", wide) | under("b."))[0]


def test_a_prefix_does_not_hide_keys_that_do_not_match(folder: Path) -> None:
    torch.save(under("net.") | {"net.extra": torch.ones(1)}, folder / "w.pth")
    assert "3 unknown" in error_text(folder, "nets.py:Net", weights=folder / "w.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "model": state(), "ema": under("module.")}, ["'model'", "'ema'"]),
        ({"params": state(), "iter": 5}, ["'params'"]),
        ({"generator": state(), "critic": {"a": torch.ones(1)}}, ["'generator'", "'critic'"]),
        ({"state_dict": under("model.") | {"loss.w": torch.ones(1)}, "loops": {}}, ["'loss.w'"]),
    ],
)
def test_the_state_dict_of_a_checkpoint_is_loaded(
    folder: Path, content: dict[str, Any], words: list[str]
) -> None:
    for name in ("last.ckpt", "pytorch_model.bin"):
        text = "; ".join(notes_of(folder, content, name))
        assert all(word in text for word in words), text


def test_weights_stored_once_are_loaded_into_tied_modules(tmp_path: Path) -> None:
    (tmp_path / "tied.py").write_text(
        "from torch import nn\nclass Tied(nn.Module):\n def __init__(self):\n"
        "  super().__init__(); self.a = nn.Linear(3, 3); self.b = nn.Linear(3, 3)\n"
        "  self.b.weight = self.a.weight\n"
    )
    stored = {"a.weight": torch.ones(3, 3), "a.bias": torch.ones(3), "b.bias": torch.ones(3)}
    save_file(stored, tmp_path / "w.safetensors")
    model = load(tmp_path, "tied.py:Tied", weights=tmp_path / "w.safetensors")
    assert model.b.weight is model.a.weight
    assert torch.equal(model.b.weight, torch.ones(3, 3))


def shards(folder: Path, suffix: str = ".safetensors") -> Path:
    names = [f"model-0000{number}-of-00002{suffix}" for number in (1, 2)]
    for name, (key, value) in zip(names, state().items(), strict=True):
        save_file({key: value}, folder / name)
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(state(), names, strict=True))}))
    return index


def test_shards_are_loaded_by_their_index(folder: Path) -> None:
    model = load(folder, "nets.py:Net", weights=shards(folder))
    assert torch.equal(model.linear.weight, torch.ones(2, 3))


def test_a_shard_alone_is_an_error_that_names_the_index(folder: Path) -> None:
    part = shards(folder).with_name("model-00002-of-00002.safetensors")
    text = error_text(folder, "nets.py:Net", weights=part)
    assert "part 2 of 2" in text
    assert "model.safetensors.index.json" in text


@pytest.mark.parametrize("name", ["absent.safetensors", "../nets.py", "/etc/passwd"])
def test_an_index_that_names_other_files_is_an_error(folder: Path, name: str) -> None:
    index = shards(folder)
    index.write_text(json.dumps({"weight_map": {"linear.weight": name}}))
    assert name in error_text(folder, "nets.py:Net", weights=index)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"params_ema": state(), "params": state()}, "2 state dicts, of which 2 match"),
        ([state()], "a list of length 1"),
        ({"epoch": 1, "names": ["a"]}, "a dict without tensors, with the keys 'epoch', 'names'"),
        ({key: value.numpy() for key, value in state().items()}, "NumPy arrays"),
        (nn.Sequential(nn.Linear(2, 2)), "a pickled model"),
        ({"state_dict": state(), "args": Namespace(lr=1)}, "(argparse.Namespace)"),
        (
            {"state_dict": state(), "hyper_parameters": {"net": nn.Sequential(nn.Linear(2, 2))}},
            "weights_only=False)['state_dict'], 'weights.pth')",
        ),
    ],
)
def test_a_file_without_one_state_dict_says_what_it_contains(
    folder: Path, content: object, words: str
) -> None:
    torch.save(content, folder / "w.pth")
    assert words in error_text(folder, "nets.py:Net", weights=folder / "w.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><p>404", "is a web page"),
        (b"GGUF\3\0\0\0", "is a GGUF file"),
        (b"\x89HDF\r\n\x1a\n\0", "is an HDF5 file"),
        (b"\x1f\x8b\x08\0", "is a gzip archive"),
        (b"PK\3\4 and no more", "incomplete zip archive"),
        (b'{"a": 1}', "is a JSON file"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin"])
def test_another_file_is_called_what_it_is(
    folder: Path, content: bytes, words: str, name: str
) -> None:
    (folder / name).write_bytes(content)
    assert words in error_text(folder, "nets.py:Net", weights=folder / name)


def test_torchscript_as_weights_names_both_remedies(folder: Path) -> None:
    torch.jit.script(nn.Linear(3, 2)).save(folder / "w.pt")
    text = error_text(folder, "nets.py:Net", weights=folder / "w.pt")
    assert "is a TorchScript archive" in text
    assert "torch.jit.load('w.pt').state_dict()" in text


@pytest.mark.parametrize("has_init", [True, False])
def test_a_file_of_a_package_may_import_relatively(tmp_path: Path, has_init: bool) -> None:
    nets = tmp_path / f"package_{has_init}" / "nets"
    nets.mkdir(parents=True)
    (nets.parent / "shared.py").write_text("WIDTH = 6\n")
    (nets / "model.py").write_text(
        "from ..shared import WIDTH\nfrom torch import nn\ndef make(): return nn.Linear(WIDTH, 1)\n"
    )
    if has_init:
        (nets.parent / "__init__.py").write_text("")
        (nets / "__init__.py").write_text("from .model import make\n")
    assert load(nets, "model.py:make").weight.shape == (1, 6)


def test_without_relative_imports_the_package_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").write_text("1 / 0\n")
    (tmp_path / "plain.py").write_text("from torch.nn import Identity\n")
    assert isinstance(load(tmp_path, "plain.py:Identity"), nn.Identity)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/reportgen-was-here",)


def test_a_file_that_would_run_code_is_rejected(folder: Path) -> None:
    trace = Path("/tmp/reportgen-was-here")
    trace.unlink(missing_ok=True)
    torch.save({"a": Bomb()}, folder / "zip.pth")
    (folder / "plain.pth").write_bytes(pickle.dumps(Bomb(), protocol=2))
    torch.save(nn.Linear(2, 2), folder / "module.pth")
    for name in ("zip.pth", "plain.pth", "module.pth"):
        text = error_text(folder, "nets.py:Net", weights=folder / name)
        assert "would run code" in text, text
        assert "save only the state dict" in text
    assert not trace.exists()


def test_a_zip_bomb_is_rejected_without_unpacking_it(folder: Path) -> None:
    path = folder / "bomb.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 200_000_000)
    assert path.stat().st_size < 1_000_000
    assert "is a compressed zip" in error_text(folder, "nets.py:Net", weights=path)


@pytest.mark.parametrize("name", ["cut.pth", "cut.safetensors", "empty.pth", "empty.safetensors"])
def test_the_error_for_a_damaged_file_contains_its_name(folder: Path, name: str) -> None:
    path = folder / name
    torch.save(state(), path) if name.endswith("pth") else save_file(state(), path)
    path.write_bytes(path.read_bytes()[:-60] if name.startswith("cut") else b"")
    assert name in error_text(folder, "nets.py:Net", weights=path)


TINY_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 30,
}


def test_timm_builds_a_tagged_model_without_downloading(tmp_path: Path) -> None:
    model = load(tmp_path, "timm:resnet10t.c3_in1k", arguments={"num_classes": 7})
    assert model.fc.out_features == 7
    assert not model.training


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("bert", "BertForMaskedLM"),
        ("BertForSequenceClassification", "BertForSequenceClassification"),
        ("bert-base-uncased", "BertForMaskedLM"),
        ("google-bert/bert-base-uncased", "BertForMaskedLM"),
    ],
)
def test_transformers_is_selected_by_type_class_or_checkpoint_with_default_sizes(
    tmp_path: Path, name: str, kind: str
) -> None:
    loaded = load_model(spec_of(tmp_path, f"transformers:{name}", arguments=TINY_BERT))
    assert type(loaded.model).__name__ == kind
    assert loaded.model.config.hidden_size == 16
    assert any("similar" in note for note in loaded.notes) == ("base" in name)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("gpt2", "GPT2LMHeadModel"),
        ("vit", "ViTForImageClassification"),
        ("wav2vec2", "Wav2Vec2ForCTC"),
        ("whisper", "WhisperForConditionalGeneration"),
        ("t5", "T5ForConditionalGeneration"),
        ("clip", "CLIPModel"),
        ("detr", "DetrForObjectDetection"),
        ("llava", "LlavaForConditionalGeneration"),
        ("vit-mae", "ViTMAEForPreTraining"),
    ],
)
def test_the_model_class_of_a_model_type(name: str, kind: str) -> None:
    from reportgen.sources.from_transformers.architectures import (
        class_of_config,
        find_architecture,
    )

    assert class_of_config(find_architecture(name, name).config_class, name).__name__ == kind


@pytest.mark.parametrize("source", ["cfg/config.json", "./cfg", "cfg"])
def test_a_config_json_sets_class_and_sizes(tmp_path: Path, source: str) -> None:
    (tmp_path / "cfg").mkdir()
    values = {
        **TINY_BERT,
        "model_type": "bert",
        "architectures": ["BertForTokenClassification"],
        "dtype": "bfloat16",
        "auto_map": {"AutoModel": "evil.Model"},
    }
    (tmp_path / "cfg" / "config.json").write_text(json.dumps(values))
    spec = spec_of(tmp_path, f"transformers:{source}", arguments={"num_labels": 5})
    loaded = load_model(spec)
    assert type(loaded.model).__name__ == "BertForTokenClassification"
    assert loaded.model.classifier.out_features == 5
    assert loaded.model.classifier.weight.dtype == torch.float32
    assert any("declares bfloat16; the model was built in float32" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ("{}", "has no 'model_type'"),
        ('{"model_type": "brt"}', "did you mean 'bert'"),
        ('{"model_type": "bert", "architectures": ["Evil"]}', "has no class 'Evil'"),
        ('{"model_type": "bert", "hidden_size": "wide"}', "rejects the configuration"),
    ],
)
def test_an_invalid_config_json_gives_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.json").write_text(text)
    assert words in error_text(tmp_path, "transformers:config.json")


def test_a_transformers_model_returns_a_cache_only_if_requested(tmp_path: Path) -> None:
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 20}
    without = load(tmp_path, "transformers:gpt2", arguments=sizes)
    with_cache = load(tmp_path, "transformers:gpt2", arguments={**sizes, "use_cache": True})
    ids = torch.zeros(1, 4, dtype=torch.long)
    assert "past_key_values" not in without(ids)
    assert "past_key_values" in with_cache(ids)


def test_transformers_weights_depend_on_the_seed(tmp_path: Path) -> None:
    first, again, other = (
        load(tmp_path, "transformers:bert", arguments=TINY_BERT, seed=seed).state_dict()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_importing_transformers_does_not_change_logging(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, root.manager.disable)
    load(tmp_path, "transformers:bert", arguments=TINY_BERT)
    assert (list(root.handlers), root.level, root.manager.disable) == before
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert sys.modules["huggingface_hub.constants"].HF_HUB_OFFLINE  # type: ignore[attr-defined]


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_the_error_for_a_missing_library_contains_the_install_command(
    tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(EnvironmentFault) as caught:
        load(tmp_path, f"{library}:resnet18")
    assert caught.value.hint == f"run pip install 'reportgen[{library}]'"


def test_a_model_too_large_for_the_machine_is_built_without_weights(
    tmp_path: Path,
) -> None:
    loaded = load_model(spec_of(tmp_path, "transformers:llama", arguments={"hidden_size": 65536}))
    assert is_weightless(loaded.model)
    assert any("more than a third of this machine's memory" in note for note in loaded.notes)


def test_the_memory_limit_decides_whether_weights_are_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tmp_path, "torchvision:squeezenet1_1")
    assert not is_weightless(load_model(spec).model)
    monkeypatch.setattr(weightless, "memory_limit_bytes", lambda: 10_000_000)
    assert is_weightless(load_model(spec).model)


class Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)
        self.drop = nn.Dropout()

    def forward(self, x: Any, ids: Any, *, scale: float, more: dict[str, Any]) -> Any:
        return {"y": self.drop(x * scale + self.table(ids).sum(1) + more["a"][0])}


def exported(path: Path, *, static: bool = False) -> Loaded:
    model = Stateful().eval()
    ids = torch.tensor([[0, 8, 3, 1, 2]] * 3)
    more = {"a": (torch.ones(3, 4), None)}
    batch, length = torch.export.Dim("batch", max=64), torch.export.Dim("length", min=2, max=50)
    shapes = {"x": {0: batch}, "ids": {0: batch, 1: length}, "scale": None,
              "more": {"a": ({0: batch}, None)}}  # fmt: skip
    program = torch.export.export(
        model, (torch.ones(3, 4), ids), {"scale": 2.0, "more": more},
        dynamic_shapes=None if static else shapes,
    )  # fmt: skip
    torch.export.save(program, path / "net.pt2")
    return load_model(spec_of(path, "net.pt2"))


def test_an_exported_program_has_a_module_inputs_and_dims(tmp_path: Path) -> None:
    loaded = exported(tmp_path)
    by_name = {item.name: item for item in loaded.inputs}
    assert by_name["x"].shape == ("batch", 4)
    assert by_name["ids"].shape == ("batch", "ids_dim1")
    assert by_name["ids"].high == 9
    assert by_name["scale"].keyword
    assert by_name["scale"].value is not None
    assert by_name["scale"].value.value == 2.0
    assert by_name["more"].fields is not None
    assert by_name["more"].fields["a"].as_tuple
    assert (dict(loaded.dims), loaded.batch) == ({"ids_dim1": 5}, 3)
    assert sorted(name for name, _ in loaded.model.named_parameters()) == ["table.weight"]
    assert "mode was fixed at export" in loaded.notes[0]


def test_train_and_eval_of_an_exported_program_have_no_effect(tmp_path: Path) -> None:
    loaded = exported(tmp_path)
    arguments = (torch.ones(2, 4), torch.zeros(2, 3, dtype=torch.long))
    more = {"scale": 2.0, "more": {"a": (torch.ones(2, 4), None)}}
    first = loaded.model.eval()(*arguments, **more)["y"]
    assert torch.equal(first, loaded.model.train()(*arguments, **more)["y"])


def test_a_program_with_fixed_shapes_has_no_dims(tmp_path: Path) -> None:
    loaded = exported(tmp_path, static=True)
    assert [item.shape for item in loaded.inputs[:2]] == [(3, 4), (3, 5)]
    assert (loaded.dims, loaded.batch) == ((), None)


def test_tied_weights_of_an_exported_program_are_one_parameter(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
            self.other = nn.Linear(4, 9, bias=False)
            self.head.weight = self.table.weight

        def forward(self, ids: Any) -> Any:
            x = self.table(ids)
            return self.head(x) + self.other(x)

    program = torch.export.export(Tied(), (torch.zeros(2, 3, dtype=torch.long),))
    torch.export.save(program, tmp_path / "net.pt2")
    model = load_model(spec_of(tmp_path, "net.pt2")).model
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    assert sorted(names) == ["head.weight", "other.weight", "table.weight"]
    assert sum(parameter.numel() for parameter in model.parameters()) == 2 * 36


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\3\4 cut"])
def test_a_damaged_program_gives_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.pt2").write_bytes(content)
    assert "bad.pt2 cannot be read as an exported program" in error_text(tmp_path, "bad.pt2")


def test_a_program_takes_no_arguments(tmp_path: Path) -> None:
    exported(tmp_path)
    assert "takes no 'arguments'" in error_text(tmp_path, "net.pt2", arguments={"width": 3})


MODES = """
import torch
from torch import nn

def program():
    net = nn.Sequential(nn.Linear(3, 2), nn.Dropout()).eval()
    return torch.export.export(net, (torch.randn(2, 3),)).module()

def around():
    return nn.Sequential(program(), nn.ReLU())

def cycle():
    net = nn.Sequential(nn.Linear(3, 2), nn.Sequential())
    net[1].parent = net
    return net

def diamond():
    shared = nn.Linear(3, 3)
    return nn.Sequential(nn.Sequential(shared), nn.Sequential(shared))
"""


@pytest.fixture
def modes(tmp_path: Path) -> Path:
    (tmp_path / "modes.py").write_text(MODES)
    return tmp_path


@pytest.mark.parametrize(("factory", "notes"), [("program", 1), ("around", 0)])
def test_a_module_of_an_exported_program_is_a_source(modes: Path, factory: str, notes: int) -> None:
    loaded = load_model(spec_of(modes, f"modes.py:{factory}"))
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 8
    loaded.model.train()
    assert len(loaded.notes) == notes


def test_a_module_that_contains_itself_is_an_error_with_its_path(modes: Path) -> None:
    assert "contains itself: 1.parent" in error_text(modes, "modes.py:cycle")


def test_a_shared_module_is_not_a_cycle(modes: Path) -> None:
    assert (
        sum(parameter.numel() for parameter in load(modes, "modes.py:diamond").parameters()) == 12
    )


TINY_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 30,
}


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        ({"quant_method": "gptq", "bits": 4}, "(gptq, 4 bits)"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "(bitsandbytes, 8 bits)"),
        ({"quant_method": "fp8"}, "(fp8)"),
    ],
)
def test_a_quantization_of_the_configuration_is_noted(
    tmp_path: Path, quantization: dict[str, Any], words: str
) -> None:
    config = TINY_LLAMA | {"quantization_config": quantization}
    (tmp_path / "config.json").write_text(json.dumps(config))
    notes = load_model(spec_of(tmp_path, "transformers:./config.json")).notes
    assert [note for note in notes if words in note and "built without it" in note]


def test_custom_code_of_a_configuration_is_named(tmp_path: Path) -> None:
    config = {"model_type": "mynet", "auto_map": {"AutoConfig": "code.MyConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    text = error_text(tmp_path, "transformers:./config.json")
    assert "(auto_map), which is not run" in text
    assert "file.py" in text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.onnx", b"", "is empty (0 bytes)"),
        ("lfs.onnx", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("page.onnx", b"<html>404</html>", "is a web page"),
        ("cut.onnx", b"\x08\x0a\x12\x07pytorch:\xff", "damaged or incomplete"),
    ],
)
def test_a_file_named_onnx_is_called_what_it_is(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_onnx_source(tmp_path / name)
    assert words in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net.pt", "is a TorchScript archive: write a file.py"),
        ("net.ckpt", "contains weights, not a model"),
        ("net.h5", "is a Keras model"),
        ("net.tflite", "is a TensorFlow Lite model"),
        ("hf:gpt2", "write transformers:gpt2"),
        ("net.dat", "not a model: fetch the file: git lfs pull"),
    ],
)
def test_a_text_that_is_no_source_says_what_would_work(
    tmp_path: Path, name: str, words: str
) -> None:
    torch.jit.script(nn.ReLU()).save(tmp_path / "net.pt")
    (tmp_path / "net.dat").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ManifestError, match=words):
        parse_source(name, tmp_path)
