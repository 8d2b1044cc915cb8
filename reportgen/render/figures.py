"""The charts of the report: results in, markup out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from reportgen import units
from reportgen.charts import Bar, Level, Line, Part, Stack, bar_list, line_chart, stacked_bars
from reportgen.render.filters import largest, most_frequent, unlike
from reportgen.render.overview import ModelOverview
from reportgen.render.text import visible
from reportgen.sections.layers import Layer
from reportgen.sections.memory import Curve, Fit, MemoryEstimate

_HEAVIEST = 12
_CURVES = 8


def heaviest(layers: Iterable[Layer], attribute: str, title: str) -> Markup:
    """The leaf layers with the most of `attribute` (`own_parameters`, `macs`)."""
    heavy = largest((layer for layer in layers if layer.leaf), attribute, _HEAVIEST)
    return bar_list(
        title,
        [
            Bar(
                label=visible(layer.path or layer.type),
                value=getattr(layer, attribute),
                figure=units.format_count(getattr(layer, attribute)),
            )
            for layer in heavy
        ],
        series=0 if attribute == "macs" else 2,
    )


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


def breakdown(estimates: Sequence[MemoryEstimate], title: str) -> Markup:
    """What the memory at the peak of each step consists of."""
    return stacked_bars(
        title,
        [
            Stack(
                label=step_name(each),
                parts=tuple(
                    Part(name=visible(name), value=size, figure=units.format_bytes(size))
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
    "breakdown": breakdown,
    "curves": curves,
    "side_by_side": side_by_side,
    "step_name": step_name,
}
