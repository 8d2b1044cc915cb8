"""The three graphs as read from real runs: who feeds whom, against what is known by hand."""

from __future__ import annotations

import re
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pikepdf
import pytest
import torch
from factories import make_study
from torch import Tensor, nn

from reportgen.context import ModelContext
from reportgen.drawing.collapse import readable
from reportgen.drawing.dot import LayoutError, graphviz
from reportgen.drawing.graph import DrawnGraph, GraphNode
from reportgen.errors import SectionError
from reportgen.sections.graphs import SECTION, Graphs, analyze
from reportgen.sections.graphs.autograd import (
    autograd_graph,
    full_autograd_graph,
    no_gradient,
)
from reportgen.sections.graphs.modules import module_graph
from reportgen.sections.graphs.onnx_graph import graph_of_model, onnx_graph
from reportgen.sections.graphs.trace import trace_forward

SEED = 0


def seed_example() -> nn.Module:
    return nn.Sequential(OrderedDict(W0=nn.Linear(8, 16), tanh=nn.Tanh()))


class Residual(nn.Module):
    """One residual block with a ReLU that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(self.first(x))) + x)


class Keywords(nn.Module):
    """Keyword inputs, a dictionary out, an LSTM inside."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(10, 4), nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Linear(6, 2)

    def forward(self, *, tokens: Tensor) -> dict[str, Tensor]:
        states, _ = self.lstm(self.embedding(tokens))
        return {"logits": self.head(states[:, -1])}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear(self.norm(x))


def modules_of(model: nn.Module, *args: Any, **kwargs: Any) -> DrawnGraph:
    return module_graph(trace_forward(model.eval(), args, kwargs))


def named_edges(graph: DrawnGraph) -> set[tuple[str, str]]:
    names = {n.key: f"{n.title} {n.name}".strip() for n in graph.root.nodes()}
    return {(names[a], names[b]) for a, b in graph.edges}


def titles(graph: DrawnGraph) -> list[str]:
    return sorted(node.title for node in graph.root.nodes())


def test_the_seed_examples_modules_are_a_chain() -> None:
    graph = modules_of(seed_example(), torch.randn(2, 8))
    assert named_edges(graph) == {
        ("input0", "Linear W0"),
        ("Linear W0", "Tanh tanh"),
        ("Tanh tanh", "output"),
    }
    linear = next(n for n in graph.root.nodes() if n.title == "Linear")
    assert (linear.parameters, linear.lines) == (144, ("2 × 16",))


def test_the_seed_examples_autograd_graph_is_torchvizs() -> None:
    graph = full_autograd_graph(trace_forward(seed_example(), (torch.randn(2, 8),), {}))
    assert named_edges(graph) == {
        ("W0.weight", "TBackward0"),  # torchviz has a box for each AccumulateGrad between them
        ("W0.bias", "AddmmBackward0"),
        ("TBackward0", "AddmmBackward0"),
        ("AddmmBackward0", "TanhBackward0"),
        ("TanhBackward0", "output"),
    }
    shapes = {n.title: n.lines for n in graph.root.nodes() if n.kind == "parameter"}
    assert shapes == {"W0.weight": ("(16, 8)",), "W0.bias": ("(16)",)}


def test_a_residual_block_shows_both_ways_into_its_addition() -> None:
    graph = modules_of(Residual(), torch.randn(2, 4))
    assert ("input0", "add") in named_edges(graph)
    assert ("Linear second", "add") in named_edges(graph)
    assert titles(graph).count("ReLU") == 2  # one instance, called twice, is two boxes


def test_an_addition_in_place_goes_on_from_the_changed_tensor() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(x)
            y += x
            y[:, 0].mul_(2)
            return self.head(y)

    edges = named_edges(modules_of(InPlace(), torch.randn(2, 4)))
    assert {("Linear linear", "add"), ("add", "mul"), ("mul", "Linear head")} <= edges


def test_an_lstm_with_keyword_inputs_and_a_dictionary_out_is_a_chain() -> None:
    graph = modules_of(Keywords(), tokens=torch.randint(10, (2, 5)))
    assert named_edges(graph) == {
        ("tokens", "Embedding embedding"),
        ("Embedding embedding", "LSTM lstm"),
        ("LSTM lstm", "Linear head"),
        ("Linear head", "logits"),
    }


def test_a_shared_parameter_is_one_leaf_of_the_autograd_graph() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embed(ids))

    trace = trace_forward(Tied(), (torch.randint(7, (2, 3)),), {})
    assert titles(full_autograd_graph(trace)).count("embed.weight") == 1


