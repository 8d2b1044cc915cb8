"""Metrics, counts and files of the ONNX section."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from reportgen.comparable import Comparable, ModuleFigure, NodeRemark
from reportgen.metrics import COMPARISON, FigureCount, Method, Metric
from reportgen.sections.onnx.file_result import NodeCost
from reportgen.sections.onnx.parity_result import CallError, Divergence, Parity
from reportgen.sections.onnx.result import OnnxResult, StoredParameters

Quality = Literal["", "good", "doubt", "bad"]


def metrics_of(result: OnnxResult) -> tuple[Metric, ...]:
    """Bytes and nodes of the file, parity with PyTorch, and the median latency."""
    text, quality, value = _parity(result.parity)
    latency = result.performance.latency_ms if result.performance else None
    return (
        Metric(
            key="onnx.bytes",
            label="ONNX file",
            value=result.file.bytes,
            unit="bytes",
            direction="lower",
            table=COMPARISON,
        ),
        Metric(
            key="onnx.parity",
            label="ONNX parity",
            value=value,
            direction="higher",
            exact=False,
            text=text,
            quality=quality,
            table=COMPARISON,
            note=f"opset {result.file.opset}" if result.file.opset else "",
        ),
        Metric(key="onnx.nodes", label="ONNX nodes", value=result.file.nodes),
        Metric(
            key="onnx.latency_ms",
            label="Latency",
            value=latency.median if latency else None,
            unit="ms",
            direction="lower",
            exact=False,
        ),
    )


def methods_of(result: OnnxResult) -> tuple[Method, ...]:
    """The export, the comparison of outputs, and the runs that were timed."""
    exported, compared = bool(result.export.strategy), result.parity.compared
    latency = result.performance.latency_ms if result.performance else None
    timed = f" {latency.runs} runs on {latency.threads} threads" if latency else " runs"
    return (
        Method(
            keys=("onnx.bytes", "onnx.nodes"),
            text="Size on disk with external data; number of operators, those of subgraphs and "
            "functions included",
            tools=("torch", "onnx") if exported else ("onnx",),
            inputs=None if exported else "",
        ),
        Method(
            keys=("onnx.parity",),
            text="Holds if |file − y| ≤ absolute + relative tolerance × |y| for every element y of "
            "PyTorch's outputs" + (f", {compared}" if compared else ""),
            tools=("onnxruntime", "torch"),
        ),
        Method(
            keys=("onnx.latency_ms",),
            text=f"Median of{timed} after a warm-up run, on the CPU",
            tools=("onnxruntime",),
            batch=latency.batch if latency else None,
        ),
    )


def _parity(parity: Parity) -> tuple[str, Quality, float | None]:
    if parity.not_run:
        return "not run", "doubt", None
    if not parity.passed:
        return "broken", "bad", 0
    # agreement that proves nothing has no value: a comparison must not call it better or worse
    return ("vacuous", "doubt", None) if parity.vacuous else ("holds", "good", 1)


def counts_of(result: OnnxResult) -> tuple[FigureCount, ...]:
    """Parameters found in the file and MACs of its nodes, where they could be counted."""
    return tuple(_counts(result.export.stored_parameters, result.file.cost))


def _counts(stored: StoredParameters | None, cost: NodeCost | None) -> Iterator[FigureCount]:
    if stored is not None:
        yield FigureCount(
            figure="parameters",
            by="found in the ONNX file",
            value=stored.found,
            # what is known to be missing, so that the cross-check does not report it
            accounted=stored.merged + stored.zero + stored.absent_elements,
            notes=tuple(_left_out(stored)),
            absent=stored.absent,
        )
    if cost is not None:
        yield FigureCount(
            figure="macs",
            by="nodes of the ONNX file",
            value=cost.macs,
            batch=cost.batch,
            uncounted=cost.uncounted,
            by_module=cost.modules,
            notes=tuple(
                f"{name} in the file: {why}" for name, why in sorted(cost.uncounted.items())
            ),
        )


def _left_out(stored: StoredParameters) -> Iterator[str]:
    if stored.merged:
        yield f"{stored.merged:,} of batch norms are multiplied into the layer before"
    if stored.zero:
        yield f"{stored.zero:,} are zeros that the exporter leaves out"


def files_of(result: OnnxResult) -> tuple[str, ...]:
    """The exported file and its external data, where they are kept."""
    return tuple(
        filter(None, [result.file.path, result.file.external_file if result.file.path else None])
    )


def comparable_of(result: OnnxResult) -> Comparable:
    """The time of the slowest modules; where parity breaks, and by how much each module is off."""
    times = result.performance.modules if result.performance else ()
    found = result.parity.divergence
    figures = [
        ModuleFigure(
            key="latency",
            label="Latency of the slowest",
            unit="s",
            values={each.name: each.milliseconds / 1000 for each in times},
        ),
        ModuleFigure(
            key="parity",
            label="Parity error",
            unit="",
            values=_errors(found.calls) if found is not None else {},
            logarithmic=True,
        ),
    ]
    return Comparable(
        module_figures=tuple(each for each in figures if each.values),
        remarks=(_where_parity_breaks(found),) if found is not None and _is_placed(found) else (),
    )


def _errors(calls: Iterable[CallError]) -> dict[str, float]:
    """By module, the second call of `path` as `path#2`, and by node."""
    errors: dict[str, float] = {}
    for each in calls:
        if each.path and each.max_absolute_error is not None:
            name = each.path if each.call == 0 else f"{each.path}#{each.call + 1}"
            errors[name] = errors[each.node] = each.max_absolute_error
    return errors


def _is_placed(found: Divergence) -> bool:
    return bool(found.node or found.module)


def _where_parity_breaks(found: Divergence) -> NodeRemark:
    return NodeRemark(
        title="Parity is broken",
        text="; ".join(found.sentences),
        graph="onnx" if found.node else "",
        node=found.node,
        module=found.module,
    )
