"""Counts of the operators of one forward pass, by the module that called them."""

from __future__ import annotations

from collections import Counter
from threading import RLock
from typing import Any

import torch
from torch.utils.flop_counter import flop_registry

from reportgen.tracing.op_recorder import OpRecorder
from reportgen.tracing.running_modules import RunningModules
from reportgen.tracing.tensors import storage_of, tensor_bytes, tensors_in

_WORK_PER_BYTE = 20  # operations of a core in the time in which it writes and reads one byte
_QUERY_NAMESPACES = ("prim", "prims")  # such as `prim.device`: queries, no arithmetic
_RANDOM = torch.Tag.nondeterministic_seeded

Operator = tuple[str, tuple[bool | float | str, ...]]
"""The name of an operator, and the booleans and floats among its arguments; NaN as a string."""


class OpRecord:
    """Counts the operators that run inside `recorder()`, also in threads of the model."""

    def __init__(self, running: RunningModules) -> None:
        self.operators: Counter[str] = Counter()
        self.by_module: dict[str, Counter[Operator]] = {}
        self.random: dict[tuple[str, str], int] = {}  # (operator, path) -> calls
        self.written_bytes = 0
        self.flops = 0
        self.read: set[int] = set()  # storages
        self._running = running
        self._lock = RLock()
        running.in_other_threads.append(self.recorder)
        self._formulas = flop_registry

    def recorder(self) -> OpRecorder:
        """A mode that writes into this record."""
        return OpRecorder(self._note)

    @property
    def work(self) -> int:
        """The cost of the pass: FLOPs, and writes as the number of FLOPs that take as long."""
        return self.flops + _WORK_PER_BYTE * self.written_bytes

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        with self._lock:  # threads of the model share this record
            self._count(func, args, kwargs, result)

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        packet = getattr(func, "_overloadpacket", func)
        name = str(packet).removeprefix("torch.ops.")
        if getattr(func, "namespace", "") in _QUERY_NAMESPACES:
            return
        path = self._running.path
        self.operators[name] += 1
        flags = tuple(
            v if v == v else "nan"  # NaN differs from itself, so equal calls would differ
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
            self.written_bytes += sum(map(tensor_bytes, tensors_in(result)))


def _writes_nothing_new(func: Any) -> bool:
    schema = getattr(func, "_schema", None)
    return bool(getattr(func, "is_view", False) or (schema is not None and schema.is_mutable))
