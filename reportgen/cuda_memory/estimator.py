"""Estimate a step at any batch size and on any GPU from a few traces of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from .allocator import AllocatorOptions, allocator_options
from .batch_search import SEARCH_LIMIT, find_boundary, find_solid_boundary
from .errors import UntraceableModelError
from .estimates import Estimate, LargestBatch, by_category, by_module, timeline
from .extrapolation import (
    FIRST_BATCHES,
    BatchPolynomial,
    ScaledTrace,
    extrapolate,
    fit_lines,
    fit_pair,
    fit_polynomial,
    scale_trace,
    traced_sizes,
)
from .gpus import Gpu, find_gpu
from .library_workspaces import Platform, context_bytes, uncertainty
from .memory_trace import MemoryTrace, Replay, replay
from .step import Step, check_batch
from .tracing.step_tracer import StepTracer, TraceCache

if TYPE_CHECKING:
    from torch import nn

    from .tracing.fake_copy import MakeInputs

_LONGEST_LIST = 32
_USUAL_BOUND_SHARE = 0.98


class MemoryEstimator:
    """Estimates of one model in one step, from traces that are made when first needed.

    `make_inputs(batch)` returns the positional and keyword arguments of the model; their tensors
    may be nested, and real, fake or on `meta`. `gpu` is the default of the methods. The step is
    traced once for GPUs of the Ampere generation and later, and once for older ones if their
    kernels differ. `options` default to those of PYTORCH_ALLOC_CONF. Estimators of one model and
    its inputs may share a `cache`.
    """

    def __init__(
        self,
        model: nn.Module,
        make_inputs: MakeInputs,
        step: Step,
        gpu: Gpu | None = None,
        *,
        options: AllocatorOptions | None = None,
        cache: TraceCache | None = None,
    ) -> None:
        self.step = step
        self.gpu = gpu
        self._cache = cache or TraceCache()
        self._model = model
        self._make_inputs = make_inputs
        self._options = options if options is not None else allocator_options()
        self._tracers: dict[bool, StepTracer] = {}  # by generation: True for Ampere and later
        self._scalings: dict[StepTracer, BatchPolynomial | ScaledTrace | None] = {}
        self._traces: dict[tuple[bool, int], MemoryTrace] = {}
        # the largest batch over what the tensors alone allow: about the same on every GPU
        self._bound_share = _USUAL_BOUND_SHARE

    def estimate(self, batch: int, gpu: Gpu | None = None) -> Estimate:
        """The memory of the step at this batch.

        Raises:
            CudaMemoryError: the batch is not valid, or the model cannot be traced at it.
        """
        check_batch(batch)
        gpu = gpu or self.gpu
        platform = self._platform(gpu)
        trace, sizes = self._sized(batch, gpu, platform)
        # replayed, not scaled: a larger workspace also changes how the cached blocks are used
        runs = {
            level: replay(
                trace,
                self._sized(batch, gpu, replace(platform, level=level))[1],
                options=self._options,
            )
            for level in ("low", "high")
        }
        nominal = replay(trace, sizes, options=self._options)
        return self._estimate(batch, gpu, trace, nominal, runs)

    def peak_device_bytes(self, batch: int, gpu: Gpu | None = None) -> int:
        """`Estimate.peak_device_bytes` alone: one replay instead of three.

        Raises:
            CudaMemoryError: the batch is not valid, or the model cannot be traced at it.
        """
        check_batch(batch)
        gpu = gpu or self.gpu
        trace, sizes = self._sized(batch, gpu, self._platform(gpu))
        run = replay(trace, sizes, options=self._options)
        return run.peak_reserved_bytes + context_bytes(_request_rules(trace), "nominal", gpu)

    def fits(self, batch: int, gpu: Gpu | None = None) -> bool:
        """Whether this batch runs on the GPU with the safety margin left free."""
        check_batch(batch)
        return self._run_at_capacity(batch, self._gpu_or_default(gpu)).failed_position is None

    def largest_batch(self, gpu: Gpu | None = None) -> LargestBatch:
        """The largest batch that likely fits the GPU, and the largest that safely does.

        A batch at which the model raises does not fit: `limited_by` is "model" then.
        """
        gpu = self._gpu_or_default(gpu)
        runs: dict[int, Replay] = {}

        def fits(batch: int) -> bool:
            if self._surely_exceeds(batch, gpu):
                return False
            try:
                runs[batch] = self._run_at_capacity(batch, gpu)
            except UntraceableModelError:
                return False
            return runs[batch].failed_position is None

        bound = self._upper_bound(gpu)
        boundary = find_boundary(fits, limit=SEARCH_LIMIT, guess=round(bound * self._bound_share))
        failed = boundary.first_failing
        if failed is not None and self._surely_exceeds(failed, gpu):
            runs[failed] = self._run_at_capacity(failed, gpu)
        if boundary.largest:
            self._bound_share = boundary.largest / max(bound, 1)
        return LargestBatch(
            gpu=gpu.name,
            usable_bytes=gpu.usable_bytes,
            mode=self.step.mode,
            precision=self.step.precision,
            optimizer=self.step.optimizer,
            checkpointing=self.step.checkpoints,
            safe_batch=self.safe_batch(gpu, limit=boundary.largest),
            largest_batch=boundary.largest,
            first_batch_that_fails=failed,
            limited_by="" if failed is None else self._limit(failed, runs.get(failed), gpu),
            safety_margin_bytes=self._margin(gpu),
        )

    def safe_batch(self, gpu: Gpu | None = None, *, limit: int = SEARCH_LIMIT) -> int:
        """The largest batch up to `limit` that safely fits the GPU, and near which smaller ones do.

        Safe is a batch for which the upper end of the band fits. The last percents of a memory are
        fragmented: there a batch may fit by chance while smaller ones do not.
        """
        gpu = self._gpu_or_default(gpu)

        def exceeds(batch: int) -> bool | None:
            try:
                return self._may_exceed(batch, gpu)
            except UntraceableModelError:
                return None  # whatever the memory

        guess = round(self._upper_bound(gpu, uncertainty()) * self._bound_share)
        return find_solid_boundary(exceeds, limit=limit, guess=guess)

    def trace(self, batch: int, gpu: Gpu | None = None) -> MemoryTrace:
        """The events of the step, traced at this batch.

        A data-dependent model is traced at a batch of two at most.
        """
        key = (self._generation(gpu or self.gpu), batch)
        if key not in self._traces:
            self._traces[key] = self._tracer(gpu or self.gpu).trace(batch)
        return self._traces[key]

    def _gpu_or_default(self, gpu: Gpu | None) -> Gpu:
        return gpu or self.gpu or find_gpu("A100-80GB")

    def _platform(self, gpu: Gpu | None) -> Platform:
        return replace(self._tracer(gpu).platform, gpu=gpu)

    def _tracer(self, gpu: Gpu | None) -> StepTracer:
        generation = self._generation(gpu)
        # one tracer per generation: GPUs of a generation run the same attention kernels
        if generation not in self._tracers:
            self._tracers[generation] = StepTracer(
                self._model, self._make_inputs, self.step, gpu, self._cache
            )
        return self._tracers[generation]

    def _generation(self, gpu: Gpu | None) -> bool:
        """True for Ampere and later; the traced generation if both run the same kernels."""
        for generation, tracer in self._tracers.items():
            if tracer.was_traced and not tracer.depends_on_gpu:
                return generation
        capability = None if gpu is None else gpu.compute_capability
        return capability is None or capability >= (8, 0)  # the first with flash attention

    def _scaling(self, gpu: Gpu | None) -> BatchPolynomial | ScaledTrace | None:
        """How sizes depend on the batch; None if the step must be traced at every batch."""
        tracer = self._tracer(gpu)
        if tracer not in self._scalings:
            try:
                self._scalings[tracer] = self._find_scaling(tracer, gpu)
            except UntraceableModelError:  # the model raises at one of the small batches
                self._scalings[tracer] = None
        return self._scalings[tracer]

    def _find_scaling(
        self, tracer: StepTracer, gpu: Gpu | None
    ) -> BatchPolynomial | ScaledTrace | None:
        for batch in FIRST_BATCHES:
            polynomial = self._polynomial_from(batch, tracer, gpu)
            if tracer.data_dependent:  # found out while tracing
                return self._extrapolate_small_batches(gpu)
            if polynomial is not None:
                return polynomial
        return self._scale_if_longer(gpu)

    def _polynomial_from(
        self, batch: int, tracer: StepTracer, gpu: Gpu | None
    ) -> BatchPolynomial | None:
        pair = None if self._has_trace(batch, gpu) else tracer.trace_pair(batch)
        if pair is None:
            full = self.trace(batch, gpu)
            if tracer.data_dependent:
                return None
            return fit_polynomial(full, partial(tracer.trace, light=True))
        generation = self._generation(gpu)
        self._traces[generation, batch] = pair.trace
        # A kernel may be chosen by batch in one precision and not in another. Recomputation and
        # optimizers choose none, so that one verification holds for all steps with the same passes.
        passes = (
            generation,
            batch,
            replace(self.step, optimizer="none", checkpointing=False, checkpoint_modules=()),
        )
        if passes in self._cache.linear and (lines := fit_lines(pair)):
            return lines
        polynomial = fit_pair(pair, tracer.trace_iteration)
        if polynomial is not None and polynomial.is_linear:
            self._cache.linear.add(passes)
        return polynomial

    def _extrapolate_small_batches(self, gpu: Gpu | None) -> BatchPolynomial | ScaledTrace:
        larger = self.trace(FIRST_BATCHES[0], gpu)
        try:
            return extrapolate(self.trace(1, gpu), larger)
        except UntraceableModelError:  # batch norm does not train on one sample
            return ScaledTrace(trace=larger)

    def _scale_if_longer(self, gpu: Gpu | None) -> ScaledTrace | None:
        """Scale a step that runs more operators for more samples, as with a list of images.

        Tracing it at every batch would take too long, so batches above `_LONGEST_LIST` are scaled.
        """
        events = [len(self.trace(batch, gpu).events) for batch in FIRST_BATCHES]
        if events[-1] <= events[0]:
            return None
        note = (
            f"the number of operators grows with the batch: batches above {_LONGEST_LIST} are "
            f"extrapolated from batch {_LONGEST_LIST}"
        )
        longest = self.trace(_LONGEST_LIST, gpu)
        run = scale_trace(self.trace(FIRST_BATCHES[-1], gpu), longest)
        noted = replace(longest, notes=(*longest.notes, note))
        return replace(run, trace=noted, smallest=_LONGEST_LIST + 1)

    def _sized(
        self, batch: int, gpu: Gpu | None, platform: Platform
    ) -> tuple[MemoryTrace, list[int]]:
        """The events and sizes: of a trace at this batch if there is one, else scaled."""
        if not self._has_trace(batch, gpu):
            scaling = self._scaling(gpu)
            # the search for the scaling may have traced this batch
            if (
                scaling is not None
                and batch >= scaling.smallest
                and not self._has_trace(batch, gpu)
            ):
                return scaling.trace, scaling.sizes(batch, platform)
        traced = self.trace(batch, gpu)
        if traced.batch != batch:  # a data-dependent model, traced at a small batch
            return traced, ScaledTrace(trace=traced).sizes(batch, platform)
        return traced, traced_sizes(traced, platform)

    def _has_trace(self, batch: int, gpu: Gpu | None) -> bool:
        return (self._generation(gpu), batch) in self._traces

    def _run_at_capacity(
        self, batch: int, gpu: Gpu, platform: Platform | None = None, slack: float = 0.0
    ) -> Replay:
        """The step in the GPU's usable memory, of which `slack` is a share to leave free."""
        trace, sizes = self._sized(batch, gpu, platform or self._platform(gpu))
        capacity = _capacity(trace, gpu, slack)
        return replay(trace, sizes, capacity_bytes=capacity, options=self._options)

    def _surely_exceeds(self, batch: int, gpu: Gpu, slack: float = 0.0) -> bool:
        """Whether the tensors alone exceed the capacity; spares the replay of a hopeless batch."""
        if self._has_trace(batch, gpu):
            return False
        scaling = self._scaling(gpu)
        return (
            isinstance(scaling, BatchPolynomial)
            and batch >= scaling.smallest
            and scaling.least_peak_bytes(batch) > _capacity(scaling.trace, gpu, slack)
        )

    def _may_exceed(self, batch: int, gpu: Gpu) -> bool:
        """Whether the upper end of the band of this batch exceeds the memory."""
        if self._surely_exceeds(batch, gpu, uncertainty()):
            return True
        platform = replace(self._platform(gpu), level="high")
        run = self._run_at_capacity(batch, gpu, platform, slack=uncertainty())
        return run.failed_position is not None

    def _upper_bound(self, gpu: Gpu, slack: float = 0.0) -> int:
        """The largest batch whose tensors alone fit, or a guess where no polynomial tells."""
        scaling = self._scaling(gpu)
        if scaling is None:
            return self._largest_traced_batch(gpu)
        if not isinstance(scaling, BatchPolynomial):
            return self._reserved_bound(scaling, gpu)
        return scaling.largest_batch_within(_capacity(scaling.trace, gpu, slack), SEARCH_LIMIT)

    def _reserved_bound(self, scaling: ScaledTrace, gpu: Gpu) -> int:
        """Where the line through the peaks of two batches meets the capacity."""
        platform = self._platform(gpu)
        few, many = 8, 64  # apart, because each peak is rounded up to whole segments
        low, high = (
            replay(
                scaling.trace, scaling.sizes(batch, platform), options=self._options
            ).peak_reserved_bytes
            for batch in (few, many)
        )
        slope = max((high - low) / (many - few), 1)
        return int(few + (_capacity(scaling.trace, gpu, 0.0) - low) / slope)

    def _margin(self, gpu: Gpu) -> int:
        rules = _request_rules(self._events_at(self._largest_traced_batch(gpu), gpu))
        return context_bytes(rules, "high", gpu) - context_bytes(rules, "nominal", gpu)

    def _events_at(self, batch: int, gpu: Gpu) -> MemoryTrace:
        scaling = self._scaling(gpu)
        return self.trace(batch, gpu) if scaling is None else scaling.trace

    def _largest_traced_batch(self, gpu: Gpu) -> int:
        generation = self._generation(gpu)
        return max((batch for key, batch in self._traces if key == generation), default=1)

    def _limit(self, batch: int, run: Replay | None, gpu: Gpu) -> str:
        """The largest category where the batch failed; "model" if the model raised."""
        if run is None:
            return "model"
        held = by_category(self._events_at(batch, gpu), run.granted, run.failed_position or 0)
        return max(held, key=lambda name: held[name]) if held else "parameter"

    def _estimate(
        self,
        batch: int,
        gpu: Gpu | None,
        trace: MemoryTrace,
        run: Replay,
        ends: dict[str, Replay],
    ) -> Estimate:
        rules, slack = _request_rules(trace), uncertainty()
        context = context_bytes(rules, "nominal", gpu)
        # fragmentation is not monotone: less workspace may reserve more
        low = int(min(run.peak_reserved_bytes, ends["low"].peak_reserved_bytes) * (1 - slack))
        high = int(max(run.peak_reserved_bytes, ends["high"].peak_reserved_bytes) * (1 + slack))
        peak = trace.allocations[trace.events[run.peak_position]]
        return Estimate(
            mode=self.step.mode,
            precision=self.step.precision,
            optimizer=self.step.optimizer,
            checkpointing=self.step.checkpoints,
            batch=batch,
            gpu=None if gpu is None else gpu.name,
            peak_allocated_bytes=run.peak_allocated_bytes,
            peak_reserved_bytes=run.peak_reserved_bytes,
            peak_device_bytes=run.peak_reserved_bytes + context,
            band_low_bytes=low + context_bytes(rules, "low", gpu),
            band_high_bytes=high + context_bytes(rules, "high", gpu),
            reserved_band_low_bytes=low,
            reserved_band_high_bytes=high,
            context_bytes=context,
            after_forward_bytes=_after_forward(trace, run),
            method=trace.method,
            at_peak=by_category(trace, run.granted, run.peak_position),
            peak_module=peak.path,
            peak_phase=trace.phase_at(run.peak_position),
            peak_op=peak.op,
            timeline=timeline(trace, run.granted),
            top_modules=by_module(trace, run.granted, run.peak_position),
            notes=trace.notes,
        )


