"""Which nodes of a file onnxruntime's CPU and CUDA providers have kernels for.

The CPU build is asked for the kernels that it holds. Those of the CUDA provider come from a
table, since no CUDA build is at hand. onnxruntime's rule is followed: a kernel without a last
version fits operators that last changed in exactly its first one, and every type parameter that
the kernel restricts must have an allowed dtype.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from reportgen.onnx.model.protos import operator_name
from reportgen.sections.onnx.file_result import LackingOperator, Provider
from reportgen.sections.onnx.inspection.cuda_kernels import (
    CODES,
    NEWEST_OPSET,
    SOURCE,
    cuda_rows,
)
from reportgen.sections.onnx.inspection.node_types import TypedNode, slots_of
from reportgen.sections.onnx.inspection.nodes import module_path
from reportgen.sections.onnx.inspection.single_node_session import opens_alone

_NO_LIMIT = 2**31 - 1
_CAST = "cast to float32 and back"
_EXPANDED = "expanded into other operators"
_ON_CPU = "run on the CPU, with copies between the devices"
_TENSOR = re.compile(r"(seq\()?tensor\((\w+)\)\)?")
_CODED = {f"tensor({name})" for name in CODES.values()}
_HALF = {"tensor(float16)"}

Answer = Literal["yes", "no", "unknown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """One kernel: the versions of its operator, and the dtypes that it takes by type parameter."""

    first: int
    last: int | None
    allowed: Mapping[str, frozenset[str]]

    def fits(self, since: int, slots: Mapping[str, tuple[str | None, ...]]) -> Answer:
        """Whether the kernel takes a node of that version and those dtypes."""
        exact = self.first == since
        if not (exact or (self.last is not None and self.first < since <= self.last)):
            return "no"
        answer: Answer = "yes"
        for name, allowed in self.allowed.items():
            for dtype in slots.get(name, ()):
                if dtype is None:
                    answer = "unknown"
                elif dtype not in allowed:
                    return "no"
        return answer


Kernels = Mapping[tuple[str, str], Sequence[Kernel]]


@dataclass(slots=True)
class _Tally:
    """What one provider has been asked so far."""

    nodes: int = 0
    supported: int = 0
    unknown: int = 0
    lacking: defaultdict[tuple[str, int, tuple[str, ...], str], list[Any]] = field(
        default_factory=lambda: defaultdict(list)
    )


def ask_providers(nodes: Iterable[TypedNode], local: set[tuple[str, str]]) -> tuple[Provider, ...]:
    """The CPU's and the CUDA provider's answers for `nodes`; `local` names the file's functions."""
    import onnxruntime

    cpu, cuda = _Tally(), _Tally()
    ways_out: dict[tuple[tuple[str, str], int, tuple[str, ...]], str | None] = {}
    for typed in nodes:
        called = typed.domain, typed.node.op_type
        if called in local or called == ("", "Constant"):
            continue
        since, slots = slots_of(typed)
        on_cpu = _ask(_cpu_kernels(), called, since, slots)
        way_out: str | None = ""
        if on_cpu == "no":
            key = called, since, _dtypes(slots)
            if key not in ways_out:
                ways_out[key] = _cpu_way_out(typed, called, since, slots)
            way_out = ways_out[key]
        on_cpu, instead = ("unknown", "") if way_out is None else (on_cpu, way_out)
        _count(cpu, typed, since, slots, on_cpu, instead)
        on_cuda = _ask_cuda(called, since, slots)
        helps = on_cpu != "no" or instead == _CAST
        _count(cuda, typed, since, slots, on_cuda, _ON_CPU if helps else instead)
    cpu_source = f"onnxruntime {onnxruntime.__version__} asked for its kernels"
    return _provider("CPU", cpu_source, cpu), _provider("CUDA", SOURCE, cuda)


