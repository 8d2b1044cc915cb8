"""From torch's ONNX program to a file: readable names, no paths of this machine, atomically."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from reportgen.onnx.export.weightless import weight_metadata
from reportgen.onnx.model.origin import CLASSES, NAME_SCOPES

if TYPE_CHECKING:
    from reportgen.onnx.export.arguments import ExportArguments

_KEPT = (NAME_SCOPES, CLASSES)
_LARGEST_FILE = 2_000_000_000  # a protobuf message ends at 2**31 - 1 bytes
_WEIGHTS = 1024  # initializers from this many bytes on are streamed to the file

# Protobuf's wire format: field number << 3 | 2 (length-delimited).
_MODEL_GRAPH = b"\x3a"
_GRAPH_INITIALIZER = b"\x2a"
_TENSOR_RAW_DATA = b"\x4a"


def name_values(model: Any, arguments: ExportArguments, outputs: tuple[str, ...]) -> None:
    """Name inputs as the manifest or the signature does, outputs by key, dims as the manifest.

    Other values with such a name are renamed. An output whose key is the name of an input or of a
    weight gets `output.` before its key; an output that is an input keeps the input's name, and an
    input named like a weight keeps the exporter's name.
    """
    weights = set(model.graph.initializers)
    used = weights.union(arguments.names)
    keys = tuple(f"output.{name}" if name in used else name for name in outputs)
    wanted: dict[int, tuple[Any, str]] = {}
    for values, names in ((model.graph.inputs, arguments.names), (model.graph.outputs, keys)):
        for value, name in zip(values, names, strict=False):  # inputs may end with weights
            if name and name not in weights and name not in {n for _, n in wanted.values()}:
                wanted.setdefault(id(value), (value, name))
    _free_names({name for _, name in wanted.values()}, model)
    for value, name in wanted.values():
        value.name = name
    _name_dims(model, arguments)


def _free_names(names: set[str], model: Any) -> None:
    """Rename every value that has one of these names."""
    taken = {value.name for value in _values(model)} | set(model.graph.initializers) | names
    for value in list(_values(model)):
        if value.name in names:
            fresh = next(n for i in count(1) if (n := f"{value.name}_{i}") not in taken)
            taken.add(fresh)
            value.name = fresh


def _name_dims(model: Any, arguments: ExportArguments) -> None:
    symbols: dict[str, str] = {}
    for value, axes in zip(model.graph.inputs, arguments.axes, strict=False):
        for axis, name in axes.items():
            if not isinstance(value.shape[axis], int) and value.shape[axis].value is not None:
                symbols.setdefault(value.shape[axis].value, name)
    _rename_symbols(model, symbols)


def _rename_symbols(model: Any, symbols: dict[str, str]) -> None:
    """Replace torch's symbols (`s77`) by `symbols`, also within expressions (`2*s77`)."""
    import onnx_ir

    if not symbols:
        return
    # whole words: s7 is also the start of s77
    pattern = re.compile(r"(?<!\w)(" + "|".join(map(re.escape, symbols)) + r")(?!\w)")
    for value in _values(model):
        if value.shape is None or all(isinstance(dim, int) for dim in value.shape):
            continue
        value.shape = onnx_ir.Shape(
            dim
            if isinstance(dim, int) or dim.value is None
            else pattern.sub(lambda found: symbols[found[1]], dim.value)
            for dim in value.shape
        )


def _values(model: Any) -> Iterator[Any]:
    """Every value of the model, those of subgraphs and functions too."""
    yield from model.graph.inputs
    for graph in (model.graph, *model.functions.values()):
        for node in graph.all_nodes():
            yield from node.outputs


