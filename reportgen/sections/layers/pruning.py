"""Pruned models: parameters that a mask removes, and parameters that are exactly zero."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_ORIGINAL, _MASK = "_orig", "_mask"  # suffixes of torch.nn.utils.prune


def masks_of(module: nn.Module) -> dict[str, Tensor]:
    """The masks of `torch.nn.utils.prune` in a module itself, by the parameter they apply to."""
    # those of a ScriptModule have no more of a dict than `items`
    buffers, parameters = dict(module._buffers.items()), dict(module._parameters.items())
    found: dict[str, Tensor] = {}
    for key, mask in buffers.items():
        name = key.removesuffix(_MASK)
        stored = parameters.get(name + _ORIGINAL) if name != key else None
        if mask is not None and stored is not None and stored.shape == mask.shape:
            found[name] = mask
    return found


def count_masked(modules: Iterable[nn.Module]) -> int:
    """How many stored parameters the masks of `modules` remove, each mask once."""
    masks = {id(mask): mask for module in modules for mask in masks_of(module).values()}
    return sum(mask.numel() - int(mask.count_nonzero()) for mask in masks.values() if _has(mask))


def zero_share(module: nn.Module) -> float | None:
    """The share of a module's own parameters that are 0, masked ones included; None if unknown."""
    masks = {f"{name}{_ORIGINAL}": mask for name, mask in masks_of(module).items()}
    zeros = total = 0
    for name, parameter in module._parameters.items():
        if parameter is None or not _has(parameter):
            continue
        values = parameter.detach()
        values = values * masks[name] if name in masks else values
        zeros += values.numel() - int(values.count_nonzero())
        total += values.numel()
    return zeros / total if total else None


def _has(tensor: Tensor) -> bool:
    """Whether `tensor` has values that can be counted: not meta, sparse, quantized or a wrapper."""
    plain = type(tensor) in (Tensor, nn.Parameter, nn.Buffer)
    return plain and tensor.layout is torch.strided and not (tensor.is_meta or tensor.is_quantized)
