"""Tell when autograd would add two gradients in place.

Where a tensor is used twice, the engine sums the two gradients; into the first one, if nobody
else holds it. Under a dispatch mode it always makes a new tensor, so the recorder undoes that.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

Tensor = torch.Tensor
_ADD = torch.ops.aten.add.Tensor


def adds_in_place(args: tuple[Any, ...], sole: tuple[int, int]) -> bool:
    """Whether a sum in the backward pass would have gone into its first operand on CUDA.

    `sole` is `counts_of_sole_owner()`, which cannot be learned inside a backward pass.
    """
    if len(args) != 2 or not isinstance(args[1], Tensor) or torch.is_grad_enabled():
        return False
    if torch._C._current_autograd_node() is None:
        return False
    held, other = args
    if held.shape != other.shape or held.dtype is not other.dtype or _repeats(held):
        return False
    tensors, storages = _counts(held)
    return tensors <= sole[0] and storages <= sole[1]


def _repeats(tensor: Tensor) -> bool:
    return any(
        step == 0 and size > 1 for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    )


def _counts(tensor: Tensor) -> tuple[int, int]:
    """References to the tensor and to its storage, those of the calling frames included."""
    storage = tensor.untyped_storage()
    return tensor._use_count(), torch._C._storage_Use_Count(storage._cdata)


@cache
def counts_of_sole_owner() -> tuple[int, int]:
    """What `_counts` shows for a gradient that only the engine holds, learned from such a one."""
    seen: list[tuple[int, int]] = []

    class _Probe(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is _ADD and not torch.is_grad_enabled():
                seen.append(_observed(args))
            return func(*args, **(kwargs or {}))

    with torch.enable_grad():
        weight = torch.ones(2, 2, requires_grad=True)
        with _Probe():  # type: ignore[no-untyped-call]
            x = weight * 2
            ((x @ x.detach()) + (x @ x.detach())).sum().backward()  # type: ignore[no-untyped-call]
    return max(seen)


def _observed(args: tuple[Any, ...]) -> tuple[int, int]:
    """As deep in the call stack as `adds_in_place`, so that both see the same references."""
    held, _other = args
    return _counts(held)
