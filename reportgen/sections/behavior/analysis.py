"""Behavior analysis: passes with fake tensors first, then real ones within the work budget."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reportgen.context import ModelContext
from reportgen.errors import SectionError
from reportgen.example_inputs import Examples, make_examples
from reportgen.forward_failure import explain_failure
from reportgen.manifest import ModelSpec
from reportgen.outcome import Skipped
from reportgen.sections.behavior.activations import constant_outputs
from reportgen.sections.behavior.batch_independence import (
    BatchInputs,
    batch_axes,
    probe_batch_independence,
)
from reportgen.sections.behavior.determinism import probe_repetition
from reportgen.sections.behavior.dynamic_shapes import (
    Dimension,
    SizeCase,
    batches_probe,
    dimension_probe,
    dimensions_of,
    run_size,
    uses_indexing,
)
from reportgen.sections.behavior.fake_runs import (
    FailedPassError,
    PassOutcome,
    PassRequest,
    RecordedPass,
    run_all_fake,
    run_fake,
    run_real,
)
from reportgen.sections.behavior.gradients import probe_training
from reportgen.sections.behavior.result import Autocast, Behavior, Probe
from reportgen.sections.behavior.runner import (
    NamedTensors,
    ProbeNotRunError,
    ProbeRunner,
    SampleCost,
    WorkBudget,
    tensors_of,
)
from reportgen.sections.behavior.train_eval import (
    different_modules,
    different_operators,
    mode_stats,
    modes_probe,
    unusual_settings,
)

_BATCH = 2  # the smallest batch in which samples can influence each other
_REAL_SIZES = 2  # of a dimension, tried in real passes
_OTHER_PASSES = 4  # before an output counts as constant
_OTHER_SEEDS = 8  # small integers or booleans may repeat with another seed
_LARGEST_BATCH = 33
"""A larger manifest batch plus one is not tried: creating its inputs takes too long."""


def analyze_model(context: ModelContext) -> Behavior | Skipped:
    """The result for the model of `context`; skipped for meta weights.

    Raises:
        SectionError: the forward pass fails with the manifest's inputs.
    """
    if any(parameter.is_meta for parameter in context.model.parameters()):
        return Skipped(reason="the model's weights are not in memory, so it cannot be run")
    with _uncompiled():
        return BehaviorAnalysis(context, _first_runs(context)).result()


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled parts eagerly: operators in compiled kernels cannot be recorded or faked."""
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global")
        yield


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FirstRuns:
    """The first passes, by name; the one called `evaluation` has succeeded.

    Attributes:
        batch: samples per pass.
        fake: whether they ran with fake tensors.
        evaluation: the pass in evaluation mode.
        runs: all outcomes; only `evaluation` if the model has no fake copy.
        requests: the inputs of all passes.
    """

    batch: int
    fake: bool
    evaluation: RecordedPass
    runs: dict[str, PassOutcome]
    requests: dict[str, PassRequest]


def _first_runs(context: ModelContext) -> FirstRuns:
    """Passes of two samples; of the manifest's batch if two samples fail."""
    failure: FailedPassError | None = None
    for batch in dict.fromkeys((_BATCH, context.batch)):
        requests = _requests(context, batch)
        runs = run_all_fake(context.model, requests)
        fake = bool(runs)
        if not fake:
            runs = {"evaluation": run_real(context.model, requests["evaluation"])}
        evaluation = runs["evaluation"]
        if isinstance(evaluation, RecordedPass):
            return FirstRuns(
                batch=batch, fake=fake, evaluation=evaluation, runs=runs, requests=requests
            )
        failure = evaluation
    assert failure is not None
    found = explain_failure(failure.__cause__ or failure)
    raise SectionError(f"the model's forward pass fails: {found}", hint=found.hint) from failure


