"""How the figures come about: every step traced once, every question answered from its trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reportgen.context import ModelContext
from reportgen.cuda_memory.errors import CudaMemoryError, UntraceableModelError
from reportgen.cuda_memory.gpus import Gpu, find_gpu, user_gpu
from reportgen.cuda_memory.library_workspaces import uncertainty
from reportgen.cuda_memory.memory_trace import CATEGORIES
from reportgen.cuda_memory.step import Step
from reportgen.errors import SectionError
from reportgen.manifest import Loss, Target
from reportgen.outcome import Skipped
from reportgen.sections.memory.result import (
    BatchCurve,
    Fit,
    Memory,
    MemoryEstimate,
    Timeline,
    TimelineSample,
    TopModule,
    WhatIf,
)

if TYPE_CHECKING:
    from reportgen.cuda_memory import Estimate, MemoryEstimator, ModuleShare, TimelinePoint

_CURVE_DOUBLINGS = 20
_CURVE_HEADROOM = 1.5  # a curve ends where it has left the largest card this far behind
_SAMPLES = 240
_TOP_MODULES = 12


def analyze(context: ModelContext) -> Memory | Skipped:
    """Trace every step the manifest asks for once, then answer every question from the traces."""
    if not context.targets:
        return Skipped(reason="the manifest names no target GPUs")
    gpus = tuple(map(gpu_of, context.targets))
    make_plan = planner(context)
    plans, refusals = traced_plans(context, make_plan)
    if not plans:
        raise SectionError(str(refusals[0]), hint=refusals[0].hint) from refusals[0]
    estimates, refused = estimates_of(plans, batches_of(context))
    fits = {(plan.step, gpu.name): fit_of(plan, gpu) for plan in plans for gpu in gpus}
    shown = next((e for e in estimates if e.mode == "train"), estimates[0])
    notes = dict.fromkeys(note for estimate in estimates for note in estimate.notes)
    curves = [_curve(plan, gpus) for plan in plans]
    lost = [f"no training step is estimated: {error}" for error in refusals]
    lost += [
        f"nothing is estimated at batch {batch:,}, which a budget names: {error}"
        for batch, error in refused.items()
    ]
    lost += [
        f"no curve over batches is drawn: {it}" for it in curves if not isinstance(it, BatchCurve)
    ]
    return Memory(
        estimates=tuple(map(as_result, estimates)),
        fits=tuple(fits.values()),
        what_if=tuple(what_if(make_plan, fits, gpus)),
        curves=tuple(curve for curve in curves if isinstance(curve, BatchCurve)),
        timeline=timeline_of(shown),
        top_modules=tuple(_top_module(share) for share in shown.top_modules[:_TOP_MODULES]),
        torchinfo_bytes=torchinfo_bytes(context),
        assumptions=(
            f"the loss of a training step is {context.spec.loss.text}",
            _band(),
            *notes,
            *dict.fromkeys(lost),
        ),
    )


def _band() -> str:
    return (
        f"the range leaves {uncertainty():.0%} either way for fragmentation and for kernels that "
        "are not modeled, and the spread of CUDA context, cuBLAS and cuDNN workspaces between "
        "cards and versions"
    )


def traced_plans(
    context: ModelContext, make_plan: Callable[[Step], MemoryEstimator]
) -> tuple[list[MemoryEstimator], list[CudaMemoryError]]:
    """Every step that can be traced at the manifest's batch, and why the others cannot.

    A model without parameters, or whose output no loss can be made of, still has an inference.
    """
    plans: list[MemoryEstimator] = []
    refusals: list[CudaMemoryError] = []
    for step in steps_of(context):
        plan = make_plan(step)
        try:
            plan.estimate(context.batch)
            plans.append(plan)
        except CudaMemoryError as error:
            refusals.append(error)
    return plans, refusals


def estimates_of(
    plans: Sequence[MemoryEstimator], batches: Sequence[int]
) -> tuple[list[Estimate], dict[int, UntraceableModelError]]:
    """Every step at every batch, and why the model refuses those that it refuses.

    Of a batch that only a budget names, nothing has shown yet that the model takes it.
    """
    estimates: list[Estimate] = []
    refused: dict[int, UntraceableModelError] = {}
    for plan in plans:
        for batch in batches:
            try:
                estimates.append(plan.estimate(batch))
            except UntraceableModelError as error:
                refused.setdefault(batch, error)
    return estimates, refused


def gpu_of(target: Target) -> Gpu:
    """The card a target names, or the one it describes."""
    if target.memory_bytes is None:
        return find_gpu(target.name)
    return user_gpu(target.name, target.memory_bytes)


def steps_of(context: ModelContext) -> Iterator[Step]:
    """Inference and training in every precision, training with every optimizer asked for."""
    for precision in context.training.precisions:
        yield Step(mode="inference", precision=precision)
        for optimizer in context.training.optimizers:
            for checkpointing in context.training.checkpointing:
                yield Step(
                    mode="train",
                    precision=precision,
                    optimizer=optimizer,
                    checkpointing=checkpointing,
                    loss=loss_of(context.spec.loss),
                )


def loss_of(loss: Loss) -> Any:
    """The loss by name, or the user's function from its file."""
    if loss.kind != "python":
        return loss.kind
    from reportgen.sources.from_python import load_object

    return load_object(str(loss.target), str(loss.factory), loss.text)


