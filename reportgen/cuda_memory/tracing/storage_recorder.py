"""A dispatch mode that records every storage that a step creates and frees, in order."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..memory_trace import Allocation, MemoryTrace, Request
from .data_dependent import RecordedValues
from .output_cache import OutputCache

Tensor = torch.Tensor
aten = torch.ops.aten
_ADD = aten.add.Tensor


def adds_in_place(args: tuple[Any, ...], sole: tuple[int, int]) -> bool:
    """Whether autograd would sum two gradients in place, into the first one.

    The engine does so if nothing else references the first gradient. Under a dispatch mode it
    always allocates a new tensor, which the recorder has to undo. `sole` is `sole_owner_counts()`,
    which cannot be measured inside a backward pass.
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
    # an expanded gradient, as that of `sum`: one element in memory stands for many
    return any(
        step == 0 and size > 1 for size, step in zip(tensor.shape, tensor.stride(), strict=True)
    )


def _counts(tensor: Tensor) -> tuple[int, int]:
    """References to the tensor and to its storage, those of the calling frames included."""
    storage = tensor.untyped_storage()
    return tensor._use_count(), torch._C._storage_Use_Count(storage._cdata)


@cache
def sole_owner_counts() -> tuple[int, int]:
    """`_counts` of a gradient that only the engine references, measured on one."""
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
    """As deep in the call stack as `adds_in_place`, so that both count the same references."""
    held, _other = args
    return _counts(held)


Kernel = Callable[["StorageRecorder", tuple[Any, ...], Any], None]
Shortcut = Callable[[tuple[Any, ...]], Any]
"""Returns an operator's result from its arguments, or NotImplemented to run the operator."""

_DEVICE_QUERY = torch.ops.prim.device.default
_sequence_number: Callable[[], int] = torch._C._autograd._get_sequence_nr
_SCALAR_SOURCES = {aten.lift_fresh.default, aten.scalar_tensor.default}
# keyword arguments that change neither shape nor type of a result
_HARMLESS = {"alpha", "value", "non_blocking", "memory_format", "pin_memory"}
_LONGEST_TURN_SECONDS = 1.0  # a thread waits this long for its turn, then runs anyway
_SCALAR_FACTORIES = {aten.zeros.default, aten.empty.memory_format}


@dataclass(slots=True)
class _Record:
    """An `Allocation` whose category may still change."""

    size_bytes: int
    category: str
    path: str
    op: str
    request: Request | None = None


