"""Facts of an ONNX file, read from the file itself rather than from who wrote it."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reportgen.onnx.export.weightless import is_weight
from reportgen.onnx.model.origin import origin_of
from reportgen.onnx.model.protos import STANDARD, operator_name, type_name
from reportgen.sections.onnx.file_result import FileDetails
from reportgen.sections.onnx.inspection.details import take_apart
from reportgen.sections.onnx.inspection.nodes import all_nodes
from reportgen.sections.onnx.inspection.stored_tensors import external_files, stored_tensors
from reportgen.sections.onnx.result import Port

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
_COPIED = 500_000_000  # bytes of hard-linked weights, which the checker wants as files of their own


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
    details: FileDetails


def read_facts(path: Path) -> FileFacts:
    """Check the file in full and read what is in it; its weights are in memory for a moment."""
    import onnx

    invalid = check_file(path)
    model = onnx.load(path, load_external_data=False)
    stored = stored_tensors(model, path.parent)
    external = external_files(stored)
    size = path.stat().st_size + sum(file.stat().st_size for file in external if file.is_file())
    opset = next((o.version for o in model.opset_import if o.domain in STANDARD), 0)
    nodes = list(all_nodes(model))
    operators = Counter(map(operator_name, nodes))
    details, inferred = take_apart(model, path, opset, stored, size)
    shaped, values = _shaped_values(inferred)
    return FileFacts(
        bytes=size,
        opset=opset,
        ir_version=model.ir_version,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        nodes=len(nodes),
        operators=dict(sorted(operators.items(), key=lambda item: (-item[1], item[0]))),
        initializers=len(stored),
        initializer_bytes=sum(tensor.bytes for tensor in stored),
        inputs=_ports(model),
        outputs=tuple(map(_port, model.graph.output)),
        external_file=external[0].name if external else None,
        invalid=invalid,
        values=values,
        shaped_values=shaped,
        functions=len(model.functions),
        custom_operators=_custom_operators(model, nodes),
        random_operators=tuple(_where(node) for node in nodes if _is_random(node)),
        details=details,
    )


def saved_file(path: Path, *, keep: bool) -> str | None:
    """The file's name for the report, or None for a file that the report does not publish."""
    return path.name if keep else None


def check_file(path: Path) -> str:
    """What onnx's checker objects to, shape inference included; "" for a valid file.

    It takes weights that are hard-linked, as caches and stores of files do, for an attack; such
    a file is checked as a copy.
    """
    objection = _objection(path)
    if "multiple hard links" not in objection:
        return objection
    import onnx

    model = onnx.load(path, load_external_data=False)
    files = external_files(stored_tensors(model, path.parent))
    if sum(file.stat().st_size for file in files) > _COPIED:
        return "not checked: onnx's checker refuses weights with several hard links"
    with tempfile.TemporaryDirectory() as folder:
        for file in (path, *files):
            copy = Path(folder) / file.relative_to(path.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        return _objection(Path(folder) / path.name)


def _objection(path: Path) -> str:
    import onnx

    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[0] if lines else "no reason given"
        text = text.replace(f"{path.parent}/", "").replace(str(path.parent), "its folder")
        return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
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
    """Whether a standard node draws; Dropout does so only with its third input, training_mode."""
    if node.domain not in STANDARD:
        return False
    return node.op_type in _RANDOM or (
        node.op_type == "Dropout" and len(node.input) > 2 and bool(node.input[2])
    )


def _where(node: Any) -> str:
    modules = origin_of(node).modules
    return f"{node.op_type} in {modules[-1] or 'the model itself'}" if modules else node.op_type


def _ports(model: Any) -> tuple[Port, ...]:
    """The graph's inputs without weights, and without stored tensors that only have their name."""
    stored = {tensor.name for tensor in model.graph.initializer}
    given = (value for value in model.graph.input if value.name not in stored)
    return tuple(_port(value) for value in given if not is_weight(value))


def _port(value: Any) -> Port:
    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    )
    if not tensor.HasField("shape"):  # of any rank, which is not the same as a scalar
        shape = (_ANY_RANK,)
    return Port(name=value.name, dtype=type_name(value.type), shape=shape)


def _shaped_values(inferred: Any) -> tuple[int, int]:
    """How many intermediate values have a known shape after inference, and how many there are."""
    known = {
        info.name
        for info in (*inferred.graph.value_info, *inferred.graph.output)
        if info.type.tensor_type.HasField("shape") or not info.type.HasField("tensor_type")
    }
    values = {name for node in inferred.graph.node for name in node.output if name}
    return len(values & known), len(values)
