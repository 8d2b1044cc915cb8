"""What is judged of the memory a model needs."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.memory.result import Fit, Memory
from reportgen.units import format_bytes


@rule(
    "MEM001",
    Severity.WARNING,
    advice="lower the batch, take a lower precision or checkpointing, or remove the target",
)
def single_sample_exceeds_target_memory(result: Memory) -> Iterator[Hit]:
    """A step that does not fit a target GPU with even one sample.

    The manifest names the GPUs that the model is meant for. Where the weights, the optimizer's
    state and one sample are more than the card's usable memory, no batch size helps.
    """
    for fit in result.fits:
        if fit.largest_batch == 0:
            yield Hit(
                where=fit.gpu,
                message=f"{_name(fit)} does not fit into {format_bytes(fit.usable_bytes)} "
                f"with one sample; {fit.limited_by} takes the most",
            )


@rule(
    "MEM002",
    Severity.NOTE,
    advice="lower the manifest's batch, or read the largest batch of each target in the report",
)
def batch_exceeds_target_memory(result: Memory) -> Iterator[Hit]:
    """A target GPU on which the manifest's own batch does not fit.

    The batch in the manifest is the one the report is about; on this card the step would end
    in an out-of-memory error at that batch, though a smaller one fits.
    """
    batches = {(e.mode, e.precision, e.optimizer, e.checkpointing): e.batch
               for e in reversed(result.estimates)}  # fmt: skip
    for fit in result.fits:
        batch = batches.get((fit.mode, fit.precision, fit.optimizer, fit.checkpointing), 0)
        if 0 < fit.largest_batch < batch:
            yield Hit(
                where=fit.gpu,
                message=f"{_name(fit)} fits at most batch {fit.largest_batch}, not {batch}",
            )


def _name(fit: Fit) -> str:
    trained = f" with {fit.optimizer}" if fit.mode == "train" else ""
    return f"{fit.mode} in {fit.precision}{trained}{', checkpointed' if fit.checkpointing else ''}"


RULES = (single_sample_exceeds_target_memory, batch_exceeds_target_memory)
