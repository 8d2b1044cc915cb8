"""Trace every step of the manifest once; estimates, fits and curves come from the traces."""

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
from reportgen.error_text import shown_text
from reportgen.errors import SectionError
from reportgen.forward_failure import explain_failure
from reportgen.manifest import Target, TrainingSetup
from reportgen.outcome import Skipped
from reportgen.sections.memory.result import (
    BatchCurve,
    Fit,
    LoopOption,
    Memory,
    MemoryEstimate,
    Timeline,
    TimelineSample,
    TopModule,
    WhatIf,
)
from reportgen.sources.from_python import load_object

if TYPE_CHECKING:
    from reportgen.cuda_memory import Estimate, MemoryEstimator, ModuleShare, TimelinePoint

_CURVE_DOUBLINGS = 20  # up to the estimator's SEARCH_LIMIT, for a model that fills no GPU
_CURVE_HEADROOM = 1.5  # a curve ends at this multiple of the largest GPU's memory
_SAMPLES = 240  # of a timeline, which has one for each of thousands of allocations
_TOP_MODULES = 12


def analyze(context: ModelContext) -> Memory | Skipped:
    """Estimate every step of the manifest, its largest batches, and those of cheaper steps."""
    if not context.targets:
        return Skipped(reason="the manifest names no target GPUs")
    gpus = tuple(map(gpu_of, context.targets))
    make_estimator = estimator_factory(context)
    estimators, step_errors = traceable_steps(context, make_estimator)
    if not estimators:
        error = step_errors[0]  # of inference
        raise _failure_of(error) from error
    estimates, batch_errors = estimates_of(estimators, batches_of(context))
    fits = {
        (estimator.step, gpu.name): fit_of(estimator, gpu)
        for estimator in estimators
        for gpu in gpus
    }
    # the timeline of a training step, if there is one: inference shows little but its weights
    shown = next((e for e in estimates if e.mode == "train"), estimates[0])
    # a dict drops repetitions and keeps the order
    notes = dict.fromkeys(note for estimate in estimates for note in estimate.notes)
    curves = [_curve(estimator, gpus) for estimator in estimators]
    missing = [f"no estimate of a training step: {shown_text(str(error))}" for error in step_errors]
    missing += [
        f"no estimate at batch {batch:,} of a budget: {shown_text(str(error))}"
        for batch, error in batch_errors.items()
    ]
    missing += [f"no batch curve: {err}" for err in curves if not isinstance(err, BatchCurve)]
    return Memory(
        estimates=tuple(map(as_result, estimates)),
        fits=tuple(fits.values()),
        what_if=tuple(what_if(make_estimator, fits, gpus)),
        loop_options=tuple(loop_options(make_estimator, estimators, context)),
        curves=tuple(curve for curve in curves if isinstance(curve, BatchCurve)),
        timeline=timeline_of(shown),
        top_modules=tuple(_top_module(share) for share in shown.top_modules[:_TOP_MODULES]),
        # inputs, parameters and twice the output of every layer, whatever the mode, without
        # optimizer and allocator; it is shown because people compare with it
        torchinfo_bytes=context.torchinfo().total_bytes,
        assumptions=(
            f"the loss of a training step is {shown_text(context.spec.loss.text)}",
            f"the range is {uncertainty():.0%} either way, for fragmentation and kernels that are "
            "not modeled, plus the spread of CUDA context, cuBLAS and cuDNN workspaces across GPUs "
            "and versions",
            *notes,
            *dict.fromkeys(missing),
        ),
    )


def _failure_of(error: CudaMemoryError) -> SectionError:
    """Why inference cannot be traced: the model's own error, or what tracing requires."""
    if error.__cause__ is None:
        return SectionError(str(error), hint=error.hint)
    found = explain_failure(error.__cause__)
    return SectionError(f"the model's forward pass fails: {found}", hint=found.hint)


def traceable_steps(
    context: ModelContext, make_estimator: Callable[[Step], MemoryEstimator]
) -> tuple[list[MemoryEstimator], list[CudaMemoryError]]:
    """Estimators of the steps that can be traced at the manifest's batch, and the other errors.

    Inference can be traced even if training cannot, as for a model without parameters.
    """
    estimators: list[MemoryEstimator] = []
    step_errors: list[CudaMemoryError] = []
    for step in steps_of(context):
        estimator = make_estimator(step)
        try:
            estimator.estimate(context.batch)
            estimators.append(estimator)
        except CudaMemoryError as error:
            step_errors.append(error)
    return estimators, step_errors


