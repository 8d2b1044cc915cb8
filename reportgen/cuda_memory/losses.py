"""A scalar to differentiate, out of whatever a model returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.nn import functional

from .errors import StepError
from .step import Loss

Tensor = torch.Tensor


def make_target(output: Any, loss: str | Loss) -> Tensor | None:
    """The labels that cross-entropy needs, or None where the loss needs none.

    The classes are dimension 1 of an image or a row, the last dimension of a sequence.
    """
    if loss != "cross_entropy" or scalar_of(output) is not None:
        return None
    logits = main_tensor(output)
    if logits.dim() < 2 or not logits.is_floating_point():
        return None
    shape = (logits.shape[0], *logits.shape[2:]) if logits.dim() != 3 else logits.shape[:2]
    return torch.zeros(shape, dtype=torch.int64, device=logits.device)


def scalar_loss(output: Any, target: Tensor | None, loss: str | Loss) -> Tensor:
    """The loss, a tensor of one element; a loss that the model computes itself comes first.

    Where cross-entropy does not apply to the output's shape, its mean is taken.
    """
    if callable(loss):
        return _checked(loss(output))
    own = scalar_of(output)
    if own is not None:
        return own
    if loss == "sum":
        return _checked(_total([t.sum() for t in _floats(output)]))
    if loss == "mean" or target is None:
        return _checked(_total([t.mean() for t in _floats(output)]))
    logits = main_tensor(output)
    if logits.dim() == 3:
        return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))
    return functional.cross_entropy(logits, target)


def scalar_of(output: Any) -> Tensor | None:
    """The loss that the output already holds: its `loss`, or a dict of scalar losses summed."""
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(own, Tensor) and own.numel() == 1:
        return own
    if isinstance(output, Mapping) and output:
        values = list(output.values())
        if all(isinstance(value, Tensor) and value.dim() == 0 for value in values):
            return _total(values)
    if isinstance(output, Tensor) and output.dim() == 0:
        return output
    return None


def main_tensor(output: Any) -> Tensor:
    """The first floating tensor of the output: its logits, in the models people train."""
    for tensor in _floats(output):
        return tensor
    raise StepError(
        f"the output, a {type(output).__name__}, has no floating tensor to make a loss of",
        "give a loss function of the output",
    )


def _floats(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _floats(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _floats(item)
    elif hasattr(value, "__dict__"):
        for item in vars(value).values():
            yield from _floats(item)


def _total(values: list[Tensor]) -> Tensor | None:
    if not values:
        return None
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _checked(value: Any) -> Tensor:
    if isinstance(value, Tensor) and value.numel() == 1 and value.requires_grad:
        return value
    raise StepError(
        "the loss is not one number that depends on the parameters",
        "return a scalar tensor computed from the model's output",
    )
