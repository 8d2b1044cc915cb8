"""The charts of the first page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from reportgen.charts import Bar, bar_list
from reportgen.metrics import Metric, format_metric
from reportgen.render.overview import MetricTable, ModelOverview
from reportgen.visible_text import visible

_SERIES = (2, 0, 1, 3)  # parameters and MACs have the colors of their bars in the layers section


def charted(table: MetricTable) -> list[Metric]:
    """The columns that are drawn as bars: counts without a unit."""
    return [column for column in table.columns if column.exact and not column.unit]


def side_by_side(models: Sequence[ModelOverview], column: Metric, number: int) -> Markup:
    """One bar for each model that has the metric of `column`, the `number`th chart of its table."""
    bars = []
    for model in models:
        metric = model.metrics.get(column.key)
        if metric is not None and metric.value is not None:
            bars.append(
                Bar(label=visible(model.name), value=metric.value, figure=format_metric(metric))
            )
    title = f"{column.label} of every model"
    return bar_list(title, bars, series=_SERIES[number % len(_SERIES)])


FILTERS: dict[str, Callable[..., Any]] = {"charted": charted, "side_by_side": side_by_side}