def estimates_of(
    estimators: Sequence[MemoryEstimator], batches: Sequence[int]
) -> tuple[list[Estimate], dict[int, UntraceableModelError]]:
    """Every step at every batch, and the errors by batch.

    The batch of a budget is traced here for the first time, so the model may raise at it.
    """
    estimates: list[Estimate] = []
    batch_errors: dict[int, UntraceableModelError] = {}
    for estimator in estimators:
        for batch in batches:
            try:
                estimates.append(estimator.estimate(batch))
            except UntraceableModelError as error:
                batch_errors.setdefault(batch, error)
    return estimates, batch_errors


def gpu_of(target: Target) -> Gpu:
    """The GPU of the catalog, or the one that the target describes."""
    if target.memory_bytes is None:
        return find_gpu(target.name)
    return user_gpu(target.name, target.memory_bytes)


def steps_of(context: ModelContext) -> Iterator[Step]:
    """Inference in every precision, and training with every optimizer and checkpointing."""
    for precision in context.training.precisions:
        yield Step(mode="inference", precision=precision)
        for optimizer in context.training.optimizers:
            for checkpointing in context.training.checkpointing:
                yield Step(
                    mode="train",
                    precision=precision,
                    optimizer=optimizer,
                    checkpointing=checkpointing,
                    loss=loss_of(context),
                    **loop_arguments(context.training),
                )


ZERO_GRAD = {"free": "before_forward", "keep": "in_place"}
"""The argument of `Step` by what the manifest and the command line call it."""


def loop_arguments(training: TrainingSetup) -> dict[str, Any]:
    """The arguments of `Step` for what the training loop holds beside the plain step."""
    return {
        "accumulation": training.accumulation,
        "zero_grad": ZERO_GRAD[training.zero_grad],
        "prefetch": training.prefetch,
        "ddp": training.ddp,
        "ema": training.ema,
        "clip": training.clip,
        "channels_last": training.channels_last,
    }


def loop_options(
    make_estimator: Callable[[Step], MemoryEstimator],
    estimators: Sequence[MemoryEstimator],
    context: ModelContext,
) -> Iterator[LoopOption]:
    """What each habit of the training loop adds to the peak of the first training step."""
    trained = next((each for each in estimators if each.step.trains), None)
    if trained is None:
        return
    peak = trained.peak_device_bytes(context.batch)
    plain = Step()
    for key in loop_arguments(context.training):
        step = replace(trained.step, **{key: getattr(plain, key)})
        if step != trained.step:
            without = make_estimator(step).peak_device_bytes(context.batch)
            value = getattr(context.training, key)
            name = key if value is True else f"{key}: {value}"
            yield LoopOption(option=name, added_bytes=peak - without)


def loss_of(context: ModelContext) -> Any:
    """The name of the loss, or the user's function."""
    loss = context.spec.loss
    if loss.kind == "python":
        return load_object(str(loss.target), str(loss.factory), loss.text)
    return context.loss_function if loss.kind == "object" else loss.kind


def estimator_factory(context: ModelContext) -> Callable[[Step], MemoryEstimator]:
    """Makes the estimator of a step; all estimators share one trace cache."""
    # imported here, because these load torch
    from reportgen.cuda_memory import MemoryEstimator, TraceCache

    cache = TraceCache()
    return lambda step: MemoryEstimator(context.model, context.arguments, step, cache=cache)


def batches_of(context: ModelContext) -> tuple[int, ...]:
    """The manifest's batch, and those of its memory budgets."""
    return tuple(dict.fromkeys((context.batch, *sorted(context.spec.budgets.peak_memory_bytes))))


def as_result(estimate: Estimate) -> MemoryEstimate:
    """The estimate as it is reported, without empty categories."""
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


