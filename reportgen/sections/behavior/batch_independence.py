"""Batch independence: whether a sample's output depends on the batch size or on other samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import starmap, zip_longest

import torch
from torch import Tensor

from reportgen.example_inputs import Examples
from reportgen.sections.behavior.determinism import RepeatedPasses
from reportgen.sections.behavior.result import Probe, listed, make_probe, module_at, not_run
from reportgen.sections.behavior.runner import (
    CallRecorder,
    NamedTensors,
    ProbeNotRunError,
    ProbeRunner,
    is_close,
    is_same,
    mapped,
    rounding_tolerance,
    tensors_of,
)
from reportgen.units import format_shape


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BatchInputs:
    """Inputs for several samples, and the batch axis of each input tensor.

    Attributes:
        whole: the inputs of the whole batch.
        other: inputs of the same shapes with other values.
        axes: batch axis per tensor, in the order of `tensors_of`; None without one.
        in_lists: every sample has its own tensors, such as the images of a detector.
    """

    whole: Examples
    other: Examples
    axes: tuple[int | None, ...]
    in_lists: bool = False

    @property
    def has_batch(self) -> bool:
        """Whether an input has a batch axis."""
        return any(axis is not None for axis in self.axes)

    def all_differ(self) -> bool:
        """Whether `other` differs from `whole` in the first and in the last sample."""
        rows = {0, min(self._sizes(), default=1) - 1}
        return all(self.changes(row) for row in rows)

    def _sizes(self) -> Iterator[int]:
        for axis, tensor in zip(self.axes, tensors_of(self.whole), strict=True):
            if axis is not None:
                yield tensor.shape[axis]

    def changes(self, row: int) -> bool:
        """Whether `other` has a different sample at `row`."""
        pairs = zip(tensors_of(self.with_other_sample(row)), tensors_of(self.whole), strict=True)
        return not all(is_same(a, b) for a, b in pairs)

    def single(self, row: int) -> Examples:
        """The inputs of one sample of the batch."""
        axes = iter(self.axes)

        def cut(tensor: Tensor) -> Tensor:
            axis = next(axes)
            return tensor if axis is None else tensor.narrow(axis, row, 1).clone()

        return mapped(self.whole, cut)

    def with_other_sample(self, row: int) -> Examples:
        """The inputs of the batch with sample `row` taken from `other`."""
        replacements = iter(zip(self.axes, tensors_of(self.other), strict=True))

        def replaced(tensor: Tensor) -> Tensor:
            axis, other = next(replacements)
            result = tensor.clone()
            if axis is not None:
                result.narrow(axis, row, 1).copy_(other.narrow(axis, row, 1))
            return result

        return mapped(self.whole, replaced)


def batch_axes(smaller: Examples, larger: Examples) -> tuple[int | None, ...]:
    """The axis in which each tensor of two batches differs; None unless there is exactly one.

    If every sample has its own tensors, in a list, no tensor has a batch axis.
    """
    small, large = tensors_of(smaller), tensors_of(larger)
    if len(small) != len(large):
        return (None,) * len(small)
    axes: list[int | None] = []
    for a, b in zip(small, large, strict=True):
        found = [axis for axis, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n]
        axes.append(found[0] if len(found) == 1 else None)
    return tuple(axes)


def lost_axis(whole: Tensor, like: Tensor, batch: int) -> int | None:
    """The batch axis that is missing in the result of one sample, as after `squeeze`."""
    for axis, size in enumerate(whole.shape):
        if size == batch and (*whole.shape[:axis], *whole.shape[axis + 1 :]) == tuple(like.shape):
            return axis
    return None


def parts_of(whole: Tensor, like: Tensor, row: int, batch: int) -> list[Tensor]:
    """The parts of a batch's result that may belong to sample `row`; [] without a batch axis.

    If a sample has several entries, they may be contiguous or interleaved; both are returned.
    """
    lost = lost_axis(whole, like, batch)
    if lost is not None:
        return [whole.select(lost, row)]
    if whole.ndim != like.ndim:
        return []
    axes = [axis for axis in range(whole.ndim) if whole.shape[axis] != like.shape[axis]]
    if len(axes) != 1 or whole.shape[axes[0]] != batch * like.shape[axes[0]]:
        return []
    axis, size = axes[0], like.shape[axes[0]]
    block = whole.narrow(axis, row * size, size)
    if size == 1:
        return [block]
    return [block, whole.movedim(axis, 0)[row::batch].movedim(0, axis)]


_PROBES = ("batch_of_one", "independent")
_COMPARED_SAMPLES = 2  # for value-dependent shapes
_STRICT = 0.02  # of the tolerance: with equal shapes the same kernels round the same way

OutputComparison = Callable[
    [NamedTensors, NamedTensors, NamedTensors], Iterator[tuple[str, bool | None]]
]
"""(batch, sample, changed batch) -> (key, equal); None if an output cannot be compared."""


def probe_batch_independence(
    runner: ProbeRunner,
    batches: BatchInputs,
    repeated: RepeatedPasses,
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[Probe, ...]:
    """Compare one sample with the batch, then the batch with one sample replaced.

    `repeated` are two passes of the whole batch; `shapes` are the output shapes of one sample.
    """
    reason = _not_comparable_reason(runner, batches, repeated)
    if reason or repeated.outputs is None:
        return tuple(not_run(name, reason) for name in _PROBES)
    comparison = _BatchComparison(runner, batches, repeated.outputs, shapes)
    alone = comparison.alone()
    return alone, comparison.replaced(both_ways=alone.verdict != "yes")


def _not_comparable_reason(
    runner: ProbeRunner, batches: BatchInputs, repeated: RepeatedPasses
) -> str:
    if repeated.outputs is None:
        return "the two passes over the same batch were not run"
    if not repeated.repeatable:
        return "two passes over the same batch give different outputs"
    if batches.in_lists:
        return "each sample is an item of a list; list items are not compared"
    if not batches.has_batch:
        return "no input has a batch dimension"
    if runner.batch < 2:
        return "the model runs with one sample only"
    return "" if repeated.outputs else "the model returns no tensor to compare"


@dataclass(slots=True)
class _BatchComparison:
    runner: ProbeRunner
    batches: BatchInputs
    whole: NamedTensors
    shapes: Mapping[str, tuple[int, ...]]
    single: NamedTensors | None = None
    rounding: float = 0.0  # tolerance of the dtypes that the model computes in

    def __post_init__(self) -> None:
        inputs = tensors_of(self.batches.whole)
        self.rounding = rounding_tolerance((*self.runner.model.parameters(), *inputs))

    def alone(self) -> Probe:
        """Compare the last sample alone with the batch."""
        row = self.runner.batch - 1
        try:
            self.runner.reserve(1)
            self.single = self.runner.outputs(self.batches.single(row))
        except ProbeNotRunError as reason:
            return not_run("batch_of_one", str(reason))
        problem = self._shape_problem(self.single)
        if problem:
            return make_probe("batch_of_one", "no", problem)
        equal = dict(self._compare_alone(row)(self.whole, self.single, {}))
        if False in equal.values():
            # rows of outputs such as a detector's boxes do not correspond to samples
            equal |= dict.fromkeys(self._value_dependent_shapes(self.single) & equal.keys(), None)
        return self._probe("batch_of_one", equal, row)

    def _value_dependent_shapes(self, single: NamedTensors) -> set[str]:
        """Outputs whose shape differs between samples: rows cannot be assigned to samples."""
        found: set[str] = set()
        for batches in (self.batches, replace(self.batches, whole=self.batches.other)):
            for row in range(min(self.runner.batch, _COMPARED_SAMPLES)):
                with suppress(ProbeNotRunError):
                    self.runner.reserve(1)
                    other = self.runner.outputs(batches.single(row))
                    found |= {k for k in single if k in other and other[k].shape != single[k].shape}
        return found

    def _shape_problem(self, single: NamedTensors) -> str:
        """A problem visible in the shapes of one sample's results; "" for none."""
        batch = self.runner.batch
        common = [key for key in single if key in self.whole]
        batched = [
            k for k in common if self.shapes.get(k, self.whole[k].shape) != self.whole[k].shape
        ]
        if batched and all(is_same(single[key], self.whole[key]) for key in batched):
            return "A sample alone gives the outputs of the previous batch: the model caches them."
        for key in common:
            if lost_axis(self.whole[key], single[key], batch) is not None:
                alone, whole = format_shape(single[key].shape), format_shape(self.whole[key].shape)
                name = f" for {key}" if key else ""
                return f"A sample alone gives {alone}{name}, without the batch axis of {whole}."
        return ""

    def replaced(self, *, both_ways: bool) -> Probe:
        """Replace the last sample of the batch: the output of the first must not change.

        `both_ways` also replaces the first sample, which is redundant if `alone` found equality.
        """
        last = self.runner.batch - 1
        probe = self._replaced(last, 0)
        return self._replaced(0, last) if both_ways and probe.verdict == "yes" else probe

    def _replaced(self, other: int, row: int) -> Probe:
        single = self.single
        if single is None:  # the sample could not run alone: only its shapes are needed here
            single = {key: torch.empty(shape, device="meta") for key, shape in self.shapes.items()}
        changed = self.batches.with_other_sample(other)
        if not self.batches.changes(other):
            return not_run("independent", "every seed gives the same inputs")
        try:
            self.runner.reserve(self.runner.batch)
            found = self.runner.outputs(changed)
        except ProbeNotRunError as reason:
            return not_run("independent", str(reason))
        equal = dict(self._compare_replaced(row)(self.whole, single, found))
        return self._probe("independent", equal, row, changed)

    def _compare_alone(self, row: int) -> OutputComparison:
        def compare(
            whole: NamedTensors, single: NamedTensors, _: NamedTensors
        ) -> Iterator[tuple[str, bool | None]]:
            for key, parts, like in self._rows(whole, single, row):
                close = partial(is_close, like, rounding=self.rounding)
                yield key, any(map(close, parts)) if parts else None

        return compare

    def _compare_replaced(self, row: int) -> OutputComparison:
        def compare(
            whole: NamedTensors, single: NamedTensors, changed: NamedTensors
        ) -> Iterator[tuple[str, bool | None]]:
            after = {key: parts for key, parts, _ in self._rows(changed, single, row)}
            for key, parts, _ in self._rows(whole, single, row):
                pairs = list(zip(parts, after.get(key, ()), strict=False))
                close = partial(is_close, share=_STRICT, rounding=self.rounding)
                yield key, any(starmap(close, pairs)) if pairs else None

        return compare

    def _rows(
        self, whole: NamedTensors, single: NamedTensors, row: int
    ) -> Iterator[tuple[str, list[Tensor], Tensor]]:
        """Key, candidate parts of the batch's result, and the result of the sample alone."""
        for key, like in single.items():
            # in a list with one item per sample, item 0 of the sample alone is item `row` here
            first, dot, rest = key.partition(".")
            listed_by_sample = set(whole) != set(single) and first == "0"
            name = f"{row}{dot}{rest}" if listed_by_sample else key
            if listed_by_sample and name in whole:
                yield name, [whole[name]], like
            elif name in whole:
                yield key, parts_of(whole[name], like, row, self.runner.batch), like

    def _probe(
        self, name: str, equal: dict[str, bool | None], row: int, changed: Examples | None = None
    ) -> Probe:
        wrong = [key for key, verdict in equal.items() if verdict is False]
        unclear = [key or "the output" for key, verdict in equal.items() if verdict is None]
        evidence = (
            (f"{listed(unclear)}: not compared, since no single axis scales with the batch",)
            if unclear
            else ()
        )
        if not equal:
            return not_run(name, "no other batch size runs, so the batch axis is unknown")
        if len(unclear) == len(equal):
            return not_run(name, "no output has exactly one axis that scales with the batch")
        if not wrong:
            return make_probe(name, "yes", _YES[name].format(self.runner.batch), evidence)
        path = self._first_module(row, changed)
        first = "" if path is None else f", first in {module_at(self.runner.model, path)}"
        sentence = _NO[name].format(self.runner.batch, _which(wrong), first)
        return make_probe(name, "no", sentence, evidence, () if path is None else (path,))

    def _first_module(self, row: int, changed: Examples | None) -> str | None:
        """The first module to return whose results violate the property; None if none is found."""
        inputs = [self.batches.whole, *([changed] if changed else [])]
        if self.single is not None:
            inputs.append(self.batches.single(self.runner.batch - 1))
        recorders = [CallRecorder() for _ in inputs]
        try:
            self.runner.reserve(2 * self.runner.batch, copies_of_results=3 * self.runner.batch)
            for examples, recorder in zip(inputs, recorders, strict=True):
                self.runner.outputs(examples, recorder)
        except ProbeNotRunError:
            return None
        compare = self._compare_alone(row) if changed is None else self._compare_replaced(row)
        for calls in zip_longest(*(recorder.calls for recorder in recorders)):
            if None in calls or len({path for path, _ in calls}) > 1:
                return None  # different module calls: their results do not correspond
            results = [leaves for _, leaves in calls]
            single = results[-1] if self.single is not None else self._first_rows(results[0])
            if any(verdict is False for _, verdict in compare(results[0], single, results[1])):
                return str(calls[0][0])
        return None

    def _first_rows(self, results: NamedTensors) -> NamedTensors:
        # without a pass of one sample, assume that axis 0 is the batch
        return {
            key: tensor[: len(tensor) // self.runner.batch]
            for key, tensor in results.items()
            if tensor.ndim and len(tensor) % self.runner.batch == 0
        }


_YES = {
    "batch_of_one": "A sample gives the same output alone and in a batch of {}, within rounding.",
    "independent": "Replacing one sample in a batch of {} does not change the other outputs.",
}
_NO = {
    "batch_of_one": "A sample alone gives a different output than in a batch of {}{}{}.",
    "independent": "The output for a sample depends on the other samples in the batch of {}{}{}.",
}


def _which(outputs: Sequence[str]) -> str:
    """` (logits, state)`; "" for a model with one output."""
    return "" if list(outputs) == [""] else f" ({listed(outputs)})"
