"""ONNX files as sources: their declared inputs as input specs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from reportgen.errors import ModelError
from reportgen.manifest import Dtype, InputSpec, ModelSpec
from reportgen.onnx.model import load_onnx
from reportgen.onnx.model.protos import type_name

_DTYPES = get_args(Dtype)
_IMAGE_RANK, _IMAGE_SIZE, _LENGTH = 4, 224, 16


def read_onnx_source(path: Path) -> Any:
    """Load the ONNX model at `path` without its external data.

    Raises:
        ModelError: the file cannot be read, or is not an ONNX model.
    """
    try:
        return load_onnx(path).inlined()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path.name} cannot be read as an ONNX model",
            hint="python -c \"import onnx; onnx.checker.check_model('FILE')\" shows the error",
        ) from error


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
    other = [value for value in values if type_name(value.type) not in _DTYPES]
    return FileInputs(
        names=tuple(value.name for value in values if value not in other),
        strings={v.name: tuple(_dims(v, {}, {})) for v in other if type_name(v.type) == "string"},
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

    A dynamic dim of axis 0 is the batch. The size of another one is 224 for images (rank 4) and 16
    otherwise, unless it is in the manifest's `dims`. Integers that index an initializer through
    Gather stay below its length. Inputs that are not numeric tensors are omitted.

    Raises:
        ModelError: the manifest's `dims` contain a dim that the file does not have.
    """
    if spec.inputs:
        return spec
    dims: dict[str, int] = {}
    inputs = tuple(
        _input(value, model, spec.dims, dims)
        for value in _inputs(model)
        if type_name(value.type) in _DTYPES
    )
    if unknown := sorted(set(spec.dims) - set(dims)):
        raise ModelError(
            f"the file has no dynamic dim {unknown[0]!r}",
            hint=f"its dynamic dims other than batch: {', '.join(dims) or 'none'}",
        )
    firsts = {item.shape[0] for item in inputs if item.shape}
    # a file with fixed first dims runs only with their size, whatever the manifest says
    fixed = [first for first in firsts if isinstance(first, int)]
    batch = fixed[0] if len(fixed) == len(firsts) == 1 else spec.batch
    return spec.model_copy(update={"inputs": inputs, "dims": {**dims, **spec.dims}, "batch": batch})


def _input(value: Any, model: Any, given: dict[str, int], dims: dict[str, int]) -> InputSpec:
    dtype = type_name(value.type)
    shape = tuple(_dims(value, given, dims))
    rows = None if "float" in dtype or dtype == "bool" else _embedding_rows(model, value.name)
    fields: dict[str, Any] = {"shape": shape, "dtype": dtype, "high": rows}
    if value.name.isidentifier():
        fields["name"] = value.name
    return InputSpec.model_construct(**fields)


def _dims(value: Any, given: dict[str, int], dims: dict[str, int]) -> Iterator[int | str]:
    axes = value.type.tensor_type.shape.dim
    for axis, dim in enumerate(axes):
        # 0 or -1 cannot be the size of an input; it stands for an unknown one
        if dim.HasField("dim_value") and dim.dim_value > 0:
            yield dim.dim_value
        elif axis == 0:
            yield "batch"
        else:
            name = dim.dim_param if dim.dim_param.isidentifier() else f"{value.name}_{axis}"
            name = name if name.isidentifier() else f"dim_{axis}"
            is_image = len(axes) == _IMAGE_RANK and axis > 1
            dims.setdefault(name, given.get(name, _IMAGE_SIZE if is_image else _LENGTH))
            yield name


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