class _Running(threading.local):
    """The modules running in this thread, outermost first; `visit` ends with the outermost."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.visit = ExitStack()


class StorageRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the new storages, scratch memory and frees of each ATen call below autograd.

    `kernels` maps an ATen overload to the function that records the allocations of its CUDA kernel,
    for kernels that allocate more than their outputs; `shortcuts` replace slow fake operators,
    `cache` answers calls that it knows, and `values` data-dependent ones. `scalars_stay_on_host`
    ignores zero-dimensional factories in the optimizer, which torch keeps on the CPU.

    A dispatch mode is active in one thread only. If the model calls modules in other threads, the
    recorder enters itself there and runs them one at a time; `ran_in_threads` is True then.
    """

    def __init__(
        self,
        kernels: Mapping[Any, Kernel],
        shortcuts: Mapping[Any, Shortcut],
        cache: OutputCache | None = None,
        values: RecordedValues | None = None,
        *,
        scalars_stay_on_host: bool,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._kernels = kernels
        self._shortcuts = shortcuts
        self._cache = cache
        self._values = values
        self._sole = sole_owner_counts()
        self._scalars_stay_on_host = scalars_stay_on_host
        self._records: list[_Record] = []
        self._events: list[int] = []
        self._marks: list[tuple[int, str]] = []
        self._live: dict[int, int] = {}  # address of a storage -> index of its record
        self._references: dict[int, weakref.ref[Any]] = {}
        self._running = _Running()
        self._main_thread = threading.get_ident()
        self._turn = threading.Lock()
        self._one_at_a_time = threading.RLock()
        self.ran_in_threads = False
        self._path_of_node: dict[int, str] = {}
        self._kept: set[tuple[str, bool, bool]] = set()
        self._phase = ""
        self._op = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with self._one_at_a_time:
            return self._run_and_record_op(func, args, kwargs or {})

    def _run_and_record_op(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if func is _DEVICE_QUERY:  # `tensor.device` of a fake tensor: frequent, and no kernel
            return getattr(args[0], "fake_device", None) or func(*args, **kwargs)
        if func is _ADD and self.in_backward and adds_in_place(args, self._sole):
            return aten.add_.Tensor(*args)
        result = self._result(func, args, kwargs)
        # the last number given to an autograd node: if that of this operator, its backward is
        # assigned to the module too
        if self._running.paths:
            self._path_of_node[_sequence_number() - 1] = self._running.paths[-1]
        self._op = func.__name__
        kernel = self._kernels.get(func)
        if kernel is not None:
            kernel(self, args, result)
        elif not self._is_host_scalar(func, result):
            self.outputs(result)
        return result

    def _result(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        if self._cache is not None:
            return self._cache.result(func, args, kwargs, partial(self._run, func, args, kwargs))
        return self._run(func, args, kwargs)

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        shortcut = self._shortcuts.get(func)
        if shortcut is not None and not kwargs.keys() - _HARMLESS:
            quick = shortcut(args)
            if quick is not NotImplemented:
                return quick
        if self._values is not None:
            return self._values.run(func, args, kwargs)
        return func(*args, **kwargs)

    def mark(self, phase: str) -> None:
        """Start a phase; temporaries alive at the start of backward become saved activations."""
        if phase == "backward":
            self._mark_saved()
        self._phase = phase
        self._marks.append((len(self._events), phase))

    def outputs(self, result: Any) -> None:
        """Record the new storages among the results, in order."""
        if isinstance(result, Tensor):
            self.output(result)
        elif isinstance(result, (list, tuple)):
            for item in result:
                self.outputs(item)

    def output(self, tensor: Tensor) -> None:
        """Record the storage of a tensor, unless it is already known."""
        if tensor.layout is not torch.strided:  # has no storage of its own
            return
        storage = tensor.untyped_storage()
        if storage._cdata not in self._live:
            self._begin(
                storage, _Record(storage.nbytes(), self._category(), self._path(), self._op)
            )

    def scratch(self, size_bytes: int) -> None:
        """Record memory that a kernel allocates and frees within its call."""
        if size_bytes > 0:
            index = self._add(_Record(size_bytes, "temporary", self._path(), self._op))
            self._events.append(~index)

    def request(self, request: Request, *, category: str = "workspace") -> None:
        """Record memory that a library allocates and frees within a call."""
        index = self._add(_Record(0, category, self._path(), self._op, request))
        self._events.append(~index)

    def request_once(self, rule: str) -> None:
        """Record memory that a library keeps per thread; the backward pass runs in its own thread.

        The threads of a model share it: which of a pool's threads runs a module differs from run
        to run.
        """
        key = (rule, self.in_backward, threading.get_ident() == self._main_thread)
        if key not in self._kept:
            self._kept.add(key)
            self._add(_Record(0, "workspace", "", self._op, Request(rule=rule)))

    @property
    def in_backward(self) -> bool:
        """Whether the autograd engine is running, recomputation included."""
        return self._phase == "backward"

    def declare(self, tensors: Iterable[tuple[str, Tensor]], category: str) -> None:
        """Record tensors that exist before the step; the parent of the name is the module path."""
        for name, tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._live:
                path = name.rpartition(".")[0]
                self._begin(storage, _Record(storage.nbytes(), category, path, "load"))

    def relabel(self, tensors: Iterable[Tensor], category: str) -> None:
        """Set the category of the blocks of these tensors."""
        for tensor in tensors:
            index = self._live.get(tensor.untyped_storage()._cdata)
            if index is not None:
                self._records[index].category = category

    def relabel_gradients(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Assign gradients to the module of their parameter."""
        for name, parameter in named:
            if parameter.grad is None:
                continue
            index = self._live.get(parameter.grad.untyped_storage()._cdata)
            if index is not None:
                self._records[index].category = "gradient"
                self._records[index].path = name.rpartition(".")[0]

    def trace(self, *, batch: int, method: str, notes: tuple[str, ...]) -> MemoryTrace:
        """The recorded trace."""
        allocations = tuple(
            Allocation(
                size_bytes=record.size_bytes,
                category=record.category,
                path=record.path,
                op=record.op,
                request=record.request,
            )
            for record in self._records
        )
        return MemoryTrace(
            batch=batch,
            allocations=allocations,
            events=tuple(self._events),
            marks=tuple(self._marks),
            method=method,
            notes=notes,
        )

    def stop(self) -> None:
        """Stop recording frees of the storages that are still alive."""
        self._references.clear()
        self._live.clear()

    @contextmanager
    def module_paths(self, model: nn.Module) -> Iterator[None]:
        """Track which module is running, with global hooks: those of the model stay unchanged."""
        names = {id(module): name for name, module in model.named_modules()}
        running = self._running

        def enter(module: nn.Module, _args: Any) -> None:
            # dispatch modes are per thread, so a new thread starts without the recorder
            if not running.paths and threading.get_ident() != self._main_thread:
                running.visit.enter_context(self._in_other_thread())
            # a module that is called but not registered counts for its caller
            inherited = running.paths[-1] if running.paths else ""
            running.paths.append(names.get(id(module), inherited))

        def leave(_module: nn.Module, _args: Any, _result: Any) -> None:
            if running.paths:
                running.paths.pop()
            if not running.paths:
                running.visit.close()

        registered = nn.modules.module
        handles = [
            registered.register_module_forward_pre_hook(enter),
            # always: a model may catch the exception of a submodule and go on
            registered.register_module_forward_hook(leave, always_call=True),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            running.paths.clear()

    @contextmanager
    def _in_other_thread(self) -> Iterator[None]:
        """Record another thread, one at a time, but without deadlock if modules wait for others."""
        self.ran_in_threads = True
        is_my_turn = self._turn.acquire(timeout=_LONGEST_TURN_SECONDS)
        try:
            with self:
                yield
        finally:
            if is_my_turn:
                self._turn.release()

    def _add(self, record: _Record) -> int:
        self._records.append(record)
        index = len(self._records) - 1
        self._events.append(index)
        return index

    def _begin(self, storage: torch.UntypedStorage, record: _Record) -> None:
        index = self._add(record)
        key = storage._cdata
        self._live[key] = index

        def end(_reference: object) -> None:
            # another storage may have taken the address before this one's callback runs
            if self._live.get(key) == index:
                del self._live[key]
                del self._references[key]
                self._events.append(~index)

        self._references[key] = weakref.ref(storage, end)

    def _mark_saved(self) -> None:
        for index in self._live.values():
            record = self._records[index]
            if record.category == "temporary":
                record.category = "saved_activation"

    def _category(self) -> str:
        if self._phase == "inputs":
            return "input"
        if self._phase == "backward" and torch.is_grad_enabled():  # recomputed by checkpointing
            return "saved_activation"
        return "temporary"

    def _path(self) -> str:
        if self._running.paths:
            return self._running.paths[-1]
        if not self.in_backward:
            return ""
        node = torch._C._current_autograd_node()
        return "" if node is None else self._path_of_node.get(node._sequence_nr(), "")

    def _is_host_scalar(self, func: Any, result: Any) -> bool:
        if not isinstance(result, Tensor) or result.dim():
            return False
        if func in _SCALAR_SOURCES:  # a Python number becomes a CPU tensor, beside CUDA ones too
            return True
        # an optimizer's step count, on the CPU unless the optimizer is fused or capturable
        return (
            self._phase == "optimizer" and self._scalars_stay_on_host and func in _SCALAR_FACTORIES
        )