def test_a_module_of_many_functions_is_named_by_its_class_in_the_autograd_graph() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(x @ self.weight) * x

    graph = autograd_graph(trace_forward(nn.Sequential(Gate()), (torch.randn(2, 4),), {}))
    gate, _ = graph.root.nodes()
    assert (gate.title, gate.lines) == ("Gate", ("3 functions", "weight (4, 4)"))


def test_a_parameter_of_the_model_itself_is_a_box_where_it_is_used() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.linear = nn.Parameter(torch.ones(4)), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * self.scale

    assert ("scale", "mul") in named_edges(modules_of(Scaled(), torch.randn(2, 4)))


def test_modules_in_a_plain_list_are_drawn_too() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = [nn.Linear(4, 4)], nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.hidden[0](x))

    assert ("Linear (not registered)", "Linear head") in named_edges(
        modules_of(Hidden(), torch.randn(2, 4))
    )


def test_computations_on_constants_alone_are_left_out() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            mask = torch.ones(4).triu().bool() if x.dim() == 0 else torch.ones(4).cumsum(0)
            return self.linear(x) * mask

    assert titles(modules_of(Masked(), torch.randn(2, 4))) == ["Linear", "input0", "mul", "output"]


def test_equal_blocks_are_one_box_with_their_parameters_together() -> None:
    graph = readable(
        modules_of(nn.Sequential(*(Block(4) for _ in range(12))), torch.randn(2, 4)), 8
    )
    (block,) = (m for m in graph.root.members if m.title == "Block")
    assert (block.repeat, block.parallel, block.parameters) == (12, False, 12 * 28)
    assert graph.loops  # the way from one block into the next is drawn


def test_blocks_fed_by_the_same_tensor_are_said_to_be_parallel() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(Block(4) for _ in range(30))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([expert(x) for expert in self.experts]).sum(0)

    graph = readable(modules_of(Experts(), torch.randn(2, 4)), 8)
    (experts,) = (m for m in graph.root.members if m.title == "Block")
    assert (experts.repeat, experts.parallel) == (30, True)


def test_parameters_no_output_depends_on_are_named() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    trace = trace_forward(Unused(), (torch.randn(2, 4),), {})
    assert no_gradient(trace) == ["unused.weight", "unused.bias"]


def test_a_model_without_gradients_has_no_autograd_graph_and_says_why() -> None:
    model = seed_example().requires_grad_(False)
    with pytest.raises(SectionError, match="no output depends on a parameter"):
        autograd_graph(trace_forward(model, (torch.randn(2, 8),), {}))


def test_tracing_leaves_no_hook_and_no_mode_behind_even_when_forward_raises() -> None:
    from torch.nn.modules import module as hooks

    model = seed_example()
    before = len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)
    with pytest.raises(RuntimeError):
        trace_forward(model, (torch.randn(2, 3),), {})
    trace_forward(model, (torch.randn(2, 8),), {})
    assert (len(hooks._global_forward_hooks), len(hooks._global_forward_pre_hooks)) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


def test_a_call_whose_error_the_caller_catches_does_not_end_the_trace() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Linear(9, 2), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.wide(x)
            except RuntimeError:
                return self.narrow(x)

    assert named_edges(modules_of(Careful(), torch.randn(2, 4))) == {
        ("input0", "Linear narrow"),
        ("Linear narrow", "output"),
    }


def onnx_model(scoped: bool = True) -> Any:
    from onnx import TensorProto, helper

    def node(kind: str, inputs: list[str], output: str, path: str) -> Any:
        made = helper.make_node(kind, inputs, [output])
        if scoped:
            meta = {
                "pkg.torch.onnx.name_scopes": repr(["", path, output]),
                "pkg.torch.onnx.class_hierarchy": repr(["m.Net", "torch.nn.Linear", "aten.linear"]),
            }
            for key, value in meta.items():
                made.metadata_props.add(key=key, value=value)
        return made

    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 4], [0.0] * 16)
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")
    ]
    nodes = [
        node("MatMul", ["x", "w"], "a", "first"),
        node("Relu", ["a"], "b", "first"),
        node("MatMul", ["b", "w"], "y", "second"),
        helper.make_node("Constant", [], ["c"], value_float=1.0),
    ]
    return helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:], [weight]))


def test_an_onnx_graph_is_grouped_by_the_modules_in_its_metadata() -> None:
    graph = graph_of_model(onnx_model())
    groups = {g.name: [n.title for n in g.nodes()] for g in graph.root.groups()}
    assert groups == {"first": ["MatMul", "Relu"], "second": ["MatMul"]}
    assert titles(graph) == ["MatMul", "MatMul", "Relu", "x", "y"]  # the constant feeds nothing
    assert len(graph.edges) == 4
    assert "weight 4 × 4" in next(n for n in graph.root.nodes() if n.title == "MatMul").lines


