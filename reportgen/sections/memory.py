"""Memory: what a step takes on a CUDA card, and the largest batch that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reportgen.chapter import Section, Skipped, Unable
from reportgen.cuda_memory.errors import CudaMemoryError
from reportgen.cuda_memory.gpus import Gpu, find_gpu, user_gpu
from reportgen.cuda_memory.step import Step
from reportgen.findings import Hit, Severity, rule
from reportgen.manifest import Loss, Target
from reportgen.study import Study
from reportgen.units import format_bytes

if TYPE_CHECKING:
    from reportgen.cuda_memory import Estimate, Plan

_CURVE_DOUBLINGS = 20
_CURVE_HEADROOM = 1.5  # a curve ends where it has left the largest card this far behind


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryEstimate:
    """The peak of one step at one batch size; bytes. See `cuda_memory.Estimate`."""

    mode: str  # "inference" | "train"
    precision: str
    optimizer: str
    checkpointing: bool
    batch: int
    peak_allocated_bytes: int
    peak_reserved_bytes: int
    peak_device_bytes: int
    band_low_bytes: int
    band_high_bytes: int
    method: str
    at_peak: dict[str, int]  # category -> bytes
    peak_module: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """The largest batch of one step on one card; 0 where not even one sample fits."""

    gpu: str
    usable_bytes: int
    mode: str
    precision: str
    optimizer: str
    checkpointing: bool
    largest_batch: int
    first_batch_that_fails: int | None
    limited_by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Peak device memory against batch size of one step."""

    mode: str
    precision: str
    checkpointing: bool
    batches: tuple[int, ...]
    peak_device_bytes: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """Estimates at the manifest's batch, what fits, and the curves behind it."""

    estimates: tuple[MemoryEstimate, ...]
    fits: tuple[Fit, ...]
    curves: tuple[Curve, ...]
    torchinfo_bytes: int | None  # the figure torchinfo prints for the same batch
    assumptions: tuple[str, ...]


def examine(study: Study) -> Memory | Skipped:
    """Trace every step the manifest asks for once, then answer every question from the traces."""
    if not study.targets:
        return Skipped(reason="the manifest names no target GPUs")
    gpus = tuple(map(gpu_of, study.targets))
    plans, refusals = traced_plans(study)
    if not plans:
        raise Unable(str(refusals[0]), hint=refusals[0].hint) from refusals[0]
    estimates = [plan.estimate(batch) for plan in plans for batch in batches_of(study)]
    notes = dict.fromkeys(note for estimate in estimates for note in estimate.notes)
    lost = dict.fromkeys(f"no training step is estimated: {error}" for error in refusals)
    return Memory(
        estimates=tuple(map(_as_result, estimates)),
        fits=tuple(_fit(plan, gpu) for plan in plans for gpu in gpus),
        curves=tuple(_curve(plan, gpus) for plan in plans),
        torchinfo_bytes=torchinfo_bytes(study),
        assumptions=(f"the loss of a training step is {study.spec.loss.text}", *notes, *lost),
    )


def traced_plans(study: Study) -> tuple[list[Plan], list[CudaMemoryError]]:
    """Every step that can be traced at the manifest's batch, and why the others cannot.

    A model without parameters, or whose output no loss can be made of, still has an inference.
    """
    plans: list[Plan] = []
    refusals: list[CudaMemoryError] = []
    for step in steps_of(study):
        plan = make_plan(study, step)
        try:
            plan.estimate(study.batch)
            plans.append(plan)
        except CudaMemoryError as error:
            refusals.append(error)
    return plans, refusals


def gpu_of(target: Target) -> Gpu:
    """The card a target names, or the one it describes."""
    if target.memory_bytes is None:
        return find_gpu(target.name)
    return user_gpu(target.name, target.memory_bytes)


def steps_of(study: Study) -> Iterator[Step]:
    """Inference and training in every precision, training with every optimizer asked for."""
    for precision in study.training.precisions:
        yield Step(mode="inference", precision=precision)
        for optimizer in study.training.optimizers:
            for checkpointing in study.training.checkpointing:
                yield Step(
                    mode="train",
                    precision=precision,
                    optimizer=optimizer,
                    checkpointing=checkpointing,
                    loss=loss_of(study.spec.loss),
                )


