"""Dynamic shapes: which batch sizes, lengths and resolutions run, and which are fixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from reportgen.example_inputs import Examples
from reportgen.manifest import InputSpec, ModelSpec
from reportgen.pytree import named_tensors
from reportgen.sections.behavior.fake_runs import (
    FailedPassError,
    PassOutcome,
    RecordedPass,
    forms_of,
)
from reportgen.sections.behavior.result import (
    OutputForm,
    Probe,
    Verdict,
    capitalized,
    forms,
    joined,
    listed,
    make_probe,
)
from reportgen.sections.behavior.runner import ProbeNotRunError, ProbePassError, ProbeRunner, copied

_BATCH = "batch"
# Other dtypes are token ids or masks, whose second axis is a length.
_FLOATS = ("float32", "float16", "bfloat16", "float64", "complex64")
_MAX_DIMENSIONS = 4

Path = tuple[int | str, ...]
"""Index of an input, then the indices and keys of a nested one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """Axes of the inputs that change together.

    Attributes:
        label: `height and width`, `length`, or the name in the manifest.
        size: the size in the manifest.
        axes: the axes as (input, axis); empty for a named dimension.
        name: the name in the manifest's `dims`; "" for a fixed number.
        spatial: whether it is the height or width of an image.
    """

    label: str
    size: int
    axes: tuple[tuple[Path, int], ...] = ()
    name: str = ""
    spatial: bool = False

    def sizes(self) -> tuple[int, ...]:
        """Sizes to try: a smaller one, the next larger one, a clearly larger one."""
        # 32 is the total stride of common backbones; one more tests that odd sizes run too
        if self.spatial and self.size >= 96:
            near = (self.size - 32, self.size + 1, self.size + 32)
        else:
            near = (max(1, self.size // 2), self.size + 1, 2 * self.size)
        return tuple(size for size in dict.fromkeys(near) if size != self.size)

    def resized(self, spec: ModelSpec, size: int) -> ModelSpec:
        """The model's manifest entry with this dimension set to `size`."""
        if self.name:
            return spec.model_copy(update={"dims": {**spec.dims, self.name: size}})
        changed = tuple(
            self._resized(item, (index,), size) for index, item in enumerate(spec.inputs)
        )
        return spec.model_copy(update={"inputs": changed})

    def _resized(self, item: InputSpec, path: Path, size: int) -> InputSpec:
        changed = {axis for place, axis in self.axes if place == path}
        update: dict[str, object] = {}
        if changed:
            shape = item.shape or ()
            update["shape"] = tuple(size if i in changed else dim for i, dim in enumerate(shape))
        if item.items is not None:
            update["items"] = tuple(
                self._resized(part, (*path, index), size) for index, part in enumerate(item.items)
            )
        if item.fields is not None:
            update["fields"] = {
                key: self._resized(part, (*path, key), size) for key, part in item.fields.items()
            }
        return item.model_copy(update=update) if update else item


def dimensions_of(spec: ModelSpec) -> tuple[Dimension, ...]:
    """The dimensions to vary: named ones, then height, width and lengths, at most four.

    The batch has its own probe. Features of a float vector and channels of an image are fixed by
    the weights.
    """
    used = {dim for item in spec.inputs for dim in item.named_dims()}
    found = [
        Dimension(label=name, size=size, name=name)
        for name, size in spec.dims.items()
        if name in used and name != _BATCH
    ]
    numbered: dict[tuple[str, int, bool], list[tuple[Path, int]]] = {}
    for path, item in _tensors(spec):
        for label, axes, spatial in _numbered(item):
            size = int((item.shape or ())[axes[0]])
            numbered.setdefault((label, size, spatial), []).extend((path, a) for a in axes)
    labels = Counter(label for label, _, _ in numbered)
    for (label, size, spatial), places in numbered.items():
        names = dict.fromkeys(_name(spec, path) for path, _ in places)
        whole = label if labels[label] == 1 else f"{label} of {', '.join(names)}"
        found.append(Dimension(label=whole, size=size, spatial=spatial, axes=tuple(places)))
    return tuple(found[:_MAX_DIMENSIONS])


def _name(spec: ModelSpec, path: Path) -> str:
    """The name of an input: `images.0`."""
    outermost = spec.inputs[int(path[0])].name or f"input{path[0]}"
    return ".".join((outermost, *map(str, path[1:])))


def _tensors(spec: ModelSpec) -> Iterator[tuple[Path, InputSpec]]:
    for index, item in enumerate(spec.inputs):
        yield from _below((index,), item)


def _below(path: Path, item: InputSpec) -> Iterator[tuple[Path, InputSpec]]:
    if item.shape is not None and item.file is None:
        yield path, item
    for index, part in enumerate(item.items or ()):
        yield from _below((*path, index), part)
    for key, part in (item.fields or {}).items():
        yield from _below((*path, key), part)


def _numbered(item: InputSpec) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """Axes with a fixed number in the manifest, grouped by what changes together."""
    shape = item.shape or ()
    if item.dtype not in _FLOATS:
        for axis in range(1, len(shape)):
            if isinstance(shape[axis], int):
                yield ("length" if axis == 1 else f"axis {axis}"), (axis,), False
        return
    # (channels, height, width) without a batch: 1 channel is gray, 3 are RGB
    if len(shape) >= 4 or (len(shape) == 3 and shape[0] in (1, 3)):
        yield from _image_axes(shape)
    elif len(shape) == 3:
        for axis in range(3):
            if isinstance(shape[axis], int):
                yield f"axis {axis}", (axis,), False


def _image_axes(shape: tuple[int | str, ...]) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    height, width = len(shape) - 2, len(shape) - 1
    numbers = [axis for axis in (height, width) if isinstance(shape[axis], int)]
    if len(numbers) == 2 and shape[height] == shape[width]:
        yield "height and width", (height, width), True
    else:
        for axis in numbers:
            yield ("height" if axis == height else "width"), (axis,), True
    if len(shape) == 5 and isinstance(shape[2], int):
        yield "depth", (2,), False


_INDEXING = frozenset(
    ("aten.embedding", "aten.index", "aten.gather", "aten.index_select", "aten.take")
)
_SAME_SHAPES = "the outputs keep their shapes"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SizeCase:
    """One other size to try.

    Attributes:
        size: the batch size, length, height and so on.
        examples: inputs of this size.
        samples: the cost of a pass, in samples of the manifest's size.
        first_run: the outcome of the first pass, usually with fake tensors; None without one.
    """

    size: int
    examples: Examples
    samples: float
    first_run: PassOutcome | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeOutcome:
    """The outputs of another size, or the failure, or the reason why it was not tried."""

    size: int
    outputs: tuple[OutputForm, ...] | None = None
    failure: str = ""
    skip_reason: str = ""
    fake: bool = False  # ran with fake tensors

    @property
    def line(self) -> str:
        """One line of evidence."""
        if self.outputs is not None:
            how = " with fake tensors" if self.fake else ""
            return f"{self.size}: runs{how}, {forms(self.outputs)}"
        if self.failure:
            return f"{self.size}: fails, {self.failure}"
        return f"{self.size}: not tried, {self.skip_reason}"


def uses_indexing(base: RecordedPass) -> bool:
    """Whether a pass looks up by index, which requires real values to check."""
    # fake tensors do not detect an index out of range, as of a position table that is too short
    return not _INDEXING.isdisjoint(base.record.operators)


def run_size(runner: ProbeRunner, case: SizeCase, *, needs_values: bool) -> SizeOutcome:
    """Whether the model runs with another size; a real pass if fake tensors cannot decide it."""
    size, first_run = case.size, case.first_run
    if isinstance(first_run, FailedPassError) and not first_run.needs_values:
        return SizeOutcome(size=size, failure=first_run.reason)
    known = (
        SizeOutcome(size=size, outputs=first_run.outputs, fake=not first_run.real)
        if isinstance(first_run, RecordedPass)
        else None
    )
    if known and not (needs_values and known.fake):
        return known
    try:
        runner.reserve(case.samples)
    except ProbeNotRunError as reason:
        return known or SizeOutcome(size=size, skip_reason=str(reason))
    try:
        outputs = named_tensors(runner.evaluate(copied(case.examples)))
    except ProbePassError as failure:
        return SizeOutcome(size=size, failure=failure.reason)
    return SizeOutcome(size=size, outputs=forms_of(outputs))


def batches_probe(usual: int, outcomes: Sequence[SizeOutcome], single: Sequence[str]) -> Probe:
    """Which batch sizes run besides `usual`; `single` are batch norms that need two samples."""
    evidence = tuple(one.line for one in outcomes if one.outputs is None)
    if single and not any(one.failure and one.size == 1 for one in outcomes):
        evidence += (
            f"training needs two samples: batch norm has one value per channel in {listed(single)}",
        )
    good = [str(one.size) for one in outcomes if one.outputs is not None]
    bad = [str(one.size) for one in outcomes if one.failure]
    if not good and not bad:
        return make_probe("batches", "not run", "No other batch could be tried.", evidence)
    runs = sorted((usual, *(one.size for one in outcomes if one.outputs is not None)))
    running = joined([str(size) for size in runs])
    if not bad:
        sentence = f"Batches of {running} run."
    elif good:
        sentence = f"Batches of {running} run; {joined(bad)} do{'es' * (len(bad) == 1)} not."
    else:
        sentence = f"Only a batch of {usual} runs; {joined(bad)} do not."
    return make_probe("batches", "no" if bad else "yes", sentence, evidence, bad)


def dimension_probe(
    dimension: Dimension, base: Sequence[OutputForm], outcomes: Sequence[SizeOutcome]
) -> Probe:
    """Which other sizes of one dimension run, and whether the output shapes change."""
    label = dimension.label
    good = [str(one.size) for one in outcomes if one.outputs is not None]
    bad = [str(one.size) for one in outcomes if one.failure]
    name = capitalized(label) if not dimension.name else label
    lines = tuple(one.line for one in outcomes)
    changes = _shape_changes(base, outcomes) if not bad and good else ""
    plural = " and " in label  # "height and width"
    verdict: Verdict
    if not good and not bad:
        verdict, sentence = "not run", f"No other {label} could be tried."
    elif not bad:
        verdict = "yes"
        sentence = f"{name} can be {joined(good)} too; {changes}."
    elif not good:
        verdict = "no"
        sentence = f"{name} {'are' if plural else 'is'} fixed: only {dimension.size} runs, "
        sentence += f"not {joined(bad)}."
    else:
        verdict = "no"
        sentence = (
            f"{name} can be {joined(good)} and not {joined(bad)}; {_shape_changes(base, outcomes)}."
        )
    return Probe(
        name=f"size_{label.replace(' ', '_')}",
        claim=f"Other sizes of {label}",
        verdict=verdict,
        sentence=sentence,
        evidence=lines[:1] if bad and not good else () if changes == _SAME_SHAPES else lines,
        where=(label,),
        expected=False,
    )


def _shape_changes(base: Sequence[OutputForm], outcomes: Sequence[SizeOutcome]) -> str:
    """Which output shapes change with the input size, as a phrase."""
    shapes = {form.key: form.shape for form in base}
    changes: dict[str, None] = {}
    for one in outcomes:
        for form in one.outputs or ():
            if shapes.get(form.key) != form.shape:
                changes[form.key or "the output"] = None
    if not changes:
        return _SAME_SHAPES
    if len(changes) >= len(shapes):
        return "the output shapes change too"
    return f"the shape of {listed(list(changes), 3)} follows"
