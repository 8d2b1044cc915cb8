"""Other batches, lengths and resolutions: which run, and which are baked in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reportgen.example_inputs import Examples
from reportgen.pytree import named_tensors
from reportgen.sections.behavior.dimensions import Dimension
from reportgen.sections.behavior.fake_runs import CannotRunError, FakeRun, Outcome, forms_of
from reportgen.sections.behavior.result import OutputForm, Probe
from reportgen.sections.behavior.runner import Bench, NotRunError, PassFailedError, copied
from reportgen.sections.behavior.wording import capitalized, forms, joined, listed

_INDEXING = frozenset(
    ("aten.embedding", "aten.index", "aten.gather", "aten.index_select", "aten.take")
)


_STAY = "the outputs keep their shapes"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Question:
    """One other size to try.

    Attributes:
        size: the batch, length, height and so on.
        examples: inputs of this size.
        samples: what a pass of them costs, in samples of the usual size.
        dry: what a first pass gave, mostly on shapes alone; None where there is no twin.
    """

    size: int
    examples: Examples
    samples: float
    dry: Outcome | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """The answer: the outputs' forms, or why it failed, or why it was not tried."""

    size: int
    outputs: tuple[OutputForm, ...] | None = None
    failure: str = ""
    refusal: str = ""
    on_shapes: bool = False

    @property
    def line(self) -> str:
        """One line of evidence."""
        if self.outputs is not None:
            how = ", on shapes alone" if self.on_shapes else ""
            return f"{self.size}: runs{how}, {forms(self.outputs)}"
        if self.failure:
            return f"{self.size}: fails, {self.failure}"
        return f"{self.size}: not tried, {self.refusal}"


def asks_values(base: FakeRun) -> bool:
    """Whether a pass looks up by index: shapes alone cannot say that an index is too large."""
    return not _INDEXING.isdisjoint(base.recorder.operators)


def answer(bench: Bench, question: Question, *, on_values: bool) -> Tried:
    """Whether the model runs with another size; for real only where shapes do not tell."""
    size, dry = question.size, question.dry
    if isinstance(dry, CannotRunError) and not dry.needs_values:
        return Tried(size=size, failure=dry.reason)
    on_shapes = (
        Tried(size=size, outputs=dry.outputs, on_shapes=not dry.real)
        if isinstance(dry, FakeRun)
        else None
    )
    if on_shapes and not (on_values and on_shapes.on_shapes):
        return on_shapes
    try:
        bench.pay(question.samples)
    except NotRunError as reason:
        return on_shapes or Tried(size=size, refusal=str(reason))
    try:
        outputs = named_tensors(bench.evaluate(copied(question.examples)))
    except PassFailedError as failure:
        return Tried(size=size, failure=failure.reason)
    return Tried(size=size, outputs=forms_of(outputs))


def batches_probe(usual: int, tried: Sequence[Tried], single: Sequence[str]) -> Probe:
    """Which batches run beside the `usual`; `single` are batch norms that one cannot train."""
    claim = "Any batch size runs"
    evidence = tuple(one.line for one in tried if one.outputs is None)
    if single and not any(one.failure and one.size == 1 for one in tried):
        evidence += (
            f"training needs two samples: batch norm has one value per channel in {listed(single)}",
        )
    good = [str(one.size) for one in tried if one.outputs is not None]
    bad = [str(one.size) for one in tried if one.failure]
    if not good and not bad:
        return Probe(
            name="batches",
            claim=claim,
            verdict="not run",
            sentence="No other batch could be tried.",
            evidence=evidence,
        )
    runs = sorted((usual, *(one.size for one in tried if one.outputs is not None)))
    running = joined([str(size) for size in runs])
    if not bad:
        sentence = f"Batches of {running} run."
    elif good:
        sentence = f"Batches of {running} run; {joined(bad)} do{'es' * (len(bad) == 1)} not."
    else:
        sentence = f"Only a batch of {usual} runs; {joined(bad)} do not."
    return Probe(
        name="batches",
        claim=claim,
        verdict="no" if bad else "yes",
        sentence=sentence,
        evidence=evidence,
        where=tuple(bad),
    )


def dimension_probe(
    dimension: Dimension, base: Sequence[OutputForm], tried: Sequence[Tried]
) -> Probe:
    """Which other sizes of one dimension run, and whether the outputs follow."""
    label = dimension.label
    good = [str(one.size) for one in tried if one.outputs is not None]
    bad = [str(one.size) for one in tried if one.failure]
    name = capitalized(label) if not dimension.name else label
    lines = tuple(one.line for one in tried)
    following = _following(base, tried) if not bad and good else ""
    plural = " and " in label
    if not good and not bad:
        verdict, sentence = "not run", f"No other {label} could be tried."
    elif not bad:
        verdict = "yes"
        sentence = f"{name} can be {joined(good)} too; {following}."
    elif not good:
        verdict = "no"
        sentence = f"{name} {'are' if plural else 'is'} fixed: only {dimension.size} runs, "
        sentence += f"not {joined(bad)}."
    else:
        verdict = "no"
        sentence = f"{name} can be {joined(good)} and not {joined(bad)}; {_following(base, tried)}."
    return Probe(
        name=f"size_{label.replace(' ', '_')}",
        claim=f"Other sizes of {label}",
        verdict="yes" if verdict == "yes" else "no" if verdict == "no" else "not run",
        sentence=sentence,
        evidence=lines[:1] if bad and not good else () if following == _STAY else lines,
        where=(label,),
        expected=False,
    )


def _following(base: Sequence[OutputForm], tried: Sequence[Tried]) -> str:
    """Whether outputs change their shapes with the inputs'."""
    shapes = {form.key: form.shape for form in base}
    following: dict[str, None] = {}
    for one in tried:
        for form in one.outputs or ():
            if shapes.get(form.key) != form.shape:
                following[form.key or "the output"] = None
    if not following:
        return _STAY
    if len(following) >= len(shapes):
        return "the output shapes change too"
    return f"the shape of {listed(list(following), 3)} follows"