def loss_of(loss: Loss) -> Any:
    """The loss by name, or the user's function from its file."""
    if loss.kind != "python":
        return loss.kind
    from reportgen.sources.from_python import load_object

    return load_object(str(loss.target), str(loss.factory), loss.text)


def make_plan(study: Study, step: Step) -> Plan:
    """A traced step, for any batch and any card."""
    from reportgen.cuda_memory import trace_step

    return trace_step(study.model, _inputs(study), step)


def _inputs(study: Study) -> Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]:
    def make(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        examples = study.examples(batch)
        return examples.args, examples.kwargs

    return make


def batches_of(study: Study) -> tuple[int, ...]:
    """The manifest's batch, and those that a budget asks about."""
    return tuple(dict.fromkeys((study.batch, *sorted(study.spec.budgets.peak_memory_bytes))))


def _as_result(estimate: Estimate) -> MemoryEstimate:
    return MemoryEstimate(
        mode=estimate.mode,
        precision=estimate.precision,
        optimizer=estimate.optimizer,
        checkpointing=estimate.checkpointing,
        batch=estimate.batch,
        peak_allocated_bytes=estimate.peak_allocated_bytes,
        peak_reserved_bytes=estimate.peak_reserved_bytes,
        peak_device_bytes=estimate.peak_device_bytes,
        band_low_bytes=estimate.band_low_bytes,
        band_high_bytes=estimate.band_high_bytes,
        method=estimate.method,
        at_peak={name: size for name, size in estimate.at_peak.items() if size},
        peak_module=estimate.peak_module,
    )


def _fit(plan: Plan, gpu: Gpu) -> Fit:
    found = plan.largest_batch(gpu)
    return Fit(
        gpu=gpu.name,
        usable_bytes=gpu.usable_bytes,
        mode=found.mode,
        precision=found.precision,
        optimizer=found.optimizer,
        checkpointing=found.checkpointing,
        largest_batch=found.largest_batch,
        first_batch_that_fails=found.first_batch_that_fails,
        limited_by=found.limited_by,
    )


def _curve(plan: Plan, gpus: tuple[Gpu, ...]) -> Curve:
    """Doubling batches until the largest card is left well behind."""
    limit = _CURVE_HEADROOM * max(gpu.usable_bytes for gpu in gpus)
    points = [plan.estimate(1)]
    while points[-1].peak_device_bytes < limit and len(points) <= _CURVE_DOUBLINGS:
        points.append(plan.estimate(2 * points[-1].batch))
    return Curve(
        mode=points[0].mode,
        precision=points[0].precision,
        checkpointing=points[0].checkpointing,
        batches=tuple(point.batch for point in points),
        peak_device_bytes=tuple(point.peak_device_bytes for point in points),
    )


def torchinfo_bytes(study: Study) -> int | None:
    """The "estimated total size" of torchinfo at the manifest's batch; None where it fails.

    It adds up inputs, parameters and twice the output of every layer, whatever the mode, and
    knows neither optimizer nor allocator; it is shown because people compare with it.
    """
    from reportgen.peer import ask_torchinfo
    from reportgen.twin import twin

    examples = study.examples()
    try:
        with twin(study.model, (examples.args, examples.kwargs)) as (double, arguments):
            return ask_torchinfo(double, arguments).total_bytes
    except Exception:  # a model without a twin; the peer is asked for comparison only
        return None


@rule(
    "MEM001",
    Severity.WARNING,
    advice="lower the batch, take a lower precision or checkpointing, or remove the target",
)
def a_target_without_room_for_one_sample(result: Memory) -> Iterator[Hit]:
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
def the_manifest_batch_beyond_a_target(result: Memory) -> Iterator[Hit]:
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


SECTION = Section(
    name="memory",
    title="Memory",
    result=Memory,
    examine=examine,
    rules=(a_target_without_room_for_one_sample, the_manifest_batch_beyond_a_target),
)
