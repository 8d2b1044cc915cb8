"""What a model was allowed against what was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from reportgen.manifest import Budgets
from reportgen.outcome import Done, SectionOutcome
from reportgen.report import BudgetCheck
from reportgen.sections.layers import Layers
from reportgen.sections.memory import Memory
from reportgen.sections.onnx import OnnxExport


def check_budgets(budgets: Budgets, sections: Iterable[SectionOutcome]) -> tuple[BudgetCheck, ...]:
    """One check for each budget that was set; a figure nobody could find is unknown, not zero."""
    results = {
        section.name: section.outcome.result
        for section in sections
        if isinstance(section.outcome, Done)
    }
    return tuple(
        BudgetCheck(
            name=name,
            limit=limit,
            value=value,
            passed=None if value is None else value <= limit,
        )
        for name, limit, value in _figures(budgets, results)
        if limit is not None
    )


def _figures(
    budgets: Budgets, results: dict[str, Any]
) -> Iterator[tuple[str, float | None, float | None]]:
    layers: Layers | None = results.get("layers")
    onnx: OnnxExport | None = results.get("onnx")
    yield "parameters", budgets.parameters, layers.parameters if layers else None
    yield "macs", budgets.macs, layers.macs if layers else None
    yield "flops", budgets.flops, layers.flops if layers else None
    weight = layers.parameter_bytes + layers.buffers_bytes if layers else None
    yield "model_bytes", budgets.model_bytes, weight
    latency = onnx.latency_ms if onnx else None
    yield "latency_ms", budgets.latency_ms, latency.median if latency else None
    for batch, limit in sorted(budgets.peak_memory_bytes.items()):
        yield f"peak_memory@{batch}", limit, _peak(results.get("memory"), batch)


def _peak(memory: Memory | None, batch: int) -> float | None:
    """The largest peak of any step estimated at `batch`, as nvidia-smi would show it."""
    peaks = [e.peak_device_bytes for e in memory.estimates if e.batch == batch] if memory else []
    return max(peaks, default=None)