def estimate(
    model: nn.Module,
    make_inputs: MakeInputs,
    *,
    batch: int,
    step: Step,
    gpu: Gpu | None = None,
    options: AllocatorOptions | None = None,
) -> Estimate:
    """The memory of one step at one batch, traced at that batch."""
    check_batch(batch)
    estimator = MemoryEstimator(model, make_inputs, step, gpu, options=options)
    estimator.trace(batch)  # with a trace at this batch, no polynomial is searched
    return estimator.estimate(batch)


def _capacity(trace: MemoryTrace, gpu: Gpu, slack: float) -> int:
    """What the allocator may reserve on `gpu` if `slack`, a share of it, is left free."""
    # the high context: a batch called fitting must also fit with the largest libraries
    capacity = gpu.usable_bytes - context_bytes(_request_rules(trace), "high", gpu)
    return max(int(capacity / (1 + slack)), 0)


def _request_rules(trace: MemoryTrace) -> frozenset[str]:
    return frozenset(a.request.rule for a in trace.allocations if a.request is not None)


def _after_forward(trace: MemoryTrace, run: Replay) -> int:
    """Allocated bytes when the last forward pass has returned, before the loss."""
    starts = [start for (_, name), (start, _) in pairwise(trace.marks) if name == "forward"]
    return sum(by_category(trace, run.granted, starts[-1] - 1).values()) if starts else 0
