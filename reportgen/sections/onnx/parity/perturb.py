"""Repeats the comparison with perturbed parameters if the original ones prove too little."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.errors import SectionError
from reportgen.onnx.export import export_onnx
from reportgen.onnx.runtime import OnnxRuntimeError, Runtime
from reportgen.pytree import buffers_of
from reportgen.sections.onnx.parity.case import CasePlan
from reportgen.sections.onnx.parity.cases import CaseResults, run_plans

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reportgen.context import ModelContext
    from reportgen.onnx.export import OnnxFile
    from reportgen.onnx.runtime import Feed

_SEED = 20_000
_SMALLEST = 0.02  # standard deviation of the noise, if the parameter itself has none
_SHARE = 0.1  # of the parameter's own standard deviation
_MOST_BYTES = 200_000_000  # of parameters that are replaced in a session

Key = tuple[str, tuple[int, ...], str]  # dtype, shape, digest of the bytes


def zero_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Parameters other than biases that are all zero, by name."""
    # what they multiply does not affect the output: the gate of a residual branch (ReZero), the
    # second factor of a low-rank adapter
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point()
        and parameter.numel()
        and "bias" not in name.rpartition(".")[2]
        and not bool(parameter.any())
    }


def run_perturbed(
    context: ModelContext, file: OnnxFile, plans: list[CasePlan], zeros: Collection[Tensor] = ()
) -> CaseResults | None:
    """The cases on a perturbed model, with all `zeros` among the perturbed parameters.

    First, parameters that are stored unchanged in the file are replaced in an onnxruntime session.
    If that disagrees or shows nothing, the perturbed model is exported again. None if no perturbed
    file could be made.
    """
    # A disagreement may be the replacement's fault: the file may also contain a constant folded
    # from the parameter. The second export then decides, provided that exporting the unchanged
    # model again reproduces the file in question.
    disagreeing: CaseResults | None = None
    for quick in _with_replaced_weights(context, file, plans, zeros):
        if quick.passed and not quick.unvarying | quick.input_independent:
            return quick
        disagreeing = disagreeing or (None if quick.passed else quick)
    with _temporary_folder(context) as folder:
        exported_again = _with_second_export(context, file, plans, folder)
        if disagreeing and not _is_reproducible(context, file, folder):
            return disagreeing
    return exported_again


def _with_replaced_weights(
    context: ModelContext, file: OnnxFile, plans: list[CasePlan], zeros: Collection[Tensor]
) -> Iterator[CaseResults]:
    stored = stored_keys(file.path)
    usable = stored_parameters(context.model, set(stored.values()))
    plain = {key: tensor for key, tensor in usable.items() if _is_single_valued(tensor)}
    # a single value, mostly zero, is the usual reason why an output does not vary: try that alone
    for parameters in (plain, usable) if len(plain) < len(usable) else (usable,):
        held = {id(parameter) for parameter in parameters.values()}
        if not parameters or not held.issuperset(map(id, zeros)):
            continue
        with perturbed(parameters) as values, suppress(OnnxRuntimeError):
            replaced: Feed = {
                name: values[key].numpy() for name, key in stored.items() if key in values
            }
            yield run_plans(context, Runtime(file.path, replaced), plans, perturbed=True)


def _with_second_export(
    context: ModelContext, file: OnnxFile, plans: list[CasePlan], folder: Path
) -> CaseResults | None:
    try:
        with perturbed(_every_parameter(context.model)):
            again = export_onnx(context.model, context.spec, folder, start=file.used)
            return run_plans(context, Runtime(again.path), plans, perturbed=True)
    except (SectionError, OnnxRuntimeError):
        return None


def _is_reproducible(context: ModelContext, file: OnnxFile, folder: Path) -> bool:
    """Whether exporting the model again yields the same nodes and weights."""
    try:
        again = export_onnx(context.model, context.spec, folder, start=file.used).path
    except SectionError:
        return False
    return _skeleton(again) == _skeleton(file.path) and stored_keys(again) == stored_keys(file.path)


def _skeleton(path: Path) -> list[tuple[Any, ...]]:
    """Every node's operator, inputs, outputs and attributes, without its metadata."""
    import onnx

    return [
        (
            node.op_type,
            node.domain,
            *node.input,
            "->",
            *node.output,
            *(attribute.SerializeToString(deterministic=True) for attribute in node.attribute),
        )
        for node in onnx.load(path, load_external_data=False).graph.node
    ]


