"""Rules on the log itself: damage, repeated steps, mixed units."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.training.headline import count_of
from reportgen.sections.training.result import Run, Training
from reportgen.sections.training.rules.evidence import (
    count_in,
    hits_of,
    place_of,
    step_of,
)


@rule(
    "TRN023",
    Severity.WARNING,
    advice="copy the file again if it is a copy; otherwise the points in those bytes are lost",
)
def damaged_log(result: Training) -> Iterator[Hit]:
    """A log file with bytes that could not be read.

    Reading continues behind them. Where a length is damaged the number of lost points is unknown,
    so bytes are reported.
    """
    for run in result.runs:
        for file in dict.fromkeys(stretch.file for stretch in run.damage):
            yield Hit(where=place_of(result, run.name, file), message=_damage(run, file))


def _damage(run: Run, file: str) -> str:
    stretches = [stretch for stretch in run.damage if stretch.file == file]
    skipped = sum(stretch.bytes for stretch in stretches)
    first = stretches[0]
    several = len(stretches) > 1
    places = f"in {len(stretches):,} places, the first {first.bytes:,} " if several else ""
    return f"{count_of(skipped, 'byte')} skipped {places}at offset {first.offset:,}: {first.reason}"


@rule(
    "TRN024",
    Severity.NOTE,
    advice="log from one process only (rank 0), and close a writer before opening another",
)
def repeated_steps(result: Training) -> Iterator[Hit]:
    """A metric with several points at one step, without a resume between them.

    Usually two processes logged at the same time. All points are kept and drawn. Points that a
    resume replaces are reported as resumed; a second attempt is a run of its own.
    """
    return hits_of(
        result,
        "repeated-steps",
        lambda found: (
            f"{count_in(found.evidence, 'repeats', 'point')} of {found.points:,} repeat a "
            f"step, first at step {step_of(found.evidence, 'first_step')}"
        ),
    )


@rule(
    "TRN025",
    Severity.NOTE,
    advice="log each unit under its own tag, such as train_loss_step and train_loss_epoch",
)
def mixed_units(result: Training) -> Iterator[Hit]:
    """A tag whose steps mix two units, such as epochs and batches.

    Its steps jump back and forth between two rising sequences. The points are drawn in the order
    of the log.
    """
    return hits_of(
        result,
        "mixed-units",
        lambda found: (
            f"steps of two units in one tag: step {step_of(found.evidence, 'first_step')} "
            f"is followed by step {step_of(found.evidence, 'unit_change_step')} "
            f"(n = {found.points:,})"
        ),
    )
