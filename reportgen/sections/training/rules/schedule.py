"""Rules on the course of a run: learning rate, resumes, planned end, speed."""

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
    "TRN012",
    Severity.NOTE,
    advice="decay the learning rate toward the end, which often helps; short fine-tuning needs "
    "no decay",
)
def constant_learning_rate(result: Training) -> Iterator[Hit]:
    """A learning rate that is constant over the whole run.

    Reported if every logged learning rate of the run is constant. Needs 20 points.
    """
    return hits_of(
        result,
        "constant-learning-rate",
        lambda found: (
            f"constant at {value_of(found.evidence, 'value')} from step "
            f"{step_of(found.evidence, 'first_step')} to {step_of(found.evidence, 'last_step')} "
            f"(n = {found.points:,})"
        ),
    )


@rule(
    "TRN013",
    Severity.WARNING,
    advice="restore the scheduler's state_dict with the checkpoint; check the schedule at that "
    "step",
)
def learning_rate_jump(result: Training) -> Iterator[Hit]:
    """A learning rate that rises by more than 3 × between two points, once or twice.

    Warm-ups and cyclic schedules are ignored. So is a return to the highest rate so far, which is
    a restart of the schedule, unless the run was resumed there. Needs 10 points.
    """
    return hits_of(
        result,
        "learning-rate-jump",
        lambda found: (
            f"rises from {value_of(found.evidence, 'before')} to "
            f"{value_of(found.evidence, 'after')} at step {step_of(found.evidence, 'step')} "
            f"(n = {found.points:,})"
        ),
    )


@rule(
    "TRN014",
    Severity.NOTE,
    advice="no action needed; the replaced points are listed under Log files",
)
def resumed(result: Training) -> Iterator[Hit]:
    """A run that was interrupted and resumed from a checkpoint.

    Points logged after the resume replace earlier ones from its first step on.
    """
    return hits_of(result, "resumed", _resumed)


def _resumed(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"{count_in(e, 'resumes', 'resume')}, the first at step {step_of(e, 'step')} after the log "
        f"had reached step {step_of(e, 'last_step_before')}; "
        f"{count_in(e, 'superseded', 'point')} replaced"
    )


@rule(
    "TRN015",
    Severity.WARNING,
    advice="save and restore the state of optimizer, scheduler, GradScaler, random generators and "
    "data sampler along with the weights",
)
def jump_at_resume(result: Training) -> Iterator[Hit]:
    """A metric that is clearly worse just after a resume than just before it.

    The medians of five points on each side differ by more than 5 % and five times the noise. What
    the curve rises by next to the resume anyway is subtracted first. Needs five points on each
    side.
    """
    return hits_of(result, "jump-at-resume", _jump_at_resume)


def _jump_at_resume(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"median of {e['points_each']} points: {value_of(e, 'before')} before and "
        f"{value_of(e, 'after')} after the resume at step {step_of(e, 'step')}, "
        f"noise ±{value_of(e, 'sigma')} (n = {found.points:,})"
    )


@rule(
    "TRN017",
    Severity.NOTE,
    advice="resume the run, or correct planned_steps in the manifest",
)
def ended_before_plan(result: Training) -> Iterator[Hit]:
    """A run whose last step is below the planned number of steps.

    The plan is planned_steps of the manifest, or what the log itself records, such as max_steps
    of the Hugging Face Trainer. The run may still be in progress: a build does not compare wall
    times with the current time.
    """
    return hits_of(
        result,
        "ended-before-plan",
        lambda found: (
            f"last step {step_of(found.evidence, 'last_step')} of "
            f"{step_of(found.evidence, 'planned_steps')} planned"
        ),
    )


@rule(
    "TRN018",
    Severity.WARNING,
    advice="look for growing memory use, swapping, other jobs on the machine, thermal throttling, "
    "or data that loads more slowly later on",
)
def slowdown(result: Training) -> Iterator[Hit]:
    """A run whose last tenth makes less than 0.7 × the steps per second of its first half.

    Both the median and the mean time per step must show it, by more than the jitter. The first
    tenth (compilation, caches) and intervals longer than 10 × the usual one (evaluation,
    checkpoints, pauses) are ignored. Needs 40 intervals between points with wall times.
    """
    return hits_of(result, "slowdown", _slowdown)


def _slowdown(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"{value_of(e, 'last_rate')} steps/s from step {step_of(e, 'since_step')} on "
        f"({count_in(e, 'last_gaps', 'interval')}), {value_of(e, 'first_rate')} steps/s in the "
        f"first half (n = {found.points:,})"
    )