def test_an_unknown_size_is_not_zero() -> None:
    from onnx import TensorProto, helper

    model = onnx_model()
    known = helper.make_tensor_value_info("a", TensorProto.FLOAT, [None, "batch", 0])
    model.graph.value_info.append(known)
    shapes = [line for node in graph_of_model(model).root.nodes() for line in node.lines]
    assert "? × batch × 0" in shapes


def test_an_onnx_graph_without_metadata_is_flat(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx_model(scoped=False).SerializeToString())
    assert all(isinstance(m, GraphNode) for m in onnx_graph(tmp_path / "m.onnx").root.members)


def study_of(model: nn.Module, *inputs: Any, folder: Path, **fields: Any) -> ModelContext:
    return make_study(model, *inputs, folder=folder, **fields)


def examined(model: nn.Module, folder: Path, *inputs: Any, **fields: Any) -> Graphs:
    context = study_of(model, *inputs, folder=folder, **fields)
    path = folder / "model.onnx"
    folder.mkdir(exist_ok=True)
    path.write_bytes(onnx_model().SerializeToString())
    context._once["onnx"] = SimpleNamespace(path=path, batch=None)
    return analyze(context)


SEED_INPUT = {"name": "x", "shape": ["batch", 8]}


def test_examining_writes_every_file_it_names_and_the_same_bytes_twice(tmp_path: Path) -> None:
    files: list[dict[str, bytes]] = []
    for run in ("one", "two"):
        result = examined(seed_example(), tmp_path / run, SEED_INPUT)
        for drawing in (result.modules, result.autograd, result.onnx):
            assert drawing.svg is not None
            named = [drawing.svg, *(tile.pdf for tile in drawing.tiles)]
            assert all((tmp_path / run / name).is_file() for name in named)
        graphs = sorted((tmp_path / run / "graphs").iterdir())
        files.append({path.name: path.read_bytes() for path in graphs})
    assert files[0] == files[1]
    assert len(files[0]) == 6


def test_the_section_is_called_graphs_and_its_result_is_plain() -> None:
    assert (SECTION.name, SECTION.result, SECTION.analyze) == ("graphs", Graphs, analyze)


def test_a_failed_export_costs_only_the_onnx_drawing(tmp_path: Path) -> None:
    context = study_of(seed_example(), SEED_INPUT, folder=tmp_path)
    context._once["onnx"] = SectionError("the exporter gave up")
    result = analyze(context)
    assert result.onnx.svg is None
    assert result.onnx.note == "the exporter gave up"
    assert result.modules.svg == "graphs/modules.svg"
    assert result.autograd.nodes == 6


def test_a_forward_error_is_reported_in_one_line(tmp_path: Path) -> None:
    context = study_of(nn.Linear(3, 1), SEED_INPUT, folder=tmp_path)
    with pytest.raises(SectionError, match="expected 3 input features, got"):
        analyze(context)


def test_a_model_of_fixed_batch_size_is_traced_at_the_manifests_batch(tmp_path: Path) -> None:
    class Four(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(4, 8).tanh()

    result = examined(Four(), tmp_path, SEED_INPUT, batch=4)
    assert result.modules.note == "shapes at batch 4"


def test_missing_graphviz_gives_an_install_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SectionError, match="dot is not installed") as caught, graphviz():
        pass
    assert "apt install graphviz" in caught.value.hint


