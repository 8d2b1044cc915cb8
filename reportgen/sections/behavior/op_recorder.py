"""Watches one forward pass: which operators run, in which module, and how much they do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import RLock, get_ident
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_WORK_PER_BYTE = 20  # what a core computes while one byte goes to memory and back
_ABOUT_TENSORS = ("prim", "prims")  # questions such as "on which device?", not arithmetic
_BATCH_NORM = nn.modules.batchnorm._BatchNorm
_RANDOM = torch.Tag.nondeterministic_seeded

Operator = tuple[str, tuple[bool | float | str, ...]]
"""An operator's name, and the switches and rates among its arguments; NaN as a word."""


class Watcher(Protocol):
    """What sees one thread only, and can send another of itself into a second thread."""

    def elsewhere(self) -> AbstractContextManager[Any]:
        """A context for the other thread that reports to this watcher."""


class Running:
    """Knows which module is running, and after a failure in which it happened.

    Operators and saved tensors are seen in one thread only. Where a model calls its modules in
    threads of its own, `watchers` follow each of them for as long as it is inside a module.
    """

    def __init__(self, model: nn.Module) -> None:
        self.watchers: list[Watcher] = []
        self.calls: Counter[str] = Counter()
        self.normalized: dict[str, int] = {}  # fewest values that a batch norm had per channel
        self._paths = paths_of(model)
        self._stack: list[int] = []
        self._home = get_ident()
        self._away: dict[int, _Visit] = {}  # by thread
        self._lock = RLock()

    @property
    def path(self) -> str:
        """Path of the innermost module; "" for the model itself and outside of it."""
        stack = self._stack_here
        return self._paths[stack[-1]] if stack else ""

    @property
    def _stack_here(self) -> list[int]:
        visit = self._away.get(get_ident())
        return self._stack if visit is None else visit.stack

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow every call; the place of a failure stays known."""
        self._stack.clear()
        self._home = get_ident()
        before = nn.modules.module.register_module_forward_pre_hook(self._enter)
        after = nn.modules.module.register_module_forward_hook(self._leave)
        always = nn.modules.module.register_module_forward_hook(self._go_home, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()
            always.remove()

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if id(module) not in self._paths:
            return
        path = self._paths[id(module)]
        if get_ident() != self._home and get_ident() not in self._away:
            self._away[get_ident()] = _Visit(module, self.watchers)
        self._stack_here.append(id(module))
        if get_ident() in self._away:
            self._away[get_ident()].entered(module)
        with self._lock:
            self.calls[path] += 1
            if isinstance(module, _BATCH_NORM) and args and isinstance(args[0], Tensor):
                values = args[0].numel() // max(1, module.num_features)
                self.normalized[path] = min(values, self.normalized.get(path, values))

    def _leave(self, module: nn.Module, _: Any, __: Any) -> None:
        stack = self._stack_here
        if id(module) in stack:  # a failure that the model caught has left its modules
            while stack.pop() != id(module):
                pass

    def _go_home(self, module: nn.Module, _: Any, __: Any) -> None:
        """Leave another thread with the module that led there, also after a failure."""
        visit = self._away.get(get_ident())
        if visit is not None and visit.ends_with(module):
            del self._away[get_ident()]
            visit.watching.close()


class _Visit:
    """A thread of the model's own, from its outermost module's call to that one's end."""

    def __init__(self, outermost: nn.Module, watchers: list[Watcher]) -> None:
        self.stack: list[int] = []
        self.watching = ExitStack()
        self._outermost = outermost
        self._depth = 0  # it may call itself
        for watcher in watchers:
            self.watching.enter_context(watcher.elsewhere())

    def entered(self, module: nn.Module) -> None:
        """A call of `module` has begun."""
        self._depth += module is self._outermost

    def ends_with(self, module: nn.Module) -> bool:
        """A call of `module` has ended; whether it was the one that led here."""
        self._depth -= module is self._outermost
        return self._depth == 0


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
        self._lock = RLock()
        running.watchers.append(self)
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
        result = func(*args, **(kwargs or {}))
        with self._lock:
            self.note(func, args, kwargs or {}, result)
        return result

    def elsewhere(self) -> AbstractContextManager[Any]:
        """A mode for another thread that writes into this record."""
        return _Deputy(self)

    def note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Write down one call of an operator."""
        packet = getattr(func, "_overloadpacket", func)
        name = str(packet).removeprefix("torch.ops.")
        if getattr(func, "namespace", "") in _ABOUT_TENSORS:
            return
        path = self._running.path
        self.operators[name] += 1
        flags = tuple(
            v if v == v else "nan"  # which differs from itself
            for v in (*args, *kwargs.values())
            if isinstance(v, bool | float)
        )
        self.by_module.setdefault(path, Counter())[name, flags] += 1
        self.read.update(storage_of(t) for t in tensors_in([args, kwargs]))
        if _RANDOM in getattr(func, "tags", ()):
            self.random[name, path] = self.random.get((name, path), 0) + 1
        if packet in self._formulas:
            self.flops += int(self._formulas[packet](*args, **kwargs, out_val=result))
        if not _writes_nothing_new(func):
            self.written_bytes += sum(map(bytes_of, tensors_in(result)))


class _Deputy(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the operators of another thread for a recorder: a mode holds in one thread only."""

    supports_higher_order_operators = True

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator and have it written down."""
        return self._recorder.__torch_dispatch__(func, types, args, kwargs)


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
