"""Gradients that vanish or explode, and weights that do not change, from their histograms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from reportgen.sections.training.curve import Curve, Floats, RunCurves
from reportgen.sections.training.diagnosis.trend import JudgedRun
from reportgen.sections.training.metric_names import split_words
from reportgen.sections.training.result import Diagnosis
from reportgen.sections.training.statistics import median, trailing_medians
from reportgen.training_logs.log_run import LoggedHistogram

Records = Sequence[LoggedHistogram]

_GRADIENTS = {"grad", "grads", "gradient", "gradients"}
_WEIGHTS = {"weight", "weights", "kernel", "bias", "param", "params", "parameter", "parameters"}
_DEAD = 1e-7  # the largest absolute value of a gradient that moves no float32 weight
_LAST_RECORDS = 3
_EARLIER_RECORDS = 10
# The largest of many gradients varies far more than the norm of all of them.
_HISTOGRAM_FACTOR, _NORM_FACTOR = 100, 10
_FEWEST_NORMS = 40
_MOST_ROWS = 100  # in which an explosion is looked for: each takes a quantile of all norms before
_NAMED = 3  # tags in one sentence


def find_gradient_faults(run: JudgedRun) -> Iterator[Diagnosis]:
    """`vanishing-gradient`, `exploding-gradient` and `unchanged-weight` of one run."""
    gradients = {t: r for t, r in run.run.histograms.items() if set(split_words(t)) & _GRADIENTS}
    dead = [tag for tag, records in gradients.items() if is_dead(records)]
    if dead:
        last = (r for tag in dead for r in run.run.histograms[tag][-_LAST_RECORDS:])
        size = max(map(largest, last))
        yield _histogram_diagnosis(run.run, "vanishing-gradient", dead, largest=size)
    for tag, records in gradients.items():
        found = _explosion(records)
        if found:
            yield _histogram_diagnosis(run.run, "exploding-gradient", [tag], **found)
    for curve in run.run.curves.values():
        if curve.name.kind == "gradient norm":
            yield from _norm_faults(run.run.name, curve)
    yield from _unchanged(run)


def _histogram_diagnosis(
    run: RunCurves, kind: str, tags: Sequence[str], **evidence: float | int | str
) -> Diagnosis:
    records = run.histograms[tags[0]]
    first = records[-_LAST_RECORDS].step
    return Diagnosis(
        kind=kind,
        run=run.name,
        tag=tags[0],
        points=len(records),
        evidence={
            "tags": len(tags),
            "named": ", ".join(tags[:_NAMED]),
            "first_step": first,
            "last_step": records[-1].step,
            **evidence,
        },
    )


def largest(record: LoggedHistogram) -> float:
    """The largest absolute value in `record`, from its buckets if the extremes are not finite."""
    ends = [record.minimum, record.maximum]
    # TensorFlow 2 records no extremes; with NaN in the data, torch's are NaN.
    if not all(math.isfinite(end) for end in ends):
        filled = [i for i, count in enumerate(record.counts) if count > 0]
        if not filled:
            return math.nan
        ends = [record.lefts[filled[0]], record.rights[filled[-1]]]
    return max(map(abs, ends))


def is_dead(records: Records) -> bool:
    """Whether each of the last three records has only (almost) zeros, or only one value."""
    return len(records) >= _LAST_RECORDS and all(map(_is_dead, records[-_LAST_RECORDS:]))


def _is_dead(record: LoggedHistogram) -> bool:
    size = largest(record)
    values = sum(record.counts)
    if values <= 0 or math.isnan(size):
        return False
    if record.minimum == record.maximum:
        return values > 1 or size < _DEAD  # a single value is always equal to itself
    return size < _DEAD and _share_at_zero(record) >= 0.99


def _share_at_zero(record: LoggedHistogram) -> float:
    """The share of values below the limit in size: in buckets that touch zero or lie around it."""
    at_zero = sum(
        count
        for left, right, count in zip(record.lefts, record.rights, record.counts, strict=True)
        # Ten times the limit: a bucket may be wider than the values in it.
        if (left <= 0 <= right) or max(abs(left), abs(right)) < 10 * _DEAD
    )
    return at_zero / sum(record.counts)


def _explosion(records: Records) -> dict[str, float | int | str]:
    """The first record far above the median of all before it; nothing where there is none."""
    sizes = np.array([largest(record) for record in records])
    for at in range(_EARLIER_RECORDS, len(sizes)):
        earlier = sizes[:at][np.isfinite(sizes[:at])]
        usual = median(earlier)
        if usual > 0 and sizes[at] > _HISTOGRAM_FACTOR * usual:
            return {"step": records[at].step, "largest": float(sizes[at]), "usual": usual}
    return {}


def _norm_faults(run: str, curve: Curve) -> Iterator[Diagnosis]:
    finite = np.isfinite(curve.values)
    steps, norms = curve.steps[finite], curve.values[finite]
    if len(norms) < _FEWEST_NORMS:
        return
    tail = max(3, len(norms) // 50)
    if (norms[-tail:] < _DEAD).all():
        yield Diagnosis(
            kind="vanishing-gradient", run=run, tag=curve.tag, points=len(norms),
            evidence={
                "tags": 1, "named": curve.tag, "first_step": float(steps[-tail]),
                "last_step": float(steps[-1]), "largest": float(norms[-tail:].max()),
            },
        )  # fmt: skip
        return
    window = min(max(len(norms) // 20, 20), 200)
    usual, _ = trailing_medians(norms, window, max(1, window // 10))
    # The first window of norms has NaN for the usual norm.
    with np.errstate(invalid="ignore"):
        high = (norms > _NORM_FACTOR * usual) & (usual > 0)
    # Three in a row: one large norm is what clipping is for.
    rows = np.flatnonzero(high[:-2] & high[1:-1] & high[2:])
    at = next((int(row) for row in rows[:_MOST_ROWS] if _is_new(norms, int(row))), None)
    if at is not None:
        yield Diagnosis(
            kind="exploding-gradient", run=run, tag=curve.tag, points=len(norms),
            evidence={
                "tags": 1, "named": curve.tag, "step": float(steps[at]),
                "first_step": float(steps[at]), "last_step": float(steps[-1]),
                "largest": float(norms[at : at + 3].max()), "usual": float(usual[at]),
            },
        )  # fmt: skip


def _is_new(norms: Floats, at: int) -> bool:
    # Bursts that were as large before did no harm.
    return bool(norms[at : at + 3].min() > 2 * np.quantile(norms[:at], 0.99))


def _unchanged(run: JudgedRun) -> Iterator[Diagnosis]:
    tags = [
        tag
        for tag, records in run.run.histograms.items()
        if set(split_words(tag)) & _WEIGHTS and not set(split_words(tag)) & _GRADIENTS
        if is_unchanged(records) and _is_trained(run, records)
    ]
    if tags:
        weights = sum(bool(set(split_words(t)) & _WEIGHTS) for t in run.run.histograms)
        yield _histogram_diagnosis(run.run, "unchanged-weight", tags, weights=weights)


def is_unchanged(records: Records) -> bool:
    """Whether minimum, maximum and sum are the same in the last three records."""
    # Three records of one step, from two writers, are no evidence.
    if len({record.step for record in records[-_LAST_RECORDS:]}) < _LAST_RECORDS:
        return False
    figures = {(r.minimum, r.maximum, r.total) for r in records[-_LAST_RECORDS:]}
    return len(figures) == 1 and not any(math.isnan(figure) for figure in next(iter(figures)))


def _is_trained(run: JudgedRun, records: Records) -> bool:
    """Whether some learning rate is above zero between those records; true where none is logged."""
    if not run.learning_rates:
        return True
    first, last = records[-_LAST_RECORDS].step, records[-1].step
    return any(
        bool((curve.values[(curve.steps >= first) & (curve.steps < last)] > 0).any())
        for curve in run.learning_rates
    )
