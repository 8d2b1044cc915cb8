"""The ONNX graph as data: every node of the file, those of subgraphs and local functions too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from reportgen.comparable import Graph, NodeBody
from reportgen.onnx.export.weightless import is_weight
from reportgen.onnx.model.cost import formula_of
from reportgen.onnx.model.origin import origin_of
from reportgen.onnx.model.protos import STANDARD, dtype_name, operator_name, type_name
from reportgen.onnx.model.shapes import Shape, undeclared_types
from reportgen.sections.graphs.complete.builder import GraphBuilder, shape_text, value_text
from reportgen.sections.graphs.complete.onnx_modules import modules_of

_MOST_ITEMS = 16  # of an attribute that is shown in full; longer ones are data
_LONGEST_TEXT = 60
_SHOWN_VALUES = 8  # of a tensor of integers, which decide shapes


def complete_onnx_graph(model: Any, sizes: Mapping[str, int] | None = None) -> Graph:
    """The graph of an `onnx.ModelProto`.

    Stored tensors are no nodes: they are attributes of the nodes that read them. MACs are counted
    where all shapes are known; `sizes` are those of symbolic dimensions.
    """
    return _OnnxGraph(model, sizes or {}).graph()


class _OnnxGraph:
    def __init__(self, model: Any, sizes: Mapping[str, int]) -> None:
        self._model = model
        self._sizes = sizes
        self._shapes: dict[str, Shape] = {}  # of values whose sizes are all known
        self._unread: dict[str, int] = {}  # elements of initializers that no node has read yet
        self._macs: dict[int, int] = {}
        self._bytes: dict[int, int] = {}  # of results, by index
        self._value_bytes: dict[str, int] = {}  # of values whose sizes are all known
        self._parameters: dict[int, int] = {}
        self._builder = GraphBuilder("onnx")
        self._makers: dict[str, int] = {}  # value -> index of the node that makes it
        self._types: dict[str, str] = {}  # value -> `float16 batch×64`
        self._stored: dict[str, JsonValue] = {}  # initializer -> `float32 64×3×7×7`, or its values

    def graph(self) -> Graph:
        graph = self._model.graph
        for name, kind in undeclared_types(self._model).items():
            self._learn_type(name, kind)
        self._learn(graph)
        for value in graph.input:
            if value.name not in self._stored:
                self._makers[value.name] = self._end("input", value.name)
        self._nodes(graph.node, "", None, modules_of(graph))
        for value in graph.output:
            index = self._end("output", value.name)
            self._connect([value.name], index)
        for function in self._model.functions:
            # its values have names of their own
            self._makers = {}
            name = f"function {function.name}"
            self._nodes(function.node, f"{name}/", NodeBody(owner=-1, name=name))
        figures = {"parameters": self._parameters, "macs": self._macs, "bytes": self._bytes}
        known = {name: values for name, values in figures.items() if values}
        return self._builder.graph(_opsets(self._model.opset_import), known)

    def _learn(self, graph: Any) -> None:
        """Types of values and contents of small initializers, by name."""
        for value in (*graph.value_info, *graph.input, *graph.output):
            self._learn_type(value.name, value.type)
        for tensor in graph.initializer:
            self._stored[tensor.name] = _tensor_text(tensor)
            self._shapes[tensor.name] = tuple(tensor.dims)
            self._unread[tensor.name] = _elements(tensor.dims)
        for sparse in graph.sparse_initializer:
            text = f"sparse {dtype_name(sparse.values.data_type)} {shape_text(sparse.dims)}"
            self._stored[sparse.values.name] = text
        for value in graph.input:
            if is_weight(value):  # of an export without weights
                self._stored[value.name] = _type_text(value.type, every_dtype=True)

    def _learn_type(self, name: str, kind: Any) -> None:
        self._types[name] = _type_text(kind)
        shape = _sizes(kind, self._sizes)
        if shape is not None:
            self._shapes[name] = shape
            self._value_bytes[name] = _elements(shape) * _item_bytes(kind)

    def _end(self, kind: str, name: str) -> int:
        return self._builder.add(f"{kind}/{name}", kind, kind, outputs=self._outputs([name]))

    def _nodes(
        self, nodes: Sequence[Any], above: str, body: NodeBody | None, modules: Sequence[str] = ()
    ) -> None:
        modules = modules or [origin_of(node).module for node in nodes]
        for node, module in zip(nodes, modules, strict=True):
            operator = operator_name(node)
            index = self._builder.add(
                f"{above}{module}/{operator}",
                operator,
                "constant" if operator == "Constant" else "operation",
                module=module,
                attributes=self._attributes(node),
                outputs=self._outputs(node.output),
                body=body,
            )
            self._connect(node.input, index)
            self._count(node, operator, index)
            self._makers.update(dict.fromkeys(filter(None, node.output), index))
            self._subgraphs(node, f"{above}{module}/{operator}", index)

    def _subgraphs(self, node: Any, above: str, index: int) -> None:
        for attribute in sorted(node.attribute, key=_name):  # their order says nothing
            graphs = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for graph in graphs:
                self._learn(graph)
                # what comes from outside is fed by the node that runs the graph
                self._makers.update({value.name: index for value in graph.input})
                body = NodeBody(owner=index, name=str(attribute.name))
                self._nodes(graph.node, f"{above}/{attribute.name}/", body)

    def _count(self, node: Any, operator: str, index: int) -> None:
        read = sum(self._unread.pop(name, 0) for name in node.input)
        if read:
            self._parameters[index] = read
        made = [self._value_bytes.get(name, 0) for name in node.output if name]
        if made and all(made):
            self._bytes[index] = sum(made)
        formula = formula_of(operator)
        # "" is an optional input that is left out
        inputs = [self._shapes.get(name) if name else () for name in node.input]
        outputs = [self._shapes.get(name) if name else () for name in node.output]
        if formula is None or None in inputs or None in outputs:
            return
        given = {each.name: _raw(each) for each in node.attribute}
        try:
            known = [s for s in inputs if s is not None], [s for s in outputs if s is not None]
            self._macs[index] = int(formula(known[0], known[1], given))
        except (ValueError, IndexError, KeyError, TypeError):  # a file may violate the standard
            return

    def _connect(self, names: Iterable[str], index: int) -> None:
        self._builder.connect((self._makers[n] for n in names if n in self._makers), index)

    def _outputs(self, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(self._types.get(name, "") for name in names if name)

    def _attributes(self, node: Any) -> dict[str, JsonValue]:
        own = {each.name: _attribute(each) for each in sorted(node.attribute, key=_name)}
        read = {
            f"input {place}": self._stored[name]
            for place, name in enumerate(node.input)
            if name in self._stored
        }
        return {name: value for name, value in (own | read).items() if value is not None}


def _sizes(kind: Any, sizes: Mapping[str, int]) -> Shape | None:
    """The shape of a value; None if it, or one of its sizes, is unknown."""
    tensor = kind.tensor_type
    if not tensor.HasField("shape"):
        return None
    found = [
        int(dim.dim_value) if dim.HasField("dim_value") else sizes.get(dim.dim_param)
        for dim in tensor.shape.dim
    ]
    known = tuple(size for size in found if size is not None)
    return known if len(known) == len(found) else None


def _item_bytes(kind: Any) -> int:
    """The bytes of an element; 0 if it has no fixed size."""
    import onnx

    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
    except (KeyError, TypeError):
        return 0
    return 0 if dtype.hasobject else int(dtype.itemsize)


def _raw(attribute: Any) -> Any:
    """Its value as formulas read it."""
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _name(attribute: Any) -> str:
    return str(attribute.name)


def _opsets(imports: Iterable[Any]) -> dict[str, JsonValue]:
    """Versions by domain; the standard one is just `opset`."""
    return {
        "opset" if each.domain in STANDARD else f"opset {each.domain}": each.version
        for each in sorted(imports, key=lambda each: str(each.domain))
    }


def _attribute(attribute: Any) -> JsonValue:
    """An attribute's value; None for a graph, text for a tensor."""
    import onnx

    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        return _tensor_text(attribute.t)
    if attribute.type in (kinds.INTS, kinds.FLOATS, kinds.STRINGS, kinds.INT, kinds.FLOAT,
                          kinds.STRING):  # fmt: skip
        value = _plain(onnx.helper.get_attribute_value(attribute))
        long = isinstance(value, list) and len(value) > _MOST_ITEMS
        return f"{len(value)} values" if long and isinstance(value, list) else value
    return None


