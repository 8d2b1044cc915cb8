"""From a context to the result: dry passes first, then as many real ones as the budget allows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from reportgen.context import ModelContext
from reportgen.errors import SectionError
from reportgen.example_inputs import Examples, make_examples
from reportgen.manifest import ModelSpec
from reportgen.outcome import Skipped
from reportgen.sections.behavior.batch_independence import (
    Batches,
    batch_axes,
    probe_batch_independence,
)
from reportgen.sections.behavior.determinism import probe_repetition
from reportgen.sections.behavior.dynamic_shapes import (
    Dimension,
    Question,
    answer,
    asks_values,
    batches_probe,
    dimension_probe,
    dimensions_of,
)
from reportgen.sections.behavior.fake_runs import (
    CannotRunError,
    FakeRun,
    Outcome,
    Wish,
    run_all_fake,
    run_fake,
    run_real,
)
from reportgen.sections.behavior.gradients import Trained, probe_training, reach_on_shapes
from reportgen.sections.behavior.result import Behavior, Probe
from reportgen.sections.behavior.runner import Bench, Budget, Cost, NotRunError, tensors_of
from reportgen.sections.behavior.train_eval import (
    different_modules,
    different_operators,
    mode_of,
    modes_probe,
    remarks_on,
)

_BATCH = 2
_REAL_SIZES = 2
_OTHER_SEEDS = 8  # of small numbers, one draw may give the same as another
_LARGEST_BATCH = 33
"""Beyond it the manifest's batch and one is not tried: its inputs alone would take long."""


def analyze_model(context: ModelContext) -> Behavior | Skipped:
    """Everything the section says of a model.

    Raises:
        SectionError: no forward pass ends on the manifest's inputs.
    """
    if any(parameter.is_meta for parameter in context.model.parameters()):
        return Skipped(reason="the model's weights are not in memory, so it cannot be run")
    with _uncompiled():
        return Analysis(context, _first_runs(context)).result()


@contextmanager
def _uncompiled() -> Iterator[None]:
    """What the model compiles runs as it is written: a kernel cannot be watched, or run dry."""
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using `torch.compile.module.` when there are global")
        yield


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FirstRuns:
    """The dry passes, by name; `evaluation` is among them and has run.

    Attributes:
        batch: how many samples the passes have.
        fake: whether they ran on shapes alone.
        runs: what each gave; empty but for `evaluation` where the model has no twin.
        wishes: their inputs.
    """

    batch: int
    fake: bool
    evaluation: FakeRun
    runs: dict[str, Outcome]
    wishes: dict[str, Wish]


def _first_runs(context: ModelContext) -> FirstRuns:
    """Two samples where the model takes them, else the manifest's own batch."""
    failure: CannotRunError | None = None
    for batch in dict.fromkeys((_BATCH, context.batch)):
        wishes = _wishes(context, batch)
        runs = run_all_fake(context.model, wishes)
        fake = bool(runs)
        if not fake:
            runs = {"evaluation": run_real(context.model, wishes["evaluation"])}
        evaluation = runs["evaluation"]
        if isinstance(evaluation, FakeRun):
            return FirstRuns(
                batch=batch, fake=fake, evaluation=evaluation, runs=runs, wishes=wishes
            )
        failure = evaluation
    raise SectionError(
        f"the model's forward pass fails: {failure}",
        hint="check the model's `inputs` in the manifest: order, names, shapes and dtypes",
    ) from failure


def _wishes(context: ModelContext, batch: int) -> dict[str, Wish]:
    usual = context.examples(batch)
    wishes = {
        "evaluation": Wish(examples=usual),
        "training": Wish(examples=usual, kind="training"),
    }
    for other in _batches(context, batch):
        wishes[f"batch {other}"] = Wish(examples=context.examples(other), counted=False)
    for dimension in dimensions_of(context.spec):
        for size in dimension.sizes():
            spec = dimension.resized(context.spec, size)
            examples = make_examples(spec, batch, spec.seed)
            wishes[_key(dimension, size)] = Wish(examples=examples, counted=False)
    return wishes


def _batches(context: ModelContext, batch: int) -> tuple[int, ...]:
    """One, two, and one more than the manifest's, or three where that is no other size."""
    more = context.batch + 1
    wanted = (1, 2, more if 2 < more <= _LARGEST_BATCH else 3)
    return tuple(size for size in wanted if size != batch)


def _key(dimension: Dimension, size: int) -> str:
    return f"{dimension.label} {size}"


