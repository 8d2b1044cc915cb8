"""The traces of a plot pane or a plotly figure: curves over steps, and charts of other kinds."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from reportgen.training_logs.log_run import (
    UNKNOWN_TIME,
    LoggedChart,
    LogRun,
    PaneKind,
    PaneTrace,
    unique_name,
)
from reportgen.training_logs.points import finite_number, number, wall_time

# plotly's names of element types; anything else is refused, so that no object is ever built.
_ELEMENT_TYPES = frozenset(
    {"i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"}
    | {"int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"}
)
_MOST_BINS = 60


class BadPane(ValueError):
    """A pane is not what visdom or plotly writes; the message says what."""


def add_plot(content: dict[str, Any], run: LogRun) -> int:
    """Add the traces of a figure `{data, layout}` to `run`, with tags relative to the pane's.

    Returns:
        How many nulls stand for "no value" rather than for NaN.

    Raises:
        BadPane: it is not a figure.
    """
    traces = content.get("data")
    if not isinstance(traces, list) or not all(isinstance(trace, dict) for trace in traces):
        raise BadPane("the data of a plot is not a list of traces")
    layout = content.get("layout")
    layout = layout if isinstance(layout, dict) else {}
    curves, charts = _sort(traces, run)
    no_value = _add_curves(curves, layout, run, alone=len(traces) == 1)
    for kind, members in charts.items():
        run.charts.append(
            LoggedChart(
                tag="",
                kind=kind,
                traces=tuple(members),
                x_title=title_text(_axis(layout, "xaxis").get("title")),
                y_title=title_text(_axis(layout, "yaxis").get("title")),
            )
        )
    return no_value


def title_text(title: object) -> str:
    """A title, which plotly holds as text or as `{text: ...}`."""
    if isinstance(title, dict):
        title = title.get("text")
    return title if isinstance(title, str) else ""


def _axis(layout: dict[str, Any], name: str) -> dict[str, Any]:
    axis = layout.get(name)
    return axis if isinstance(axis, dict) else {}


def _sort(
    traces: list[dict[str, Any]], run: LogRun
) -> tuple[list[dict[str, Any]], dict[PaneKind, list[PaneTrace]]]:
    """Traces that are curves, and the others as charts by kind; unknown ones are only named."""
    curves: list[dict[str, Any]] = []
    charts: dict[PaneKind, list[PaneTrace]] = {}
    for trace in traces:
        trace_type = trace.get("type") or "scatter"
        if trace_type in ("scatter", "scattergl"):
            if _is_curve(trace):
                curves.append(trace)
            else:
                charts.setdefault("scatter", []).append(_points(trace))
        elif isinstance(trace_type, str) and trace_type in _CHARTS:
            kind, decode = _CHARTS[trace_type]
            charts.setdefault(kind, []).append(decode(trace))
        else:
            run.not_shown[str(trace_type)[:40]] += 1
    return curves, charts


def _is_curve(trace: dict[str, Any]) -> bool:
    """Whether a scatter trace is drawn as one line over its x axis.

    Null x values break a line into pieces: visdom draws arrows and stems with them.
    """
    # Without a mode plotly draws a line, and markers too where there are few points.
    mode = trace.get("mode")
    if isinstance(mode, str) and "lines" not in mode:
        return False
    return trace.get("x") is None or None not in array_of(trace, "x")


def array_of(trace: dict[str, Any], key: str) -> list[Any]:
    """The values at `key`: a list, or plotly's `{dtype, bdata, shape}`; empty where absent.

    Raises:
        BadPane: it is neither.
    """
    values = trace.get(key)
    if values is None:
        return []
    if isinstance(values, list):
        return values
    if isinstance(values, dict) and "bdata" in values:
        return _binary_array(values, key)
    raise BadPane(f"{key} of a {trace.get('type', 'scatter')!r} trace is not a list")


def _binary_array(values: dict[str, Any], key: str) -> list[Any]:
    name = str(values.get("dtype"))
    if name not in _ELEMENT_TYPES:
        raise BadPane(f"{key} is an array of unknown type {name[:40]!r}")
    try:
        element = np.dtype(name).newbyteorder("<")  # typed arrays of a browser are little-endian
        array = np.frombuffer(base64.b64decode(values["bdata"], validate=True), dtype=element)
        # plotly writes the shape of a grid as text: "2, 3".
        if "shape" in values:
            array = array.reshape(_shape(values["shape"]))
    except (ValueError, TypeError) as error:
        raise BadPane(f"{key} is not a readable binary array: {error}") from error
    listed: list[Any] = array.tolist()
    return listed


def _shape(shape: object) -> tuple[int, ...]:
    sizes = shape.split(",") if isinstance(shape, str) else shape
    if isinstance(sizes, int):
        sizes = [sizes]
    return tuple(int(size) for size in sizes)  # type: ignore[attr-defined]


def _add_curves(
    curves: list[dict[str, Any]], layout: dict[str, Any], run: LogRun, *, alone: bool
) -> int:
    dates = _axis(layout, "xaxis").get("type") == "date"
    read = [(_curve_name(trace, alone=alone), *_steps(trace, dates=dates)) for trace in curves]
    values = [[number(cell) for cell in array_of(trace, "y")] for trace in curves]
    owners = _owners([steps for _, steps, _ in read], values)
    no_value = 0
    for index, (name, steps, times) in enumerate(read):
        series = run.series(unique_name(name, run.scalars))
        # Not strict: x and y of a figure made by hand may differ in length.
        for step, time, value in zip(steps, times, values[index], strict=False):
            if value is None and owners.get(step, index) != index:
                no_value += 1
            else:
                series.append(step, math.nan if value is None else value, time, 0)
    return no_value


def _owners(steps: list[list[float]], values: list[list[float | None]]) -> dict[float, int]:
    """For each step where a trace has a value, the trace; -1 where several have one.

    A null beside another trace's value means "no value here": visdom writes it where only one of
    two legends was given. A null where no other trace has a value stands for NaN.
    """
    owners: dict[float, int] = {}
    for index, (xs, ys) in enumerate(zip(steps, values, strict=True)):
        for x, y in zip(xs, ys, strict=False):
            # -1 is no trace's index, so a null there counts as "no value" for every trace.
            if y is not None and owners.setdefault(x, index) != index:
                owners[x] = -1
    return owners


def _curve_name(trace: dict[str, Any], *, alone: bool) -> str:
    """The end of a curve's tag: nothing for a single trace with visdom's own name "1"."""
    text = _name(trace)
    if alone and text in ("", "1"):
        return ""
    return f"/{text}" if text else "/trace"


def _steps(trace: dict[str, Any], *, dates: bool) -> tuple[list[float], list[float]]:
    """Steps and wall times; categories and dates become places in the order of the trace."""
    cells = array_of(trace, "x")
    if trace.get("x") is None:
        start, width = finite_number(trace.get("x0", 0)), finite_number(trace.get("dx", 1))
        start, width = start or 0.0, 1.0 if width is None else width
        return (
            [start + i * width for i in range(len(array_of(trace, "y")))],
            [UNKNOWN_TIME] * len(array_of(trace, "y")),
        )
    # Dates and categories have no place on an axis of steps; their order has.
    steps = [step for cell in cells if (step := finite_number(cell)) is not None]
    if not dates and len(steps) == len(cells):
        return steps, [UNKNOWN_TIME] * len(steps)
    return [float(i) for i in range(len(cells))], [wall_time(cell) for cell in cells]


def _cells(trace: dict[str, Any], key: str) -> tuple[float | str, ...]:
    return tuple(_cell(cell) for cell in array_of(trace, key))


def _cell(cell: object) -> float | str:
    return cell if isinstance(cell, str) else _number(cell)


def _numbers(trace: dict[str, Any], key: str) -> tuple[float, ...]:
    return tuple(_number(cell) for cell in array_of(trace, key))


def _number(cell: object) -> float:
    value = number(cell)
    return math.nan if value is None else value  # JSON has no NaN: null stands for it


def _name(trace: dict[str, Any]) -> str:
    name = trace.get("name")
    return str(name) if isinstance(name, str | int | float) else ""


def _points(trace: dict[str, Any]) -> PaneTrace:
    """A scatter without the nulls that break its lines."""
    x, y = array_of(trace, "x"), array_of(trace, "y")
    if trace.get("x") is None:
        x = list(range(len(y)))
    kept = [(a, b) for a, b in zip(x, y, strict=False) if a is not None and b is not None]
    return PaneTrace(
        name=_name(trace), x=tuple(_cell(a) for a, _ in kept), y=tuple(_cell(b) for _, b in kept)
    )


def _bar(trace: dict[str, Any]) -> PaneTrace:
    along, height = ("y", "x") if trace.get("orientation") == "h" else ("x", "y")
    heights = _numbers(trace, height)
    places = _cells(trace, along) or tuple(float(i) for i in range(len(heights)))
    return PaneTrace(name=_name(trace), x=places, y=heights)


def _histogram(trace: dict[str, Any]) -> PaneTrace:
    """Bars at the left edges of equal bins: plotly bins such a trace only when it draws it."""
    values = np.array(_numbers(trace, "x") or _numbers(trace, "y"), dtype=np.float64)
    values = values[np.isfinite(values)]  # numpy refuses to bin anything else
    if not len(values):
        return PaneTrace(name=_name(trace))
    bins = min(_MOST_BINS, max(1, math.ceil(math.sqrt(len(values)))))
    # numpy raises where the range of the values overflows, as from -1e308 to 1e308.
    try:
        counts, edges = np.histogram(values, bins=bins)
    except ValueError as error:
        raise BadPane(f"a histogram cannot be binned: {error}") from error
    return PaneTrace(
        name=_name(trace),
        x=tuple(map(float, edges[:-1])),
        y=tuple(map(float, counts)),
    )


def _heatmap(trace: dict[str, Any]) -> PaneTrace:
    rows = array_of(trace, "z")
    if not all(isinstance(row, list) for row in rows):
        raise BadPane("z of a grid is not a list of rows")
    grid = tuple(tuple(_number(cell) for cell in row) for row in rows)
    # A surface may give x and y as grids; as labels only flat lists make sense.
    x, y = (_cells(trace, key) if _is_flat(trace.get(key)) else () for key in ("x", "y"))
    return PaneTrace(name=_name(trace), x=x, y=y, z=grid)


def _is_flat(values: object) -> bool:
    return isinstance(values, dict) or (
        isinstance(values, list) and not any(isinstance(value, list) for value in values)
    )


def _box(trace: dict[str, Any]) -> PaneTrace:
    along, across = ("y", "x") if trace.get("orientation") == "h" else ("x", "y")
    values, groups = _numbers(trace, across), _cells(trace, along)
    if not values and groups:  # a box without orientation that has only x lies on its side
        values, groups = _numbers(trace, along), ()
    return PaneTrace(name=_name(trace), x=groups, y=values)


def _pie(trace: dict[str, Any]) -> PaneTrace:
    values = _numbers(trace, "values")
    return PaneTrace(name=_name(trace), x=_cells(trace, "labels"), y=values)


_CHARTS: dict[str, tuple[PaneKind, Callable[[dict[str, Any]], PaneTrace]]] = {
    "bar": ("bar", _bar),
    "histogram": ("bar", _histogram),
    "heatmap": ("heatmap", _heatmap),
    "heatmapgl": ("heatmap", _heatmap),
    "contour": ("heatmap", _heatmap),
    "surface": ("heatmap", _heatmap),
    "box": ("box", _box),
    "violin": ("box", _box),
    "pie": ("pie", _pie),
}
