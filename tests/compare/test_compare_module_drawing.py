"""The drawing of both module graphs: which boxes carry which mark, and that it fits a page."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from reportgen.comparable import Comparable, ModuleRecord
from reportgen.compare.module_drawing import draw_module_diff
from reportgen.compare.modules import diff_modules
from reportgen.sections.graphs.complete.modules import complete_module_graph
from reportgen.sections.graphs.trace import trace_forward
from reportgen.sections.layers.records import module_records

SVG = "{http://www.w3.org/2000/svg}"
PAGE = (483.0, 668.0)  # usable points of an A4 page
SMALLEST_SCALE = 5.5 / 8.5  # at which the text of a drawing is still readable


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.first = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.second = nn.Sequential(nn.Linear(8, 8, bias=False), nn.GELU(), nn.Dropout(0.1))
        self.fc, self.head_name = nn.Linear(8, 3), "fc"

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.first(self.embed(x).flatten(2).transpose(1, 2)))
        return getattr(self, self.head_name)(hidden.mean(dim=1))  # type: ignore[no-any-return]


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.extra = Net(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.extra(self.backbone(x))  # type: ignore[no-any-return]


def comparable(model: nn.Module, size: int = 8) -> Comparable:
    trace = trace_forward(model.eval(), (torch.ones(1, 3, size, size),), {}, ("x",))
    return Comparable(modules=module_records(model), graphs=(complete_module_graph(trace),))


def drawing(old: nn.Module, new: nn.Module, size: int = 8) -> str:
    before, after = comparable(old, size), comparable(new, size)
    return draw_module_diff(before, after, diff_modules(before.modules, after.modules))


def boxes(svg: str) -> list[tuple[str, str]]:
    """Kind and text of every box, in the order of the drawing's source."""
    root = ElementTree.fromstring(svg)
    found = []
    for group in root.iter(f"{SVG}g"):
        kind = group.get("class", "").split()
        if kind[:1] == ["node"]:
            lines = [(text.text or "").strip() for text in group.iter(f"{SVG}text")]
            found.append((kind[1], " | ".join(filter(None, lines))))
    return found


def marked(svg: str) -> set[tuple[str, str]]:
    quiet = ("unchanged", "input", "output")
    return {box for box in boxes(svg) if box[0] not in quiet}


def widen(net: Any) -> None:
    net.fc = nn.Linear(8, 5)


def insert(net: Any) -> None:
    net.first.insert(1, nn.BatchNorm1d(4))


def remove(net: Any) -> None:
    del net.second[2]


def exchange(net: Any) -> None:
    net.first, net.second = net.second, net.first


def rename(net: Any) -> None:
    net.head_name = "head"
    net.add_module("head", net._modules.pop("fc"))


def activation(net: Any) -> None:
    net.first[1] = nn.SiLU()


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (widen, {("changed", "Δ Linear | fc · out_features 3 → 5 · 1×5")}),
        (insert, {("added", "+ BatchNorm1d | 1 · 1×4×8")}),
        (remove, {("removed", "− Dropout | 2 · 1×4×8")}),
        (exchange, {("moved", "→ Sequential | first · exchanged with second"),
                    ("moved", "→ Sequential | second · exchanged with first")}),
        (rename, {("moved", "→ Linear | head · was fc · 1×3")}),
        (activation, {("changed", "Δ SiLU | 1 · was ReLU · 1×4×8")}),
    ],
)  # fmt: skip
def test_a_change_is_the_only_marked_box(
    edit: Callable[[Any], None], expected: set[tuple[str, str]]
) -> None:
    model = Net()
    edit(model)
    assert marked(drawing(Net(), model)) == expected


def test_a_wrapped_model_is_one_box() -> None:
    assert boxes(drawing(Net(), Wrapped())) == [
        ("input", "x | 1×3×8×8"),
        ("moved", "→ Net | backbone · was the whole model"),
        ("added", "+ Linear | extra · 1×2"),
        ("output", "output | 1×2"),
    ]


def test_unchanged_neighbors_are_one_box_and_the_drawing_is_connected() -> None:
    model = Net()
    widen(model)
    svg = drawing(Net(), model)
    assert [text for kind, text in boxes(svg) if kind == "unchanged"] == [
        "9 unchanged | embed … mean"
    ]
    assert len(re.findall(r'class="edge', svg)) == 3  # x, unchanged, fc, output


def test_marks_differ_in_more_than_color() -> None:
    model = Net()
    for edit in (widen, insert, remove):
        edit(model)
    root = ElementTree.fromstring(drawing(Net(), model))
    frames = {
        group.get("class", "").split()[1]: group.findall(f"{SVG}path")
        for group in root.iter(f"{SVG}g")
        if group.get("class", "").startswith("node")
    }
    assert float(frames["added"][0].attrib["stroke-width"]) > 2
    assert "stroke-dasharray" in frames["removed"][0].attrib
    assert len(frames["changed"]) == 2  # a double border


def test_the_same_models_have_the_same_drawing_and_equal_ones_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Net()
    widen(model)
    assert drawing(Net(), model) == drawing(Net(), model)
    assert drawing(Net(), Net()) == ""
    old, new = comparable(Net()), comparable(model)
    modules = diff_modules(old.modules, new.modules)
    assert draw_module_diff(Comparable(), new, modules) == ""
    monkeypatch.setenv("PATH", "/nowhere")  # no graphviz
    assert draw_module_diff(old, new, modules) == ""


def edit_many(net: Any) -> None:
    net.layer1[0].bn2 = nn.Identity()
    net.layer2[1].relu = nn.GELU()
    net.layer4[1].conv2 = nn.Conv2d(512, 512, 1)
    net.fc = nn.Sequential(nn.Dropout(0.2), nn.Linear(512, 10))


def edit_each_block(net: Any) -> None:
    for block in (*net.layer1, *net.layer2, *net.layer3, *net.layer4):
        block.relu = nn.SiLU()


@pytest.mark.parametrize("edit", [edit_many, edit_each_block])
def test_usual_changes_fit_a_page(edit: Callable[[Any], None]) -> None:
    model = resnet18(weights=None)
    edit(model)
    svg = drawing(resnet18(weights=None), model, size=32)
    root = ElementTree.fromstring(svg)
    width, height = (float(root.attrib[side].removesuffix("pt")) for side in ("width", "height"))
    assert min(PAGE[0] / width, PAGE[1] / height) > SMALLEST_SCALE
    assert any("SiLU was ReLU" in text or "was BatchNorm2d" in text for _, text in boxes(svg))


def test_hostile_names_are_text() -> None:
    model = Net()
    model.first.add_module("<script>]]>&amp;\u202e", nn.Tanh())
    svg = drawing(Net(), model)
    assert "<script" not in svg
    assert "\u202e" not in svg
    (box,) = marked(svg)
    assert box[1].startswith("+ Tanh | <script>]]>&amp;")


def test_a_module_that_never_ran_is_no_reason_for_a_drawing() -> None:
    old, new = comparable(Net()), comparable(Net())
    unused = ModuleRecord(path="unused", type="Linear", parameters=4)
    after = Comparable(modules=(*new.modules, unused), graphs=new.graphs)
    modules = diff_modules(old.modules, after.modules)
    assert [edit.kind for edit in modules.edits] == ["added"]
    assert draw_module_diff(old, after, modules) == ""
