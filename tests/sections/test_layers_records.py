"""Module records: attributes, tensors, digests and code locations of every module."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import make_spec, make_study
from layer_models import Examine, Function, quantized, row, tensor
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from torch import nn

from reportgen.code_location import SourceRoot, code_location, source_root
from reportgen.comparable import ModuleRecord, StateTensor
from reportgen.manifest.source import parse_source
from reportgen.sections.layers import SECTION, Layers, analyze
from reportgen.sections.layers.records import attributes_of, module_records

CONVOLUTION = {
    "in_channels": 4, "out_channels": 8, "kernel_size": [3, 3], "stride": [2, 2],
    "padding": [1, 1], "dilation": [1, 1], "groups": 2, "padding_mode": "zeros",
    "output_padding": [0, 0],
}  # fmt: skip


def records(model: nn.Module, **options: Any) -> dict[str, ModuleRecord]:
    return {record.path: record for record in module_records(model, **options)}


# Attributes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "attributes"),
    [
        (nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), CONVOLUTION),
        (nn.Conv2d(4, 8, 3, padding="same"), {"padding": "same"}),
        (nn.LayerNorm(8, eps=1e-6), {"normalized_shape": [8], "eps": 1e-6}),
        (nn.BatchNorm1d(4, momentum=0.2), {"num_features": 4, "momentum": 0.2, "affine": True}),
        (nn.Dropout(0.3, inplace=True), {"p": 0.3}),
        (nn.GELU("tanh"), {"approximate": "tanh"}),
        (nn.LeakyReLU(0.2, inplace=True), {"negative_slope": 0.2}),
        (nn.Softmax(dim=-1), {"dim": -1}),
        (nn.Embedding(9, 4, padding_idx=0), {"num_embeddings": 9, "padding_idx": 0}),
        (nn.Upsample(scale_factor=2, mode="bilinear"), {"scale_factor": 2.0, "mode": "bilinear"}),
        (nn.MultiheadAttention(8, 2, dropout=0.1, batch_first=True),
         {"embed_dim": 8, "num_heads": 2, "dropout": 0.1, "batch_first": True}),
        (nn.LSTM(4, 6, 2, bidirectional=True),
         {"input_size": 4, "hidden_size": 6, "num_layers": 2, "bidirectional": True}),
        (nn.TransformerEncoderLayer(8, 2, 8, activation="gelu", norm_first=True),
         {"activation": "gelu", "norm_first": True}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_arguments_that_affect_the_result_are_recorded(
    module: nn.Module, attributes: dict[str, Any]
) -> None:
    found = attributes_of(module)
    assert {name: found[name] for name in attributes} == attributes
    assert not {"inplace", "training", "device", "weight"} & found.keys()


def test_a_convolution_has_no_other_attributes() -> None:
    assert attributes_of(nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)) == CONVOLUTION


def test_one_number_means_the_same_as_one_per_dimension() -> None:
    assert attributes_of(nn.MaxPool2d(3, 2)) == attributes_of(nn.MaxPool2d((3, 3), (2, 2)))
    assert attributes_of(nn.AdaptiveAvgPool3d(1)) == attributes_of(nn.AdaptiveAvgPool3d((1, 1, 1)))


class Custom(nn.Module):
    """One attribute of each kind."""

    def __init__(self, width: int, act: Any = F.silu, **other: Any) -> None:
        super().__init__()
        self.scale = width**-0.5
        self.width = width
        self.act = act
        self.norm = partial(nn.LayerNorm, eps=1e-6)
        self.kind: Any = torch.float16
        self.limit = float("inf")
        self.names = {"b", "a"}
        self.cache = {"x": 1}  # state, as are the next four
        self.table = torch.zeros(3)
        self.handle = object()
        self._private = 3
        self.head: nn.Module | None = None
        self.long = list(range(100))
        self.folder = "/home/someone/data/words.txt"
        self.layer_idx = other.get("layer_idx", 0)

    def forward(self, x: Any) -> Any:
        return x


def test_plain_attributes_of_a_users_class_are_recorded_constructor_arguments_first() -> None:
    found = attributes_of(Custom(4))
    assert list(found)[:2] == ["width", "act"]
    [record] = module_records(Custom(4))
    assert set(found) - set(record.computed) == {"width", "act"}
    assert found["long"] == attributes_of(Custom(4))["long"]
    assert str(found.pop("long")).startswith("100 values, hash ")
    assert found == {
        "width": 4, "act": "silu", "folder": "words.txt", "kind": "float16", "limit": "inf",
        "names": ["a", "b"], "norm": "LayerNorm(eps=1e-06)", "scale": 0.5,
    }  # fmt: skip


def test_a_parametrization_is_an_attribute_and_no_class_of_its_own() -> None:
    from torch.nn.utils.parametrizations import weight_norm

    [record, *_] = module_records(weight_norm(nn.Linear(2, 3)))
    assert record.type == "Linear"
    assert record.attributes["parametrizations.weight"] == ["_WeightNorm"]
    assert record.source.startswith("torch/nn/modules/linear.py:")


def test_of_torchscript_the_compiled_class_is_named() -> None:
    traced: Any = torch.jit.trace(nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2))
    assert [(r.type, r.attributes) for r in module_records(traced)] == [
        ("Sequential", {}), ("Linear", {}),
    ]  # fmt: skip


# Tensors ---------------------------------------------------------------------------------------


class Tied(nn.Module):
    """Two layers with one weight, and buffers of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2, bias=False)
        self.second = nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("kept", torch.arange(3))
        self.register_buffer("scratch", torch.zeros(2, dtype=torch.float64), persistent=False)
        self.first.weight.requires_grad_(False)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x))


