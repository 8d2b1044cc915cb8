"""ONNX files as sources: their declared inputs as input specs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from reportgen.errors import ModelError
from reportgen.file_kind import UNKNOWN, file_kind
from reportgen.manifest import Dtype, InputSpec, ModelSpec
from reportgen.onnx.model import load_onnx
from reportgen.onnx.model.protos import type_name
from reportgen.sources.onnx_dims import DynamicDims

_DTYPES = get_args(Dtype)


def read_onnx_source(path: Path) -> Any:
    """Load the ONNX model at `path` without its external data.

    Raises:
        ModelError: the file cannot be read, or is not an ONNX model.
    """
    try:
        return load_onnx(path).inlined()
    except (OSError, ValueError) as error:
        raise _not_onnx(path) from error


def _not_onnx(path: Path) -> ModelError:
    kind = file_kind(path) if path.is_file() else UNKNOWN
    # protobuf has no signature: an ONNX file that is cut short is of unknown kind too
    if kind == UNKNOWN:
        return ModelError(
            f"{path.name} cannot be read as an ONNX model: it is damaged or incomplete",
            hint="download or export it again; onnx.checker.check_model(path) shows the error",
        )
    return ModelError(f"{path.name} is {kind.text}; expected an ONNX model", hint=kind.remedy)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileInputs:
    """The inputs of an ONNX file, by kind.

    Attributes:
        names: the inputs of numeric tensors, in order.
        strings: the shapes of string tensors, with the names of dynamic dims.
        unsupported: the others with their types, such as `items (sequence of float32)`.
    """

    names: tuple[str, ...]
    strings: dict[str, tuple[int | str, ...]] = field(default_factory=dict)
    unsupported: tuple[str, ...] = ()


def inputs_of(model: Any) -> FileInputs:
    """The graph's inputs by kind, without those that are initializers."""
    values = _inputs(model)
    dims = DynamicDims(values, {})
    other = [value for value in values if type_name(value.type) not in _DTYPES]
    return FileInputs(
        names=tuple(value.name for value in values if value not in other),
        strings={v.name: dims.shape_of(v) for v in other if type_name(v.type) == "string"},
        unsupported=tuple(
            f"{value.name} ({type_name(value.type)})"
            for value in other
            if type_name(value.type) != "string"
        ),
    )


def _inputs(model: Any) -> list[Any]:
    # before IR version 4 every initializer had to be an input too
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def with_file_inputs(spec: ModelSpec, model: Any) -> ModelSpec:
    """`spec` with the inputs declared in the file, if the manifest specifies none.

    The batch is the dim that is named so, else axis 0 unless its name is that of something else.
    The size of another dynamic dim is in the manifest's `dims`, else 224 for the sides of images
    and 16 otherwise. Integers that index an initializer through Gather stay below its length.
    Inputs that are not numeric tensors are omitted.

    Raises:
        ModelError: the manifest's `dims` contain a dim that the file does not have.
    """
    if spec.inputs:
        return spec
    values = _inputs(model)
    dims = DynamicDims(values, spec.dims)
    inputs = tuple(
        _input(value, model, dims) for value in values if type_name(value.type) in _DTYPES
    )
    dims.resolve()
    if unknown := sorted(set(spec.dims) - set(dims.sizes) - dims.batch_names):
        raise ModelError(
            f"the file has no dynamic dim {unknown[0]!r}",
            hint=f"its dynamic dims other than batch: {', '.join(dims.sizes) or 'none'}",
        )
    # the file's own name of the batch says its size too
    named = [size for name, size in spec.dims.items() if name in dims.batch_names]
    batch = named[0] if named else _batch_of(inputs, spec.batch)
    return spec.model_copy(update={"inputs": inputs, "dims": dims.sizes, "batch": batch})


def _batch_of(inputs: tuple[InputSpec, ...], wanted: int) -> int:
    """The batch that the file runs with: `wanted`, unless its shapes leave no choice."""
    shapes = [item.shape for item in inputs if item.shape]
    if any("batch" in shape for shape in shapes):
        return wanted
    firsts = {shape[0] for shape in shapes}
    if any(isinstance(first, str) for first in firsts):
        return 1  # a sequence, without any batch
    # a file with fixed first dims runs only with their size, whatever the manifest says
    return int(firsts.pop()) if len(firsts) == 1 else wanted


def _input(value: Any, model: Any, dims: DynamicDims) -> InputSpec:
    dtype = type_name(value.type)
    rows = None if "float" in dtype or dtype == "bool" else _embedding_rows(model, value.name)
    fields: dict[str, Any] = {"shape": dims.shape_of(value), "dtype": dtype, "high": rows}
    if value.name.isidentifier():
        fields["name"] = value.name
    return InputSpec.model_construct(**fields)


def _embedding_rows(model: Any, name: str) -> int | None:
    """The smallest number of rows that input `name` indexes with Gather, None if there is none."""
    stored = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    names, rows = {name}, list[int]()
    for node in model.graph.node:
        # operators that keep the values of indices
        if node.op_type in ("Cast", "Identity", "Unsqueeze", "Squeeze") and node.input[0] in names:
            names.add(node.output[0])
        elif node.op_type == "Gather" and node.input[1] in names and node.input[0] in stored:
            axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
            rows.append(int(stored[node.input[0]][axis]))
    return min(rows, default=None)
