"""What the operators of one forward pass did, by the module that called them."""

from __future__ import annotations

from collections import Counter
from threading import RLock
from typing import Any

import torch

from reportgen.tracing.op_recorder import OpRecorder
from reportgen.tracing.running_modules import RunningModules
from reportgen.tracing.tensors import storage_of, tensor_bytes, tensors_in

_WORK_PER_BYTE = 20  # what a core computes while one byte goes to memory and back
_ABOUT_TENSORS = ("prim", "prims")  # questions such as "on which device?", not arithmetic
_RANDOM = torch.Tag.nondeterministic_seeded

Operator = tuple[str, tuple[bool | float | str, ...]]
"""An operator's name, and the switches and rates among its arguments; NaN as a word."""


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
        from torch.utils.flop_counter import flop_registry

        self._formulas = flop_registry

    def recorder(self) -> OpRecorder:
        """A mode that writes into this record."""
        return OpRecorder(self._note)

    @property
    def work(self) -> int:
        """What the pass costs, in floating-point operations or what takes as long."""
        return self.flops + _WORK_PER_BYTE * self.written_bytes

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        with self._lock:
            self._count(func, args, kwargs, result)

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
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
            self.written_bytes += sum(map(tensor_bytes, tensors_in(result)))


def _writes_nothing_new(func: Any) -> bool:
    schema = getattr(func, "_schema", None)
    return bool(getattr(func, "is_view", False) or (schema is not None and schema.is_mutable))