def test_tensors_have_shape_dtype_kind_and_ties() -> None:
    found = records(Tied())
    assert found[""].tensors == (
        StateTensor(name="kept", shape=(3,), dtype="int64", kind="buffer", trainable=False),
        StateTensor(name="scratch", shape=(2,), dtype="float64", kind="buffer", persistent=False,
                    trainable=False),
    )  # fmt: skip
    assert found["first"].tensors == (
        StateTensor(name="weight", shape=(2, 2), dtype="float32", trainable=False),
    )
    assert found["second"].tensors[0].tied_to == "first.weight"
    assert (found["first"].parameters, found["second"].parameters) == (4, 4)


def test_a_shared_module_names_its_first_path() -> None:
    layer = nn.Linear(2, 2)
    found = records(nn.Sequential(layer, nn.ReLU(), layer))
    assert [found[p].shared_with for p in ("0", "1", "2")] == ["", "", "0"]
    assert found["2"].tensors[1].tied_to == "0.bias"


def test_keys_are_those_of_the_state_dict() -> None:
    model = nn.Sequential(Tied(), nn.TransformerEncoderLayer(8, 2, 8), nn.BatchNorm2d(3))
    keys = [
        f"{record.path}.{each.name}".lstrip(".")
        for record in module_records(model)
        for each in record.tensors
        if each.persistent
    ]
    assert sorted(keys) == sorted(model.state_dict())


