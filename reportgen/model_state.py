"""The loan of a model: whoever borrows it, it comes back bit for bit as it was."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from reportgen.pytree import modules_of

if TYPE_CHECKING:
    import torch
    from torch import nn

Restore = Callable[[], None]
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


@contextmanager
def preserve_model_state(model: nn.Module) -> Iterator[nn.Module]:
    """Lend `model` and give it back as it was, also after an exception.

    Restored bit for bit: parameters, buffers and plain tensor attributes (values, dtype, device,
    `requires_grad`, the tensor objects themselves), gradients, the training flag of every single
    module, hooks, children and every other attribute, and what plain lists, tuples, dicts and
    sets among the attributes hold, at any depth; the random state of Python, NumPy and torch; the
    autograd switch, the default dtype and the fused-attention switch.
    Costs one copy of the weights while the loan lasts; tensors without data (meta, fake)
    are put back, not copied.
    """
    with ExitStack() as debts:
        for restore in _process_state():
            debts.callback(restore)
        for held in _held(model):
            debts.callback(_state(held))
        yield model


def _held(model: nn.Module) -> list[Any]:
    """Every module, tensor and container that `model` holds, each once, owners first."""
    import torch

    found: dict[int, Any] = {}
    waiting: list[Any] = list(reversed(list(modules_of(model))))
    while waiting:
        value = waiting.pop()
        if id(value) in found:
            continue
        if isinstance(value, torch.nn.Module):
            found[id(value)] = value
            waiting += [
                *modules_of(value),
                *value.parameters(False),
                *value._buffers.values(),
            ]
            waiting += vars(value).values()
        elif isinstance(value, torch.Tensor):
            found[id(value)] = value
        elif isinstance(value, _CONTAINERS):
            found[id(value)] = value
            waiting += value.values() if isinstance(value, dict) else value
    return list(found.values())


def _state(held: Any) -> Restore:
    import torch

    if isinstance(held, torch.nn.Module):
        return _module_state(held)
    return _tensor_state(held) if isinstance(held, torch.Tensor) else _container_state(held)


def _process_state() -> list[Restore]:
    import numpy as np
    import torch

    python, numpy, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    grad, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    fast_path = torch.backends.mha.get_fastpath_enabled()
    restores: list[Restore] = [
        lambda: random.setstate(python),
        lambda: np.random.set_state(numpy),
        lambda: torch.set_rng_state(torch_state),
        lambda: _set_grad_enabled(grad),
        lambda: torch.set_default_dtype(dtype),
        lambda: torch.backends.mha.set_fastpath_enabled(fast_path),
    ]
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        cuda = torch.cuda.get_rng_state_all()
        restores.append(lambda: torch.cuda.set_rng_state_all(cuda))
    return restores


def _set_grad_enabled(enabled: bool) -> None:
    import torch

    torch.set_grad_enabled(enabled)


def _module_state(module: nn.Module) -> Restore:
    """A closure that puts every attribute back.

    A lazy module changes its class when it wakes; that is undone too.
    """
    kind = type(module)
    attributes = dict(vars(module))

    def restore() -> None:
        if type(module) is not kind:
            module.__class__ = kind
        vars(module).clear()
        vars(module).update(attributes)

    return restore


def _container_state(held: Any) -> Restore:
    """A closure that refills a container rather than replaces it.

    A hook's handle refers to the very dictionary that it is in.
    """
    if isinstance(held, tuple | frozenset):
        return lambda: None
    content, before = held.copy(), _identities(held)

    def restore() -> None:
        if _identities(held) == before:
            return  # some containers, those of transformers' outputs, refuse to be refilled
        held.clear()
        held.extend(content) if isinstance(held, list | deque) else held.update(content)

    return restore


def _identities(held: Any) -> list[int]:
    parts = [*held.keys(), *held.values()] if isinstance(held, dict) else held
    return [id(part) for part in parts]


def _tensor_state(tensor: torch.Tensor) -> Restore:
    import torch
    from torch.nn.parameter import is_lazy

    if is_lazy(tensor):
        return _sleep_again(tensor)
    if not _has_data(tensor):
        return lambda: None
    grad = tensor.grad if tensor.is_leaf else None
    needs_grad = tensor.requires_grad
    contents = [_content(held) for held in (tensor, grad) if held is not None]

    def restore() -> None:
        if tensor.is_leaf:
            tensor.grad = None  # a gradient must fit its tensor at every moment
        with torch.no_grad():
            for put_back in contents:
                put_back()
        if tensor.is_leaf:
            if tensor.requires_grad != needs_grad:  # an inference tensor refuses even the same
                tensor.requires_grad_(needs_grad)
            tensor.grad = grad

    return restore


def _content(tensor: torch.Tensor) -> Restore:
    """Point `tensor` at its first storage again, and undo what was written there."""
    import torch

    if tensor.layout != torch.strided or tensor.is_nested:
        return _content_of_parts(tensor)
    alias, memory = tensor.detach(), _memory(tensor)
    copy = memory.clone()

    def restore() -> None:
        with torch.inference_mode(tensor.is_inference()):  # else nobody may write to it
            if not _same_place(tensor, alias):
                tensor.data = alias
            if not _same_bits(memory, copy):
                memory.copy_(copy)

    return restore


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers behind `tensor`, each once: an expanded tensor shows one of them many times."""
    import torch

    if tensor.is_contiguous():
        return tensor.detach()
    numbers = tensor.untyped_storage().nbytes() // tensor.element_size()
    return torch.as_strided(tensor.detach(), (numbers,), (1,), 0)


def _content_of_parts(tensor: torch.Tensor) -> Restore:
    """A sparse tensor is its indices and values, a nested one its rows, all plain tensors."""
    alias = tensor.detach()
    parts = _parts(alias)
    contents = [_content(part) for part in parts]

    def restore() -> None:
        if not all(map(_same_place, _parts(tensor.detach()), parts)):
            tensor.data = alias
        for put_back in contents:
            put_back()

    return restore


def _parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    import torch

    if tensor.is_nested:
        return [tensor.values()] if tensor.layout == torch.jagged else list(tensor.unbind())
    if tensor.layout == torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return []  # a layout with no parts to be seen is not written to in place either


def _sleep_again(tensor: torch.Tensor) -> Restore:
    """A lazy parameter wakes by changing its class and its data in place."""
    kind, empty = type(tensor), tensor.data

    def restore() -> None:
        tensor.data = empty
        tensor.__class__ = kind

    return restore


def _has_data(tensor: torch.Tensor) -> bool:
    plain = type(tensor).__name__ in ("Tensor", "Parameter", "Buffer") or tensor.is_nested
    return plain and tensor.device.type != "meta"


def _same_place(tensor: torch.Tensor, alias: torch.Tensor) -> bool:
    return (
        tensor.device == alias.device
        and tensor.dtype == alias.dtype
        and tensor.shape == alias.shape
        and tensor.stride() == alias.stride()
        and tensor.data_ptr() == alias.data_ptr()
    )


def _same_bits(tensor: torch.Tensor, copy: torch.Tensor) -> bool:
    """Bitwise equality, so that a NaN equals itself; False where bits cannot be compared."""
    import torch

    if tensor.layout != torch.strided or not tensor.is_contiguous() or tensor.is_quantized:
        return False
    if tensor.dtype.is_complex or tensor.numel() == 0:
        return tensor.numel() == 0
    return torch.equal(
        tensor.detach().reshape(-1).view(torch.uint8), copy.reshape(-1).view(torch.uint8)
    )
