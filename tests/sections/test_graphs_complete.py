"""The complete graphs, against counts made without them: modules, grad_fn and the ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from factories import make_study
from onnx import TensorProto, helper
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from reportgen.comparable import Graph, OperatorNode
from reportgen.sections.graphs import SECTION
from reportgen.sections.graphs.call_arguments import plain_arguments
from reportgen.sections.graphs.complete.autograd import complete_autograd_graph
from reportgen.sections.graphs.complete.modules import complete_module_graph
from reportgen.sections.graphs.complete.onnx import complete_onnx_graph
from reportgen.sections.graphs.complete.stored import StoredGraph, pack_graph, unpack_graph
from reportgen.sections.graphs.trace import Trace, trace_forward


class Residual(nn.Module):
    """Calls one ReLU twice, and two functions with arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.relu(self.second(self.relu(self.first(x))) + x) * self.scale
        return functional.softmax(hidden.transpose(0, 1), dim=1)


def traced(model: nn.Module, *args: Tensor) -> Trace:
    return trace_forward(model.eval(), args, {}, ("x",))


def by_id(graph: Graph) -> dict[str, OperatorNode]:
    return {node.id: node for node in graph.nodes}


def named_edges(graph: Graph) -> set[tuple[str, str]]:
    return {(graph.nodes[a].id, graph.nodes[b].id) for a, b in graph.edges}


def test_ids_of_modules_are_their_paths_and_repeated_calls_are_numbered() -> None:
    graph = complete_module_graph(traced(Residual(), torch.ones(2, 4)))
    assert [node.id for node in graph.nodes] == [
        "input/x", "first", "relu", "second", "/add", "relu#2", "parameter/scale", "/mul",
        "/transpose", "/softmax", "output/",
    ]  # fmt: skip
    sizes = dict(zip((node.id for node in graph.nodes), graph.figures["bytes"], strict=True))
    assert (sizes["first"], sizes["/softmax"], sizes["input/x"]) == (2 * 4 * 4, 2 * 4 * 4, None)
    assert named_edges(graph) == {
        ("input/x", "first"), ("first", "relu"), ("relu", "second"), ("second", "/add"),
        ("input/x", "/add"), ("/add", "relu#2"), ("relu#2", "/mul"), ("parameter/scale", "/mul"),
        ("/mul", "/transpose"), ("/transpose", "/softmax"), ("/softmax", "output/"),
    }  # fmt: skip
    assert by_id(graph)["/softmax"].attributes["dim"] == 1
    assert by_id(graph)["/transpose"].attributes == {"1": 0, "2": 1}
    assert by_id(graph)["first"].outputs == ("2×4",)


def test_every_called_module_of_a_real_model_is_a_node() -> None:
    model = resnet18(weights=None)
    graph = complete_module_graph(traced(model, torch.ones(1, 3, 32, 32)))
    leaves = {path for path, module in model.named_modules() if not list(module.children())}
    found = {node.module for node in graph.nodes if node.kind == "module"}
    assert found == leaves
    assert sum(node.operator == "ReLU" for node in graph.nodes) == 17
    assert sum(node.operator == "add" for node in graph.nodes) == 8


def functions_below(output: Tensor) -> set[Any]:
    found: set[Any] = set()
    waiting = [output.grad_fn]
    while waiting:
        function = waiting.pop()
        if function is not None and function not in found:
            found.add(function)
            waiting.extend(before for before, _ in function.next_functions)
    return found


