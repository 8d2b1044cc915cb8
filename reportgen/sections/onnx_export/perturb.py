"""Perturbed parameters on both sides, for outputs that do not vary by themselves."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.chapter import Unable
from reportgen.sections.onnx_export.cases import Outcome, Plan, run_plans
from reportgen.sections.onnx_export.runtime import CannotRun, Runtime

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reportgen.export import OnnxFile
    from reportgen.sections.onnx_export.runtime import Feed
    from reportgen.study import Study

_SEED = 20_000
_SMALLEST = 0.02  # standard deviation of the noise, where the parameter itself has none
_SHARE = 0.1  # of the parameter's own standard deviation
_MOST_BYTES = 200_000_000  # of parameters that are changed in the quick way

Key = tuple[str, tuple[int, ...], str]  # dtype, shape, digest of the bytes


def run_perturbed(study: Study, file: OnnxFile, plans: list[Plan]) -> Outcome | None:
    """The cases on a perturbed model; None when no perturbed file could be had.

    First the quick way: parameters that stand in the file as they are, are replaced in an
    onnxruntime session. A parameter may also have been folded into a constant of the file, and
    equal ones are stored once; so when that disagrees or shows nothing, the perturbed model is
    exported anew, and that file's word counts.
    """
    quick = _with_replaced_weights(study, file, plans)
    if quick is not None and quick.passed and not quick.unvarying | quick.deaf:
        return quick
    return _with_second_export(study, plans) or (quick if quick and quick.passed else None)


def _with_replaced_weights(study: Study, file: OnnxFile, plans: list[Plan]) -> Outcome | None:
    stored = stored_keys(file.path)
    groups = shared_groups(study.model, set(stored.values()))
    if not groups:
        return None
    with perturbed(groups) as values:
        replaced: Feed = {
            name: values[key].numpy() for name, key in stored.items() if key in values
        }
        try:
            return run_plans(study, Runtime(file.path, replaced), plans, perturbed=True)
        except CannotRun:
            return None


def _with_second_export(study: Study, plans: list[Plan]) -> Outcome | None:
    from reportgen.export import export_onnx

    study.folder.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".perturbed-", dir=study.folder))
    try:
        with perturbed(_every_parameter(study.model)):
            file = export_onnx(study.model, study.spec, aside)
            return run_plans(study, Runtime(file.path), plans, perturbed=True)
    except (Unable, CannotRun):
        return None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def stored_keys(path: Path) -> dict[str, Key]:
    """Dtype, shape and digest of every initializer of a file, by name."""
    import onnx

    model = onnx.load(path)  # external data too
    return {tensor.name: _array_key(onnx.numpy_helper.to_array(tensor))
            for tensor in model.graph.initializer}


def shared_groups(model: nn.Module, stored: set[Key]) -> dict[Key, list[Tensor]]:
    """Parameters whose exact values stand in the file, those of equal value together.

    Values that a buffer has as well are left out, since the file stores both as one. Parameters
    of a single value come first (a head of zeros is why we are here), then the smaller ones, up
    to 200 MB in all.
    """
    shapes = {(dtype, shape) for dtype, shape, _ in stored}
    groups: dict[Key, list[Tensor]] = {}
    for parameter in model.parameters():
        if parameter.is_floating_point() and _shape_of(parameter) in shapes:
            key = _tensor_key(parameter)
            if key in stored:
                groups.setdefault(key, []).append(parameter)
    for buffer in model.buffers():
        if groups and _shape_of(buffer) in shapes:
            groups.pop(_tensor_key(buffer), None)
    chosen: dict[Key, list[Tensor]] = {}
    room = _MOST_BYTES
    for key in sorted(groups, key=lambda key: (not _is_single_valued(groups[key][0]),
                                               groups[key][0].numel(), key)):
        room -= groups[key][0].nbytes * len(groups[key])
        if room >= 0:
            chosen[key] = groups[key]
    return chosen


@contextmanager
def perturbed(groups: dict[Key, list[Tensor]]) -> Iterator[dict[Key, Tensor]]:
    """Add seeded noise to parameters, the same to all of a group; lends the new values."""
    import torch

    undo: list[Callable[[], Any]] = []
    values: dict[Key, Tensor] = {}
    generator = torch.Generator().manual_seed(_SEED)
    try:
        for key, parameters in groups.items():
            values[key] = _noisy(parameters[0], generator)
            for parameter in parameters:
                undo.append(_put_back(parameter))
                parameter.data.copy_(values[key])
        yield values
    finally:
        for restore in undo:
            restore()


def _put_back(parameter: Tensor) -> Callable[[], Any]:
    data = parameter.detach()
    before = data.clone()
    return lambda: data.copy_(before)


def _noisy(parameter: Tensor, generator: Any) -> Tensor:
    import torch

    data = parameter.detach()
    spread = float(data.double().std()) if data.numel() > 1 else 0.0
    noise = torch.randn(data.shape, generator=generator, dtype=torch.float32)
    deviation = max(_SHARE * spread, _SMALLEST) if spread == spread else _SMALLEST
    return (data + deviation * noise.to(data.dtype)).contiguous()


def _every_parameter(model: nn.Module) -> dict[Key, list[Tensor]]:
    floats = (parameter for parameter in model.parameters() if parameter.is_floating_point())
    return {("", (index,), ""): [parameter] for index, parameter in enumerate(floats)}


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