def test_quantized_weights_are_recorded() -> None:
    found = records(quantized(nn.Sequential(nn.Linear(4, 6)), nn.Linear))
    assert [(t.name, t.shape, t.dtype) for t in found["0"].tensors] == [
        ("weight", (6, 4), "qint8"), ("bias", (6,), "float32"),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_digest_depends_on_values_alone(dtype: torch.dtype) -> None:
    def digest(values: torch.Tensor) -> str:
        module = nn.Module()
        module.register_buffer("values", values)
        return module_records(module, with_digests=True)[0].tensors[0].digest

    values = torch.tensor([[1, 0], [0, 1], [1, 1]], dtype=dtype)
    strided = values.t().contiguous().t()  # the same values in another layout
    assert digest(values) == digest(strided) != ""
    assert digest(values) != digest(values.roll(1, 1))
    assert digest(torch.tensor(1).to(dtype)) != ""


def test_only_given_weights_are_hashed(look: Examine, tmp_path: Path) -> None:
    weights = tmp_path / "w.pt"
    torch.save(nn.Linear(4, 4).state_dict(), weights)
    assert row(look(nn.Linear(4, 4), tensor(4)), "").tensors[0].digest == ""
    given = look(nn.Linear(4, 4), tensor(4), weights=weights)
    assert len(row(given, "").tensors[0].digest) == 16


# Code locations --------------------------------------------------------------------------------

_NET = """from torch import nn


class Net(nn.Module):
    class Head(nn.Linear):
        pass

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        self.head = self.Head(2, 2)
        self.unused = nn.Identity()

    def forward(self, x):
        x = self.body(x)
        return self.head(
            x)


def make():
    class Local(Net):
        pass
    return Local()
"""


def test_class_and_call_stand_at_their_line_relative_to_the_manifest(tmp_path: Path) -> None:
    file = tmp_path / "nets" / "net.py"
    file.parent.mkdir()
    file.write_text(_NET)
    spec = importlib.util.spec_from_file_location("a_users_net", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["a_users_net"] = module
    spec.loader.exec_module(module)
    source = parse_source("nets/net.py:make", tmp_path)
    context = make_study(module.make(), tensor(2), folder=tmp_path, source=source)
    found = {layer.path: layer for layer in analyze(context).layers}
    places = {path: (layer.source, layer.call) for path, layer in found.items()}
    assert places[""] == ("nets/net.py:21", "")
    assert places["head"] == ("nets/net.py:5", "nets/net.py:16")
    assert places["body"][1] == places["body.1"][1] == "nets/net.py:15"
    assert places["unused"][1] == ""
    assert str(tmp_path) not in json.dumps(to_jsonable_python(list(found.values())))


def test_the_folder_of_a_source_is_that_of_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "ci").mkdir()
    (tmp_path / "net.py").write_text("")
    inside = source_root(parse_source("net.py:make", tmp_path))
    above = source_root(parse_source("../net.py:make", tmp_path / "ci"))
    assert inside == SourceRoot(folder=tmp_path)
    assert above is not None
    assert code_location(str(tmp_path / "net.py"), 3, inside) == "net.py:3"
    assert code_location(str(tmp_path / "net.py"), 3, above).endswith("net.py:3")
    assert code_location(str(tmp_path / "net.py"), 3) == "net.py:3"
    assert code_location("<string>", 1) == ""
    installed = source_root(parse_source("torchvision.models.resnet:resnet18", tmp_path))
    assert installed is not None
    assert (installed.folder / "torchvision").is_dir()
    assert source_root(make_spec(source=parse_source("timm:x", tmp_path)).source) is None


def test_a_library_is_named_from_its_package_on() -> None:
    import torchvision

    model = torchvision.models.resnet18()
    assert records(model)["layer1.0"].source.partition(":")[0] == "torchvision/models/resnet.py"
    line = int(records(model)["layer1.0"].source.partition(":")[2])
    text = Path(torchvision.models.resnet.__file__).read_text().splitlines()
    assert text[line - 1].startswith("class BasicBlock(")


# In the report ---------------------------------------------------------------------------------


def test_the_section_offers_what_a_report_holds(look: Examine) -> None:
    result = look(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), tensor(4), batch=2)
    read = TypeAdapter(Layers).validate_json(json.dumps(to_jsonable_python(result)))
    modules = SECTION.comparable(read).modules
    assert modules == SECTION.comparable(result).modules
    assert [(m.path, m.type, m.macs, m.parameters) for m in modules] == [
        ("", "Sequential", 0, 0), ("0", "Linear", 32, 40), ("1", "ReLU", 0, 0),
        ("2", "Linear", 16, 18),
    ]  # fmt: skip
    without_calls = module_records(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
    assert [m.attributes for m in modules] == [m.attributes for m in without_calls]
    assert [m.tensors for m in modules] == [m.tensors for m in without_calls]


def test_costs_after_a_failure_are_unknown(look: Examine) -> None:
    model = Function(lambda self, x: self.b(self.a(x)), a=nn.Linear(4, 4), b=nn.Linear(5, 5))
    modules = SECTION.comparable(look(model, tensor(4))).modules
    assert {module.macs for module in modules} == {None}


def test_a_report_of_an_older_version_loads_and_offers_nothing(look: Examine) -> None:
    data = to_jsonable_python(look(nn.Linear(4, 4), tensor(4)))
    for layer in data["layers"]:
        for name in ("class_name", "attributes", "tensors", "source", "call"):
            del layer[name]
    old = TypeAdapter(Layers).validate_python(data)
    assert SECTION.comparable(old).modules == ()
