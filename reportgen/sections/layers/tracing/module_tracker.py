"""Which module is running at each moment, and the shapes of its inputs and outputs."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from reportgen.error_text import user_location
from reportgen.pytree import modules_of, named_tensors
from reportgen.sections.layers.modules import (
    Hidden,
    hidden,
    is_skeleton,
    is_within,
    kept_by_functions,
    walk,
)
from reportgen.sections.layers.result import Shape, Unregistered
from reportgen.sections.layers.tracing.op_counter import OpCounter
from reportgen.tracing.tensors import dtype_name, shape_of, storage_of, tensor_bytes

_TORCH = f"{Path(torch.__file__).parent}{os.sep}"
_PACKAGE = f"{Path(__file__).parents[3]}{os.sep}"


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCall:
    """One call of one module."""

    path: str
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    output_dtypes: tuple[str, ...]
    output_bytes: int
    hooked: bool  # False: `.forward()` was called directly, which runs no hooks


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedCall:
    """A call of a module that raised an error."""

    path: str
    inputs: dict[str, Shape]


def shapes_of(leaves: dict[str, Tensor]) -> dict[str, Shape]:
    """The shape of every leaf, by its key."""
    return {key: shape_of(tensor) for key, tensor in leaves.items()}


class ModuleTracker:
    """Tracks which module is running, under which of its paths."""

    counter: OpCounter  # set by the caller: the counter needs `place` of the tracker

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._calls: list[LayerCall] = []
        self.elsewhere: list[LayerCall] = []  # calls in the model's own threads
        self._unregistered_calls: list[tuple[nn.Module, Unregistered]] = []
        self._kept = kept_by_functions(model)
        self.failed: FailedCall | None = None  # the first call that raised, the innermost
        self.to_numpy: set[str] = set()  # paths of modules that convert tensors to NumPy arrays
        self._thread = threading.get_ident()
        self._local = threading.local()
        self._stack: list[str] = []
        self._lock = threading.Lock()
        self._modules = {id(node.module): node.module for node in walk(model)}
        self._paths: dict[int, list[str]] = {}
        for node in walk(model):
            self._paths.setdefault(id(node.module), []).append(node.path)
        self._known = {id(module) for item in hidden(model) for module in _modules_of(item)}
        self._announced: set[int] = set()  # called by `module(...)`, forward not yet entered
        self._count: Counter[str] = Counter()
        self.called_at: dict[str, tuple[str, int]] = {}  # file and line of the first call

    @property
    def _running(self) -> list[str]:
        """Paths of the running modules; a new thread starts below those of the main thread."""
        if threading.get_ident() == self._thread:
            return self._stack
        if not hasattr(self._local, "stack"):
            self._local.stack = list(self._stack)
        stack: list[str] = self._local.stack
        return stack

    @property
    def is_inside(self) -> bool:
        """Whether some module is running."""
        return bool(self._running)

    def calls_in_order(self) -> list[LayerCall]:
        """Calls in the order in which they ended."""
        # those of threads first and by path: the order in which threads end varies
        return [*sorted(self.elsewhere, key=lambda call: call.path), *self._calls]

    def unregistered_calls(self) -> tuple[Unregistered, ...]:
        """Called modules that are not registered in the model, before or after the pass."""
        own = {id(module) for module in modules_of(self._model)}
        return tuple(
            item
            for module, item in self._unregistered_calls
            if id(module) not in own and not all(map(self._is_stand_in, module.parameters(False)))
        )

    def _is_stand_in(self, parameter: nn.Parameter) -> bool:
        return self._is_copy(parameter) or is_skeleton(parameter, self._model)

    def _is_copy(self, parameter: nn.Parameter) -> bool:
        # `copy.deepcopy` of a layer inside forward clones the parameters of the model
        return storage_of(parameter) in self.counter.copies

    def place(self, parameters: list[str]) -> str:
        """Path of the running module, or of the module below it whose parameter is read."""
        running = self._running[-1] if self._running else ""
        for name in parameters:
            owner = name.rpartition(".")[0]
            if is_within(owner, running):
                return owner
        return running

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Track every call inside the block."""
        # `forward` is wrapped because hooks miss `module.forward(x)`; hooks tell both kinds apart
        hooks = nn.modules.module
        with ExitStack() as undo:
            undo.callback(hooks.register_module_forward_pre_hook(self._announce).remove)
            left = hooks.register_module_forward_hook(
                self._leave, with_kwargs=True, always_call=True
            )
            undo.callback(left.remove)
            undo.enter_context(self._recording_numpy())
            for module in self._modules.values():
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # its forward is compiled and cannot be wrapped: hooks alone see it
                attributes = vars(module)
                before = attributes.get("forward", _ABSENT)
                attributes["forward"] = self._wrapped(module, module.forward)
                undo.callback(_restore_forward, attributes, before)
            yield

    @contextmanager
    def _recording_numpy(self) -> Iterator[None]:
        """Record tensors converted to NumPy, whose computations cannot be counted."""
        tensors: Any = Tensor
        before, take = vars(Tensor).get("numpy", _ABSENT), tensors.numpy

        @wraps(take)
        def numpy(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            array = take(tensor, *args, **kwargs)
            self.to_numpy.add(self.place(self.counter.note_used([tensor])))
            return array

        tensors.numpy = numpy
        try:
            yield
        finally:
            if before is _ABSENT:
                del tensors.numpy
            else:
                tensors.numpy = before

    def _announce(self, module: nn.Module, _: Any) -> None:
        if id(module) in self._modules:
            if isinstance(module, torch.jit.ScriptModule):
                self._enter(module)
            else:
                self._announced.add(id(module))
        elif id(module) not in self._known and any(True for _ in module.parameters(False)):
            self._known.add(id(module))
            item = Unregistered(
                path=self._kept.get(id(module)) or self._called_at(),
                type=type(module).__name__,
                parameters=sum(p.numel() for p in module.parameters(False)),
                deliberate=not any(p.requires_grad for p in module.parameters(False)),
            )
            self._unregistered_calls.append((module, item))

    def _called_at(self) -> str:
        where = (self._running[-1] if self._running else "") or "the model"
        frame: FrameType | None = sys._getframe(2)  # 2: without `_called_at` and `_announce`
        while frame is not None:
            if place := user_location(frame.f_code.co_filename, frame.f_lineno):
                return f"{where}, called at {place}"
            frame = frame.f_back
        return f"{where}, held elsewhere"

    def _enter(self, module: nn.Module) -> str:
        path = self._path_of(module)
        self._count[path] += 1
        self._running.append(path)
        return path

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if id(module) in self._modules and isinstance(module, torch.jit.ScriptModule):
            inputs = shapes_of(_named(args, kwargs))
            self._note_call(self._running.pop(), inputs, output, hooked=True)

    def _wrapped(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def tracked(*args: Any, **kwargs: Any) -> Any:
            hooked = id(module) in self._announced
            self._announced.discard(id(module))
            inputs = shapes_of(_named(args, kwargs))
            path = self._enter(module)
            self._note_caller(path, module)
            try:
                with self._counting():
                    output = forward(*args, **kwargs)
            except Exception:
                self.failed = self.failed or FailedCall(path=path, inputs=inputs)
                raise
            finally:
                self._running.pop()
            self._note_call(path, inputs, output, hooked=hooked)
            return output

        return tracked

    def _note_caller(self, path: str, module: nn.Module) -> None:
        """The innermost line outside torch that led to the first call of `path`."""
        if path in self.called_at:
            return
        frame: FrameType | None = sys._getframe(2)  # 2: without `_note_caller` and `tracked`
        while frame is not None:
            file = frame.f_code.co_filename
            # `__call__` of the module itself, if its class has its own
            inside = file == __file__ or file.startswith(_TORCH)
            if not inside and frame.f_locals.get("self") is not module:
                if not file.startswith(_PACKAGE):  # else the model itself is called
                    self.called_at[path] = file, frame.f_lineno
                return
            frame = frame.f_back

    @contextmanager
    def _counting(self) -> Iterator[None]:
        # dispatch modes are thread-local: one of the model's own threads needs a counter of its own
        if threading.get_ident() == self._thread or getattr(self._local, "counts", False):
            yield
            return
        counter = self.counter.sibling()
        self._local.counts = True
        try:
            with torch.no_grad(), counter:  # grad mode is thread-local too
                yield
        finally:
            self._local.counts = False
            with self._lock:
                self.counter.absorb(counter)

    def _note_call(self, path: str, inputs: dict[str, Shape], output: Any, *, hooked: bool) -> None:
        leaves = named_tensors(output)
        calls = self._calls if threading.get_ident() == self._thread else self.elsewhere
        calls.append(
            LayerCall(
                path=path,
                inputs=inputs,
                outputs=shapes_of(leaves),
                output_dtypes=tuple(sorted(set(map(dtype_name, leaves.values())))),
                output_bytes=sum(map(tensor_bytes, leaves.values())),
                hooked=hooked,
            )
        )

    def _path_of(self, module: nn.Module) -> str:
        """The path under which a shared module runs: the nearest below the running module.

        Equally near paths take turns, as for the items of `Sequential(layer, layer)`.
        """
        paths = self._paths[id(module)]
        if len(paths) == 1:
            return paths[0]
        for above in reversed(self._running):
            below = [path for path in paths if is_within(path, above)]
            if below:
                return min(below, key=lambda path: (path.count("."), self._count[path]))
        return min(paths, key=lambda path: self._count[path])


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    leaves: dict[str, Tensor] = {}
    for index, value in enumerate(args):
        leaves.update(named_tensors(value, str(index)))
    for name, value in kwargs.items():
        leaves.update(named_tensors(value, name))
    return leaves


def _modules_of(item: Hidden) -> list[nn.Module]:
    return list(modules_of(item.value)) if isinstance(item.value, nn.Module) else []


_ABSENT = object()


def _restore_forward(attributes: dict[str, Any], forward: Any) -> None:
    if forward is _ABSENT:
        attributes.pop("forward", None)
    else:
        attributes["forward"] = forward