def planner(context: ModelContext) -> Callable[[Step], MemoryEstimator]:
    """What makes a traced step, for any batch and any card; all share what had to be computed."""
    from reportgen.cuda_memory import MemoryEstimator, TraceCache

    cache = TraceCache()
    return lambda step: MemoryEstimator(context.model, _inputs(context), step, cache=cache)


def _inputs(context: ModelContext) -> Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]:
    def make(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        examples = context.examples(batch)
        return examples.args, examples.kwargs

    return make


def batches_of(context: ModelContext) -> tuple[int, ...]:
    """The manifest's batch, and those that a budget asks about."""
    return tuple(dict.fromkeys((context.batch, *sorted(context.spec.budgets.peak_memory_bytes))))


def as_result(estimate: Estimate) -> MemoryEstimate:
    """The estimate as the report has it, empty categories left out."""
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
        peak_phase=estimate.peak_phase,
        peak_operator=estimate.peak_op,
    )


def fit_of(plan: MemoryEstimator, gpu: Gpu) -> Fit:
    """The largest batch of a traced step on `gpu`."""
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


def _curve(plan: MemoryEstimator, gpus: tuple[Gpu, ...]) -> BatchCurve | UntraceableModelError:
    """Doubling batches until the largest card is left well behind, or the model refuses one."""
    limit = _CURVE_HEADROOM * max(gpu.usable_bytes for gpu in gpus)
    try:
        points = [plan.estimate(1)]
        while points[-1].peak_device_bytes < limit and len(points) <= _CURVE_DOUBLINGS:
            points.append(plan.estimate(2 * points[-1].batch))
    except UntraceableModelError as refusal:
        return refusal
    return BatchCurve(
        mode=points[0].mode,
        precision=points[0].precision,
        checkpointing=points[0].checkpointing,
        batches=tuple(point.batch for point in points),
        peak_device_bytes=tuple(point.peak_device_bytes for point in points),
    )


def what_if(
    make_plan: Callable[[Step], MemoryEstimator],
    fits: Mapping[tuple[Step, str], Fit],
    gpus: tuple[Gpu, ...],
) -> Iterator[WhatIf]:
    """What the training step would fit with mixed precision, with checkpointing, with both.

    In this order, since mixed precision costs no time and checkpointing about a third of it.
    `fits` is by step and card; what stands there already is not searched for again. Nothing
    helps a model that refuses a larger batch itself.
    """
    steps = dict.fromkeys(step for step, _ in fits)
    plain = next((s for s in steps if s.mode == "train" and not s.checkpointing), None)
    if plain is None or all(fits[plain, gpu.name].limited_by == "model" for gpu in gpus):
        return
    for words, step in cheaper_steps(plain):
        plan = make_plan(step)  # traced only when it is asked something
        for gpu in gpus:
            try:
                found = fits.get((step, gpu.name)) or fit_of(plan, gpu)
            except CudaMemoryError:  # a model that cannot be checkpointed, say
                break
            yield WhatIf(
                gpu=gpu.name,
                change=words,
                largest_batch=found.largest_batch,
                baseline_largest_batch=fits[plain, gpu.name].largest_batch,
            )


def cheaper_steps(step: Step) -> Iterator[tuple[str, Step]]:
    """The changes that make a training step smaller, in words, the cheapest first."""
    mixed = replace(step, precision="amp-bf16")
    if step.precision in ("fp32", "tf32"):
        yield "mixed precision", mixed
    yield "checkpointing", replace(step, checkpointing=True)
    if step.precision in ("fp32", "tf32"):
        yield "mixed precision and checkpointing", replace(mixed, checkpointing=True)


def timeline_of(estimate: Estimate) -> Timeline:
    """The step's memory through time, thinned to what a picture can show."""
    categories = tuple(
        name for name in CATEGORIES if any(point.allocated.get(name) for point in estimate.timeline)
    )
    points = _thinned(estimate.timeline)
    totals = [sum(point.allocated.values()) for point in points]
    return Timeline(
        mode=estimate.mode,
        precision=estimate.precision,
        optimizer=estimate.optimizer,
        checkpointing=estimate.checkpointing,
        batch=estimate.batch,
        categories=categories,
        samples=tuple(
            TimelineSample(
                progress=round(point.progress, 4),
                phase=point.phase,
                allocated_bytes=tuple(point.allocated.get(name, 0) for name in categories),
            )
            for point in points
        ),
        peak_index=totals.index(max(totals)),
    )


def _thinned(points: Sequence[TimelinePoint]) -> list[TimelinePoint]:
    """At most `_SAMPLES` points: of each stretch the one with the most memory, and the ends."""
    stretch = max(1, -(-len(points) // _SAMPLES))
    parts = [points[start : start + stretch] for start in range(0, len(points), stretch)]
    tallest = [max(part, key=lambda point: sum(point.allocated.values())) for part in parts]
    return [points[0], *tallest[1:-1], points[-1]] if len(tallest) > 2 else list(points)


def _top_module(share: ModuleShare) -> TopModule:
    return TopModule(
        path=share.path,
        total_bytes=share.total_bytes,
        at_peak={name: size for name, size in share.at_peak.items() if size},
    )


def torchinfo_bytes(context: ModelContext) -> int | None:
    """The "estimated total size" of torchinfo at the manifest's batch; None if it fails.

    It adds up inputs, parameters and twice the output of every layer, whatever the mode, and
    knows neither optimizer nor allocator; it is shown because people compare with it.
    """
    return context.torchinfo(context.batch).total_bytes