def write_model(model: Any, path: Path) -> Path:
    """Write an onnx_ir `model` to `path`, whole or not at all; returns `path`.

    Weights go from torch's memory to the file without a copy between. Above 2 GB they go to
    `<path>.data`, which the file then refers to.
    """
    import onnx_ir

    _drop_local_metadata(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    # in the same folder, so that the files are moved, not copied, into place
    aside = Path(tempfile.mkdtemp(prefix=".onnx-", dir=path.parent))
    try:
        if _weight_bytes(model) > _LARGEST_FILE:
            onnx_ir.save(model, aside / path.name, external_data=f"{path.name}.data")
        else:
            _write_single(model, aside / path.name)
        for file in sorted(aside.iterdir(), reverse=True):  # the weights before what needs them
            file.replace(path.parent / file.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def _drop_local_metadata(model: Any) -> None:
    """Drop stack traces, paths and the traced source; keep each node's module path."""
    # files are published, and must be the same bytes whatever folder they were exported in
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            kept = {key: node.metadata_props[key] for key in _KEPT if key in node.metadata_props}
            node.metadata_props.clear()
            node.metadata_props.update(kept)
            node.doc_string = None
            for value in node.outputs:
                value.metadata_props.clear()
    for value in model.graph.inputs:
        kept = weight_metadata(dict(value.metadata_props))
        value.metadata_props.clear()
        value.metadata_props.update(kept)
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    model.metadata_props.clear()


def _weight_bytes(model: Any) -> int:
    return sum(
        value.const_value.nbytes
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )


def _write_single(model: Any, path: Path) -> None:
    """Write one message in one pass: the graph without its weights, then weight after weight."""
    import onnx_ir

    # fields of a message may come in any order, so the weights can follow the rest of the graph;
    # serializing them as part of a ModelProto would copy them twice

    with _without_weights(model) as weights:
        proto = onnx_ir.to_proto(model)
    graph = proto.graph.SerializeToString(deterministic=True)
    proto.ClearField("graph")
    heads = [_tensor_head(name, tensor) for name, tensor in weights.items()]
    bodies = [tensor.nbytes for tensor in weights.values()]
    sizes = [len(head) + body for head, body in zip(heads, bodies, strict=True)]
    fields = [_GRAPH_INITIALIZER + _varint(size) for size in sizes]
    total = len(graph) + sum(map(len, fields)) + sum(sizes)
    with path.open("wb") as file:
        file.write(proto.SerializeToString(deterministic=True))
        file.write(_MODEL_GRAPH + _varint(total) + graph)
        for field, head, tensor in zip(fields, heads, weights.values(), strict=True):
            file.write(field + head)
            _write_exactly(tensor, file)


@contextmanager
def _without_weights(model: Any) -> Iterator[dict[str, Any]]:
    """Remove the model's large initializers within the context; yields their tensors by name."""
    import onnx_ir

    initializers = model.graph.initializers
    whole = dict(initializers)
    heavy = {
        name: value.const_value
        for name, value in whole.items()
        if value.const_value is not None
        and value.const_value.nbytes >= _WEIGHTS
        and value.const_value.dtype != onnx_ir.DataType.STRING  # ONNX forbids raw bytes for text
    }
    for name in heavy:
        del initializers[name]
    try:
        yield heavy
    finally:
        initializers.clear()  # to restore their order too
        initializers.update(whole)


def _tensor_head(name: str, tensor: Any) -> bytes:
    """A TensorProto up to where its bytes begin."""
    import onnx

    proto = onnx.TensorProto(name=name, data_type=int(tensor.dtype), dims=tensor.shape.numpy())
    head = proto.SerializeToString(deterministic=True)
    return bytes(head) + _TENSOR_RAW_DATA + _varint(tensor.nbytes)


def _write_exactly(tensor: Any, file: BinaryIO) -> None:
    before = file.tell()
    flags = getattr(getattr(tensor, "raw", None), "flags", None)
    if flags is not None and not flags.c_contiguous:  # NumPy's tofile writes element by element
        file.write(tensor.tobytes())
    else:
        tensor.tofile(file)
    written = file.tell() - before
    if written != tensor.nbytes:  # the length stands before the bytes: the file would be garbage
        raise AssertionError(f"{tensor.name}: {written} bytes written, {tensor.nbytes} announced")


def _varint(number: int) -> bytes:
    """Protobuf's varint: seven bits per byte, lowest first, the top bit set in all but the last."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
