"""What a reader of an ONNX file wants to know beyond its graph: names, stored values, properties.

Names of values change with every earlier node, so they are no part of the graph that is compared.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.error_text import without_folders
from reportgen.onnx.export.weightless import is_weight
from reportgen.onnx.model.protos import (
    all_graphs,
    dtype_name,
    operator_name,
    subgraphs,
    tensor_bytes,
)

if TYPE_CHECKING:
    import numpy as np

_BINS = 14
_SAMPLE = 1 << 20  # elements of one tensor that statistics read
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LONGEST_TEXT = 200  # of a property
_EXPORTERS = "pkg.torch."  # metadata of PyTorch's exporter
_STACK_TRACE = "pkg.torch.onnx.stack_trace"
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorFacts:
    """A stored tensor.

    Attributes:
        name: as in the file.
        dtype: `float32`.
        shape: its sizes.
        bytes: of its elements.
        external: the file that holds them; "" for the ONNX file itself.
        statistics: least, largest, mean and standard deviation; () where there are no numbers.
        zeros: the share of elements that are zero; None as for `statistics`.
        bins: how many elements are in each of 14 equal ranges from the least to the largest, as a
            digit to base 62 relative to the fullest; "" as for `statistics`.
        sampled: the statistics are of about a million elements, evenly spaced.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    external: str = ""
    statistics: tuple[float, ...] = ()
    zeros: float | None = None
    bins: str = ""
    sampled: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxFacts:
    """An ONNX file.

    Attributes:
        properties: producer, versions, opset imports, metadata, by their names.
        tensors: initializers, those of subgraphs too.
        names: of the nodes of the graph; "" for its inputs and outputs.
        inputs: names of the values that each node reads; "" where one is left out.
        outputs: names of the values that each node makes.
        formal: names that the standard gives to the inputs of an operator.
        versions: of the operators: the opset in which each was defined last.
        metadata: what else the file says of a node: its index, and a name and a value. Where
            PyTorch's exporter recorded a stack trace, `Source` is its innermost line.
        classes: of modules by path, where the exporter recorded them and no module is at hand.
    """

    properties: dict[str, str] = field(default_factory=dict)
    tensors: tuple[TensorFacts, ...] = ()
    names: tuple[str, ...] = ()
    inputs: tuple[tuple[str, ...], ...] = ()
    outputs: tuple[tuple[str, ...], ...] = ()
    formal: dict[str, tuple[str, ...]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    metadata: tuple[tuple[int, str, str], ...] = ()
    classes: dict[str, str] = field(default_factory=dict)


def onnx_facts(model: Any, folder: Path) -> OnnxFacts:
    """The facts of an `onnx.ModelProto`, its nodes in the order of `complete_onnx_graph`.

    Args:
        model: as read without external data.
        folder: where files with external data are.
    """
    nodes = list(_nodes(model))
    schemas = _schemas(model)
    return OnnxFacts(
        properties=_properties(model),
        tensors=tuple(
            _tensor(tensor, folder)
            for graph in all_graphs(model.graph)
            for tensor in graph.initializer
        ),
        names=tuple(each.name for each in nodes),
        inputs=tuple(each.inputs for each in nodes),
        outputs=tuple(each.outputs for each in nodes),
        formal={name: tuple(str(i.name) for i in each.inputs) for name, each in schemas.items()},
        versions={name: int(each.since_version) for name, each in schemas.items()},
        metadata=tuple(
            (index, name, value) for index, each in enumerate(nodes) for name, value in each.rest
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _NodeFacts:
    name: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    rest: tuple[tuple[str, str], ...] = ()


def _nodes(model: Any) -> Iterator[_NodeFacts]:
    graph = model.graph
    stored = {each.name for each in graph.initializer}
    stored |= {each.values.name for each in graph.sparse_initializer}
    for value in graph.input:
        if value.name not in stored and not is_weight(value):
            yield _NodeFacts(outputs=(str(value.name),))
    yield from _inner_nodes(graph.node)
    for value in graph.output:
        yield _NodeFacts(inputs=(str(value.name),))
    for function in model.functions:
        yield from _inner_nodes(function.node)


def _inner_nodes(nodes: Iterable[Any]) -> Iterator[_NodeFacts]:
    for node in nodes:
        yield _NodeFacts(
            name=str(node.name),
            inputs=tuple(map(str, node.input)),
            outputs=tuple(map(str, node.output)),
            rest=tuple(_metadata(node)),
        )
        for attribute in sorted(node.attribute, key=lambda each: str(each.name)):
            for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _inner_nodes(graph.node)


def _metadata(node: Any) -> Iterator[tuple[str, str]]:
    if node.doc_string:
        yield "Description", without_folders(str(node.doc_string))[:_LONGEST_TEXT]
    for each in node.metadata_props:
        if each.key == _STACK_TRACE and (frames := _FRAME.findall(each.value)):
            file, line = frames[-1]
            yield "Source", f"{without_folders(file)}:{line}"
        # the rest of the exporter's is the module, or names that it used itself
        elif each.value and each.key != "namespace" and not each.key.startswith(_EXPORTERS):
            yield str(each.key), without_folders(str(each.value))[:_LONGEST_TEXT]


def _properties(model: Any) -> dict[str, str]:
    producer = f"{model.producer_name} {model.producer_version}".strip()
    found = {
        "Producer": producer,
        "IR version": str(model.ir_version),
        "Domain": model.domain,
        "Model version": str(model.model_version or ""),
        "Graph": model.graph.name,
        "Description": model.doc_string or model.graph.doc_string,
        "Local functions": str(len(model.functions) or ""),
    }
    found |= {f"Opset {each.domain or 'ai.onnx'}": str(each.version) for each in model.opset_import}
    found |= {str(each.key): str(each.value) for each in model.metadata_props}
    return {name: without_folders(text)[:_LONGEST_TEXT] for name, text in found.items() if text}


def _schemas(model: Any) -> dict[str, Any]:
    """`onnx.defs.OpSchema` of each standard operator, by name."""
    import onnx

    versions = {str(each.domain): int(each.version) for each in model.opset_import}
    found: dict[str, Any] = {}
    for node in _all_nodes(model.graph.node):
        name = operator_name(node)
        if name in found:
            continue
        try:
            found[name] = onnx.defs.get_schema(
                node.op_type, versions.get(str(node.domain), 1), str(node.domain)
            )
        except Exception:  # of another domain, or not in this version  # noqa: S112
            continue
    return found


def _all_nodes(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _all_nodes(graph.node)


def _tensor(tensor: Any, folder: Path) -> TensorFacts:
    import onnx

    is_external = tensor.data_location == onnx.TensorProto.EXTERNAL
    entries = {entry.key: entry.value for entry in tensor.external_data} if is_external else {}
    facts = TensorFacts(
        name=str(tensor.name),
        dtype=dtype_name(tensor.data_type),
        shape=tuple(tensor.dims),
        bytes=tensor_bytes(tensor),
        external=str(entries.get("location", ""))[:_LONGEST_TEXT],
    )
    try:
        numbers, sampled = _numbers(tensor, folder, entries)
    except (OSError, ValueError, TypeError, OverflowError):  # a file may lack what it announces
        return facts
    return _with_statistics(replace(facts, sampled=sampled), numbers)


def _numbers(tensor: Any, folder: Path, entries: dict[str, str]) -> tuple[np.ndarray, bool]:
    """The elements as float64, or about a million of them.

    Raises:
        ValueError: they are not numbers, or not there.
    """
    import numpy as np
    import onnx

    count = math.prod(tensor.dims)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    step = -(-count // _SAMPLE)
    if tensor.data_type == onnx.TensorProto.STRING or dtype.kind == "c" or not count:
        raise ValueError("there are no real numbers")
    raw = tensor.raw_data  # a copy, each time
    if count * dtype.itemsize == len(raw):
        values = np.frombuffer(raw, dtype=dtype)
    elif entries:
        path = folder / entries["location"]
        if folder.resolve() not in path.resolve().parents:
            raise ValueError("external data is outside of the folder of the file")
        offset = int(entries.get("offset", 0))
        values = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count,))
    else:  # in a typed field, or several numbers in a byte
        values = onnx.numpy_helper.to_array(tensor).reshape(-1)
    return values[::step].astype(np.float64), step > 1


def _with_statistics(facts: TensorFacts, numbers: np.ndarray) -> TensorFacts:
    import numpy as np

    finite = numbers[np.isfinite(numbers)]
    if not finite.size:
        return facts
    least, most = float(finite.min()), float(finite.max())
    values = (least, most, float(finite.mean()), float(finite.std()))
    return replace(
        facts,
        statistics=tuple(float(f"{value:.4g}") for value in values),
        zeros=round(float((finite == 0).mean()), 4),
        bins=_bins((finite - least) / (most - least)) if most > least else "",
    )


def _bins(shares: np.ndarray) -> str:
    """The histogram of numbers from 0 to 1."""
    import numpy as np

    places = np.minimum(shares * _BINS, _BINS - 1).astype(np.int64)
    counts = np.bincount(places, minlength=_BINS)
    fullest = int(counts.max())
    return "".join(_DIGITS[-(-int(each) * (len(_DIGITS) - 1) // fullest)] for each in counts)
