"""Watches one forward pass: which operators run, in which module, and how much they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_WORK_PER_BYTE = 20  # what a core computes while one byte goes to memory and back
_ABOUT_TENSORS = ("prim", "prims")  # questions such as "on which device?", not arithmetic
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_RANDOM = torch.Tag.nondeterministic_seeded

Operator = tuple[str, tuple[bool | float, ...]]
"""An operator's name, and the switches and rates among its arguments."""


class Running:
    """Knows which module is running, and after a failure in which it happened."""

    def __init__(self, model: nn.Module) -> None:
        self.calls: Counter[str] = Counter()
        self.normalised: dict[str, int] = {}  # fewest values that a batch norm had per channel
        self._paths = paths_of(model)
        self._stack: list[int] = []

    @property
    def path(self) -> str:
        """Path of the innermost module; "" for the model itself and outside of it."""
        return self._paths[self._stack[-1]] if self._stack else ""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow every call; the place of a failure stays known."""
        self._stack.clear()
        before = nn.modules.module.register_module_forward_pre_hook(self._enter)
        after = nn.modules.module.register_module_forward_hook(self._leave)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if id(module) not in self._paths:
            return
        path = self._paths[id(module)]
        self._stack.append(id(module))
        self.calls[path] += 1
        if isinstance(module, _BATCH_NORM) and args and isinstance(args[0], Tensor):
            values = args[0].numel() // max(1, module.num_features)
            self.normalised[path] = min(values, self.normalised.get(path, values))

    def _leave(self, module: nn.Module, _: Any, __: Any) -> None:
        if id(module) in self._stack:  # a failure that the model caught has left its modules
            while self._stack.pop() != id(module):
                pass


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operator that runs inside it, by the module that called it."""

    supports_higher_order_operators = True

    def __init__(self, running: Running) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: Counter[str] = Counter()
        self.by_module: dict[str, Counter[Operator]] = {}
        self.random: dict[tuple[str, str], int] = {}  # (operator, path) -> calls
        self.written_bytes = 0
        self.flops = 0
        self.read: set[int] = set()  # storages
        self._running = running
        from torch.utils.flop_counter import flop_registry

        self._formulas = flop_registry

    @property
    def work(self) -> int:
        """What the pass costs, in floating-point operations or what takes as long."""
        return self.flops + _WORK_PER_BYTE * self.written_bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator and write down what it was."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = getattr(func, "_overloadpacket", func)
        name = str(packet).removeprefix("torch.ops.")
        if getattr(func, "namespace", "") in _ABOUT_TENSORS:
            return result
        path = self._running.path
        self.operators[name] += 1
        flags = tuple(v for v in (*args, *kwargs.values()) if isinstance(v, bool | float))
        self.by_module.setdefault(path, Counter())[name, flags] += 1
        self.read.update(storage_of(t) for t in tensors_in([args, kwargs]))
        if _RANDOM in getattr(func, "tags", ()):
            self.random[name, path] = self.random.get((name, path), 0) + 1
        if packet in self._formulas:
            self.flops += int(self._formulas[packet](*args, **kwargs, out_val=result))
        if not _writes_nothing_new(func):
            self.written_bytes += sum(map(bytes_of, tensors_in(result)))
        return result


def paths_of(model: nn.Module) -> dict[int, str]:
    """The first path of every module, by the module's id; the model itself has ""."""
    return {id(module): path for path, module in reversed(list(model.named_modules()))}


def tensors_in(value: object) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))


def storage_of(tensor: Tensor) -> int:
    """A number that all views of one tensor share."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse and other tensors without one storage
        return id(tensor)


def bytes_of(tensor: Tensor) -> int:
    """Bytes of the tensor's numbers."""
    return tensor.numel() * tensor.element_size()


def _writes_nothing_new(func: Any) -> bool:
    schema = getattr(func, "_schema", None)
    return bool(getattr(func, "is_view", False) or (schema is not None and schema.is_mutable))