def fit_of(estimator: MemoryEstimator, gpu: Gpu) -> Fit:
    """The largest batch of the estimator's step on `gpu`."""
    found = estimator.largest_batch(gpu)
    return Fit(
        gpu=gpu.name,
        usable_bytes=gpu.usable_bytes,
        mode=found.mode,
        precision=found.precision,
        optimizer=found.optimizer,
        checkpointing=found.checkpointing,
        safe_batch=found.safe_batch,
        largest_batch=found.largest_batch,
        first_batch_that_fails=found.first_batch_that_fails,
        limited_by=found.limited_by,
    )


def _curve(estimator: MemoryEstimator, gpus: tuple[Gpu, ...]) -> BatchCurve | UntraceableModelError:
    """Peaks at doubling batches beyond the largest GPU; the error if the model raises at one."""
    # doubling reaches any size in few estimates, and the chart's axis is logarithmic
    limit = _CURVE_HEADROOM * max(gpu.usable_bytes for gpu in gpus)
    try:
        batch = 1
        peaks = {batch: estimator.peak_device_bytes(batch)}
        while peaks[batch] < limit and len(peaks) <= _CURVE_DOUBLINGS:
            batch *= 2
            peaks[batch] = estimator.peak_device_bytes(batch)
    except UntraceableModelError as error:
        return error
    return BatchCurve(
        mode=estimator.step.mode,
        precision=estimator.step.precision,
        checkpointing=estimator.step.checkpoints,
        batches=tuple(peaks),
        peak_device_bytes=tuple(peaks.values()),
    )


def what_if(
    make_estimator: Callable[[Step], MemoryEstimator],
    fits: Mapping[tuple[Step, str], Fit],
    gpus: tuple[Gpu, ...],
) -> Iterator[WhatIf]:
    """Safe training batches with mixed precision, with checkpointing, and with both.

    In this order: mixed precision costs no time and checkpointing about a third more. `fits` is by
    step and GPU; what it contains is not searched again. Yields nothing if the model itself raises
    at a larger batch, whatever the memory.
    """
    steps = dict.fromkeys(step for step, _ in fits)
    plain = next((s for s in steps if s.mode == "train" and not s.checkpointing), None)
    if plain is None or all(fits[plain, gpu.name].limited_by == "model" for gpu in gpus):
        return
    for change, step in cheaper_steps(plain):
        estimator = make_estimator(step)  # traced only when it is used
        for gpu in gpus:
            try:
                known = fits.get((step, gpu.name))
                safe_batch = known.safe_batch if known else estimator.safe_batch(gpu)
            except CudaMemoryError:  # a model that cannot be checkpointed, say
                break
            yield WhatIf(
                gpu=gpu.name,
                change=change,
                safe_batch=safe_batch,
                baseline_safe_batch=fits[plain, gpu.name].safe_batch,
            )


def cheaper_steps(step: Step) -> Iterator[tuple[str, Step]]:
    """Changes that reduce the memory of a training step, with their names, the cheapest first."""
    mixed = replace(step, precision="amp-bf16")  # bf16 needs no loss scaling
    if step.precision in ("fp32", "tf32"):
        yield "mixed precision", mixed
    yield "checkpointing", replace(step, checkpointing=True)
    if step.precision in ("fp32", "tf32"):
        yield "mixed precision and checkpointing", replace(mixed, checkpointing=True)


def timeline_of(estimate: Estimate) -> Timeline:
    """The memory of one step over time, decimated for a chart."""
    categories = tuple(
        name for name in CATEGORIES if any(point.allocated.get(name) for point in estimate.timeline)
    )
    points = _decimated(estimate.timeline)
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


def _decimated(points: Sequence[TimelinePoint]) -> list[TimelinePoint]:
    """At most `_SAMPLES` points: the largest of each stretch, and the ends."""
    stretch = max(1, -(-len(points) // _SAMPLES))
    parts = [points[start : start + stretch] for start in range(0, len(points), stretch)]
    # the largest, so that the chart shows the peak; the ends, so that it spans the step
    largest = [max(part, key=lambda point: sum(point.allocated.values())) for part in parts]
    return [points[0], *largest[1:-1], points[-1]] if len(largest) > 2 else list(points)


def _top_module(share: ModuleShare) -> TopModule:
    return TopModule(
        path=share.path,
        total_bytes=share.total_bytes,
        at_peak={name: size for name, size in share.at_peak.items() if size},
    )
