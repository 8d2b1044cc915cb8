"""Charts of the memory section: peaks, batch curves, and one step over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from reportgen.sections.memory.metrics import batch_text
from reportgen.sections.memory.result import BatchCurve, Fit, MemoryEstimate, Timeline, TopModule
from reportgen.visible_text import visible

_CURVES = 8


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


def curves(lines: Sequence[BatchCurve], fits: Sequence[Fit], title: str) -> Markup:
    """Peak memory on the device against batch size, with the capacity of each GPU."""
    return line_chart(
        title,
        [
            Line(
                name=step_name(curve),
                points=tuple(zip(curve.batches, curve.peak_device_bytes, strict=True)),
            )
            for curve in lines[:_CURVES]
        ],
        # one level for each GPU; every step has a fit on it
        [
            Level(name=visible(gpu), value=usable_bytes)
            for gpu, usable_bytes in {fit.gpu: fit.usable_bytes for fit in fits}.items()
        ],
        x_label="batch size (logarithmic)",
        y_label="peak on the device (logarithmic)",
        y_figure=_whole_bytes,
    )


def timeline(line: Timeline, title: str) -> Markup:
    """Allocated memory through one step, by category, with its phases and its peak."""
    xs = [sample.progress for sample in line.samples]
    stages = [
        Stage(name=name, start=start, end=end)
        for name, start, end in _phases([sample.phase for sample in line.samples], xs)
    ]
    return stacked_areas(
        title,
        [name.replace("_", " ") for name in line.categories],
        xs,
        [sample.allocated_bytes for sample in line.samples],
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


def top_modules(modules: Sequence[TopModule], title: str) -> Markup:
    """The modules with the most memory at the peak."""
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


def step_name(step: BatchCurve | MemoryEstimate | Fit) -> str:
    """What a step is, in a few words: `train · amp-bf16 · checkpointing`."""
    parts = [step.mode, step.precision]
    return " · ".join([*parts, "checkpointing"] if step.checkpointing else parts)


def _whole_bytes(value: float) -> str:
    # ticks are round numbers: "16 GiB" instead of "16.0 GiB"
    return units.format_bytes(round(value)).replace(".0 ", " ")


FILTERS: dict[str, Callable[..., Any]] = {
    "batch_text": batch_text,
    "breakdown": breakdown,
    "curves": curves,
    "top_modules": top_modules,
    "timeline": timeline,
    "step_name": step_name,
}
