"""Which module is running at each moment, and what the modules return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from threading import RLock, get_ident
from typing import Any

from torch import nn

OnEnter = Callable[[str, nn.Module, tuple[Any, ...]], None]
"""Receives the path of a module, the module, and its positional arguments."""
OnReturn = Callable[[str, nn.Module, Any], None]
"""Receives the path of a module, the module, and what it returned."""
MakeContext = Callable[[], AbstractContextManager[Any]]


def paths_of(model: nn.Module) -> dict[int, str]:
    """The first path of every module, by the module's id; the model itself has ""."""
    return {id(module): path for path, module in reversed(list(model.named_modules()))}


class RunningModules:
    """Knows which module is running, and after a failure in which it happened.

    Operators and saved tensors are seen in one thread only. Where a model calls its modules in
    threads of its own, the contexts of `in_other_threads` are entered there for as long as such a
    thread is inside a module.
    """

    def __init__(self, model: nn.Module, on_enter: OnEnter | None = None) -> None:
        self.in_other_threads: list[MakeContext] = []
        self.calls: Counter[str] = Counter()
        self._on_enter = on_enter
        self._paths = paths_of(model)
        self._stack: list[int] = []
        self._home = get_ident()
        self._visits: dict[int, _Visit] = {}  # by thread
        self._lock = RLock()

    @property
    def is_inside(self) -> bool:
        """Whether some module is running in this thread."""
        return bool(self._stack_here)

    @property
    def path(self) -> str:
        """Path of the innermost module; "" for the model itself and outside of it."""
        stack = self._stack_here
        return self._paths[stack[-1]] if stack else ""

    @property
    def _stack_here(self) -> list[int]:
        visit = self._visits.get(get_ident())
        return self._stack if visit is None else visit.stack

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow every call; the place of a failure stays known."""
        self._stack.clear()
        self._home = get_ident()
        hooks = nn.modules.module
        with ExitStack() as undo:
            for handle in (
                hooks.register_module_forward_pre_hook(self._enter),
                hooks.register_module_forward_hook(self._leave),
                hooks.register_module_forward_hook(self._end_visit, always_call=True),
            ):
                undo.callback(handle.remove)
            yield

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if id(module) not in self._paths:
            return
        thread = get_ident()
        if thread != self._home and thread not in self._visits:
            self._visits[thread] = _Visit(module, self.in_other_threads)
        self._stack_here.append(id(module))
        if thread in self._visits:
            self._visits[thread].entered(module)
        path = self._paths[id(module)]
        with self._lock:
            self.calls[path] += 1
            if self._on_enter is not None:
                self._on_enter(path, module, args)

    def _leave(self, module: nn.Module, _: Any, __: Any) -> None:
        # not `always_call`: after a failure the stack must still show where it happened
        stack = self._stack_here
        if id(module) in stack:  # a failure that the model caught has left its modules
            while stack.pop() != id(module):
                pass

    def _end_visit(self, module: nn.Module, _: Any, __: Any) -> None:
        """Leave another thread with the module that led there, also after a failure."""
        visit = self._visits.get(get_ident())
        if visit is not None and visit.ends_with(module):
            del self._visits[get_ident()]
            visit.contexts.close()


class _Visit:
    """A thread of the model's own, from its outermost module's call to that one's end."""

    def __init__(self, outermost: nn.Module, make_contexts: list[MakeContext]) -> None:
        self.stack: list[int] = []
        self.contexts = ExitStack()
        self._outermost = outermost
        self._depth = 0  # it may call itself
        for make_context in make_contexts:
            self.contexts.enter_context(make_context())

    def entered(self, module: nn.Module) -> None:
        """A call of `module` has begun."""
        self._depth += module is self._outermost

    def ends_with(self, module: nn.Module) -> bool:
        """A call of `module` has ended; whether it was the one that led here."""
        self._depth -= module is self._outermost
        return self._depth == 0


@contextmanager
def calling_back(model: nn.Module, on_return: OnReturn) -> Iterator[None]:
    """Call `on_return` whenever a module of `model` returns, with its first path."""
    paths = paths_of(model)

    def hook(module: nn.Module, _: Any, output: Any) -> None:
        if id(module) in paths:
            on_return(paths[id(module)], module, output)

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
