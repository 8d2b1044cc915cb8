"""Samples of one batch: does a sample's result depend on how many and which others there are?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import starmap, zip_longest

import torch
from torch import Tensor

from reportgen.example_inputs import Examples
from reportgen.sections.behavior.determinism import Repeated
from reportgen.sections.behavior.result import Probe, capitalized, listed, module_at
from reportgen.sections.behavior.runner import (
    Bench,
    Leaves,
    NotRunError,
    Recording,
    is_close,
    is_same,
    mapped,
    rounding_of,
    tensors_of,
)
from reportgen.units import format_shape


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Batches:
    """Inputs for several samples, and which axis of each input tensor is the batch.

    Attributes:
        whole: the inputs of the whole batch.
        other: inputs of the same shapes with other values.
        axes: of each tensor, in the order of `tensors_of`; None for one without a batch.
        in_lists: every sample brings tensors of its own, as the images of a detector.
    """

    whole: Examples
    other: Examples
    axes: tuple[int | None, ...]
    in_lists: bool = False

    @property
    def has_batch(self) -> bool:
        """Whether some input has a dim that follows the batch."""
        return any(axis is not None for axis in self.axes)

    def all_differ(self) -> bool:
        """Whether replacing the first sample changes something, and the last one too."""
        rows = {0, -1 + min(self._sizes(), default=1)}
        return all(self.changes(row) for row in rows)

    def _sizes(self) -> Iterator[int]:
        for axis, tensor in zip(self.axes, tensors_of(self.whole), strict=True):
            if axis is not None:
                yield tensor.shape[axis]

    def changes(self, row: int) -> bool:
        """Whether the other inputs have another sample there."""
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
        """The inputs of the batch, one sample replaced by another one."""
        places = iter(zip(self.axes, tensors_of(self.other), strict=True))

        def replaced(tensor: Tensor) -> Tensor:
            axis, other = next(places)
            result = tensor.clone()
            if axis is not None:
                result.narrow(axis, row, 1).copy_(other.narrow(axis, row, 1))
            return result

        return mapped(self.whole, replaced)


def batch_axes(smaller: Examples, larger: Examples) -> tuple[int | None, ...]:
    """The axis in which each tensor of two batches differs; None where there is not just one.

    Where every sample brings tensors of its own, in a list, no tensor has an axis for them.
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
    """The axis of the batch that the result of one sample lacks, as behind a `squeeze`."""
    for axis, size in enumerate(whole.shape):
        if size == batch and (*whole.shape[:axis], *whole.shape[axis + 1 :]) == tuple(like.shape):
            return axis
    return None


