"""The charts of the report: results in, markup out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from os.path import commonprefix
from typing import Any

from markupsafe import Markup

from reportgen import units
from reportgen.charts import (
    Bar,
    Level,
    Line,
    Part,
    Stack,
    Stage,
    bar_list,
    line_chart,
    stacked_areas,
    stacked_bars,
)
from reportgen.render.filters import most_frequent, unlike
from reportgen.render.overview import ModelOverview
from reportgen.render.text import visible
from reportgen.sections.layers import Layer
from reportgen.sections.memory import Curve, Fit, Holder, MemoryEstimate, Timeline
from reportgen.sections.onnx import ErrorBin, OutputParity, ParityCase

_HEAVIEST = 12
_CURVES = 8
_PARITY_ROWS = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityRow:
    """An output of a case, as a row of the table."""

    case: ParityCase
    output: OutputParity


def heaviest(layers: Iterable[Layer], attribute: str, title: str) -> Markup:
    """The leaf layers with the most `own_parameters` or `macs`; equal ones share a bar."""
    kinds: dict[object, list[Layer]] = {}
    for layer in layers:
        if layer.leaf and getattr(layer, attribute):
            kinds.setdefault(_kind(layer, attribute), []).append(layer)
    heavy = sorted(kinds.values(), key=lambda alike: -len(alike) * getattr(alike[0], attribute))
    return bar_list(
        title,
        [_bar(alike, getattr(alike[0], attribute)) for alike in heavy[:_HEAVIEST]],
        series=0 if attribute == "macs" else 2,
    )


def _kind(layer: Layer, attribute: str) -> object:
    """What layers share that one bar may stand for: name, type, figures and shape."""
    tail = layer.path.rpartition(".")[2]
    return tail, layer.path.count("."), layer.type, layer.output_shapes, getattr(layer, attribute)


def _bar(alike: Sequence[Layer], each: int) -> Bar:
    figure = units.format_count(each)
    if len(alike) > 1:
        figure = f"{units.format_count(len(alike) * each)} = {len(alike)} × {figure}"
    label = common_path([layer.path for layer in alike]) or alike[0].type
    return Bar(label=visible(label), value=len(alike) * each, figure=figure)


def common_path(paths: Sequence[str]) -> str:
    """One path for several of equal depth: `blocks.*.mlp.0`, `layer*.conv1`."""
    columns = zip(*(path.split(".") for path in paths), strict=True)
    return ".".join(_common_name(names) for names in columns)


def _common_name(names: Sequence[str]) -> str:
    return names[0] if len(set(names)) == 1 else f"{commonprefix(names)}*"  # noqa: RUF071 - letters are meant


def operators(counts: Mapping[str, int], title: str) -> Markup:
    """The operators of an ONNX graph, the most frequent first."""
    return bar_list(
        title,
        [
            Bar(label=visible(name), value=number, figure=units.format_integer(number))
            for name, number in most_frequent(counts, _HEAVIEST)
        ],
        series=3,
    )


def error_bins(bins: Sequence[ErrorBin], title: str) -> Markup:
    """How many elements are off by how much, from the first bin that has any to the last."""
    filled = [place for place, each in enumerate(bins) if each.elements]
    total = sum(each.elements for each in bins)
    shown = bins[filled[0] : filled[-1] + 1] if filled else bins[:1]
    return bar_list(
        title,
        [
            Bar(
                label=each.label,
                value=each.elements,
                figure=f"{units.format_integer(each.elements)} "
                f"({units.format_share(each.elements, total)})",
            )
            for each in shown
        ],
        series=1,
    )


def parity_rows(cases: Sequence[ParityCase]) -> tuple[list[ParityRow], int]:
    """The outputs to show, failing ones first and of those the smallest; and how many are not."""
    rows = [ParityRow(case=case, output=output) for case in cases for output in case.outputs]
    rows.sort(key=_failing_and_small_first)
    return rows[:_PARITY_ROWS], max(0, len(rows) - _PARITY_ROWS)


def _failing_and_small_first(row: ParityRow) -> tuple[bool, bool, int, int]:
    if row.output.passed:
        return True, False, 0, 0
    return False, row.case.perturbed, row.case.batch, prod(row.output.shape)


def breakdown(estimates: Sequence[MemoryEstimate], title: str) -> Markup:
    """What the memory at the peak of each step consists of."""
    several = len({each.batch for each in estimates}) > 1
    return stacked_bars(
        title,
        [
            Stack(
                label=step_name(each) + (f" · batch {each.batch:,}" if several else ""),
                parts=tuple(
                    Part(
                        name=visible(name.replace("_", " ")),
                        value=size,
                        figure=units.format_bytes(size),
                    )
                    for name, size in each.at_peak.items()
                ),
                figure=units.format_bytes(sum(each.at_peak.values())),
            )
            for each in estimates
        ],
    )


def curves(lines: Sequence[Curve], fits: Sequence[Fit], title: str) -> Markup:
    """Peak memory on the device against batch size, and the cards' capacities across."""
    return line_chart(
        title,
        [
            Line(
                name=step_name(curve),
                points=tuple(zip(curve.batches, curve.peak_device_bytes, strict=True)),
            )
            for curve in lines[:_CURVES]
        ],
        [Level(name=visible(fit.gpu), value=fit.usable_bytes) for fit in unlike(fits, "gpu")],
        x_label="batch size (logarithmic)",
        y_label="peak on the device (logarithmic)",
        y_figure=_whole_bytes,
    )


