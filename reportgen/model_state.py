"""Preserves the state of a model: after a block it is bit for bit as it was before."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from reportgen.pytree import modules_of

if TYPE_CHECKING:
    import torch
    from torch import nn

Restore = Callable[[], None]
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


class _Saved(Protocol):
    """State of one object: whether it still is as it was, and the way back."""

    def is_unchanged(self) -> bool: ...

    def restore(self) -> None: ...


_active: dict[int, list[_Saved]] = {}  # by id of the model: what the outermost block has saved


@contextmanager
def preserve_model_state(model: nn.Module) -> Iterator[nn.Module]:
    """Restore `model` and the process state at the end of the block, also after an exception.

    Restored bit for bit: parameters, buffers and plain tensor attributes (values, dtype, device,
    `requires_grad`, the tensor objects themselves), gradients, the training flag of every single
    module, hooks, children and every other attribute, and the contents of plain lists, tuples,
    dicts and sets among the attributes, at any depth; the random state of Python, NumPy and torch;
    grad mode, the default dtype and the fused-attention switch.

    The outermost block copies the weights once; a block inside it copies nothing as long as the
    model is unchanged since. Comparing costs one read of the weights: version counters would be
    cheaper, but writes through `.data` do not move them. Tensors without data (meta, fake) are
    put back, not copied.
    """
    with ExitStack() as undo:
        for restore in _process_state():
            undo.callback(restore)
        saved = _active.get(id(model))
        if saved is None:
            saved = _active[id(model)] = [_save(held) for held in _held(model)]
            undo.callback(_active.pop, id(model))
        elif not all(each.is_unchanged() for each in saved):
            saved = [_save(held) for held in _held(model)]
        for each in saved:
            undo.callback(each.restore)
        yield model


def _held(model: nn.Module) -> list[Any]:
    """Every module, tensor and container of `model`, each once, owners first."""
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


def _save(held: Any) -> _Saved:
    import torch

    if isinstance(held, torch.nn.Module):
        return _SavedModule(held)
    return _save_tensor(held) if isinstance(held, torch.Tensor) else _save_container(held)


class _Unchangeable:
    """Objects that have nothing to restore."""

    def is_unchanged(self) -> bool:
        return True

    def restore(self) -> None:
        pass


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


class _SavedModule:
    """Class and attributes of a module; a lazy one changes its class when it is materialized."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._kind = type(module)
        self._attributes = dict(vars(module))

    def is_unchanged(self) -> bool:
        now = vars(self._module)
        return (
            type(self._module) is self._kind
            and now.keys() == self._attributes.keys()
            and all(now[name] is value for name, value in self._attributes.items())
        )

    def restore(self) -> None:
        if type(self._module) is not self._kind:
            self._module.__class__ = self._kind
        vars(self._module).clear()
        vars(self._module).update(self._attributes)


def _save_container(held: Any) -> _Saved:
    return _Unchangeable() if isinstance(held, tuple | frozenset) else _SavedContainer(held)


class _SavedContainer:
    """Contents of a container, which is refilled, not replaced: a hook's handle refers to it."""

    def __init__(self, held: Any) -> None:
        self._held = held
        self._content = held.copy()
        self._identities = _identities(held)

    def is_unchanged(self) -> bool:
        return _identities(self._held) == self._identities

    def restore(self) -> None:
        if self.is_unchanged():
            return  # some containers, those of transformers' outputs, refuse to be refilled
        held = self._held
        held.clear()
        if isinstance(held, list | deque):
            held.extend(self._content)
        else:
            held.update(self._content)


def _identities(held: Any) -> list[int]:
    parts = [*held.keys(), *held.values()] if isinstance(held, dict) else held
    return [id(part) for part in parts]


def _save_tensor(tensor: torch.Tensor) -> _Saved:
    from torch.nn.parameter import is_lazy

    if is_lazy(tensor):
        return _SavedLazyTensor(tensor)
    return _SavedTensor(tensor) if _has_data(tensor) else _Unchangeable()


class _SavedTensor:
    """Values, gradient and `requires_grad` of a tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._grad = tensor.grad if tensor.is_leaf else None
        self._needs_grad = tensor.requires_grad
        self._contents = [_content(held) for held in (tensor, self._grad) if held is not None]

    def is_unchanged(self) -> bool:
        tensor = self._tensor
        return (
            tensor.requires_grad == self._needs_grad
            and (not tensor.is_leaf or tensor.grad is self._grad)
            and all(content.is_unchanged() for content in self._contents)
        )

    def restore(self) -> None:
        import torch

        tensor = self._tensor
        if tensor.is_leaf:
            tensor.grad = None  # a gradient must match its tensor at every moment
        with torch.no_grad():
            for content in self._contents:
                content.restore()
        if tensor.is_leaf:
            if tensor.requires_grad != self._needs_grad:  # an inference tensor refuses even this
                tensor.requires_grad_(self._needs_grad)
            tensor.grad = self._grad


def _content(tensor: torch.Tensor) -> _Saved:
    import torch

    if tensor.layout != torch.strided or tensor.is_nested:
        return _SavedParts(tensor)
    return _SavedContent(tensor)


class _SavedContent:
    """Where a dense tensor's storage lies, and a copy of it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._alias = tensor.detach()
        self._memory = _memory(tensor)
        self._copy = self._memory.clone()

    def is_unchanged(self) -> bool:
        return _same_place(self._tensor, self._alias) and _same_bits(self._memory, self._copy)

    def restore(self) -> None:
        import torch

        with torch.inference_mode(self._tensor.is_inference()):  # else writing is refused
            if not _same_place(self._tensor, self._alias):
                self._tensor.data = self._alias
            if not _same_bits(self._memory, self._copy):
                self._memory.copy_(self._copy)


class _SavedParts:
    """A sparse tensor is its indices and values, a nested one its rows, all of them dense."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._alias = tensor.detach()
        self._parts = _parts(self._alias)
        self._contents = [_content(part) for part in self._parts]

    def _in_place(self) -> bool:
        return all(map(_same_place, _parts(self._tensor.detach()), self._parts))

    def is_unchanged(self) -> bool:
        return self._in_place() and all(content.is_unchanged() for content in self._contents)

    def restore(self) -> None:
        if not self._in_place():
            self._tensor.data = self._alias
        for content in self._contents:
            content.restore()


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """The storage of `tensor` as a flat tensor: an expanded tensor shows an element many times."""
    import torch

    if tensor.is_contiguous():
        return tensor.detach()
    numbers = tensor.untyped_storage().nbytes() // tensor.element_size()
    return torch.as_strided(tensor.detach(), (numbers,), (1,), 0)


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
    return []  # other layouts are not written to in place


class _SavedLazyTensor:
    """A lazy parameter changes its class and its data in place when it is materialized."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._kind = type(tensor)
        self._empty = tensor.data

    def is_unchanged(self) -> bool:
        return type(self._tensor) is self._kind

    def restore(self) -> None:
        self._tensor.data = self._empty
        self._tensor.__class__ = self._kind


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
