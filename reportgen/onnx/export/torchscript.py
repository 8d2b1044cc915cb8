"""The last way to export: the TorchScript tracer, which records the path of one example.

Torch deprecates it (`torch.onnx.export(dynamo=False)`), but torch.export refuses models whose
Python code depends on the values of tensors, such as torchvision's detectors.
"""

from __future__ import annotations

import linecache
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.onnx.export.arguments import output_name
from reportgen.onnx.export.source_location import is_library_file, short_path
from reportgen.pytree import named_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reportgen.onnx.export.arguments import ExportArguments

# what Python takes out of a tensor is a constant in the file; torch's other warnings of the
# tracer are about constants that forward makes itself
_DECISIONS = ("Converting a tensor to", "Iterating over a tensor", "Using len to get tensor shape")
_LONGEST_LINE = 80


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Traced:
    """A traced model.

    Attributes:
        model: the file as an onnx_ir model.
        outputs: a name for every output.
        fixed_decisions: `net.py:12: if x.sum() > 0:`, every line whose outcome for the example
            inputs is fixed in the file, in the order of execution.
    """

    model: Any
    outputs: tuple[str, ...]
    fixed_decisions: tuple[str, ...]


def trace(model: nn.Module, arguments: ExportArguments, opset: int) -> Traced:
    """Export `model` with the TorchScript tracer, with opset 20 at most.

    Raises:
        Exception: whatever the tracer, the exporter and the model raise.
    """
    import onnx_ir
    import torch
    from torch.onnx._constants import ONNX_TORCHSCRIPT_EXPORTER_MAX_OPSET as NEWEST

    tensors = tuple(arguments.tensors().values())
    axes = dict(zip(arguments.names, arguments.axes, strict=True))
    with (
        _flat_signature(model, arguments) as outputs,
        _recorded_decisions() as decisions,
        tempfile.TemporaryDirectory(prefix="reportgen-export-") as folder,
    ):
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            tensors,
            str(path),
            dynamo=False,
            opset_version=min(opset, NEWEST),
            input_names=list(arguments.names),
            dynamic_axes={name: dims for name, dims in axes.items() if dims},
        )
        traced = onnx_ir.load(path)
        onnx_ir.external_data.load_to_model(traced)  # their file is deleted with the folder
    _restore_unused_inputs(traced, arguments)
    return Traced(
        model=traced,
        outputs=tuple(outputs),
        fixed_decisions=tuple(dict.fromkeys(decisions)),
    )


def _restore_unused_inputs(model: Any, arguments: ExportArguments) -> None:
    """Declare the inputs that no node reads: the tracer leaves them out of the file."""
    kept = {value.name: value for value in model.graph.inputs}
    inputs = [
        kept.get(name) or _declared(name, tensor, axes)
        for (name, tensor), axes in zip(arguments.tensors().items(), arguments.axes, strict=True)
    ]
    model.graph.inputs.clear()
    model.graph.inputs.extend(inputs)


def _declared(name: str, tensor: Tensor, axes: dict[int, str]) -> Any:
    import onnx_ir
    from onnx_ir import tensor_adapters

    return onnx_ir.Value(
        name=name,
        type=onnx_ir.TensorType(tensor_adapters.from_torch_dtype(tensor.dtype)),
        shape=onnx_ir.Shape(axes.get(axis, size) for axis, size in enumerate(tensor.shape)),
    )


@contextmanager
def _flat_signature(model: nn.Module, arguments: ExportArguments) -> Iterator[list[str]]:
    """Let `model` take and return tensors only; yields the names of its outputs once it ran."""
    # the tracer accepts neither constants nor objects. The model itself is changed instead of
    # wrapped in a module, since nodes and weights are named by module paths.
    import torch
    from torch.utils._pytree import tree_map_only

    names: list[str] = []
    forward, had_own = model.forward, "forward" in vars(model)

    def flat_forward(*tensors: Tensor) -> Any:
        given = iter(tensors)
        args, kwargs = tree_map_only(
            torch.Tensor, lambda _: next(given), (arguments.args, arguments.kwargs)
        )
        return forward(*args, **kwargs)

    def flatten(_module: nn.Module, _given: Any, output: Any) -> Any:
        found = named_tensors(output)
        names[:] = map(output_name, found)
        return tuple(found.values())

    handle = model.register_forward_hook(flatten)  # after the hooks that the model has already
    vars(model)["forward"] = flat_forward
    try:
        yield names
    finally:
        if had_own:
            vars(model)["forward"] = forward
        else:
            del vars(model)["forward"]
        handle.remove()


@contextmanager
def _recorded_decisions() -> Iterator[list[str]]:
    """Yields a list that, at the end, contains the lines of which the tracer warns."""
    from torch.jit._trace import TracerWarning

    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", TracerWarning)
        yield found
    for warning in caught:
        is_decision = str(warning.message).startswith(_DECISIONS)
        if is_decision and not is_library_file(warning.filename):
            line = linecache.getline(warning.filename, warning.lineno)
            code = textwrap.shorten(line, _LONGEST_LINE, placeholder=" …")
            place = f"{short_path(warning.filename)}:{warning.lineno}"
            found.append(f"{place}: {code}" if code else place)
