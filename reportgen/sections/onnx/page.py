"""Charts and rows for the template of the ONNX section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from markupsafe import Markup

from reportgen import units
from reportgen.charts import Bar, bar_list
from reportgen.sections.onnx.parity_result import ErrorBin, OutputParity, ParityCase
from reportgen.visible_text import visible

_MOST_OPERATORS = 12
_PARITY_ROWS = 48


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityRow:
    """An output of a case, as a row of the table."""

    case: ParityCase
    output: OutputParity


def operators(counts: Mapping[str, int], title: str) -> Markup:
    """The operators of an ONNX graph, the most frequent first."""
    return bar_list(
        title,
        [
            Bar(label=visible(name), value=number, figure=units.format_integer(number))
            for name, number in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[
                :_MOST_OPERATORS
            ]
        ],
        series=3,
    )


def error_bins(bins: Sequence[ErrorBin], title: str) -> Markup:
    """Elements by their error, without the empty bins at both ends."""
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
    """The outputs to show, failing and small ones first, and the number of those left out."""
    rows = [ParityRow(case=case, output=output) for case in cases for output in case.outputs]
    rows.sort(key=_failing_and_small_first)
    return rows[:_PARITY_ROWS], max(0, len(rows) - _PARITY_ROWS)


def _failing_and_small_first(row: ParityRow) -> tuple[bool, bool, int, int]:
    if row.output.passed:  # equal keys: passing rows keep the order of the cases
        return True, False, 0, 0
    return False, row.case.perturbed, row.case.batch, prod(row.output.shape)


FILTERS: dict[str, Callable[..., Any]] = {
    "operators": operators,
    "error_bins": error_bins,
    "parity_rows": parity_rows,
}
