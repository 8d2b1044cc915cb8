"""Metrics of the training section: best and last values of the newest run with a verdict."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.comparable import Comparable, TrainingCurve
from reportgen.metrics import Method, Metric
from reportgen.sections.training.headline import newest_run
from reportgen.sections.training.result import Run, Scalar, Training

_MOST = 40  # each is a row in comparisons and history; a run may log thousands of tags


def metrics_of(result: Training) -> tuple[Metric, ...]:
    """Best and last value of every metric that has a direction, of the newest run."""
    if not result.runs:
        return ()
    return tuple(_metrics(newest_run(result.runs)))[:_MOST]


def methods_of(result: Training) -> tuple[Method, ...]:
    """The logged points of the newest run."""
    keys = tuple(metric.key for metric in metrics_of(result))
    if not keys:
        return ()
    method = Method(
        keys=keys,
        text="The best and the last of all values logged by the newest run that has a verdict",
        tools=("reportgen",),
        inputs=newest_run(result.runs).source,
    )
    return (method,)


def _metrics(run: Run) -> Iterator[Metric]:
    # Validation first, as the rest is cut off; the sort is stable, so tags keep their order.
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
        exact=False,  # two trainings of one model differ by their seeds
    )


def comparable_of(result: Training) -> Comparable:
    """Every curve that has a direction, run by run, those of the newest run last."""
    newest = newest_run(result.runs) if result.runs else None
    return Comparable(
        curves=tuple(
            TrainingCurve(run=run.name, tag=tag, steps=scalar.steps, values=scalar.values)
            for run in sorted(result.runs, key=lambda run: run is newest)
            for tag, scalar in run.scalars.items()
            if scalar.direction != "none"
        )
    )
