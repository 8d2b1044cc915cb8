"""Filters of the layers template: bars of the heaviest layers, and the tree of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from os.path import commonprefix
from typing import Any

from markupsafe import Markup

from reportgen import units
from reportgen.charts import Bar, bar_list
from reportgen.sections.layers.outline import outline, pruned, rows
from reportgen.sections.layers.result import Layer
from reportgen.visible_text import visible

_HEAVIEST = 12  # bars


def heaviest(layers: Iterable[Layer], attribute: str, title: str) -> Markup:
    """The leaf layers with the most `own_parameters` or `macs`; equal ones share a bar."""
    kinds: dict[object, list[Layer]] = {}
    for layer in layers:
        if layer.leaf and getattr(layer, attribute):
            kinds.setdefault(_kind(layer, attribute), []).append(layer)
    heavy = sorted(kinds.values(), key=lambda alike: -len(alike) * getattr(alike[0], attribute))
    return bar_list(
        title,
        [_bar(alike, attribute) for alike in heavy[:_HEAVIEST]],
        series=0 if attribute == "macs" else 2,  # one color for costs, another for sizes
    )


def _kind(layer: Layer, attribute: str) -> object:
    """What layers must have in common to share a bar: name, depth, type, shape and figure."""
    tail = layer.path.rpartition(".")[2]
    return tail, layer.path.count("."), layer.type, layer.output_shapes, getattr(layer, attribute)


def _bar(alike: Sequence[Layer], attribute: str) -> Bar:
    each: int = getattr(alike[0], attribute)
    is_bound = attribute == "macs" and alike[0].lower_bound
    figure = units.format_bound(each, is_bound, units.format_count)
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


FILTERS: dict[str, Callable[..., Any]] = {
    "bound": units.format_bound,
    "short_bound": partial(units.format_bound, form=units.format_count),
    "heaviest": heaviest,
    "outline": outline,
    "pruned": pruned,
    "rows": rows,
}
