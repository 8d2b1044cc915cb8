"""Checks an ONNX file and reads everything the `file` part of the result contains."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reportgen.onnx.export.weightless import is_weight
from reportgen.onnx.model.origin import origin_of
from reportgen.onnx.model.protos import (
    STANDARD,
    drop_large_contents,
    operator_name,
    type_name,
)
from reportgen.sections.onnx.file_result import FileResult, GraphValue, NodeCost
from reportgen.sections.onnx.inspection.fp16 import assess_fp16, count_fp16_values
from reportgen.sections.onnx.inspection.graph import (
    all_nodes,
    constant_tensors,
    external_files,
    ranked,
    sizes_of,
    stored_tensors,
    typed_nodes,
)
from reportgen.sections.onnx.inspection.int8 import assess_int8, measure_channel_ranges
from reportgen.sections.onnx.inspection.inventory import make_inventory
from reportgen.sections.onnx.inspection.optimized_graph import optimize
from reportgen.sections.onnx.inspection.patterns import find_patterns
from reportgen.sections.onnx.inspection.providers import check_providers, needs_library
from reportgen.units import format_bytes
from reportgen.visible_text import cut

_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
_LONGEST = 240
_ANY_RANK = "…"
_MOST_COPIED = 500_000_000  # bytes of hard-linked weights, which are copied for the checker
_MOST_READ = 2**31  # a second or two for every GiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What the report tells of a file, and the graph that onnxruntime makes of it.

    Attributes:
        result: the entry in the report.
        optimized_graph: an `onnx.GraphProto` without its large weights; None if there is none.
    """

    result: FileResult
    optimized_graph: Any


def inspect_file(
    model: Any,
    path: Path,
    *,
    mapped: Path | None = None,
    keep: bool = True,
    count_macs: Callable[[Any], NodeCost] | None = None,
) -> Inspection:
    """Check the file in full and read its contents; `model` loses the weights above 4 KiB.

    Args:
        model: the parsed file, an `onnx.ModelProto` with its weights.
        path: the file.
        mapped: what onnxruntime reads instead of `path` (`mapped_weights`).
        keep: whether the report publishes the file.
        count_macs: counts the multiply-adds of the model after shape inference.
    """
    invalid = check_file(path)
    stored = stored_tensors(model, path.parent)
    constants = constant_tensors(model, path.parent)
    external = external_files(stored)
    size = path.stat().st_size + sum(file.stat().st_size for file in external if file.is_file())
    opset = next((o.version for o in model.opset_import if o.domain in STANDARD), 0)
    nodes = list(all_nodes(model))
    custom = _custom_operators(model, nodes)
    initializers, initializer_bytes = len(stored), sum(tensor.bytes for tensor in stored)
    not_read = _why_not_read(initializer_bytes)
    # what reads weights comes before they are dropped
    inventory = make_inventory(model, opset, stored, constants, not_read)
    fp16_values = count_fp16_values([*stored, *constants], not_read)
    channel_ranges = measure_channel_ranges(nodes, stored, not_read)
    drop_large_contents(model.graph)  # shape inference would copy them
    inferred = _infer(model)
    typed = list(typed_nodes(inferred))
    shaped, values = _shaped_values(inferred)
    optimization = optimize(mapped or path, size)
    result = FileResult(
        path=path.name if keep else None,
        bytes=size,
        opset=opset,
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        nodes=len(nodes),
        operators=ranked(Counter(map(operator_name, nodes))),
        initializers=initializers,
        initializer_bytes=initializer_bytes,
        inputs=_inputs(model),
        outputs=tuple(map(_graph_value, model.graph.output)),
        external_file=external[0].name if external else None,
        invalid=invalid,
        values=values,
        shaped_values=shaped,
        functions=len(model.functions),
        custom_operators=custom,
        library_operators=tuple(name for name in custom if needs_library(name)),
        random_operators=tuple(_with_module(node) for node in nodes if _is_random(node)),
        inventory=inventory,
        providers=check_providers(typed, {(each.domain, each.name) for each in model.functions}),
        optimized=optimization.summary,
        int8=assess_int8(channel_ranges, typed),
        fp16=assess_fp16(fp16_values, typed, sizes_of(inferred)),
        cost=count_macs(inferred) if count_macs else None,
        patterns=find_patterns(model, typed),
    )
    return Inspection(result=result, optimized_graph=optimization.graph)


def _why_not_read(weight_bytes: int) -> str:
    if weight_bytes <= _MOST_READ:
        return ""
    return f"the weights take {format_bytes(weight_bytes)}, and 2 GiB at most are read"


def check_file(path: Path) -> str:
    """The first error of onnx's checker, shape inference included; "" for a valid file."""
    error = _checker_error(path)
    if "multiple hard links" not in error:
        return error
    import onnx

    # the checker suspects an attack, but caches of files use hard links as well: check a copy

    model = onnx.load(path, load_external_data=False)
    files = external_files(stored_tensors(model, path.parent))
    if sum(file.stat().st_size for file in files) > _MOST_COPIED:
        return "not checked: onnx's checker refuses weights with several hard links"
    with tempfile.TemporaryDirectory() as folder:
        for file in (path, *files):
            copy = Path(folder) / file.relative_to(path.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        return _checker_error(Path(folder) / path.name)


def _checker_error(path: Path) -> str:
    import onnx

    try:
        # by path: a model in memory must be below 2 GB, and its external data is not checked
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[0] if lines else "no reason given"
        text = text.replace(f"{path.parent}/", "").replace(str(path.parent), "its folder")
        return cut(text, _LONGEST)
    return ""


def _custom_operators(model: Any, nodes: list[Any]) -> tuple[str, ...]:
    own = {(function.domain, function.name) for function in model.functions}
    return tuple(
        sorted(
            {
                operator_name(node)
                for node in nodes
                if node.domain not in STANDARD and (node.domain, node.op_type) not in own
            }
        )
    )


def _is_random(node: Any) -> bool:
    """Whether a standard node draws random numbers."""
    if node.domain not in STANDARD:
        return False
    # Dropout does so only with its third input, training_mode
    return node.op_type in _RANDOM or (
        node.op_type == "Dropout" and len(node.input) > 2 and bool(node.input[2])
    )


def _with_module(node: Any) -> str:
    modules = origin_of(node).modules
    return f"{node.op_type} in {modules[-1] or 'the model itself'}" if modules else node.op_type


def _inputs(model: Any) -> tuple[GraphValue, ...]:
    """The inputs that a caller must give: no weights, no initializers listed as inputs."""
    stored = {tensor.name for tensor in model.graph.initializer}
    given = (value for value in model.graph.input if value.name not in stored)
    return tuple(_graph_value(value) for value in given if not is_weight(value))


def _graph_value(value: Any) -> GraphValue:
    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    )
    if not tensor.HasField("shape"):  # of any rank, which is not the same as a scalar
        shape = (_ANY_RANK,)
    return GraphValue(name=value.name, dtype=type_name(value.type), shape=shape)


def _shaped_values(inferred: Any) -> tuple[int, int]:
    """How many intermediate values have a known shape after inference, and how many there are."""
    known = {
        info.name
        for info in (*inferred.graph.value_info, *inferred.graph.output)
        # sequences and optionals have no shape to infer
        if info.type.tensor_type.HasField("shape") or not info.type.HasField("tensor_type")
    }
    values = {name for node in inferred.graph.node for name in node.output if name}
    return len(values & known), len(values)


def _infer(model: Any) -> Any:
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # the checker has reported it
        return model