class Analysis:
    """One analysis of one context's model."""

    def __init__(self, context: ModelContext, first: FirstRuns) -> None:
        self._study = context
        self._model: nn.Module = context.model
        self._spec: ModelSpec = context.spec
        self._first = first
        self._usual: Examples = first.wishes["evaluation"].examples
        recorder = first.evaluation.recorder
        self._bench = Bench(
            context.model,
            batch=first.batch,
            cost=Cost(
                work=recorder.work // first.batch,
                written_bytes=recorder.written_bytes // first.batch,
            ),
            budget=Budget(),
            seed=context.spec.seed,
        )

    def result(self) -> Behavior:
        """Everything the section says; the probes in the order in which they may spend."""
        first, bench = self._first, self._bench
        repeated = probe_repetition(bench, self._usual, first.evaluation.recorder.random)
        batches = self._samples()
        comparison = probe_batch_independence(bench, batches, repeated, self._single_forms())
        training = self._training()
        trained = probe_training(
            bench, self._usual, repeated.outputs, training=isinstance(training, FakeRun)
        )
        trained = self._without_values(trained, training)
        groups = different_modules(
            self._model, first.evaluation, training, steady=repeated.repeatable
        )
        difference = trained.difference if repeated.repeatable else None
        return Behavior(
            batch=first.batch,
            seed=self._spec.seed,
            method="fake" if first.fake else "real",
            evaluation=mode_of(first.evaluation),
            training=mode_of(training, trained.saved_bytes),
            operators=different_operators(first.evaluation, training),
            modules=groups,
            changed_buffers=trained.changed_buffers,
            remarks=remarks_on(self._model),
            probes=(
                modes_probe(first.evaluation, training, groups, difference),
                *repeated.probes,
                *comparison,
                *self._other_sizes(batches, training),
                *trained.probes,
            ),
        )

    def _samples(self) -> Batches:
        larger = self._study.examples(self._first.batch + 1)
        seeds = ((self._spec.seed + more) % 2**32 for more in range(1, 1 + _OTHER_SEEDS))
        tried = (
            Batches(
                whole=self._usual,
                other=make_examples(self._spec, self._first.batch, seed),
                axes=batch_axes(self._usual, larger),
                in_lists=len(tensors_of(larger)) != len(tensors_of(self._usual)),
            )
            for seed in seeds
        )
        first = next(tried)
        return first if first.all_differ() else next((b for b in tried if b.all_differ()), first)

    def _single_forms(self) -> dict[str, tuple[int, ...]]:
        """The shape that each output has for one sample, by comparing two batches."""
        batch = self._first.batch
        others = (self._first.runs.get(f"batch {n}") for n in _batches(self._study, batch))
        larger = next((run for run in others if isinstance(run, FakeRun)), None)
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

    def _training(self) -> Outcome:
        """The pass in training mode; for real where the fake copy could not."""
        found = self._first.runs.get("training")
        if isinstance(found, FakeRun):
            return found
        try:
            self._bench.pay(self._first.batch)
        except NotRunError as reason:
            return found or CannotRunError(reason, "")
        return run_real(self._model, self._first.wishes["training"])

    def _other_sizes(self, batches: Batches, training: Outcome) -> list[Probe]:
        probes = [self._batches_probe(training)] if batches.has_batch or batches.in_lists else []
        base = self._first.evaluation
        for dimension in dimensions_of(self._spec):
            tried = [
                answer(
                    self._bench,
                    self._question(
                        _key(dimension, size),
                        size,
                        self._first.batch * max(1.0, size / dimension.size) ** 2,
                    ),
                    on_values=asks_values(base),
                )
                for size in self._sizes_of(dimension)
            ]
            probes.append(dimension_probe(dimension, base.outputs, tried))
        return probes

    def _batches_probe(self, training: Outcome) -> Probe:
        tried = [
            answer(
                self._bench,
                self._question(f"batch {size}", size, size),
                on_values=False,
            )
            for size in _batches(self._study, self._first.batch)
        ]
        return batches_probe(self._first.batch, tried, self._untrainable(training))

    def _untrainable(self, training: Outcome) -> list[str]:
        """Batch norms that see one value per channel and sample, which one sample cannot train."""
        if isinstance(training, CannotRunError):
            return []
        values = training.running.normalized
        return [
            path or "the model" for path, number in values.items() if number == self._first.batch
        ]

    def _without_values(self, trained: Trained, training: Outcome) -> Trained:
        """What the real training pass showed; from shapes where that was too costly."""
        known = trained.saved_bytes is not None or not self._first.fake
        if known or isinstance(training, CannotRunError):
            return trained
        backward = Wish(examples=self._usual, kind="backward", counted=False)
        return reach_on_shapes(self._model, trained, training, run_fake(self._model, backward))

    def _sizes_of(self, dimension: Dimension) -> tuple[int, ...]:
        """Sizes to try; the largest only where shapes can answer."""
        return dimension.sizes() if self._first.fake else dimension.sizes()[:_REAL_SIZES]

    def _question(self, key: str, size: int, samples: float) -> Question:
        return Question(
            size=size,
            examples=self._first.wishes[key].examples,
            samples=samples,
            dry=self._first.runs.get(key),
        )
