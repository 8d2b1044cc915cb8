"""The layers of an ONNX file: one row per node, grouped by the module that it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reportgen.onnx.model import OnnxNode, OnnxNodes, Weight, read_nodes, symbol_sizes
from reportgen.onnx.model.protos import CONTROL_FLOW
from reportgen.sections.layers.result import Layer, Layers, Shape, TorchinfoTotals, Uncounted
from reportgen.units import format_bound

if TYPE_CHECKING:
    from reportgen.context import OnnxFileContext

_QUANTIZED = frozenset({"int8", "uint8", "int4", "uint4", "int2", "uint2", "float4e2m1"})
_NO_MODULE = "the source is an ONNX file, not a PyTorch module"
_SHOWN_ATTRIBUTES = (
    "kernel_shape",
    "strides",
    "group",
    "dilations",
    "hidden_size",
    "axis",
    "equation",
)
_DEFAULTS = {"strides": {1}, "group": {1}, "dilations": {1}}  # not shown


def analyze_onnx(context: OnnxFileContext) -> Layers:
    """The layers of a file; writes no table.

    An ONNX file does not distinguish parameters from buffers. Stored floating-point and quantized
    tensors count as parameters; integers, booleans and scalars (shapes, axes, epsilons), scales
    and zero points count as buffers.
    """
    feed = context.feed()
    nodes = read_nodes(context.file.path, symbol_sizes(context.file.path, feed), lambda: feed)
    held = {name: weight for name, weight in nodes.weights.items() if is_parameter(weight)}
    other = [weight for name, weight in nodes.weights.items() if name not in held]
    used = {name for node in nodes.nodes for name in node.weights}
    by_dtype: dict[str, int] = {}
    for weight in nodes.weights.values():
        by_dtype[weight.dtype] = by_dtype.get(weight.dtype, 0) + weight.bytes
    layers = tuple(_rows(_tree(nodes.nodes), held, ""))
    return Layers(
        batch=context.batch,
        input_shapes={name: tuple(array.shape) for name, array in feed.items()},
        output_shapes={n: s for n, s in nodes.outputs.items() if s is not None},
        parameters=sum(weight.elements for weight in held.values()),
        trainable_parameters=0,
        buffers=sum(weight.elements for weight in other),
        buffers_bytes=sum(weight.bytes for weight in other),
        parameter_bytes=sum(weight.bytes for weight in held.values()),
        bytes_by_dtype=dict(sorted(by_dtype.items())),
        macs=nodes.macs,
        flops=2 * nodes.macs,
        uncounted=tuple(_uncounted(nodes)),
        lower_bound=bool(nodes.uncounted),
        operator_calls=len(nodes.nodes),
        layers=layers,
        tied=(),
        unused_parameters=tuple(sorted(set(held) - used)),
        torchinfo=TorchinfoTotals(error=_NO_MODULE),
        table_file="layers.csv",
        summary_file="summary.txt",
        quantized_parameters=sum(
            w.elements for w in held.values() if w.is_quantized or w.dtype in _QUANTIZED
        ),
        method="file",
        notes=(
            *context.source_notes,
            "counted from the nodes and shapes of the file; ONNX does not distinguish parameters "
            "from buffers, so all stored floating-point tensors count as parameters",
            *_notes(nodes),
        ),
    )


def is_parameter(weight: Weight) -> bool:
    """Whether a stored tensor is a weight rather than a shape, a scale, an axis or an epsilon."""
    if weight.is_scale:
        return False
    if weight.is_quantized or weight.dtype in _QUANTIZED:
        return bool(weight.shape)
    return bool(weight.shape) and weight.dtype.startswith(("float", "bfloat", "complex"))


def _notes(nodes: OnnxNodes) -> Iterator[str]:
    if any(weight.is_scale for weight in nodes.weights.values()):
        yield "quantization scales and zero points count as buffers"
    packed = [w for w in nodes.weights.values() if w.packed not in (None, w.bytes)]
    if packed:
        numbers, size = sum(w.elements for w in packed), sum(w.bytes for w in packed)
        yield (
            f"{numbers:,} parameters are stored with several in a byte, in {size:,} B: counted by "
            "their logical number"
        )
    sparse = {n: w for n, w in nodes.weights.items() if w.kept is not None}
    if sparse:
        parts = ", ".join(f"{n} {w.kept:,} of {w.elements:,}" for n, w in sparse.items())
        yield f"stored as sparse tensors; zeros count as parameters but take no bytes: {parts}"
    inside = sorted(
        {n.operator for n in nodes.nodes if n.operator in CONTROL_FLOW and not n.uncounted}
    )
    if inside:
        yield (
            f"{', '.join(inside)}: counted by the branches and turns that ran on the example "
            "inputs; other inputs may cost more or less"
        )


def _uncounted(nodes: OnnxNodes) -> Iterator[Uncounted]:
    for operator in nodes.uncounted:
        mine = [node for node in nodes.nodes if node.operator == operator and node.uncounted]
        yield Uncounted(
            operator=operator,
            calls=len(mine),
            where=mine[0].module or mine[0].name,
            why=mine[0].uncounted,
        )


@dataclass(slots=True)
class _Branch:
    """A module: its nodes and submodules, by name."""

    children: dict[str, _Branch | OnnxNode] = field(default_factory=dict)

    def nodes(self) -> Iterator[OnnxNode]:
        for child in self.children.values():
            if isinstance(child, _Branch):
                yield from child.nodes()
            else:
                yield child


def _tree(nodes: Iterable[OnnxNode]) -> _Branch:
    root = _Branch()
    for node in nodes:
        branch = root
        for part in filter(None, node.module.split(".")):
            below = branch.children.setdefault(part, _Branch())
            assert isinstance(below, _Branch)  # node keys contain a space, module names do not
            branch = below
        # the number keeps nodes apart whose names are equal or empty: ONNX requires no names
        branch.children[f"{node.name} {len(branch.children)}"] = node
    return root


def _rows(
    branch: _Branch, held: Mapping[str, Weight], path: str, depth: int = 0
) -> Iterator[Layer]:
    yield _group(branch, held, path, depth)
    for key, child in branch.children.items():
        if isinstance(child, _Branch):
            yield from _rows(child, held, f"{path}.{key}" if path else key, depth + 1)
        else:
            # a path is split at dots; TorchScript's exporter names nodes by paths with slashes
            name = child.name.replace(".", "_").replace("/", "_").strip("_")
            yield _leaf(child, held, f"{path}.{name}" if path else name, depth + 1)


def _group(branch: _Branch, held: Mapping[str, Weight], path: str, depth: int) -> Layer:
    inside = list(branch.nodes())
    return Layer(
        path=path,
        type="Graph" if not path else "Module",
        depth=depth,
        calls=1,
        input_shapes=_known(inside[0].inputs[:1]) if inside and path else (),
        output_shapes=_known(inside[-1].outputs[:1]) if inside else (),
        parameters=_elements(inside, held),
        own_parameters=0,
        macs=sum(node.macs or 0 for node in inside),
        lower_bound=any(node.uncounted for node in inside),
        trainable=False,
        leaf=False,
        shared_with=None,
        executed_via="children",
    )


def _leaf(node: OnnxNode, held: Mapping[str, Weight], path: str, depth: int) -> Layer:
    parameters, macs = _elements([node], held), node.macs or 0
    dtypes = sorted({held[name].dtype for name in node.weights if name in held})
    return Layer(
        path=path,
        type=_described(node),
        depth=depth,
        calls=1,
        input_shapes=_known(node.inputs),
        output_shapes=_known(node.outputs),
        parameters=parameters,
        own_parameters=parameters,
        macs=macs,
        own_macs=macs,
        lower_bound=bool(node.uncounted),
        trainable=False,
        leaf=True,
        shared_with=None,
        dtype=", ".join(dtypes),
    )


def _described(node: OnnxNode) -> str:
    """`Conv(kernel_shape 3x3, strides 2)`: the operator with its main attributes."""
    words = []
    for name in _SHOWN_ATTRIBUTES:
        value = node.attributes.get(name)
        several = value if isinstance(value, tuple) else (value,)
        if value is None or set(several) == _DEFAULTS.get(name):
            continue
        text = str(several[0]) if len(set(several)) == 1 else "x".join(map(str, several))
        words.append(f"{name.replace('_', ' ')} {text}")
    return f"{node.operator}({', '.join(words)})" if words else node.operator


def _elements(nodes: Iterable[OnnxNode], held: Mapping[str, Weight]) -> int:
    names = {name for node in nodes for name in node.weights if name in held}
    return sum(held[name].elements for name in names)


def _known(shapes: Iterable[Shape | None]) -> tuple[Shape, ...]:
    return tuple(shape for shape in shapes if shape is not None)


def summary_text(result: Layers) -> str:
    """The rows with parameters or cost, one line each."""
    total = format_bound(result.macs, result.lower_bound)
    lines = [f"{'Node':<60} {'Output':<24} {'Parameters':>14} {'MACs':>18}"]
    lines.append("=" * len(lines[0]))
    for layer in result.layers:
        if layer.leaf and not (layer.own_parameters or layer.own_macs or layer.lower_bound):
            continue
        name = f"{'  ' * layer.depth}{layer.path.rpartition('.')[2] or 'model'} ({layer.type})"
        shape = "x".join(map(str, layer.output_shapes[0])) if layer.output_shapes else "?"
        macs = format_bound(layer.macs, layer.lower_bound)
        lines.append(f"{name:<60} {shape:<24} {layer.parameters:>14,} {macs:>18}")
    lines.append("=" * len(lines[0]))
    lines.append(f"parameters {result.parameters:,}, multiply-adds {total}")
    return "\n".join(lines) + "\n"
