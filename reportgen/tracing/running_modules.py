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
    """Tracks which module is running; after a failure, `path` is the module that raised.

    Dispatch modes and saved-tensor hooks are thread-local. If a model calls modules in its own
    threads, the contexts of `in_other_threads` are entered there while a module is running.
    """

    def __init__(self, model: nn.Module, on_enter: OnEnter | None = None) -> None:
        self.in_other_threads: list[MakeContext] = []
        self.calls: Counter[str] = Counter()
        self._on_enter = on_enter
        self._paths = paths_of(model)
        self._stack: list[int] = []
        self._main_thread = get_ident()
        self._thread_calls: dict[int, _ThreadCall] = {}  # by thread
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
        call = self._thread_calls.get(get_ident())
        return self._stack if call is None else call.stack

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Track every call inside the block; `path` remains valid after a failure."""
        self._stack.clear()
        self._main_thread = get_ident()
        # global hooks: the hook dicts of the modules, which are part of their state, do not change
        hooks = nn.modules.module
        with ExitStack() as undo:
            for handle in (
                hooks.register_module_forward_pre_hook(self._enter),
                hooks.register_module_forward_hook(self._leave),
                hooks.register_module_forward_hook(self._end_thread_call, always_call=True),
            ):
                undo.callback(handle.remove)
            yield

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if id(module) not in self._paths:
            return
        thread = get_ident()
        if thread != self._main_thread and thread not in self._thread_calls:
            self._thread_calls[thread] = _ThreadCall(module, self.in_other_threads)
        self._stack_here.append(id(module))
        if thread in self._thread_calls:
            self._thread_calls[thread].enter(module)
        path = self._paths[id(module)]
        with self._lock:
            self.calls[path] += 1
            if self._on_enter is not None:
                self._on_enter(path, module, args)

    def _leave(self, module: nn.Module, _: Any, __: Any) -> None:
        # not `always_call`: after a failure the stack must still contain the module that raised
        stack = self._stack_here
        if id(module) in stack:  # above it are modules that raised an error that the model caught
            while stack.pop() != id(module):
                pass

    def _end_thread_call(self, module: nn.Module, _: Any, __: Any) -> None:
        # `always_call`: modes must be left in their own thread, also after a failure
        call = self._thread_calls.get(get_ident())
        if call is not None and call.leave(module):
            del self._thread_calls[get_ident()]
            call.contexts.close()


class _ThreadCall:
    """The outermost module call in one of the model's own threads."""

    def __init__(self, outermost: nn.Module, make_contexts: list[MakeContext]) -> None:
        self.stack: list[int] = []
        self.contexts = ExitStack()
        self._outermost = outermost
        self._depth = 0  # the module may call itself
        for make_context in make_contexts:
            self.contexts.enter_context(make_context())

    def enter(self, module: nn.Module) -> None:
        self._depth += module is self._outermost

    def leave(self, module: nn.Module) -> bool:
        """End a call of `module`; whether it was the outermost one."""
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
