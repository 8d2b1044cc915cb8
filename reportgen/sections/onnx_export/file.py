"""Facts of an ONNX file, read from the file itself rather than from who wrote it."""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reportgen.sections.onnx_export.result import Port

_STANDARD = ("", "ai.onnx")
_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
_SMALL = 4096  # constants up to this many bytes may decide shapes; larger ones are weights
_LONGEST = 240


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFacts:
    """What stands in the file; the fields are those of `OnnxExport`."""

    bytes: int
    opset: int
    ir_version: int
    producer: str
    nodes: int
    operators: dict[str, int]
    initializers: int
    initializer_bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    external_file: str | None
    invalid: str
    values: int
    shaped_values: int
    functions: int
    custom_operators: tuple[str, ...]
    random_operators: tuple[str, ...]


def read_facts(path: Path) -> FileFacts:
    """Check the file in full and read what is in it; its weights are in memory for a moment."""
    import onnx

    invalid = check_file(path)
    model = onnx.load(path, load_external_data=False)
    sizes = {tensor.name: _tensor_bytes(tensor) for tensor in model.graph.initializer}
    _drop_weights(model)
    external = path.with_name(f"{path.name}.data")
    nodes = list(all_nodes(model))
    operators = Counter(map(_operator, nodes))
    shaped, values = _shapes(model)
    return FileFacts(
        bytes=path.stat().st_size + (external.stat().st_size if external.exists() else 0),
        opset=next((o.version for o in model.opset_import if o.domain in _STANDARD), 0),
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        nodes=len(nodes),
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        initializers=len(sizes),
        initializer_bytes=sum(sizes.values()),
        inputs=tuple(map(_port, model.graph.input)),
        outputs=tuple(map(_port, model.graph.output)),
        external_file=external.name if external.exists() else None,
        invalid=invalid,
        values=values,
        shaped_values=shaped,
        functions=len(model.functions),
        custom_operators=_custom_operators(model, nodes),
        random_operators=tuple(_where(node) for node in nodes if _is_random(node)),
    )


def saved_file(path: Path, *, keep: bool) -> str | None:
    """The file's name for the report, or None for a file that the report does not publish."""
    return path.name if keep else None


def check_file(path: Path) -> str:
    """What onnx's checker objects to, shape inference included; "" for a valid file."""
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = (lines[0] if lines else "no reason given").replace(str(path), path.name)
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
    return ""


def all_nodes(model: Any) -> Iterator[Any]:
    """Every node of the file, those in branches, loop bodies and local functions included."""
    yield from _nodes(model.graph.node)
    for function in model.functions:
        yield from _nodes(function.node)


def _nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _nodes(graph.node)


def module_path(node: Any) -> str:
    """The path of the module that a node comes from, as the exporter wrote it; "" if unknown."""
    scopes = {entry.key: entry.value for entry in node.metadata_props}
    try:
        names = ast.literal_eval(scopes.get("pkg.torch.onnx.name_scopes", "[]"))
    except (ValueError, SyntaxError):
        return ""
    return str(names[-2]) if len(names) >= 2 else ""


def _operator(node: Any) -> str:
    return node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"


def _custom_operators(model: Any, nodes: list[Any]) -> tuple[str, ...]:
    own = {(function.domain, function.name) for function in model.functions}
    return tuple(
        sorted(
            {
                _operator(node)
                for node in nodes
                if node.domain not in _STANDARD and (node.domain, node.op_type) not in own
            }
        )
    )


def _is_random(node: Any) -> bool:
    """Whether a standard node draws; Dropout does so only with its third input, training_mode."""
    if node.domain not in _STANDARD:
        return False
    return node.op_type in _RANDOM or (
        node.op_type == "Dropout" and len(node.input) > 2 and bool(node.input[2])
    )


def _where(node: Any) -> str:
    path = module_path(node)
    return f"{node.op_type} in {path}" if path else node.op_type


def _port(value: Any) -> Port:
    import onnx

    tensor = value.type.tensor_type
    dtype = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    )
    dtype = {"float": "float32", "double": "float64"}.get(dtype, dtype)
    return Port(name=value.name, dtype=dtype, shape=shape)


def _tensor_bytes(tensor: Any) -> int:
    """What a stored tensor takes: the bits of its elements, whichever field they lie in."""
    import onnx

    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    bits = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}.get(
        onnx.TensorProto.DataType.Name(tensor.data_type)
    )
    if bits is None:
        bits = 8 * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    return int(math.prod(tensor.dims) * bits + 7) // 8


def _drop_weights(model: Any) -> None:
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > _SMALL:
            tensor.ClearField("raw_data")


def _shapes(model: Any) -> tuple[int, int]:
    """How many intermediate values have a known shape after inference, and how many there are."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # the checker has reported it
        inferred = model
    known = {
        info.name
        for info in (*inferred.graph.value_info, *inferred.graph.output)
        if info.type.tensor_type.HasField("shape") or not info.type.HasField("tensor_type")
    }
    values = {name for node in inferred.graph.node for name in node.output if name}
    return len(values & known), len(values)
