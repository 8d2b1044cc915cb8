"""Rules on the memory of a model."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.memory.result import Fit, Memory
from reportgen.units import format_bytes


@rule(
    "MEM001",
    Severity.WARNING,
    advice="use a lower precision or checkpointing, or remove the target",
)
def single_sample_exceeds_target_memory(result: Memory) -> Iterator[Hit]:
    """A step that does not fit a target GPU with even one sample.

    If weights, optimizer state and one sample exceed the usable memory of the GPU, no batch size
    fits.
    """
    for fit in result.fits:
        if fit.largest_batch == 0:
            yield Hit(
                where=fit.gpu,
                message=f"{_name(fit)} does not fit in {format_bytes(fit.usable_bytes)} "
                f"at batch 1; the largest category is {fit.limited_by}",
            )


@rule(
    "MEM002",
    Severity.NOTE,
    advice="lower the batch; the report lists the safe batch of each target",
)
def batch_exceeds_target_memory(result: Memory) -> Iterator[Hit]:
    """A target GPU on which the batch of the manifest does not safely fit.

    At that batch the step runs out of memory on this GPU, or may: the upper end of the estimated
    range does not fit.
    """
    # reversed, so that the manifest's batch, the first of a step, replaces those of budgets
    batches = {(e.mode, e.precision, e.optimizer, e.checkpointing): e.batch
               for e in reversed(result.estimates)}  # fmt: skip
    for fit in result.fits:
        batch = batches.get((fit.mode, fit.precision, fit.optimizer, fit.checkpointing), 0)
        failing = fit.first_batch_that_fails
        if fit.largest_batch > 0 and failing is not None and batch >= failing:
            yield Hit(
                where=fit.gpu,
                message=f"{_name(fit)} fits at most batch {fit.largest_batch}, not {batch}",
            )
        elif fit.largest_batch > 0 and fit.safe_batch < batch:
            yield Hit(
                where=fit.gpu,
                message=f"{_name(fit)} may not fit at batch {batch}; "
                f"up to {fit.safe_batch} is safe",
            )


def _name(fit: Fit) -> str:
    trained = f" with {fit.optimizer}" if fit.mode == "train" else ""
    return f"{fit.mode} in {fit.precision}{trained}{', checkpointed' if fit.checkpointing else ''}"


RULES = (single_sample_exceeds_target_memory, batch_exceeds_target_memory)