def _cpu_way_out(
    typed: TypedNode,
    called: tuple[str, str],
    since: int,
    slots: Mapping[str, tuple[str | None, ...]],
) -> str | None:
    """What onnxruntime does on the CPU with a node that it has no kernel for.

    "" is nothing: no session opens. None is not known. Tried on a file of that node alone, since
    what an operator expands into may lack kernels too.
    """
    opens = opens_alone(typed)
    if not opens:
        return "" if opens is False or not since else None
    wide = {
        name: tuple("tensor(float)" if dtype in _HALF else dtype for dtype in dtypes)
        for name, dtypes in slots.items()
    }
    return (
        _CAST if wide != slots and _ask(_cpu_kernels(), called, since, wide) != "no" else _EXPANDED
    )


def _ask(
    kernels: Kernels,
    called: tuple[str, str],
    since: int,
    slots: Mapping[str, tuple[str | None, ...]],
) -> Answer:
    found = kernels.get(called, ())
    if not since:  # onnx does not know the operator: only whether there is any kernel can be told
        return "unknown" if found else "no"
    answers = {kernel.fits(since, slots) for kernel in found}
    return "yes" if "yes" in answers else "unknown" if "unknown" in answers else "no"


def _ask_cuda(
    called: tuple[str, str], since: int, slots: Mapping[str, tuple[str | None, ...]]
) -> Answer:
    if called[0] or since > NEWEST_OPSET:
        return "unknown"
    answer = _ask(_cuda_kernels(), called, since, slots)
    uncoded = any(dtype not in _CODED for dtypes in slots.values() for dtype in dtypes)
    return "unknown" if answer == "no" and uncoded and called in _cuda_kernels() else answer


@cache
def _cpu_kernels() -> Kernels:
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    kernels = defaultdict[tuple[str, str], list[Kernel]](list)
    for found in get_all_opkernel_def():
        if found.provider == "CPUExecutionProvider":
            first, last = found.version_range
            kernels["" if found.domain == "ai.onnx" else found.domain, found.op_name].append(
                Kernel(
                    first=first,
                    last=None if last >= _NO_LIMIT else last,
                    allowed={
                        name: frozenset(all_) for name, all_ in found.type_constraints.items()
                    },
                )
            )
    return kernels


@cache
def _cuda_kernels() -> Kernels:
    return {
        ("", name): [
            Kernel(
                first=first,
                last=last,
                allowed={
                    slot: frozenset(f"tensor({dtype})" for dtype in dtypes)
                    for slot, dtypes in allowed.items()
                },
            )
            for first, last, allowed in rows
        ]
        for name, rows in cuda_rows().items()
    }


def _count(
    tally: _Tally,
    typed: TypedNode,
    since: int,
    slots: Mapping[str, tuple[str | None, ...]],
    answer: Answer,
    instead: str,
) -> None:
    tally.nodes += 1
    if answer == "yes":
        tally.supported += 1
    elif answer == "unknown":
        tally.unknown += 1
    else:
        key = operator_name(typed.node), since, _dtypes(slots), instead
        tally.lacking[key].append(typed.node)


def _dtypes(slots: Mapping[str, tuple[str | None, ...]]) -> tuple[str, ...]:
    found = {dtype for dtypes in slots.values() for dtype in dtypes if dtype}
    return tuple(sorted(map(_plain, found)))


def _plain(dtype: str) -> str:
    """`float32` for `tensor(float)`, `sequence of float32` for `seq(tensor(float))`."""
    parts = _TENSOR.fullmatch(dtype)
    if parts is None:
        return dtype
    name = {"float": "float32", "double": "float64"}.get(parts[2], parts[2])
    return f"sequence of {name}" if parts[1] else name


def _provider(name: str, source: str, tally: _Tally) -> Provider:
    lacking = [
        LackingOperator(
            operator=operator,
            since=since,
            dtypes=dtypes,
            nodes=len(nodes),
            instead=instead,
            place=next(filter(None, map(module_path, nodes)), ""),
        )
        for (operator, since, dtypes, instead), nodes in tally.lacking.items()
    ]
    return Provider(
        name=name,
        source=source,
        nodes=tally.nodes,
        supported=tally.supported,
        unknown=tally.unknown,
        lacking=tuple(sorted(lacking, key=lambda one: (-one.nodes, one.operator, one.dtypes))),
    )
