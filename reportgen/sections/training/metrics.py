"""Metrics that the training section exports: best and last values of the newest run."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.metrics import Metric
from reportgen.sections.training.result import Run, Scalar, Training

_MOST = 40


def metrics_of(result: Training) -> tuple[Metric, ...]:
    """Best and last value of every metric that has a direction, of the newest run."""
    if not result.runs:
        return ()
    return tuple(_metrics(newest_run(result)))[:_MOST]


def newest_run(result: Training) -> Run:
    """The run that was logged last; of runs without wall times, the last by name."""
    return max(enumerate(result.runs), key=lambda pair: (_end(pair[1]), pair[0]))[1]


def _end(run: Run) -> float:
    return max((s.times[-1] for s in run.scalars.values() if s.times), default=0)


def _metrics(run: Run) -> Iterator[Metric]:
    ordered = sorted(run.scalars.items(), key=lambda item: item[1].role != "validation")
    for tag, scalar in ordered:
        if scalar.direction == "none":
            continue
        yield _metric(tag, "best", scalar.best.value if scalar.best else None, scalar)
        yield _metric(tag, "last", scalar.last, scalar)


def _metric(tag: str, which: str, value: float | None, scalar: Scalar) -> Metric:
    return Metric(
        key=f"training.{tag}.{which}",
        label=f"{tag} ({which})",
        value=value,
        direction=scalar.direction,
        exact=False,
    )
