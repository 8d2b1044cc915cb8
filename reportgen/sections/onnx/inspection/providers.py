"""Which nodes of a file onnxruntime's CPU and CUDA providers have kernels for.

The CPU kernels are those that the installed build lists. The CUDA kernels come from a table, since
the CPU build has none. Matching follows onnxruntime: a kernel without a last version fits only
operators that last changed in its first version, and every type parameter that the kernel
restricts must have an allowed dtype.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from reportgen.onnx.model.protos import STANDARD, operator_name, plain_dtype
from reportgen.onnx.runtime import open_session, session_options
from reportgen.sections.onnx.file_result import MissingKernel, Provider
from reportgen.sections.onnx.inspection.cuda_kernels import (
    CODES,
    NEWEST_OPSET,
    SOURCE,
    cuda_rows,
)
from reportgen.sections.onnx.inspection.graph import TypedNode, module_path, slots_of

_CONTRIB = "ai.onnx.contrib"  # of onnxruntime-extensions; ONNX itself has no such domain
_NO_LIMIT = 2**31 - 1  # onnxruntime's last version of a kernel without one
_CAST = "cast to float32 and back"
_EXPANDED = "expanded into other operators"
_ON_CPU = "run on the CPU, with copies between the devices"
_TENSOR = re.compile(r"(seq\()?tensor\((\w+)\)\)?")
_CODED = {f"tensor({name})" for name in CODES.values()}
_HALF = "tensor(float16)"

Answer = Literal["yes", "no", "unknown"]
Slots = Mapping[str, tuple[str | None, ...]]  # dtypes by type parameter, see `slots_of`


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """One kernel: the versions of its operator, and its dtypes by type parameter."""

    first: int
    last: int | None
    allowed: Mapping[str, frozenset[str]]

    def fits(self, since: int, slots: Slots) -> Answer:
        """Whether the kernel supports a node of that version and those dtypes."""
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
class _KernelCounts:
    """How many nodes have a kernel of one provider."""

    nodes: int = 0
    supported: int = 0
    unknown: int = 0
    missing: defaultdict[tuple[str, int, tuple[str, ...], str], list[Any]] = field(
        default_factory=lambda: defaultdict(list)
    )


def check_providers(
    nodes: Iterable[TypedNode], local: set[tuple[str, str]]
) -> tuple[Provider, ...]:
    """Kernel coverage of `nodes` on the CPU and on CUDA; `local` names the file's functions."""
    import onnxruntime

    cpu, cuda = _KernelCounts(), _KernelCounts()
    fallbacks: dict[tuple[tuple[str, str], int, tuple[str, ...]], str | None] = {}
    for typed in nodes:
        called = typed.domain, typed.node.op_type
        # onnxruntime inlines functions and makes initializers of constants: neither needs a kernel
        if called in local or called == ("", "Constant"):
            continue
        since, slots = slots_of(typed)
        on_cpu, fallback = _has_kernel(_cpu_kernels(), called, since, slots), ""
        if on_cpu == "no":
            key = called, since, _dtypes(slots)
            if key not in fallbacks:  # opening a session takes milliseconds
                fallbacks[key] = _cpu_fallback(typed, called, since, slots)
            found = fallbacks[key]
            on_cpu, fallback = ("unknown", "") if found is None else ("no", found)
        _count(cpu, typed, since, slots, on_cpu, fallback)
        on_cuda = _has_cuda_kernel(called, since, slots)
        runs_on_cpu = on_cpu != "no" or fallback == _CAST
        _count(cuda, typed, since, slots, on_cuda, _ON_CPU if runs_on_cpu else fallback)
    cpu_source = f"kernels listed by onnxruntime {onnxruntime.__version__}"
    return _provider("CPU", cpu_source, cpu), _provider("CUDA", SOURCE, cuda)


def needs_library(operator: str) -> bool:
    """Whether an operator is in a domain that neither ONNX nor onnxruntime has."""
    domain = operator.rpartition(".")[0]
    is_onnx = domain in STANDARD or domain.startswith("ai.onnx.")
    return domain not in _known_domains() and (not is_onnx or domain == _CONTRIB)


@cache
def _known_domains() -> frozenset[str]:
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    return frozenset(schema.domain for schema in get_all_operator_schema())


def _cpu_fallback(
    typed: TypedNode, called: tuple[str, str], since: int, slots: Slots
) -> str | None:
    """How onnxruntime runs a node without a CPU kernel; "" if not at all, None if unknown."""
    # tried on a file of that node alone, since what an operator expands into may lack kernels too
    opens = opens_single_node(typed)
    if not opens:
        return "" if opens is False or not since else None
    wide = {
        name: tuple("tensor(float)" if dtype == _HALF else dtype for dtype in dtypes)
        for name, dtypes in slots.items()
    }
    casts = wide != slots and _has_kernel(_cpu_kernels(), called, since, wide) != "no"
    return _CAST if casts else _EXPANDED