def test_values_have_their_dtype_unless_it_is_float32() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(7, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.embedding(x + 1).half()

    nodes = by_id(complete_module_graph(traced(Tokens(), torch.zeros(2, 3, dtype=torch.int64))))
    assert nodes["input/x"].outputs == nodes["/add"].outputs == ("int64 2×3",)
    assert nodes["embedding"].outputs == ("2×3×4",)
    assert nodes["output/"].outputs == ("float16 2×3×4",)


def test_the_autograd_graph_has_every_function_and_every_parameter() -> None:
    model = resnet18(weights=None).eval()
    functions = functions_below(model(torch.ones(1, 3, 32, 32)))
    edges = sum(
        len({before for before, _ in function.next_functions if before is not None})
        for function in functions
    )
    graph = complete_autograd_graph(traced(model, torch.ones(1, 3, 32, 32)))
    assert len(graph.nodes) == len(functions) + 1  # the output
    assert len(graph.edges) == edges + 1
    parameters = {n.id.removeprefix("parameter/") for n in graph.nodes if n.kind == "parameter"}
    assert parameters == {name for name, _ in model.named_parameters()}
    assert by_id(graph)["layer1.0.conv1/ConvolutionBackward0"].module == "layer1.0.conv1"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The ONNX file of a ResNet-18."""
    context = make_study(
        resnet18(weights=None), "x=batch,3,32,32", folder=tmp_path_factory.mktemp("onnx")
    )
    return context.onnx_proto(context.onnx_file().path)


@pytest.mark.slow
def test_the_onnx_graph_has_every_node_of_the_file(exported: Any) -> None:
    graph = complete_onnx_graph(exported)
    assert len(graph.nodes) == len(exported.graph.node) + 2
    assert graph.attributes == {"opset": exported.opset_import[0].version}
    conv = by_id(graph)["layer2.0.bn1/Conv"]
    assert conv.module == "layer2.0.bn1"  # the exporter's origin of a fused convolution
    assert conv.attributes["strides"] == [2, 2]
    assert conv.attributes["input 1"] == "float32 128×64×3×3"
    assert conv.outputs == ("batch×128×4×4",)


@pytest.mark.slow
def test_ids_do_not_depend_on_the_names_of_values(exported: Any) -> None:
    renamed = onnx.ModelProto()
    renamed.CopyFrom(exported)
    kept = {value.name for value in (*exported.graph.input, *exported.graph.output)}
    for node in renamed.graph.node:
        node.name = f"another_{node.name}"
        for names in (node.input, node.output):
            names[:] = [name if name in kept or not name else f"_{name}" for name in names]
    for value in (*renamed.graph.initializer, *renamed.graph.value_info):
        value.name = f"_{value.name}"
    assert complete_onnx_graph(renamed) == complete_onnx_graph(exported)


def branching() -> Any:
    """An If with one node in each branch, an fp16 value and stored tensors of every kind."""
    ports = [
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 4]),
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["n", 4])
    inner = helper.make_tensor_value_info("z", TensorProto.FLOAT16, ["n", 4])
    branches = [
        helper.make_graph([helper.make_node(operator, ["x"], ["z"])], operator, [], [inner])
        for operator in ("Relu", "Tanh")
    ]
    choice = helper.make_node("If", ["c"], ["a"], then_branch=branches[0], else_branch=branches[1])
    add = helper.make_node("Add", ["a", "offset"], ["b"])
    shift = helper.make_node("Add", ["b", "bias"], ["d"])
    shape = helper.make_node("Reshape", ["d", "sizes"], ["y"])
    stored = [
        helper.make_tensor("offset", TensorProto.FLOAT16, [], [0.5]),
        helper.make_tensor("bias", TensorProto.FLOAT16, [4], [1, 2, 3, 4]),
        helper.make_tensor("sizes", TensorProto.INT64, [2], [-1, 4]),
    ]
    graph = helper.make_graph([choice, add, shift, shape], "g", ports, [result], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def test_subgraphs_dtypes_and_small_tensors_of_an_onnx_file() -> None:
    graph = complete_onnx_graph(branching())
    nodes = by_id(graph)
    assert list(nodes) == [
        "input/c", "input/x", "/If", "/If/else_branch//Tanh", "/If/then_branch//Relu",
        "/Add", "/Add#2", "/Reshape", "output/y",
    ]  # fmt: skip
    assert ("input/x", "/If/then_branch//Relu") in named_edges(graph)
    assert nodes["input/x"].outputs == ("float16 n×4",)
    assert nodes["/Add"].attributes == {"input 1": 0.5}
    assert nodes["/Add#2"].attributes == {"input 1": "float16 4"}  # may be learned
    assert nodes["/Reshape"].attributes == {"input 1": [-1, 4]}


def test_undeclared_types_of_an_onnx_file_are_inferred() -> None:
    graph = complete_onnx_graph(branching(), {"n": 3})
    nodes = by_id(graph)
    assert nodes["/Add"].outputs == nodes["/Add#2"].outputs == ("float16 n×4",)
    add = list(nodes).index("/Add")
    assert graph.figures["bytes"][add] == 3 * 4 * 2
    model = branching()
    model.graph.node[0].op_type = "Unheard"  # what follows is unknown
    del model.graph.node[0].attribute[:]
    assert by_id(complete_onnx_graph(model))["/Add"].outputs == ("",)


def test_packing_loses_nothing() -> None:
    for graph in (
        complete_module_graph(traced(Residual(), torch.ones(2, 4))),
        complete_onnx_graph(branching()),
    ):
        data = json.loads(json.dumps(to_jsonable_python(pack_graph(graph)), allow_nan=False))
        assert unpack_graph(TypeAdapter(StoredGraph).validate_python(data)) == graph


def test_a_graph_of_two_thousand_nodes_is_small() -> None:
    nodes = tuple(
        OperatorNode(
            id=f"encoder.layers.{i // 40}.block.{i % 40}/MatMul", operator="MatMul",
            kind="operation", module=f"encoder.layers.{i // 40}.block.{i % 40}",
            attributes={"input 1": f"float32 {i % 40}×768"}, outputs=(f"batch×{i % 40}×768",),
        )
        for i in range(2000)
    )  # fmt: skip
    edges = tuple((i, i + 1) for i in range(1999)) + tuple((i, i + 3) for i in range(1997))
    packed = pack_graph(Graph(name="onnx", nodes=nodes, edges=edges))
    assert len(json.dumps(to_jsonable_python(packed), indent=1)) < 400_000


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((torch.ones(1), 1, -1), {}, {"1": 1, "2": -1}),
        ((torch.ones(1), [2, 3]), {"keepdim": True}, {"1": [2, 3], "keepdim": True}),
        ((torch.ones(1), (slice(None), ..., slice(1, 5, 2))), {}, {"1": [":", "...", "1:5:2"]}),
        ((torch.ones(1), torch.float16), {"p": float("inf")}, {"1": "float16", "p": "inf"}),
        ((torch.ones(1), list(range(100)), None), {"f": print}, {}),
    ],
)  # fmt: skip
def test_arguments_that_are_no_tensors(args: Any, kwargs: Any, expected: Any) -> None:
    assert plain_arguments(args, kwargs) == expected


@pytest.mark.slow
def test_the_section_offers_its_graphs_to_comparisons(tmp_path: Path) -> None:
    context = make_study(Residual(), "x=batch,4", folder=tmp_path)
    result = SECTION.analyze(context)
    graphs = SECTION.comparable(result).graphs
    assert [graph.name for graph in graphs] == ["modules", "autograd", "onnx"]
    assert [len(graph.nodes) for graph in graphs][:2] == [11, 16]
    assert all(len(by_id(graph)) == len(graph.nodes) for graph in graphs)


def quantized() -> Any:
    """Two linear layers and a ReLU: the first as a dynamic quantizer writes it."""
    scopes = {
        "Relu": ("['', 'body', 'body.act', 'relu']", "['Net', 'Body', 'ReLU', 'aten.relu']"),
        "Gemm": ("['', 'head', 'linear']", "['Net', 'Linear', 'aten.linear']"),
    }
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("MatMulInteger", ["q", "body.fc.weight_quantized", "z"], ["i"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["s", "f"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Identity", ["r"], ["t"]),
        helper.make_node("Gemm", ["t", "head.weight"], ["y"]),
    ]
    for node in nodes:
        for key, value in zip(("name_scopes", "class_hierarchy"), scopes.get(node.op_type, ())):  # noqa: B905
            node.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=value)
    stored = [
        helper.make_tensor("body.fc.weight_quantized", TensorProto.INT8, [4, 4], [1] * 16),
        helper.make_tensor("head.weight", TensorProto.FLOAT, [4, 4], [1.0] * 16),
    ]
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 4]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_nodes_that_a_quantizer_added_are_in_the_module_that_they_replace() -> None:
    nodes = complete_onnx_graph(quantized()).nodes
    assert {node.operator: node.module for node in nodes if node.kind == "operation"} == {
        "DynamicQuantizeLinear": "body.fc",
        "MatMulInteger": "body.fc",
        "Cast": "body.fc",
        "Mul": "body.fc",
        "Relu": "body.act",
        "Identity": "head",  # of its reader
        "Gemm": "head",
    }
    model = quantized()
    for node in model.graph.node:
        del node.metadata_props[:]
    assert {node.module for node in complete_onnx_graph(model).nodes} == {""}
