"""Gradients of parameters, also through checkpoints that refuse `torch.autograd.grad`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def gradients_of(
    roots: Sequence[Tensor], seeds: Sequence[Tensor], parameters: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradient of each parameter, None if none reaches it; `grad` fields do not change.

    Raises:
        Exception: whatever the backward pass of the model raises.
    """
    if not _has_reentrant_checkpoint(roots):
        return list(torch.autograd.grad(roots, parameters, seeds, allow_unused=True))
    # A reentrant checkpoint (`use_reentrant=True`) runs a backward pass of its own inside the
    # outer one, so it works only with `backward`, as training loops call it.
    before = [parameter.grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.grad = None
        torch.autograd.backward(roots, seeds)
        return [parameter.grad for parameter in parameters]
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient


def _has_reentrant_checkpoint(roots: Sequence[Tensor]) -> bool:
    # by name: DeepSpeed and Megatron have a `CheckpointFunction` of their own
    nodes: list[Any] = [root.grad_fn for root in roots]
    seen: set[Any] = {None}
    while nodes:
        node = nodes.pop()
        if node in seen:
            continue
        seen.add(node)
        if "CheckpointFunction" in type(node).__name__:
            return True
        nodes += [below for below, _ in node.next_functions]
    return False
