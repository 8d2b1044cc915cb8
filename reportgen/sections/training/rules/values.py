"""Rules on values that are not finite or out of range."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.training.headline import count_of
from reportgen.sections.training.result import Diagnosis, Training
from reportgen.sections.training.rules.evidence import (
    Evidence,
    count_in,
    hits_of,
    step_of,
    value_of,
)


@rule(
    "TRN001",
    Severity.ERROR,
    advice="restart from a checkpoint before that step with a lower learning rate or gradient "
    "clipping; torch.autograd.set_detect_anomaly(True) names the operator",
)
def ends_in_non_finite(result: Training) -> Iterator[Hit]:
    """A loss or a metric whose last value is NaN or infinite.

    From the reported step to the end the curve has no finite value, so nothing was learned from
    there on. For a gradient norm, the last three values must be non-finite: with mixed precision
    single steps overflow, and the loss scaler skips them. Other curves need one point only.
    """
    return hits_of(result, "ends-in-non-finite", _ends_in_non_finite)


def _ends_in_non_finite(found: Diagnosis) -> str:
    e = found.evidence
    before = ""
    if "last_finite_value" in e:
        before = f"; the last finite value is {value_of(e, 'last_finite_value')}"
    return (
        f"non-finite from step {step_of(e, 'since_step')} to the end, "
        f"the last {int(e['to_the_end']):,} of {count_of(found.points, 'value')}{before}"
    )


@rule(
    "TRN002",
    Severity.WARNING,
    advice="check these steps for empty batches, log(0), division by zero and half-precision "
    "overflow; clip gradients",
)
def non_finite_values(result: Training) -> Iterator[Hit]:
    """NaN or infinite values in a loss or a metric that is finite again later.

    The run went on, but such a step may have put NaN into the optimizer state or into running
    statistics. A score that is never finite, such as the accuracy of a class without samples, is
    reported here too. Single overflows of a gradient norm are ignored: mixed precision causes
    them.
    """
    return hits_of(result, "non-finite-values", _non_finite_values)


def _non_finite_values(found: Diagnosis) -> str:
    e = found.evidence
    first, last = step_of(e, "first_step"), step_of(e, "last_step")
    place = f"at step {first}" if first == last else f"between steps {first} and {last}"
    after = count_in(e, "finite_after", "finite value") if e["finite_after"] else "no finite value"
    values = count_of(found.points, "value")
    return f"{_non_finite(e)} out of {values}, {place}, followed by {after}"


def _non_finite(e: Evidence) -> str:
    parts = [(int(e["nans"]), "NaN"), (int(e["infinities"]), "infinite")]
    return " and ".join(f"{number:,} {word}" for number, word in parts if number)


@rule(
    "TRN003",
    Severity.NOTE,
    advice="no action needed if the metric is undefined at first; do not log such points",
)
def infinity_at_the_start(result: Training) -> Iterator[Hit]:
    """A metric that is infinite in its first one or two points only.

    Some losses overflow before the first update, and some metrics are undefined until then. For
    a gradient norm up to 20 points may be infinite, while the loss scale is being found.
    """
    return hits_of(
        result,
        "infinity-at-the-start",
        lambda found: (
            f"infinite up to step {step_of(found.evidence, 'last_step')}, "
            f"followed by {count_in(found.evidence, 'finite_after', 'finite value')} "
            f"(n = {found.points:,})"
        ),
    )


@rule(
    "TRN022",
    Severity.WARNING,
    advice="correct the computation of the metric, or the range in the manifest",
)
def out_of_range(result: Training) -> Iterator[Hit]:
    """Values outside the valid range of a metric, `ranges` in the manifest's log_options.

    Both ends of a range are valid. TRN001 and TRN002 report NaN and infinities.
    """
    return hits_of(result, "out-of-range", _out_of_range)


def _out_of_range(found: Diagnosis) -> str:
    e = found.evidence
    low = value_of(e, "lowest") if "lowest" in e else "-∞"
    high = value_of(e, "highest") if "highest" in e else "∞"
    return (
        f"{int(e['outside']):,} of {found.points:,} values outside [{low}, {high}], first "
        f"{value_of(e, 'first_value')} at step {step_of(e, 'first_step')}, farthest "
        f"{value_of(e, 'worst_value')} at step {step_of(e, 'worst_step')}"
    )
