"""Reduces histograms, texts, precision-recall curves and tables to what a page shows."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from reportgen.error_text import without_folders
from reportgen.sections.training.curve import Floats, as_floats
from reportgen.sections.training.files import spread
from reportgen.sections.training.result import Histogram, PrCurve, Table, Text
from reportgen.training_logs.log_run import (
    Hyperparameter,
    LoggedHistogram,
    LoggedPrCurve,
    LoggedTable,
    LoggedText,
)

BUCKETS = 40
RECORDS = 24
MOST_HISTOGRAMS = 60
MOST_CURVES = 24
_MOST_TEXTS, _TEXTS_OF_A_TAG, _LONGEST_TEXT = 60, 3, 4_000
_MOST_TABLES, _MOST_ROWS, _MOST_COLUMNS, _LONGEST_CELL = 20, 50, 12, 300


# events.out.tfevents.SECONDS.HOST.PROCESS.NUMBER, or without process and number
_HOST = re.compile(r"(tfevents\.[0-9]+)\.(?!v2\b)[\w.-]*?(?=(?:\.[0-9]+)*(?:\.v2)?(?![\w.-]))")


def without_host(text: str) -> str:
    """Names of event files without the host's: `events.out.tfevents.1700000000.12.0`."""
    return _HOST.sub(r"\1", text)


class _Tagged(Protocol):
    @property
    def tag(self) -> str: ...
    @property
    def step(self) -> float: ...


L = TypeVar("L", bound=_Tagged)


def by_tag(records: Iterable[L]) -> dict[str, list[L]]:
    """`records` by tag, in the order of their steps."""
    found: dict[str, list[L]] = {}
    for record in records:
        found.setdefault(record.tag, []).append(record)
    for tag in found:
        found[tag].sort(key=lambda record: record.step)
    return found


def summarize_histograms(records: Sequence[LoggedHistogram]) -> Iterator[Histogram]:
    """One `Histogram` per tag with at most `RECORDS` of its records, in `BUCKETS` buckets."""
    for tag, all_of_tag in list(by_tag(records).items())[:MOST_HISTOGRAMS]:
        usable = [record for record in all_of_tag if record.counts]
        if not usable:
            continue
        kept = spread(usable, RECORDS)
        low = min(_finite(record.lefts) for record in kept)
        high = max(_finite(record.rights, largest=True) for record in kept)
        # All values equal: linspace needs a width.
        if not low < high:
            low, high = low - 0.5 * (abs(low) or 1), low + 0.5 * (abs(low) or 1)
        edges = np.linspace(low, high, BUCKETS + 1)
        yield Histogram(
            tag=tag,
            records=len(all_of_tag),
            low=float(low),
            high=float(high),
            steps=tuple(record.step for record in kept),
            counts=tuple(tuple(map(_short, resample(record, edges))) for record in kept),
        )


def resample(record: LoggedHistogram, edges: Floats) -> Floats:
    """The share of values between each pair of `edges`; values are uniform inside a bucket.

    Returns:
        `len(edges) - 1` shares; they add up to 1 where `edges` cover the record.
    """
    lefts, rights, counts = map(as_floats, (record.lefts, record.rights, record.counts))
    # The outermost limits of a histogram may be infinite: their values have no place on the axis.
    usable = np.isfinite(lefts) & np.isfinite(rights) & np.isfinite(counts)
    lefts, rights, counts = lefts[usable], rights[usable], counts[usable]
    total = counts.sum()
    if not total > 0:  # also for NaN
        return np.zeros(len(edges) - 1)
    points = rights <= lefts  # all values of such a bucket are equal
    shares = np.histogram(lefts[points], bins=edges, weights=counts[points])[0]
    for left, right, count in zip(lefts[~points], rights[~points], counts[~points], strict=True):
        overlap = np.minimum(edges[1:], right) - np.maximum(edges[:-1], left)
        shares = shares + count * overlap.clip(0) / (right - left)
    return np.asarray(shares / total, dtype=np.float64)


def _finite(edges: Sequence[float], *, largest: bool = False) -> float:
    usable = [edge for edge in edges if math.isfinite(edge)]
    return (max(usable) if largest else min(usable)) if usable else 0.0


def _short(value: float) -> float:
    return float(f"{value:.4g}")  # finer than a pixel; report.json holds thousands of them


def readable_settings(
    settings: Mapping[str, Hyperparameter],
) -> Iterator[tuple[str, Hyperparameter]]:
    """Hyperparameters without folders of this machine; NaN and infinities as text, for JSON."""
    for name, value in settings.items():
        if isinstance(value, str):
            yield name, without_folders(value)
        else:
            finite = not isinstance(value, float) or math.isfinite(value)
            yield name, value if finite else str(value)


def last_texts(records: Sequence[LoggedText]) -> Iterator[Text]:
    """The last three texts of every tag, each truncated to 4,000 characters."""
    for tag, texts in list(by_tag(records).items())[:_MOST_TEXTS]:
        for record in texts[-_TEXTS_OF_A_TAG:]:
            cut = len(record.text) > _LONGEST_TEXT
            text = without_folders(record.text[:_LONGEST_TEXT]) + ("…" if cut else "")
            yield Text(tag=tag, step=record.step, text=text, records=len(texts))


def last_pr_curves(records: Sequence[LoggedPrCurve]) -> Iterator[PrCurve]:
    """The last precision-recall curve of every tag; non-finite points are left out."""
    for tag, curves in list(by_tag(records).items())[:MOST_CURVES]:
        last = curves[-1]
        pairs = [
            (_short(p), _short(r))
            for p, r in zip(last.precision, last.recall, strict=False)
            if math.isfinite(p) and math.isfinite(r)
        ]
        yield PrCurve(
            tag=tag,
            step=last.step,
            precision=tuple(p for p, _ in pairs),
            recall=tuple(r for _, r in pairs),
            records=len(curves),
        )


def cut_tables(records: Sequence[LoggedTable]) -> Iterator[Table]:
    """The first tables, each truncated to 50 rows and 12 columns."""
    for table in records[:_MOST_TABLES]:
        rows = [tuple(cell[:_LONGEST_CELL] for cell in row[:_MOST_COLUMNS]) for row in table.rows]
        left_out = len(rows) - _MOST_ROWS
        if left_out > 0:
            rows = [*rows[:_MOST_ROWS], (f"and {left_out:,} more rows",)]
        yield Table(tag=table.tag, columns=table.columns[:_MOST_COLUMNS], rows=tuple(rows))
