"""The filters of the templates: pure functions that choose, arrange and format."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from reportgen import units
from reportgen.metrics import format_in_full, format_metric, metric_label

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")  # a whole part of a dotted name
_CODE = re.compile("`([^`\\n]+)`")
_FEW = 3  # so many inputs or outputs are listed one by one


@dataclass(frozen=True, kw_only=True, slots=True)
class PivotRow:
    """A row of a pivot: its first item, and one item per column, None where there is none."""

    first: Any
    cells: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pivot:
    """Items arranged in rows that share some attributes and columns that share another."""

    columns: tuple[Any, ...]
    rows: tuple[PivotRow, ...]


def moment(text: str) -> str:
    """An ISO 8601 time in UTC for readers: `2026-11-27 03:15 UTC`; "" for ""."""
    return f"{text[:10]} {text[11:16]} UTC" if text else ""


def period(moments: Mapping[str, str]) -> str:
    """From the first to the last of `moments`: `2026-11-26 23:58 UTC to 2026-11-27 00:01 UTC`."""
    shown = sorted({moment(text) for text in moments.values()})
    return " to ".join(dict.fromkeys((shown[0], shown[-1]))) if shown else "–"


def most_frequent(counts: Mapping[str, int], most: int | None = None) -> list[tuple[str, int]]:
    """The pairs of `counts`, the greatest first, equal ones by name."""
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:most]


def pivot(items: Iterable[Any], rows: Sequence[str], column: str) -> Pivot:
    """`items` as a table: a row for each mix of the attributes `rows`, in order of appearance."""
    listed = list(items)
    columns = tuple(dict.fromkeys(getattr(item, column) for item in listed))
    table: dict[tuple[Any, ...], dict[Any, Any]] = {}
    for item in listed:
        key = tuple(getattr(item, name) for name in rows)
        table.setdefault(key, {})[getattr(item, column)] = item
    return Pivot(
        columns=columns,
        rows=tuple(
            PivotRow(first=next(iter(cells.values())), cells=tuple(map(cells.get, columns)))
            for cells in table.values()
        ),
    )


def unlike(items: Iterable[Any], attribute: str) -> list[Any]:
    """The first item of each value of `attribute`."""
    # Of equal keys a dictionary keeps the last, hence in reverse.
    return list({getattr(item, attribute): item for item in reversed(list(items))}.values())[::-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """An input or output, or several of one shape whose names differ in a number."""

    name: str
    shape: tuple[int, ...]
    number: int = 1


def ports(shapes: Mapping[str, tuple[int, ...]]) -> list[Port]:
    """Inputs or outputs, those that every sample has in its turn as one: `images.*`, 8 times."""
    alike: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, shape in shapes.items():
        alike.setdefault((_NUMBER.sub("*", name), tuple(shape)), []).append(name)
    found: list[Port] = []
    for (pattern, shape), names in alike.items():
        if len(names) > _FEW:
            found.append(Port(name=pattern, shape=shape, number=len(names)))
        else:
            found += [Port(name=name, shape=shape) for name in names]
    return found


def times(after: int, before: int) -> str:
    """How often `before` goes into `after`: `× 2.4`."""
    return f"× {after / before:.1f}"


def ratio(value: float) -> str:
    """A quotient with two digits or all before the point: `0.013`, `1.2`, `31`, `1,234`."""
    return f"{value:.2g}" if value < 1 else f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def plural(number: int, word: str) -> str:
    """`1 layer`, `2 layers`, `1,234 layers`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def known_integer(value: int | None) -> str:
    """All digits of `value`; "unknown" for None."""
    return "unknown" if value is None else units.format_integer(value)


def prose(text: str) -> Markup:
    """Paragraphs of a docstring, with `code` in backticks."""
    paragraphs = [part.replace("\n", " ") for part in text.split("\n\n") if part]
    marked = (_CODE.sub(r"<code>\1</code>", str(escape(part))) for part in paragraphs)
    return Markup("".join(f"<p>{part}</p>\n" for part in marked))  # noqa: S704 - escaped above


def dimensions(shape: Sequence[int | str]) -> str:
    """A shape that may hold names: `batch × 3 × 224 × 224`."""
    return " × ".join(map(str, shape)) if shape else "scalar"


def shapes(many: Sequence[tuple[int, ...]]) -> str:
    """Several shapes in one cell; `–` for none."""
    return ", ".join(map(units.format_shape, many)) or "–"


FILTERS: dict[str, Callable[..., Any]] = {
    "moment": moment,
    "period": period,
    "most_frequent": most_frequent,
    "pivot": pivot,
    "unlike": unlike,
    "plural": plural,
    "times": times,
    "ports": ports,
    "ratio": ratio,
    "milliseconds": units.format_milliseconds,
    "known_integer": known_integer,
    "in_unit": units.format_in_unit,
    "prose": prose,
    "metric_in_full": format_in_full,
    "metric_label": metric_label,
    "metric_value": format_metric,
    "dimensions": dimensions,
    "shapes": shapes,
}