def _has_kernel(kernels: Kernels, called: tuple[str, str], since: int, slots: Slots) -> Answer:
    found = kernels.get(called, ())
    if not since:  # without a schema only the existence of a kernel is known
        return "unknown" if found else "no"
    answers = {kernel.fits(since, slots) for kernel in found}
    return "yes" if "yes" in answers else "unknown" if "unknown" in answers else "no"


def _has_cuda_kernel(called: tuple[str, str], since: int, slots: Slots) -> Answer:
    if called[0] or since > NEWEST_OPSET:
        return "unknown"
    answer = _has_kernel(_cuda_kernels(), called, since, slots)
    # the table cannot express these dtypes, so that it lacks them proves nothing
    uncoded = any(dtype not in _CODED for dtypes in slots.values() for dtype in dtypes)
    return "unknown" if answer == "no" and uncoded and called in _cuda_kernels() else answer


@cache
def _cpu_kernels() -> Kernels:
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_opkernel_def

    kernels = defaultdict[tuple[str, str], list[Kernel]](list)
    for found in get_all_opkernel_def():
        if found.provider == "CPUExecutionProvider":
            first, last = found.version_range
            kernels["" if found.domain in STANDARD else found.domain, found.op_name].append(
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
    counts: _KernelCounts,
    typed: TypedNode,
    since: int,
    slots: Slots,
    answer: Answer,
    fallback: str,
) -> None:
    counts.nodes += 1
    if answer == "yes":
        counts.supported += 1
    elif answer == "unknown":
        counts.unknown += 1
    else:
        key = operator_name(typed.node), since, _dtypes(slots), fallback
        counts.missing[key].append(typed.node)


def _dtypes(slots: Slots) -> tuple[str, ...]:
    found = {dtype for dtypes in slots.values() for dtype in dtypes if dtype}
    return tuple(sorted(map(_plain, found)))


def _plain(dtype: str) -> str:
    """`float32` for `tensor(float)`, `sequence of float32` for `seq(tensor(float))`."""
    parts = _TENSOR.fullmatch(dtype)
    if parts is None:
        return dtype
    return f"sequence of {plain_dtype(parts[2])}" if parts[1] else plain_dtype(parts[2])


def _provider(name: str, source: str, counts: _KernelCounts) -> Provider:
    missing = [
        MissingKernel(
            operator=operator,
            since=since,
            dtypes=dtypes,
            nodes=len(nodes),
            fallback=fallback,
            module=next(filter(None, map(module_path, nodes)), ""),
        )
        for (operator, since, dtypes, fallback), nodes in counts.missing.items()
    ]
    return Provider(
        name=name,
        source=source,
        nodes=counts.nodes,
        supported=counts.supported,
        unknown=counts.unknown,
        missing_kernels=tuple(
            sorted(missing, key=lambda one: (-one.nodes, one.operator, one.dtypes))
        ),
    )


_IR_VERSION = 10  # that of torch's exporter; onnx writes its newest, which onnxruntime may refuse


def opens_single_node(typed: TypedNode) -> bool | None:
    """Whether a session on the CPU opens for a file of this node and its dtypes.

    False if onnxruntime reports a missing implementation; None if a dtype is unknown, the node
    contains a graph, or another error occurs.
    """
    model = _single_node_model(typed)
    return None if model is None else _opens(model)


def _single_node_model(typed: TypedNode) -> bytes | None:
    import onnx

    node = typed.node
    # a subgraph reads values of the file, and a referenced attribute belongs to a function's call
    held = any(a.HasField("g") or a.graphs or a.ref_attr_name for a in node.attribute)
    inputs, outputs = _values(node.input, typed), _values(node.output, typed)
    if held or typed.generic or inputs is None or outputs is None:
        return None
    graph = onnx.helper.make_graph([node], "probe", inputs, outputs)
    opset = onnx.helper.make_opsetid(typed.domain, typed.opset)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())


def _values(names: Any, typed: TypedNode) -> list[Any] | None:
    import onnx

    values = []
    for name in dict.fromkeys(filter(None, names)):
        dtype = typed.types.get(name, "")
        if not dtype.startswith("tensor("):
            return None
        number = onnx.TensorProto.DataType.Value(dtype[len("tensor(") : -1].upper())
        values.append(onnx.helper.make_tensor_value_info(name, number, None))
    return values


def _opens(model: bytes) -> bool | None:
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as Missing

    try:
        open_session(model, session_options())
    except Missing:
        return False
    except Exception:  # an error of the node itself; the session of the whole file reports it
        return None
    return True
