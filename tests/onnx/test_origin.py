"""The origin of a node: what each exporter writes, read as paths of modules."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from reportgen.onnx.model.origin import CLASSES, NAME_SCOPES, Origin, origin_of


def node(name: str = "", **metadata: str) -> onnx.NodeProto:
    made = onnx.helper.make_node("Add", ["a", "b"], ["c"], name=name)
    for key, value in metadata.items():
        made.metadata_props.add(key={"names": NAME_SCOPES, "classes": CLASSES}[key], value=value)
    return made


def test_metadata_gives_modules_classes_and_the_operation() -> None:
    made = node(names="['', 'a', 'a.0', 'linear']", classes="['M', 'S', 'L', 'aten.linear']")
    assert origin_of(made) == Origin(
        modules=("", "a", "a.0"),
        classes=("M", "S", "L"),
        operation="linear",
        torch_operator="aten.linear",
    )


@pytest.mark.parametrize(
    "names",
    [
        "['', '_empty_nn_module_stack_from_metadata_hook', 'add']",
        "['_empty_nn_module_stack/3', 'add']",
    ],
)
def test_a_module_that_the_exporter_lost_is_unknown(names: str) -> None:
    found = origin_of(node(names=names, classes="['x', 'y', 'aten.add']"))
    assert (found.modules, found.module) == ((), "")
    assert (found.operation, found.torch_operator) == ("add", "aten.add")


@pytest.mark.parametrize("names", ["[", "3", "[]", "None", "'text'"])
def test_metadata_that_cannot_be_read_is_unknown(names: str) -> None:
    assert origin_of(node(names=names)).modules == ()


def test_classes_of_another_length_are_unknown() -> None:
    found = origin_of(node(names="['', 'a', 'add']", classes="['aten.add']"))
    assert (found.modules, found.classes) == (("", "a"), ("", ""))


@pytest.mark.parametrize(
    ("name", "modules"),
    [
        ("", ()),
        ("Add_3", ()),
        ("/Add", ("",)),
        ("/encoder/layer.0/MatMul", ("", "encoder", "encoder.layer.0")),
        ("/seq/seq.0/layer.1/layer.1.0/Gemm",
         ("", "seq", "seq.0", "seq.0.layer.1", "seq.0.layer.1.0")),
        ("tower/conv/Conv2D", ("", "tower", "tower.conv")),
    ],
)  # fmt: skip
def test_a_name_of_scopes_gives_whole_paths(name: str, modules: tuple[str, ...]) -> None:
    assert origin_of(node(name)).modules == modules


class Nested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x)
        return x


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True])
def test_both_exporters_of_torch_name_modules_that_exist(dynamo: bool, tmp_path: Path) -> None:
    model = nn.Sequential(Nested(), nn.Sequential(nn.Linear(4, 4), Nested())).eval()
    path = tmp_path / "m.onnx"
    torch.onnx.export(model, (torch.zeros(2, 4),), path, dynamo=dynamo, verbose=False)
    gemms = [n for n in onnx.load(path).graph.node if n.op_type == "Gemm"]
    linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    assert [origin_of(gemm).module for gemm in gemms] == linear