def _requests(context: ModelContext, batch: int) -> dict[str, PassRequest]:
    usual = context.examples(batch)
    requests = {
        "evaluation": PassRequest(examples=usual),
        "training": PassRequest(examples=usual, kind="training"),
    }
    for other in _batches(context, batch):
        requests[f"batch {other}"] = PassRequest(
            examples=context.examples(other), count_operators=False
        )
    for dimension in dimensions_of(context.spec):
        for size in dimension.sizes():
            spec = dimension.resized(context.spec, size)
            examples = make_examples(spec, batch, spec.seed)
            requests[_key(dimension, size)] = PassRequest(examples=examples, count_operators=False)
    return requests


def _batches(context: ModelContext, batch: int) -> tuple[int, ...]:
    """One, two, and one more than the manifest's batch; three if that is not a new size."""
    more = context.batch + 1
    wanted = (1, 2, more if 2 < more <= _LARGEST_BATCH else 3)
    return tuple(size for size in wanted if size != batch)


def _key(dimension: Dimension, size: int) -> str:
    return f"{dimension.label} {size}"


class BehaviorAnalysis:
    """Runs all probes on one model."""

    def __init__(self, context: ModelContext, first: FirstRuns) -> None:
        self._context = context
        self._model: nn.Module = context.model
        self._spec: ModelSpec = context.spec
        self._first = first
        self._examples: Examples = first.requests["evaluation"].examples
        record = first.evaluation.record
        self._runner = ProbeRunner(
            context.model,
            batch=first.batch,
            cost=SampleCost(
                work=record.work // first.batch,
                written_bytes=record.written_bytes // first.batch,
            ),
            budget=WorkBudget(),
            seed=context.spec.seed,
        )

    def result(self) -> Behavior:
        """Run all probes; earlier ones have priority on the work budget."""
        first, runner = self._first, self._runner
        repeated = probe_repetition(runner, self._examples, first.evaluation.record.random)
        batches = self._batch_inputs()
        comparison = probe_batch_independence(
            runner, batches, repeated, self._single_sample_shapes()
        )
        training = self._training()
        trained = probe_training(
            runner,
            self._examples,
            repeated.outputs,
            training,
            self._fake_backward if first.fake else None,
        )
        groups = different_modules(
            self._model, first.evaluation, training, repeatable=repeated.repeatable
        )
        difference = trained.difference if repeated.repeatable else None
        return Behavior(
            batch=first.batch,
            seed=self._spec.seed,
            method="fake" if first.fake else "real",
            evaluation=mode_stats(first.evaluation),
            training=mode_stats(training, trained.saved_bytes),
            operators=different_operators(first.evaluation, training),
            modules=groups,
            changed_buffers=trained.changed_buffers,
            remarks=unusual_settings(self._model),
            probes=(
                modes_probe(first.evaluation, training, groups, difference),
                *repeated.probes,
                *comparison,
                *self._other_sizes(batches, training),
                *trained.probes,
            ),
            autocast=tuple(
                Autocast(device=a.device, dtype=a.dtype, module=a.module, place=a.place)
                for a in first.evaluation.autocast
                if a.device != "cpu"
            ),
            random_weights=self._spec.weights is None and self._spec.source.kind != "pt2",
            activations=trained.activations,
            constant_outputs=constant_outputs(self._passes(repeated.outputs), first.batch),
            single_value_norms=tuple(
                path
                for path in self._untrainable(training)
                if not isinstance(dict(self._model.named_modules()).get(path), nn.BatchNorm1d)
            ),
            backward_error=trained.backward_error,
        )

    def _batch_inputs(self) -> BatchInputs:
        larger = self._context.examples(self._first.batch + 1)
        seeds = ((self._spec.seed + more) % 2**32 for more in range(1, 1 + _OTHER_SEEDS))
        outcomes = (
            BatchInputs(
                whole=self._examples,
                other=make_examples(self._spec, self._first.batch, seed),
                axes=batch_axes(self._examples, larger),
                in_lists=len(tensors_of(larger)) != len(tensors_of(self._examples)),
            )
            for seed in seeds
        )
        first = next(outcomes)
        return first if first.all_differ() else next((b for b in outcomes if b.all_differ()), first)

    def _single_sample_shapes(self) -> dict[str, tuple[int, ...]]:
        """The output shapes of one sample, derived from two batch sizes; {} if only one runs."""
        batch = self._first.batch
        others = (self._first.runs.get(f"batch {n}") for n in _batches(self._context, batch))
        larger = next((run for run in others if isinstance(run, RecordedPass)), None)
        if larger is None:
            return {}
        shapes = {form.key: form.shape for form in larger.outputs}
        return {
            form.key: tuple(
                size if other == size else size // batch
                for size, other in zip(form.shape, shapes[form.key], strict=True)
            )
            for form in self._first.evaluation.outputs
            if len(shapes.get(form.key, ())) == len(form.shape)
        }

    def _training(self) -> PassOutcome:
        """The pass in training mode; a real pass if the fake one failed."""
        found = self._first.runs.get("training")
        if isinstance(found, RecordedPass):
            return found
        try:
            self._runner.reserve(self._first.batch)
        except ProbeNotRunError as reason:
            return found or FailedPassError(reason, "")
        return run_real(self._model, self._first.requests["training"])

    def _other_sizes(self, batches: BatchInputs, training: PassOutcome) -> list[Probe]:
        probes = [self._batches_probe(training)] if batches.has_batch or batches.in_lists else []
        base = self._first.evaluation
        for dimension in dimensions_of(self._spec):
            outcomes = [
                run_size(
                    self._runner,
                    self._size_case(
                        _key(dimension, size),
                        size,
                        # attention and images cost up to the square of a length or height
                        self._first.batch * max(1.0, size / dimension.size) ** 2,
                    ),
                    needs_values=uses_indexing(base),
                )
                for size in self._sizes_of(dimension)
            ]
            probes.append(dimension_probe(dimension, base.outputs, outcomes))
        return probes

    def _batches_probe(self, training: PassOutcome) -> Probe:
        outcomes = [
            run_size(
                self._runner,
                self._size_case(f"batch {size}", size, size),
                needs_values=False,
            )
            for size in _batches(self._context, self._first.batch)
        ]
        return batches_probe(self._first.batch, outcomes, self._untrainable(training))

    def _passes(
        self, outputs: NamedTensors | None
    ) -> Iterator[tuple[list[Tensor], NamedTensors | None]]:
        """Inputs and outputs of the pass that was run, then of passes with other seeds."""
        yield tensors_of(self._examples), outputs
        for more in range(1, 1 + _OTHER_PASSES):
            examples = make_examples(self._spec, self._first.batch, self._spec.seed + more)
            try:
                self._runner.reserve(self._first.batch)
                yield tensors_of(examples), self._runner.outputs(examples)
            except ProbeNotRunError:
                yield tensors_of(examples), None  # too expensive to tell
                return

    def _untrainable(self, training: PassOutcome) -> list[str]:
        """Batch norms with one value per channel and sample; training them needs two samples."""
        if isinstance(training, FailedPassError):
            return []
        values = training.normalized
        return [
            path or "the model" for path, number in values.items() if number == self._first.batch
        ]

    def _fake_backward(self) -> PassOutcome:
        request = PassRequest(examples=self._examples, kind="backward", count_operators=False)
        return run_fake(self._model, request)

    def _sizes_of(self, dimension: Dimension) -> tuple[int, ...]:
        """Sizes to try; the largest one only with fake tensors."""
        return dimension.sizes() if self._first.fake else dimension.sizes()[:_REAL_SIZES]

    def _size_case(self, key: str, size: int, samples: float) -> SizeCase:
        return SizeCase(
            size=size,
            examples=self._first.requests[key].examples,
            samples=samples,
            first_run=self._first.runs.get(key),
        )
