"""The order in which a file is taken apart, so that its weights are read once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reportgen.sections.onnx.file_result import FileDetails
from reportgen.sections.onnx.inspection.fp16 import judge_fp16, weigh_fp16
from reportgen.sections.onnx.inspection.int8 import judge_int8, weigh_int8
from reportgen.sections.onnx.inspection.inventory import take_inventory
from reportgen.sections.onnx.inspection.node_types import sizes_of, typed_nodes
from reportgen.sections.onnx.inspection.nodes import all_nodes
from reportgen.sections.onnx.inspection.optimized_graph import optimize
from reportgen.sections.onnx.inspection.providers import ask_providers
from reportgen.sections.onnx.inspection.stored_tensors import (
    Stored,
    constant_tensors,
    drop_weights,
)
from reportgen.units import format_bytes

_MOST_READ = 2**31  # a second or two for every GiB
_SMALL = 4096  # tensors up to this many bytes may decide shapes; larger ones are weights


def take_apart(
    model: Any, path: Path, opset: int, stored: list[Stored], file_bytes: int
) -> tuple[FileDetails, Any]:
    """Everything about the file by itself, and `model` after shape inference.

    The weights of `model` are gone afterwards; those of `stored` go with them.
    """
    weight_bytes = sum(tensor.bytes for tensor in stored)
    not_read = ""
    if weight_bytes > _MOST_READ:
        not_read = f"the weights take {format_bytes(weight_bytes)}, and 2 GiB at most are read"
    constants = constant_tensors(model, path.parent)
    inventory = take_inventory(model, opset, stored, constants, not_read)
    in_fp16 = weigh_fp16([*stored, *constants], not_read)
    in_int8 = weigh_int8(all_nodes(model), stored, not_read)
    drop_weights(model, _SMALL)
    inferred = _infer(model)
    nodes = list(typed_nodes(inferred))
    local = {(function.domain, function.name) for function in model.functions}
    details = FileDetails(
        inventory=inventory,
        providers=ask_providers(nodes, local),
        optimized=optimize(path, file_bytes),
        int8=judge_int8(in_int8, nodes),
        fp16=judge_fp16(in_fp16, nodes, sizes_of(inferred)),
    )
    return details, inferred


def _infer(model: Any) -> Any:
    import onnx

    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # the checker has reported it
        return model
