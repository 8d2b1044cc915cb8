"""ONNX files as sources: what they take, and arrays to run them on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from reportgen.errors import ModelError
from reportgen.manifest import Dtype, InputSpec, ModelSpec
from reportgen.onnx_nodes import load_graph
from reportgen.onnx_nodes.protos import type_name

_KNOWN = get_args(Dtype)
_IMAGE_RANK, _IMAGE_SIZE, _LENGTH = 4, 224, 16


def read_onnx_source(path: Path) -> Any:
    """The model in the file at `path`, its external weights left where they are.

    Raises:
        ModelError: the file cannot be read, or is no ONNX model.
    """
    try:
        return load_graph(path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path.name} cannot be read as an ONNX model",
            hint="python -c \"import onnx; onnx.checker.check_model('FILE')\" says what is wrong",
        ) from error


def inputs_of(model: Any) -> tuple[Any, ...]:
    """The graph's inputs without those that only give a stored tensor its name."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return tuple(value for value in model.graph.input if value.name not in stored)


def with_file_inputs(spec: ModelSpec, model: Any) -> ModelSpec:
    """`spec` with the inputs that the file itself declares, where the manifest names none.

    The first open dimension of axis 0 is the batch. Another open one is 224 in a picture and 16
    elsewhere, unless the manifest's `dims` say otherwise. Whole numbers stay below the length of
    the table that they look up, where the graph shows it.

    Raises:
        ModelError: an input is no tensor of a kind that can be made.
    """
    if spec.inputs:
        return spec
    dims: dict[str, int] = {}
    inputs = tuple(_input(value, model, spec.dims, dims) for value in inputs_of(model))
    if unknown := sorted(set(spec.dims) - set(dims)):
        raise ModelError(
            f"the file has no open dim {unknown[0]!r}",
            hint=f"it has {', '.join(dims) or 'none'} beside batch",
        )
    firsts = {item.shape[0] for item in inputs if item.shape}
    fixed = [first for first in firsts if isinstance(first, int)]
    batch = fixed[0] if len(fixed) == len(firsts) == 1 else spec.batch
    return spec.model_copy(update={"inputs": inputs, "dims": {**dims, **spec.dims}, "batch": batch})


def _input(value: Any, model: Any, given: dict[str, int], dims: dict[str, int]) -> InputSpec:
    dtype = type_name(value.type)
    if dtype not in _KNOWN:
        raise ModelError(
            f"input {value.name!r} of the file is {dtype}, which cannot be made up",
            hint="cut out the part that takes numbers: onnx.utils.extract_model"
            if dtype == "string"
            else "name the inputs in the manifest, the tensors as .npy files",
        )
    shape = tuple(_dims(value, given, dims))
    rows = None if "float" in dtype or dtype == "bool" else _rows_looked_up(model, value.name)
    fields: dict[str, Any] = {"shape": shape, "dtype": dtype, "high": rows}
    if value.name.isidentifier():
        fields["name"] = value.name
    return InputSpec.model_construct(**fields)


def _dims(value: Any, given: dict[str, int], dims: dict[str, int]) -> Iterator[int | str]:
    axes = value.type.tensor_type.shape.dim
    for axis, dim in enumerate(axes):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            yield dim.dim_value
        elif axis == 0:
            yield "batch"
        else:
            name = dim.dim_param if dim.dim_param.isidentifier() else f"{value.name}_{axis}"
            name = name if name.isidentifier() else f"dim_{axis}"
            picture = len(axes) == _IMAGE_RANK and axis > 1
            dims.setdefault(name, given.get(name, _IMAGE_SIZE if picture else _LENGTH))
            yield name


def _rows_looked_up(model: Any, name: str) -> int | None:
    """The fewest rows of a stored table that input `name` picks from, perhaps after a cast."""
    stored = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    names, rows = {name}, list[int]()
    for node in model.graph.node:
        if node.op_type in ("Cast", "Identity", "Unsqueeze", "Squeeze") and node.input[0] in names:
            names.add(node.output[0])
        elif node.op_type == "Gather" and node.input[1] in names and node.input[0] in stored:
            axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
            rows.append(int(stored[node.input[0]][axis]))
    return min(rows, default=None)