def _plain(value: Any) -> JsonValue:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")[:_LONGEST_TEXT]  # bytes of any encoding
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return _number(value)
    return [_plain(item) for item in value]


def _number(value: float) -> JsonValue:
    """A float32 in its shortest form; text if JSON has no such number."""
    short = float(f"{value:.7g}")
    return short if abs(short) < float("inf") else str(short)


def _tensor_text(tensor: Any) -> JsonValue:
    """`float32 64×3×7×7`; the values of a few integers or of a scalar, which decide the result.

    A vector of floats may be a learned weight, whose values say nothing about the structure.
    """
    import onnx

    dtype, elements = dtype_name(tensor.data_type), _elements(tensor.dims)
    kept = dtype.startswith(("int", "uint", "bool")) and elements <= _SHOWN_VALUES
    external = tensor.data_location == onnx.TensorProto.EXTERNAL
    if elements == 0 or external or not (kept or not tensor.dims) or dtype.startswith("string"):
        return f"{dtype} {shape_text(tensor.dims)}"
    try:
        values = onnx.numpy_helper.to_array(tensor).astype("float64" if not kept else None).tolist()
    except (ValueError, TypeError):  # a file may lack the bytes that it announces
        return f"{dtype} {shape_text(tensor.dims)}"
    return _number(values) if isinstance(values, float) else values


def _elements(dims: Iterable[int]) -> int:
    product = 1
    for dim in dims:
        product *= dim
    return product


def _type_text(kind: Any, *, every_dtype: bool = False) -> str:
    """`float16 batch×64`; the dtype is left out if it is float32."""
    tensor = kind.tensor_type
    dtype = type_name(kind)
    if not tensor.HasField("shape"):
        return dtype
    sizes = [
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    ]
    return f"{dtype} {shape_text(sizes)}" if every_dtype else value_text(dtype, sizes)
