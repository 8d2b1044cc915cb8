"""Rules on where a curve goes: divergence, no learning, plateaus, overfitting, spikes."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.training.result import Diagnosis, Training
from reportgen.sections.training.rules.evidence import (
    count_in,
    hits_of,
    step_of,
    value_of,
)


@rule(
    "TRN004",
    Severity.ERROR,
    advice="restart from a checkpoint before that step; lower the learning rate, lengthen the "
    "warm-up or clip gradients",
)
def diverged(result: Training) -> Iterator[Hit]:
    """A training metric that became much worse than its best and did not recover.

    The median of the last 5 % of points is worse than the best running median by more than half
    of the progress made, six standard errors and a fifth of the best value. Every running median
    in those points is worse by more than a quarter of the progress and four standard errors.
    Validation curves are not judged: overfitting makes them worse, too. Needs 20 points, and a
    best value before the last 5 %.
    """
    return hits_of(result, "diverged", _diverged)


def _diverged(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"diverged at step {step_of(e, 'step')}: {value_of(e, 'last')} over the last "
        f"{count_in(e, 'last_points', 'point')}, best {value_of(e, 'best')} at step "
        f"{step_of(e, 'best_step')} (n = {found.points:,})"
    )


@rule(
    "TRN005",
    Severity.WARNING,
    advice="check that the optimizer holds the parameters and that gradients reach them; overfit "
    "a single batch; try learning rates 10 × higher and lower",
)
def not_learning(result: Training) -> Iterator[Hit]:
    """A training metric that ends where it began.

    The last fifth of the points is better than the first points by less than three standard
    errors. It is better than the first fifth by less than three standard errors and by less than
    2 % or one standard error, whichever is more. A fifth counts as the mean of its middle half.
    The best value is not used: the minimum of noise always looks like progress. Needs 50 points.
    Logs that begin after a fifth of the steps are not judged, nor are accuracies and other shares
    above 0.98 from the start.
    """
    return hits_of(result, "not-learning", _not_learning)


@rule(
    "TRN006",
    Severity.NOTE,
    advice="no action needed before the warm-up ends; build the report again then",
)
def not_learning_in_warm_up(result: Training) -> Iterator[Hit]:
    """A training metric that ends where it began, while the learning rate still rises.

    As not-learning, in a run whose logged learning rate has never fallen.
    """
    return hits_of(result, "not-learning-in-warm-up", _not_learning)


def _not_learning(found: Diagnosis) -> str:
    e = found.evidence
    each = count_in(e, "points_of_each", "point")
    return (
        f"no improvement: {value_of(e, 'first')} over the first {each} and {value_of(e, 'last')} "
        f"over the last {each}, steps {step_of(e, 'first_step')} to {step_of(e, 'last_step')}, "
        f"noise ±{value_of(e, 'sigma')} (n = {found.points:,})"
    )


@rule(
    "TRN007",
    Severity.NOTE,
    advice="stop earlier next time, or lower the learning rate where the plateau begins",
)
def plateau(result: Training) -> Iterator[Hit]:
    """A metric that made less than 1 % of its total progress in the last 30 % of points.

    It was about as good as its best before those points. A run that converged looks the same, so
    this is a note. The message says "converged" where the learning rate fell to a tenth, or
    training and validation ended at similar values. Needs 10 points in the last 30 %.
    """
    return hits_of(result, "plateau", _plateau)


def _plateau(found: Diagnosis) -> str:
    e = found.evidence
    reading = " (converged)" if e["reading"] == "converged" else ""
    return (
        f"flat at {value_of(e, 'value')} since step {step_of(e, 'step')}{reading}: changed by "
        f"{value_of(e, 'gain')} over the last {count_in(e, 'last_points', 'point')}, "
        f"total progress {value_of(e, 'progress')} (n = {found.points:,})"
    )


@rule(
    "TRN008",
    Severity.WARNING,
    advice="use the checkpoint of the best step; add regularization or data augmentation, or "
    "stop earlier",
)
def overfitting(result: Training) -> Iterator[Hit]:
    """A validation metric clearly past its best while the training metric still improves.

    The best running median over 3 evaluations (over 5 from 60 evaluations on) lies at least three
    evaluations and a fifth of all evaluations back. The end is worse by more than 5 % of the
    best, a tenth of the progress and three times the noise. Since the best, the training metric
    improved by more than 2 % of its range. An accuracy on the same set that still rises is named:
    the model is then over-confident rather than worse. Needs 8 evaluations.
    """
    return hits_of(result, "overfitting", _overfitting)


def _overfitting(found: Diagnosis) -> str:
    e = found.evidence
    still = f"; {e['still_improving']} still improves" if e["still_improving"] else ""
    return (
        f"best {value_of(e, 'best')} at step {step_of(e, 'step')}, worsened to "
        f"{value_of(e, 'last')} at step {step_of(e, 'last_step')} while {e['train_tag']} improved "
        f"from {value_of(e, 'train_at_best')} to {value_of(e, 'train_last')}{still} "
        f"(n = {found.points:,})"
    )


@rule(
    "TRN009",
    Severity.NOTE,
    advice="use the checkpoint of the best step",
)
def past_the_best(result: Training) -> Iterator[Hit]:
    """A validation metric whose last value is worse than its best.

    Worse by more than 2 % and by more than the noise explains, given the number of evaluations
    that the best is the best of. The training metric is not considered. Scores whose tag names
    neither train nor validation are judged too. Needs 5 evaluations.
    """
    return hits_of(result, "past-the-best", _past_the_best)


def _past_the_best(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"best {value_of(e, 'best')} at step {step_of(e, 'best_step')}, last {value_of(e, 'last')} "
        f"at step {step_of(e, 'last_step')}, {count_in(e, 'checks_since', 'evaluation')} later "
        f"(n = {found.points:,})"
    )


@rule(
    "TRN010",
    Severity.WARNING,
    advice="clip gradients, lower the learning rate or Adam's beta2, and inspect the batches of "
    "these steps",
)
def repeated_or_lasting_spikes(result: Training) -> Iterator[Hit]:
    """Three or more large spikes at irregular intervals, or one large spike that lasts.

    A spike is large if it more than doubles the level before it and takes back more than a
    quarter of the progress; of three or more spikes each must exceed four times the level. A
    spike lasts if it takes a quarter of the window (n / 20 points, 20 to 200) or never ends. A
    rise that follows a restart of a logged learning rate is ignored. Needs 40 points.
    """
    return hits_of(result, "repeated-or-lasting-spikes", _spikes)


@rule(
    "TRN011",
    Severity.NOTE,
    advice="no action needed for one spike that recovers; inspect the batch of that step",
)
def recovered_spike(result: Training) -> Iterator[Hit]:
    """Few or small spikes that the curve recovered from.

    A spike exceeds the median of the points before it by 25 %, by 5 % of the range of the curve,
    and by 6 standard deviations in three points in a row or by 10 in a single one. Needs 40
    points.
    """
    return hits_of(result, "recovered-spike", _spikes)


def _spikes(found: Diagnosis) -> str:
    e = found.evidence
    lost = f", {int(e['not_recovered']):,} without recovery" if e["not_recovered"] else ""
    return (
        f"{count_in(e, 'spikes', 'spike')}, first at step {step_of(e, 'first_step')}{lost}; the "
        f"largest goes from {value_of(e, 'level')} to {value_of(e, 'height')} at step "
        f"{step_of(e, 'step')} and lasts {count_in(e, 'length', 'point')} (n = {found.points:,})"
    )


@rule(
    "TRN016",
    Severity.NOTE,
    advice="log a metric on held-out data under a tag such as val/loss",
)
def missing_validation(result: Training) -> Iterator[Hit]:
    """A run with training curves and no validation curve.

    Overfitting cannot be detected without one. Reinforcement learning is not judged. Needs 20
    points.
    """
    return hits_of(
        result,
        "missing-validation",
        lambda found: (
            f"no validation curve in a run of {found.points:,} points up to step "
            f"{step_of(found.evidence, 'last_step')}"
        ),
    )