def parts_of(whole: Tensor, like: Tensor, row: int, batch: int) -> list[Tensor]:
    """The parts of a batch's result that may be sample `row`'s; none where no axis follows it.

    Samples lie one after the other, or, where several entries belong to each, interleaved.
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


_CLAIMS = {
    "batch_of_one": "Batch size 1 matches batch size n",
    "independent": "Samples are independent",
}
_OTHERS = 2  # samples of a batch
_STRICT = 0.02  # of the tolerance: with equal shapes only a data-dependent course rounds otherwise

Judge = Callable[[Leaves, Leaves, Leaves], Iterator[tuple[str, bool | None]]]
"""From the results of batch, sample and changed batch to a verdict by key; None is unclear."""


def probe_batch_independence(
    bench: Bench, batches: Batches, repeated: Repeated, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Probe, ...]:
    """A sample alone against the batch; then the batch with one sample replaced.

    `repeated` are two passes of the whole batch, `shapes` those of the outputs for one sample.
    """
    refusal = _why_not(bench, batches, repeated)
    if refusal or repeated.outputs is None:
        return tuple(_not_run(name, refusal) for name in _CLAIMS)
    comparison = _BatchComparison(bench, batches, repeated.outputs, shapes)
    alone = comparison.alone()
    return alone, comparison.replaced(both_ways=alone.verdict != "yes")


def _why_not(bench: Bench, batches: Batches, repeated: Repeated) -> str:
    if repeated.outputs is None:
        return "the two passes over the same batch were not run"
    if not repeated.repeatable:
        return "two passes over the same batch give different outputs"
    if batches.in_lists:
        return "each sample is an item of a list; list items are not compared"
    if not batches.has_batch:
        return "no input has a batch dimension"
    if bench.batch < 2:
        return "the model runs with one sample only"
    return "" if repeated.outputs else "the model returns no tensor to compare"


def _not_run(name: str, reason: str) -> Probe:
    return Probe(
        name=name, claim=_CLAIMS[name], verdict="not run", sentence=f"{capitalized(reason)}."
    )


@dataclass(slots=True)
class _BatchComparison:
    bench: Bench
    batches: Batches
    whole: Leaves
    shapes: Mapping[str, tuple[int, ...]]
    single: Leaves | None = None
    rounding: float = 0.0  # of what the model computes in

    def __post_init__(self) -> None:
        inputs = tensors_of(self.batches.whole)
        self.rounding = rounding_of((*self.bench.model.parameters(), *inputs))

    def alone(self) -> Probe:
        """The last sample by itself."""
        row = self.bench.batch - 1
        try:
            self.bench.pay(1)
            self.single = self.bench.outputs(self.batches.single(row))
        except NotRunError as reason:
            return _not_run("batch_of_one", str(reason))
        surprise = self._surprise(self.single)
        if surprise:
            return Probe(
                name="batch_of_one", claim=_CLAIMS["batch_of_one"], verdict="no", sentence=surprise
            )
        seen = dict(self._alone(row)(self.whole, self.single, {}))
        if False in seen.values():
            seen |= dict.fromkeys(self._sized_by_values(self.single) & seen.keys(), None)
        return self._told("batch_of_one", seen, row)

    def _sized_by_values(self, single: Leaves) -> set[str]:
        """Outputs of which another sample alone gives more or less: nobody knows whose is what."""
        found: set[str] = set()
        for batches in (self.batches, replace(self.batches, whole=self.batches.other)):
            for row in range(min(self.bench.batch, _OTHERS)):
                with suppress(NotRunError):
                    self.bench.pay(1)
                    other = self.bench.outputs(batches.single(row))
                    found |= {k for k in single if k in other and other[k].shape != single[k].shape}
        return found

    def _surprise(self, single: Leaves) -> str:
        """What is wrong with the very shapes of one sample's results; "" for nothing."""
        batch = self.bench.batch
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
        """The batch with another last sample: what the first gives must stay.

        That earlier samples do not change the last is what `alone` has shown; where it has not,
        the first is replaced too.
        """
        last = self.bench.batch - 1
        probe = self._replaced(last, 0)
        return self._replaced(0, last) if both_ways and probe.verdict == "yes" else probe

    def _replaced(self, other: int, row: int) -> Probe:
        single = self.single
        if single is None:
            single = {key: torch.empty(shape, device="meta") for key, shape in self.shapes.items()}
        changed = self.batches.with_other_sample(other)
        if not self.batches.changes(other):
            return _not_run("independent", "every seed gives the same inputs")
        try:
            self.bench.pay(self.bench.batch)
            found = self.bench.outputs(changed)
        except NotRunError as reason:
            return _not_run("independent", str(reason))
        seen = dict(self._untouched(row)(self.whole, single, found))
        return self._told("independent", seen, row, changed)

    def _alone(self, row: int) -> Judge:
        def judge(whole: Leaves, single: Leaves, _: Leaves) -> Iterator[tuple[str, bool | None]]:
            for key, parts, like in self._rows(whole, single, row):
                close = partial(is_close, like, rounding=self.rounding)
                yield key, any(map(close, parts)) if parts else None

        return judge

    def _untouched(self, row: int) -> Judge:
        def judge(
            whole: Leaves, single: Leaves, changed: Leaves
        ) -> Iterator[tuple[str, bool | None]]:
            after = {key: parts for key, parts, _ in self._rows(changed, single, row)}
            for key, parts, _ in self._rows(whole, single, row):
                pairs = list(zip(parts, after.get(key, ()), strict=False))
                close = partial(is_close, share=_STRICT, rounding=self.rounding)
                yield key, any(starmap(close, pairs)) if pairs else None

        return judge

    def _rows(
        self, whole: Leaves, single: Leaves, row: int
    ) -> Iterator[tuple[str, list[Tensor], Tensor]]:
        """Each result of a sample alone, and the parts of the batch's that may be the same."""
        for key, like in single.items():
            first, dot, rest = key.partition(".")
            listed_by_sample = set(whole) != set(single) and first == "0"
            name = f"{row}{dot}{rest}" if listed_by_sample else key
            if listed_by_sample and name in whole:
                yield name, [whole[name]], like
            elif name in whole:
                yield key, parts_of(whole[name], like, row, self.bench.batch), like

    def _told(
        self, name: str, seen: dict[str, bool | None], row: int, changed: Examples | None = None
    ) -> Probe:
        wrong = [key for key, verdict in seen.items() if verdict is False]
        unclear = [key or "the output" for key, verdict in seen.items() if verdict is None]
        evidence = (
            (f"{listed(unclear)}: not compared, since no single axis scales with the batch",)
            if unclear
            else ()
        )
        if not seen:
            return _not_run(name, "no other batch size runs, so the batch axis is unknown")
        if len(unclear) == len(seen):
            return _not_run(name, "no output has exactly one axis that scales with the batch")
        if not wrong:
            sentence = _YES[name].format(self.bench.batch)
            return Probe(
                name=name, claim=_CLAIMS[name], verdict="yes", sentence=sentence, evidence=evidence
            )
        path = self._first_module(row, changed)
        first = "" if path is None else f", first in {module_at(self.bench.model, path)}"
        return Probe(
            name=name,
            claim=_CLAIMS[name],
            verdict="no",
            sentence=_NO[name].format(self.bench.batch, _which(wrong), first),
            evidence=evidence,
            where=() if path is None else (path,),
        )

    def _first_module(self, row: int, changed: Examples | None) -> str | None:
        """The first module to end with results that break the rule; None where none is seen."""
        asked = [self.batches.whole, *([changed] if changed else [])]
        if self.single is not None:
            asked.append(self.batches.single(self.bench.batch - 1))
        recordings = [Recording() for _ in asked]
        try:
            self.bench.pay(2 * self.bench.batch, copies_of_results=3 * self.bench.batch)
            for examples, recording in zip(asked, recordings, strict=True):
                self.bench.outputs(examples, recording)
        except NotRunError:
            return None
        judge = self._alone(row) if changed is None else self._untouched(row)
        for calls in zip_longest(*(recording.calls for recording in recordings)):
            if None in calls or len({path for path, _ in calls}) > 1:
                return None  # another course: what belongs together is not known
            results = [leaves for _, leaves in calls]
            single = results[-1] if self.single is not None else self._as_one(results[0])
            if any(verdict is False for _, verdict in judge(results[0], single, results[1])):
                return str(calls[0][0])
        return None

    def _as_one(self, results: Leaves) -> Leaves:
        """Tensors as large as one sample's share, the batch taken to be the first axis."""
        return {
            key: tensor[: len(tensor) // self.bench.batch]
            for key, tensor in results.items()
            if tensor.ndim and len(tensor) % self.bench.batch == 0
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
    """` (logits, state)`; nothing for a model with one output."""
    return "" if list(outputs) == [""] else f" ({listed(outputs)})"
