"""A model and a step, traced once: then any batch and any card is answered in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from .alloc_conf import allocator_options
from .allocator import AllocatorOptions
from .batch_polynomial import FIRST_BATCHES, BatchLaw, find_law, own_sizes
from .binary_search import largest
from .breakdown import by_category, by_module, timeline
from .data_dependent import RealPasses
from .errors import ModelRefusedError
from .estimates import Estimate, Fit
from .events import Trace
from .extrapolation import ScaledRun, scaled, scaled_run
from .gpus import Gpu
from .library_workspaces import Platform, context_bytes, uncertainty
from .replay import Replay, replay
from .step import Step, check_batch
from .trace import Tracer

if TYPE_CHECKING:
    from torch import nn

    from .fake_copy import MakeInputs

SEARCH_LIMIT = 1 << 20
_LONGEST_LIST = 32


class Plan:
    """Answers about one model in one step; made by `trace_step`.

    `gpu` is the card taken where a question names none. Traces are made when first needed, once
    for cards of the Ampere generation and later, once for older ones, whose kernels differ.
    """

    def __init__(
        self,
        model: nn.Module,
        make_inputs: MakeInputs,
        step: Step,
        gpu: Gpu | None = None,
        options: AllocatorOptions | None = None,
        passes: RealPasses | None = None,
    ) -> None:
        self.step = step
        self.gpu = gpu
        self._passes = passes or RealPasses()
        self._model = model
        self._make_inputs = make_inputs
        self._options = options if options is not None else allocator_options()
        self._tracers: dict[bool, Tracer] = {}
        self._laws: dict[Tracer, BatchLaw | ScaledRun | None] = {}
        self._traces: dict[tuple[bool, int], Trace] = {}

    def estimate(self, batch: int, gpu: Gpu | None = None) -> Estimate:
        """What the step needs at this batch. Raises `CudaMemoryError` on what cannot be done."""
        check_batch(batch)
        gpu = gpu or self.gpu
        platform = self._platform(gpu)
        trace, sizes = self._sized(batch, gpu, platform)
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

    def fits(self, batch: int, gpu: Gpu | None = None) -> bool:
        """Whether this batch runs on the card, the safety margin kept free."""
        check_batch(batch)
        return self._run_at_capacity(batch, self._card(gpu)).failed_position is None

    def largest_batch(self, gpu: Gpu | None = None) -> Fit:
        """The largest batch that fits the card, and the first that does not.

        A batch that the model itself refuses does not fit: it is limited by `model` then.
        """
        card = self._card(gpu)
        runs: dict[int, Replay] = {}

        def fits(batch: int) -> bool:
            try:
                runs[batch] = self._run_at_capacity(batch, card)
            except ModelRefusedError:
                return False
            return runs[batch].failed_position is None

        boundary = largest(fits, limit=SEARCH_LIMIT, guess=self._guess(card))
        failed = boundary.first_failing
        return Fit(
            gpu=card.name,
            usable_bytes=card.usable_bytes,
            mode=self.step.mode,
            precision=self.step.precision,
            optimizer=self.step.optimizer,
            checkpointing=self.step.checkpoints,
            largest_batch=boundary.largest,
            first_batch_that_fails=boundary.first_failing,
            limited_by="" if failed is None else self._limit(failed, runs.get(failed), card),
            safety_margin_bytes=self._margin(card),
        )

    def trace(self, batch: int, gpu: Gpu | None = None) -> Trace:
        """The step's events traced at this very batch, whatever the law says.

        A model that reads values is traced at a batch of two at most.
        """
        key = (self._generation(gpu or self.gpu), batch)
        if key not in self._traces:
            self._traces[key] = self._tracer(gpu or self.gpu).trace(batch)
        return self._traces[key]

    def _card(self, gpu: Gpu | None) -> Gpu:
        from .gpus import find_gpu

        return gpu or self.gpu or find_gpu("A100-80GB")

    def _platform(self, gpu: Gpu | None) -> Platform:
        return replace(self._tracer(gpu).platform, gpu=gpu)

    def _tracer(self, gpu: Gpu | None) -> Tracer:
        generation = self._generation(gpu)
        if generation not in self._tracers:
            self._tracers[generation] = Tracer(
                self._model, self._make_inputs, self.step, gpu, self._passes
            )
        return self._tracers[generation]

    def _generation(self, gpu: Gpu | None) -> bool:
        """Whose kernels: Ampere and later, or older; any traced one where they do not differ."""
        for generation, tracer in self._tracers.items():
            if tracer.was_traced and not tracer.depends_on_card:
                return generation
        capability = None if gpu is None else gpu.compute_capability
        return capability is None or capability >= (8, 0)

    def _law(self, gpu: Gpu | None) -> BatchLaw | ScaledRun | None:
        tracer = self._tracer(gpu)
        if tracer not in self._laws:
            try:
                self._laws[tracer] = self._found_law(tracer, gpu)
            except ModelRefusedError:  # it does not run at every small batch
                self._laws[tracer] = None
        return self._laws[tracer]

    def _found_law(self, tracer: Tracer, gpu: Gpu | None) -> BatchLaw | ScaledRun | None:
        first = self.trace(FIRST_BATCHES[0], gpu)
        if not tracer.needs_values:
            starts = (self.trace(batch, gpu) for batch in FIRST_BATCHES)
            laws = (find_law(full, partial(tracer.trace, light=True)) for full in starts)
            law = next((law for law in laws if law is not None), None)
            return law or self._scaled_if_longer(gpu)
        try:
            return scaled(self.trace(1, gpu), first)
        except ModelRefusedError:  # batch norm does not train on one sample
            return ScaledRun(trace=first)

    def _scaled_if_longer(self, gpu: Gpu | None) -> ScaledRun | None:
        """A step that does more for every sample, as with a list of images, takes too long to trace
        at every batch: beyond a middling one it is scaled.
        """
        events = [len(self.trace(batch, gpu).events) for batch in FIRST_BATCHES]
        if events[-1] <= events[0]:
            return None
        note = (
            "the step runs more operators the more samples there are; "
            f"batches above {_LONGEST_LIST} are scaled from that one"
        )
        longest = self.trace(_LONGEST_LIST, gpu)
        run = scaled_run(self.trace(FIRST_BATCHES[-1], gpu), longest)
        noted = replace(longest, notes=(*longest.notes, note))
        return replace(run, trace=noted, smallest=_LONGEST_LIST + 1)

    def _sized(self, batch: int, gpu: Gpu | None, platform: Platform) -> tuple[Trace, list[int]]:
        """The events and their sizes: traced at this batch if it was, else by the law."""
        law = None if self._known(batch, gpu) else self._law(gpu)
        traced = self._known(batch, gpu)  # the search for a law may have traced this very batch
        if traced is None:
            if law is not None and batch >= law.smallest:
                return law.trace, law.sizes(batch, platform)
            traced = self.trace(batch, gpu)
        if traced.batch != batch:
            return traced, ScaledRun(trace=traced).sizes(batch, platform)
        return traced, own_sizes(traced, platform)

    def _known(self, batch: int, gpu: Gpu | None) -> Trace | None:
        return self._traces.get((self._generation(gpu), batch))

    def _run_at_capacity(self, batch: int, card: Gpu) -> Replay:
        platform = self._platform(card)
        trace, sizes = self._sized(batch, card, platform)
        capacity = card.usable_bytes - context_bytes(_rules(trace), "high")
        return replay(trace, sizes, capacity_bytes=max(capacity, 0), options=self._options)

    def _guess(self, card: Gpu) -> int:
        """Where the line through the peaks of two batches meets the capacity."""
        platform = self._platform(card)
        law = self._law(card)
        if law is None:
            return self._traced_batch(card)
        few, many = 8, 64
        peaks = [
            replay(law.trace, law.sizes(batch, platform), options=self._options)
            for batch in (few, many)
        ]
        low, high = (peak.peak_reserved_bytes for peak in peaks)
        slope = max((high - low) / (many - few), 1)
        capacity = card.usable_bytes - context_bytes(_rules(law.trace), "high")
        return int(few + (capacity - low) / slope)

    def _margin(self, card: Gpu) -> int:
        rules = _rules(self._events_at(self._traced_batch(card), card))
        return context_bytes(rules, "high") - context_bytes(rules, "nominal")

    def _events_at(self, batch: int, card: Gpu) -> Trace:
        law = self._law(card)
        return self.trace(batch, card) if law is None else law.trace

    def _traced_batch(self, card: Gpu) -> int:
        """The largest batch that was traced, which the model runs at; one where none was."""
        generation = self._generation(card)
        return max((batch for key, batch in self._traces if key == generation), default=1)

    def _limit(self, batch: int, run: Replay | None, card: Gpu) -> str:
        """The category that held most when the batch did not fit; `model` if that refused it."""
        if run is None:
            return "model"
        held = by_category(self._events_at(batch, card), run.granted, run.failed_position or 0)
        return max(held, key=lambda name: held[name]) if held else "parameter"

    def _estimate(
        self,
        batch: int,
        gpu: Gpu | None,
        trace: Trace,
        run: Replay,
        ends: dict[str, Replay],
    ) -> Estimate:
        rules, slack = _rules(trace), uncertainty()
        context = context_bytes(rules, "nominal")
        low = int(min(run.peak_reserved_bytes, ends["low"].peak_reserved_bytes) * (1 - slack))
        high = int(max(run.peak_reserved_bytes, ends["high"].peak_reserved_bytes) * (1 + slack))
        peak = trace.allocations[trace.events[run.peak_position]]
        shares = by_module(trace, run.granted, run.peak_position)
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
            band_low_bytes=low + context_bytes(rules, "low"),
            band_high_bytes=high + context_bytes(rules, "high"),
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
            top_modules=shares,
            notes=trace.notes,
        )


def trace_step(
    model: nn.Module,
    make_inputs: MakeInputs,
    step: Step,
    gpu: Gpu | None = None,
    *,
    options: AllocatorOptions | None = None,
    passes: RealPasses | None = None,
) -> Plan:
    """A plan for this model and step.

    `make_inputs(batch)` returns the positional and keyword arguments of the model; their tensors
    may be nested, and real, fake or on `meta`. Allocator options default to PYTORCH_ALLOC_CONF.
    Plans of one model and its inputs may share `passes`, so that a model that reads values is
    computed once.
    """
    return Plan(model, make_inputs, step, gpu, options, passes)


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
    plan = trace_step(model, make_inputs, step, gpu, options=options)
    plan.trace(batch)
    return plan.estimate(batch)


def _rules(trace: Trace) -> frozenset[str]:
    return frozenset(a.request.rule for a in trace.allocations if a.request is not None)


def _after_forward(trace: Trace, run: Replay) -> int:
    """Allocated when the last forward pass has returned, before the loss."""
    starts = [
        trace.marks[at + 1][0]
        for at in range(len(trace.marks) - 1)
        if trace.marks[at][1] == "forward"
    ]
    return sum(by_category(trace, run.granted, starts[-1] - 1).values()) if starts else 0