def timeline(line: Timeline, title: str) -> Markup:
    """Allocated memory through one step, by category, with its phases and its peak."""
    xs = [moment.progress for moment in line.moments]
    stages = [
        Stage(name=name, start=start, end=end)
        for name, start, end in _phases([moment.phase for moment in line.moments], xs)
    ]
    return stacked_areas(
        title,
        [name.replace("_", " ") for name in line.categories],
        xs,
        [moment.allocated_bytes for moment in line.moments],
        stages=stages,
        peak=line.peak_index,
        figure=lambda value: units.format_bytes(round(value)),
        x_label="the step's allocations and frees, in order",
    )


def _phases(names: Sequence[str], xs: Sequence[float]) -> list[tuple[str, float, float]]:
    """Runs of equal names, each with where it begins and where the next one does."""
    begins = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    ends = [*(xs[i] for i in begins[1:]), xs[-1]]
    return [(names[i], xs[i], end) for i, end in zip(begins, ends, strict=True)]


def holders(modules: Sequence[Holder], title: str) -> Markup:
    """The modules that hold most memory at the peak."""
    return bar_list(
        title,
        [
            Bar(
                label=visible(each.path) or "outside modules",
                value=each.total_bytes,
                figure=f"{units.format_bytes(each.total_bytes)}, most of it "
                f"{max(each.at_peak, key=lambda name: each.at_peak[name]).replace('_', ' ')}",
            )
            for each in modules
            if each.at_peak
        ],
        series=2,
        width=760,
    )


def side_by_side(models: Sequence[ModelOverview], attribute: str, title: str) -> Markup:
    """One bar per model: its parameters, or the multiply-adds of one sample."""
    bars = []
    for model in models:
        value = _figure(model, attribute)
        if value is not None:
            name = visible(model.name)
            bars.append(Bar(label=name, value=value, figure=units.format_count(value)))
    return bar_list(title, bars, series=2 if attribute == "parameters" else 0)


def step_name(step: Curve | MemoryEstimate | Fit) -> str:
    """What a step is, in a few words: `train · amp-bf16 · checkpointing`."""
    parts = [step.mode, step.precision]
    return " · ".join([*parts, "checkpointing"] if step.checkpointing else parts)


def _figure(model: ModelOverview, attribute: str) -> float | None:
    if attribute == "parameters":
        return model.layers.parameters if model.layers else None
    return model.macs_per_sample


def _whole_bytes(value: float) -> str:
    return units.format_bytes(round(value)).replace(".0 ", " ")


WORDS: dict[str, Callable[..., Any]] = {
    "heaviest": heaviest,
    "operators": operators,
    "error_bins": error_bins,
    "parity_rows": parity_rows,
    "breakdown": breakdown,
    "curves": curves,
    "holders": holders,
    "timeline": timeline,
    "side_by_side": side_by_side,
    "step_name": step_name,
}
