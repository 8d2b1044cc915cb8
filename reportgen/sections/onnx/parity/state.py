"""The state that a model keeps between calls: snapshot, changes, restore."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from reportgen.sections.onnx.parity_result import StateChange

if TYPE_CHECKING:
    from torch import Tensor, nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, tuple, set, frozenset, dict, deque)
_DEEPEST = 4  # levels of nested attributes
_MOST_BYTES = 400_000_000  # of parameters to copy
# torch's own attributes; parameters and buffers are followed apart
_MACHINERY = frozenset({"training", "_parameters", "_buffers", "_modules"})

Marks = dict[str, tuple[Any, ...]]  # where in an attribute -> what stands there


class State:
    """Parameters, buffers and attributes of a model as they are now.

    Lists later changes and restores the state. Parameters are copied and restored only with
    `copy_parameters`, up to 400 MB; `preserve_model_state` restores them after the section.
    """

    def __init__(self, model: nn.Module, *, copy_parameters: bool = False) -> None:
        from torch.nn.parameter import is_lazy

        self._model = model
        # a lazy parameter has no data yet
        held = {n: t for n, t in model.named_parameters() if copy_parameters and not is_lazy(t)}
        is_light = sum(tensor.nbytes for tensor in held.values()) <= _MOST_BYTES
        self._copies = {n: t.detach().clone() for n, t in held.items()} if is_light else {}
        self._buffers = {
            name: (tensor, tensor.detach().clone()) for name, tensor in model.named_buffers()
        }
        self._parameters = {
            name: (tensor, _fingerprint(tensor)) for name, tensor in model.named_parameters()
        }
        self._attributes = {
            name: _Attribute(module, key, value) for name, module, key, value in _attributes(model)
        }

    def changes(self) -> tuple[StateChange, ...]:
        """What has changed, sorted by path."""
        buffers = dict(self._model.named_buffers())
        parameters = dict(self._model.named_parameters())
        attributes = {name: value for name, _, _, value in _attributes(self._model)}
        changed = [
            *((name, "buffer") for name in buffers.keys() - self._buffers.keys()),
            *((name, "buffer") for name in self._buffers if self._moved(name, buffers)),
            *(
                (name, "parameter")
                for name, (tensor, version) in self._parameters.items()
                if parameters.get(name) is not tensor or _fingerprint(tensor) != version
            ),
            *((name, "attribute") for name in attributes.keys() - self._attributes.keys()),
            *(
                (name, "attribute")
                for name, attribute in self._attributes.items()
                if name not in attributes or attribute.differs(attributes[name])
            ),
        ]
        return tuple(StateChange(path=path, kind=kind) for path, kind in sorted(changed))

    def restore(self) -> None:
        """Restore buffers, attributes and copied parameters, as before the first call."""
        import torch

        modules = dict(self._model.named_modules())
        for name, (tensor, content) in self._buffers.items():
            path, _, key = name.rpartition(".")
            if path in modules:
                modules[path]._buffers[key] = tensor
            with torch.no_grad():
                if not same_values(tensor, content):
                    tensor.data = content.clone()
        self._restore_parameters(modules)
        # a list, since attributes are removed on the way
        for name, module, key, _ in list(_attributes(self._model)):
            if name not in self._attributes:
                vars(module).pop(key)
        for attribute in self._attributes.values():
            attribute.restore()

    def _restore_parameters(self, modules: Mapping[str, nn.Module]) -> None:
        for name, content in self._copies.items():
            path, _, key = name.rpartition(".")
            tensor, version = self._parameters[name]
            if path in modules and modules[path]._parameters.get(key) is not tensor:
                modules[path]._parameters[key] = tensor
            now = _fingerprint(tensor)
            if now != version:
                if now[0] == version[0] and _same_form(tensor, content):
                    tensor.data.copy_(content)
                else:  # `.data` was replaced
                    tensor.data = content.clone()
                self._parameters[name] = tensor, _fingerprint(tensor)

    def _moved(self, name: str, buffers: Mapping[str, Tensor]) -> bool:
        tensor, content = self._buffers[name]
        now = buffers.get(name)
        return now is None or not same_values(now, content) or now.shape != tensor.shape


class _Attribute:
    """One attribute of a module: its value, its parts, and how to restore it."""

    def __init__(self, module: nn.Module, key: str, value: Any) -> None:
        self._module, self._key, self._value = module, key, value
        self._marks = dict(_marks(value))
        self._copy = _copy(value) if not isinstance(value, _PLAIN) else None

    def differs(self, value: Any) -> bool:
        """Whether the value or anything inside it has changed."""
        now = dict(_marks(value))
        return now.keys() != self._marks.keys() or any(
            not _same_mark(mark, now[place]) for place, mark in self._marks.items()
        )

    def restore(self) -> None:
        """Restore the value itself if it has not changed, else its copy."""
        # the object itself if possible: other modules may share it
        now = vars(self._module).get(self._key)
        if now is self._value and not self.differs(now):
            return
        changed = self._copy is not None and self.differs(self._value)
        self._value = _copy(self._copy) if changed else self._value  # the copy is needed again
        vars(self._module)[self._key] = self._value
        self._marks = dict(_marks(self._value))


def _attributes(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, Any]]:
    """Every attribute of every module, without torch's own, with its path.

    An object that several modules share, such as a configuration, is yielded once.
    """
    seen: set[int] = set()
    for path, module in model.named_modules():
        for key, value in vars(module).items():
            if key in _MACHINERY or "_hooks" in key or key.startswith("_non_persistent"):
                continue
            if isinstance(value, _PLAIN) or id(value) not in seen:
                seen.add(id(value))
                yield (f"{path}.{key}" if path else key), module, key, value


def _marks(value: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """What identifies a value: a number, a tensor and its version, an object and its parts."""
    import torch

    if isinstance(value, torch.Tensor):
        yield place, ("tensor", value, _fingerprint(value))
        return
    if isinstance(value, _PLAIN):
        yield place, ("plain", value)
        return
    yield place, ("object", value)
    if depth < _DEEPEST:
        for key, child in _parts(value):
            yield from _marks(child, f"{place}.{key}", depth + 1)


def _fingerprint(tensor: Tensor) -> tuple[int, ...]:
    from torch.nn.parameter import is_lazy

    from reportgen.tracing.tensors import fingerprint

    return () if is_lazy(tensor) else fingerprint(tensor)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    import torch

    if isinstance(value, Mapping):
        yield from ((str(key), child) for key, child in value.items())
    elif isinstance(value, list | tuple | deque):
        yield from ((str(index), child) for index, child in enumerate(value))
    elif isinstance(value, set | frozenset):
        yield "length", len(value)  # its elements have no order to compare by
    elif not isinstance(value, type | torch.nn.Module) and not callable(value):
        yield from getattr(value, "__dict__", {}).items()


def _same_mark(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    if before[0] != after[0]:
        return False
    if before[0] == "plain":
        return bool(before[1] == after[1] or before[1] != before[1])  # NaN differs from itself
    return before[1] is after[1] and before[2:] == after[2:]


def _copy(value: Any) -> Any:
    """A copy to restore later; None if a call cannot write into the value."""
    import torch

    marks = [mark for _, mark in _marks(value)]
    holds_state = isinstance(value, _CONTAINERS) or any(mark[0] == "tensor" for mark in marks)
    # a copy of a module would be another module, with parameters of its own
    if not holds_state or any(isinstance(mark[1], torch.nn.Module) for mark in marks):
        return None
    try:
        return copy.deepcopy(value)
    except Exception:  # something in it cannot be copied: the object itself is restored
        return None


def same_values(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal in dtype, layout, shape and values; NaN equals itself."""
    from reportgen.tracing.tensors import parts_of

    # torch compares no sparse tensors; their indices and values are dense
    return _same_form(a, b) and all(map(_same_dense_values, parts_of(a), parts_of(b)))


def _same_dense_values(a: Tensor, b: Tensor) -> bool:
    import torch

    if not _same_form(a, b):
        return False
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


def _same_form(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors are equal in dtype, layout and shape."""
    return a.shape == b.shape and a.dtype == b.dtype and a.layout == b.layout
