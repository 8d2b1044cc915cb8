"""Metrics of one model in two reports: which differ, and whether that is better or worse."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from reportgen.compare.result import MetricChange, MetricVerdict
from reportgen.metrics import COMPARISON, Metric, format_in_full, format_metric


def diff_metrics(
    old: Iterable[Metric], new: Iterable[Metric], *, tools: str = "", only_tools: bool = False
) -> tuple[MetricChange, ...]:
    """Every metric that differs, in the order of the new report, those of the old one alone last.

    Args:
        old: of the baseline.
        new: of the report that is judged.
        tools: versions and machine that differ: "torch 2.14 → 2.15"; "" if none does.
        only_tools: the model, its weights and its manifest entry are the same in both reports, so
            that a difference of an exact metric comes from `tools`.
    """
    before = {metric.key: metric for metric in old}
    after = {metric.key: metric for metric in new}
    keys = [*after, *(key for key in before if key not in after)]
    return tuple(_changes(before, after, keys, tools, only_tools))


def _changes(
    before: dict[str, Metric],
    after: dict[str, Metric],
    keys: list[str],
    tools: str,
    only_tools: bool,
) -> Iterator[MetricChange]:
    for key in keys:
        old, new = before.get(key), after.get(key)
        if old is None or new is None or _differs(old, new):
            yield _change(old, new, tools, only_tools)


def _differs(old: Metric, new: Metric) -> bool:
    if old.value is None and new.value is None:
        return old.text != new.text
    return old.value != new.value or old.lower_bound != new.lower_bound


def _change(old: Metric | None, new: Metric | None, tools: str, only_tools: bool) -> MetricChange:
    metric = new or old
    assert metric is not None  # each key comes from one of the two
    before = old.value if old else None
    after = new.value if new else None
    difference = None if before is None or after is None else after - before
    verdict, note = _judged(old, new, difference, tools, only_tools)
    texts = _texts(old, new)
    return MetricChange(
        key=metric.key,
        label=_label(metric),
        unit=metric.unit,
        old=before,
        new=after,
        difference=difference,
        percent=100 * difference / abs(before) if difference is not None and before else None,
        verdict=verdict,
        note=note,
        exact=metric.exact,
        headline=metric.table == COMPARISON,
        old_text=texts[0],
        new_text=texts[1],
    )


def _label(metric: Metric) -> str:
    """The label with its table where the table gives it its meaning: "Safe training batch: T4"."""
    return metric.label if metric.table in ("", COMPARISON) else f"{metric.table}: {metric.label}"


def _texts(old: Metric | None, new: Metric | None) -> tuple[str, str]:
    """Both as a table shows them; with all digits if rounding hides the difference."""
    before, after = format_metric(old) if old else "", format_metric(new) if new else ""
    if old is None or new is None or before != after:
        return before, after
    return format_in_full(old) or before, format_in_full(new) or after


def _judged(
    old: Metric | None, new: Metric | None, difference: float | None, tools: str, only_tools: bool
) -> tuple[MetricVerdict, str]:
    if old is None:
        return "changed", "not in the baseline"
    if new is None:
        return "changed", "only in the baseline"
    if in_words := _by_quality(old, new):
        return in_words, ""
    if difference is None:
        return "changed", "unknown in the baseline" if old.value is None else "now unknown"
    if not new.exact and not new.quality:
        # one run on each side, perhaps on two machines: no ground for a verdict
        return "noise", f"measured once on each side{f'; {tools}' if tools else ''}"
    if only_tools and tools:
        return "changed", f"the model is the same; {tools}"
    if old.lower_bound or new.lower_bound:
        return "changed", "a lower bound"
    if new.direction == "none" or math.isclose(difference, 0):
        return "changed", ""
    better = (difference < 0) is (new.direction == "lower")
    return "better" if better else "worse", ""


_RANK = {"bad": 0, "doubt": 1, "good": 2}


def _by_quality(old: Metric, new: Metric) -> MetricVerdict | None:
    """The verdict on a metric that is words: parity that holds, is vacuous, or is broken."""
    if old.quality == new.quality or "" in (old.quality, new.quality):
        return None
    return "better" if _RANK[new.quality] > _RANK[old.quality] else "worse"
