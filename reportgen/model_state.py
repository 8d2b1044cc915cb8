"""Preserves the state of a model: after a block it is bit for bit as it was before."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from reportgen.pytree import modules_of

if TYPE_CHECKING:
    import torch
    from torch import nn

_CONTAINERS = (dict, list, tuple, set, frozenset, deque)


class _Saved(Protocol):
    """The saved state of one object."""

    def is_unchanged(self) -> bool: ...

    def restore(self) -> None: ...


_active: dict[int, list[_Saved]] = {}  # by id of the model: what the outermost block saved


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
        _restore_process_state(undo)
        saved = _active.get(id(model))
        if saved is None:
            saved = _active[id(model)] = _save_all(model)
            undo.callback(_active.pop, id(model))
        elif not all(each.is_unchanged() for each in saved):
            saved = _save_all(model)
        for each in saved:
            undo.callback(each.restore)
        yield model


def _save_all(model: nn.Module) -> list[_Saved]:
    return [saved for part in parts_of_model(model) if (saved := _save(part)) is not None]


def parts_of_model(model: nn.Module) -> list[Any]:
    """Every module, tensor and container of `model`, each once, owners first."""
    import torch

    found: dict[int, Any] = {}
    # A stack, not recursion: containers may contain themselves or be nested deeply.
    waiting: list[Any] = list(reversed(list(modules_of(model))))
    while waiting:
        value = waiting.pop()
        if id(value) in found:
            continue
        if isinstance(value, torch.nn.Module):
            found[id(value)] = value
            waiting += [*modules_of(value), *value.parameters(False), *value._buffers.values()]
            waiting += vars(value).values()
        elif isinstance(value, torch.Tensor):
            found[id(value)] = value
        elif isinstance(value, _CONTAINERS):
            found[id(value)] = value
            waiting += value.values() if isinstance(value, dict) else value
    return list(found.values())


def _save(part: Any) -> _Saved | None:
    """The saved state of `part`; None if there is nothing to restore."""
    import torch
    from torch.nn.parameter import is_lazy

    if isinstance(part, torch.nn.Module):
        return _SavedModule(part)
    if not isinstance(part, torch.Tensor):
        return None if isinstance(part, tuple | frozenset) else _SavedContainer(part)
    if is_lazy(part):
        return _SavedLazyTensor(part)
    return _SavedTensor(part) if _has_data(part) else None


def _restore_process_state(undo: ExitStack) -> None:
    import numpy as np
    import torch

    undo.callback(random.setstate, random.getstate())
    undo.callback(np.random.set_state, np.random.get_state())
    undo.callback(torch.set_rng_state, torch.get_rng_state())
    undo.callback(torch.set_grad_enabled, torch.is_grad_enabled())
    undo.callback(torch.set_default_dtype, torch.get_default_dtype())
    mha = torch.backends.mha
    undo.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
    # Reading the generators of an uninitialized CUDA would initialize it.
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        undo.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())


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
        # vars, not setattr: `nn.Module.__setattr__` would register modules and parameters
        vars(self._module).clear()
        vars(self._module).update(self._attributes)


class _SavedContainer:
    """Contents of a container, which is refilled, not replaced: a hook's handle refers to it."""

    def __init__(self, container: Any) -> None:
        self._container = container
        self._content = container.copy()
        self._identities = _identities(container)

    def is_unchanged(self) -> bool:
        return _identities(self._container) == self._identities

    def restore(self) -> None:
        if self.is_unchanged():
            return  # some containers, those of transformers' outputs, refuse to be refilled
        self._container.clear()
        if isinstance(self._container, list | deque):
            self._container.extend(self._content)
        else:
            self._container.update(self._content)


def _identities(container: Any) -> list[int]:
    # ids, not `==`: comparing tensors gives a tensor, and equal items may still be other objects
    parts = [*container, *container.values()] if isinstance(container, dict) else container
    return [id(part) for part in parts]


class _SavedTensor:
    """Values, gradient and `requires_grad` of a tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._grad = tensor.grad if tensor.is_leaf else None  # `grad` of others warns
        self._needs_grad = tensor.requires_grad
        self._contents = [_content(t) for t in (tensor, self._grad) if t is not None]

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
            tensor.grad = None  # shape and dtype of a gradient must match at every moment
        with torch.no_grad():
            for content in self._contents:
                content.restore()
        if tensor.is_leaf:
            if tensor.requires_grad != self._needs_grad:
                tensor.requires_grad_(self._needs_grad)
            tensor.grad = self._grad


def _content(tensor: torch.Tensor) -> _Saved:
    import torch

    if tensor.layout != torch.strided or tensor.is_nested:
        return _SavedParts(tensor)
    return _SavedContent(tensor)


class _SavedContent:
    """A dense tensor's view of its storage, and a copy of the storage."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self._alias = tensor.detach()
        self._memory = _memory(tensor)
        self._copy = self._memory.clone()

    def is_unchanged(self) -> bool:
        return _is_same_view(self._tensor, self._alias) and _same_bits(self._memory, self._copy)

    def restore(self) -> None:
        import torch

        # torch refuses in-place writes to an inference tensor outside inference mode
        with torch.inference_mode(self._tensor.is_inference()):
            if not _is_same_view(self._tensor, self._alias):
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

    def _has_same_parts(self) -> bool:
        return all(map(_is_same_view, _parts(self._tensor.detach()), self._parts))

    def is_unchanged(self) -> bool:
        return self._has_same_parts() and all(content.is_unchanged() for content in self._contents)

    def restore(self) -> None:
        if not self._has_same_parts():
            self._tensor.data = self._alias
        for content in self._contents:
            content.restore()


def _memory(tensor: torch.Tensor) -> torch.Tensor:
    """The storage of `tensor` as a flat tensor."""
    import torch

    # The storage, not the view: torch refuses to write to an expanded tensor in place.

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
    return []  # MKL-DNN tensors are opaque


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
    # Subclasses, such as fake tensors, may have no storage of their own.
    plain = type(tensor).__name__ in ("Tensor", "Parameter", "Buffer") or tensor.is_nested
    return plain and tensor.device.type != "meta"


def _is_same_view(tensor: torch.Tensor, alias: torch.Tensor) -> bool:
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
    if tensor.dtype.is_complex or tensor.numel() == 0:  # conjugates cannot be viewed as bytes
        return tensor.numel() == 0
    mine, other = (each.detach().reshape(-1).view(torch.uint8) for each in (tensor, copy))
    if mine.storage_offset() % 8:  # torch views 64-bit words from multiples of 8 on only
        return torch.equal(mine, other)
    words = mine.numel() // 8 * 8  # six times as fast as bytes
    return torch.equal(
        mine[:words].view(torch.int64), other[:words].view(torch.int64)
    ) and torch.equal(mine[words:], other[words:])