def test_without_graphviz_the_viewer_still_has_every_graph(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("reportgen.drawing.dot.shutil.which", lambda _: None)
    result = examined(nn.Sequential(nn.Linear(8, 8), nn.ReLU()), tmp_path, SEED_INPUT)
    assert result.modules.svg is None
    assert "apt install graphviz" in result.modules.note
    assert {layout.name for layout in result.layouts} == {"modules", "autograd", "onnx"}
    assert {layout.engine for layout in result.layouts} == {
        "graphviz is not installed, so boxes stand in execution order"
    }


def test_ids_of_three_drawings_are_unique_and_each_box_has_a_tooltip(tmp_path: Path) -> None:
    result = examined(seed_example(), tmp_path, SEED_INPUT)
    seen: set[str] = set()
    for name in ("modules", "autograd", "onnx"):
        text = (tmp_path / f"graphs/{name}.svg").read_text(encoding="utf-8")
        ids = re.findall(r'\bid="([^"]*)"', text)
        assert len(ids) == len(set(ids))
        assert all(each.startswith(f"{name}-") for each in ids)
        assert not seen & set(ids)
        seen |= set(ids)
        assert text.startswith("<svg")
        assert "viewBox" in text
        assert not re.search(r"<!--|<!DOCTYPE|href|url\(", text)
        root = ElementTree.fromstring(text)
        space = {"s": "http://www.w3.org/2000/svg"}
        boxes = [g for g in root.iterfind(".//s:g", space) if "node" in g.get("class", "")]
        assert all(g.findtext("s:title", namespaces=space) for g in boxes)
        assert len(boxes) == getattr(result, name).nodes


def test_korean_module_names_are_drawn_and_found_in_print(tmp_path: Path) -> None:
    model = nn.Sequential(OrderedDict([("인코더", nn.Linear(8, 8)), ("출력", nn.Tanh())]))
    result = examined(model, tmp_path, SEED_INPUT)
    assert "인코더" in (tmp_path / "graphs/modules.svg").read_text(encoding="utf-8")
    with pikepdf.open(tmp_path / result.modules.tiles[0].pdf) as document:
        assert len(document.pages) == 1
        assert _fonts(document)


def _fonts(document: pikepdf.Pdf) -> list[str]:
    named = (
        obj.get("/BaseFont") for obj in document.objects if isinstance(obj, pikepdf.Dictionary)
    )
    return [str(name) for name in named if name is not None and "Hangul" in str(name)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "most", "kinds"),
    [
        ("resnet50", 60, {"Bottleneck", "add", "MaxPool2d"}),
        ("vit_b_16", 60, {"MultiheadAttention", "add", "cat"}),
        ("vgg16", 60, {"Conv2d", "MaxPool2d", "Dropout"}),
        ("densenet201", 60, {"cat", "Conv2d"}),
    ],
)
def test_known_models_give_readable_drawings(
    name: str, most: int, kinds: set[str], tmp_path: Path
) -> None:
    torchvision = pytest.importorskip("torchvision")
    model = getattr(torchvision.models, name)().eval()
    with pytest.raises(LayoutError), graphviz() as programs:
        programs.lay_out("digraph {a -> b}", seconds=0)
    context = study_of(model, {"name": "x", "shape": ["batch", 3, 224, 224]}, folder=tmp_path)
    context._once["onnx"] = SectionError("not asked here")
    result = analyze(context)
    text = (tmp_path / "graphs/modules.svg").read_text(encoding="utf-8")
    for drawing, complete in zip((result.modules, result.autograd), result.complete, strict=True):
        assert drawing.nodes <= most
        assert drawing.total_nodes == len(complete.nodes)  # the figure of the viewer
        assert 1 <= len(drawing.tiles) <= 6
        assert drawing.tiles[0].caption == "overview"
    assert all(f">{kind}" in text for kind in kinds)


class Energy(nn.Module):
    """Gives the derivative of an energy, as models of molecules do."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            energy = self.layer(x).tanh().sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]


class ForInference(nn.Module):
    """Cannot run where its outputs ask for gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.layer(x).numpy() + 1)


class Yielding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Any:
        yield self.layer(x)


class Bottomless(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return self.forward(x)


def without_onnx(model: nn.Module, folder: Path) -> ModelContext:
    context = study_of(model, SEED_INPUT, folder=folder)
    context._once["onnx"] = SectionError("not asked here")
    return context


def test_a_model_that_takes_gradients_itself_is_drawn(tmp_path: Path) -> None:
    result = analyze(without_onnx(Energy(), tmp_path))
    assert result.modules.svg
    assert result.autograd.svg


def test_a_model_for_inference_alone_has_its_modules_drawn_and_a_reason(tmp_path: Path) -> None:
    result = analyze(without_onnx(ForInference(), tmp_path))
    assert result.modules.svg
    assert result.autograd.svg is None
    assert "the forward pass fails with gradients: RuntimeError: Can't call numpy()" in (
        result.autograd.note
    )


def test_an_unconsumed_generator_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SectionError, match="forward returns a generator that was never consumed"):
        analyze(without_onnx(Yielding(), tmp_path))


def test_the_hint_mentions_inputs_only_for_errors_they_can_cause(tmp_path: Path) -> None:
    with pytest.raises(SectionError) as endless:
        analyze(without_onnx(Bottomless(), tmp_path))
    assert endless.value.hint.startswith("correct the line test_graphs.py:")
    with pytest.raises(SectionError) as misfit:
        analyze(without_onnx(nn.Linear(3, 1), tmp_path))
    assert "check the inputs" in misfit.value.hint