@contextmanager
def _temporary_folder(context: ModelContext) -> Iterator[Path]:
    context.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".perturbed-", dir=context.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def stored_keys(path: Path) -> dict[str, Key]:
    """Dtype, shape and digest of every initializer of a file, by name."""
    import onnx

    model = onnx.load(path)  # external data too
    return {
        tensor.name: _array_key(onnx.numpy_helper.to_array(tensor))
        for tensor in model.graph.initializer
    }


def stored_parameters(model: nn.Module, stored: set[Key]) -> dict[Key, Tensor]:
    """Parameters whose values are in the file and belong to no other tensor, up to 200 MB.

    Parameters of a single value are preferred, then smaller ones.
    """
    # equal tensors are stored once, so that a value of several parameters cannot be attributed
    shapes = {(dtype, shape) for dtype, shape, _ in stored}
    owners: dict[Key, list[Tensor]] = {}
    for tensor in (*model.parameters(), *buffers_of(model)):
        if tensor.is_floating_point() and _shape_of(tensor) in shapes:
            owners.setdefault(_tensor_key(tensor), []).append(tensor)
    # a buffer may share its values with a parameter, which then cannot be identified by them
    parameters = {id(parameter) for parameter in model.parameters()}
    usable = {
        key: tensors[0]
        for key, tensors in owners.items()
        if key in stored and len(tensors) == 1 and id(tensors[0]) in parameters
    }
    chosen: dict[Key, Tensor] = {}
    room = _MOST_BYTES
    for key in sorted(usable, key=lambda key: _priority(key, usable[key])):
        room -= usable[key].nbytes
        if room >= 0:
            chosen[key] = usable[key]
    return chosen


def _priority(key: Key, tensor: Tensor) -> tuple[bool, int, Key]:
    return not _is_single_valued(tensor), tensor.numel(), key


@contextmanager
def perturbed(parameters: dict[Key, Tensor]) -> Iterator[dict[Key, Tensor]]:
    """Add seeded noise to parameters while the context lasts; yields the new values by key."""
    import torch

    undo: list[Callable[[], Any]] = []
    values: dict[Key, Tensor] = {}
    generator = torch.Generator().manual_seed(_SEED)
    try:
        for key, parameter in parameters.items():
            undo.append(_restorer(parameter))
            values[key] = _noisy(parameter, generator)
            parameter.data.copy_(values[key])
        yield values
    finally:
        for restore in undo:
            restore()


def _restorer(parameter: Tensor) -> Callable[[], Any]:
    data = parameter.detach()
    before = data.clone()
    return lambda: data.copy_(before)


def _noisy(parameter: Tensor, generator: Any) -> Tensor:
    import torch

    data = parameter.detach()
    spread = float(data.double().std()) if data.numel() > 1 else 0.0  # NaN for one element
    # float32 first: the same noise whatever the parameter's dtype
    noise = torch.randn(data.shape, generator=generator, dtype=torch.float32)
    deviation = max(_SHARE * spread, _SMALLEST) if spread == spread else _SMALLEST
    return (data + deviation * noise.to(data.dtype)).contiguous()


def _every_parameter(model: nn.Module) -> dict[Key, Tensor]:
    # keys only have to differ here: nothing is looked up by them
    floats = (parameter for parameter in model.parameters() if parameter.is_floating_point())
    return {("", (index,), ""): parameter for index, parameter in enumerate(floats)}


def _is_single_valued(tensor: Tensor) -> bool:
    flat = tensor.detach().reshape(-1)
    return flat.numel() == 0 or bool((flat == flat[0]).all())


def _shape_of(tensor: Tensor) -> tuple[str, tuple[int, ...]]:
    return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)


def _tensor_key(tensor: Tensor) -> Key:
    try:
        return _array_key(tensor.detach().contiguous().numpy())
    except TypeError:  # NumPy has no such dtype
        return (*_shape_of(tensor), "")


def _array_key(array: Any) -> Key:
    import numpy as np

    digest = hashlib.sha1(np.ascontiguousarray(array).data, usedforsecurity=False).hexdigest()
    return str(array.dtype), tuple(array.shape), digest
