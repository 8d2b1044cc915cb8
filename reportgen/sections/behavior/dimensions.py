"""Which sizes of the inputs can be varied, and the inputs with another size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from reportgen.manifest import InputSpec, ModelSpec

_BATCH = "batch"
_FLOATS = ("float32", "float16", "bfloat16", "float64", "complex64")
_MOST = 4

Path = tuple[int | str, ...]
"""The way to an input: its place among the inputs, then indices and keys below it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dimension:
    """Axes of the inputs that change together.

    Attributes:
        label: how a reader calls it: `height and width`, `length`, or its name in the manifest.
        size: what the manifest gives it.
        spots: the axes, by input; empty for a named one.
        name: its name in the manifest's `dims`; "" for one that is a number there.
        spatial: whether it is the height or width of an image.
    """

    label: str
    size: int
    spots: tuple[tuple[Path, int], ...] = ()
    name: str = ""
    spatial: bool = False

    def sizes(self) -> tuple[int, ...]:
        """Others to try: one smaller, one just larger, one clearly larger."""
        if self.spatial and self.size >= 96:
            near = (self.size - 32, self.size + 1, self.size + 32)
        else:
            near = (max(1, self.size // 2), self.size + 1, 2 * self.size)
        return tuple(size for size in dict.fromkeys(near) if size != self.size)

    def resized(self, spec: ModelSpec, size: int) -> ModelSpec:
        """The manifest's entry with this dimension of another size."""
        if self.name:
            return spec.model_copy(update={"dims": {**spec.dims, self.name: size}})
        changed = tuple(
            self._resized(item, (index,), size) for index, item in enumerate(spec.inputs)
        )
        return spec.model_copy(update={"inputs": changed})

    def _resized(self, item: InputSpec, path: Path, size: int) -> InputSpec:
        axes = {axis for place, axis in self.spots if place == path}
        update: dict[str, object] = {}
        if axes:
            shape = item.shape or ()
            update["shape"] = tuple(size if i in axes else dim for i, dim in enumerate(shape))
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
    """Every dimension worth varying: the named ones, then height, width and lengths.

    Not the batch, which has a probe of its own, nor the features of a float vector or the
    channels of an image, which weights fix by their nature.
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
    for (label, size, spatial), spots in numbered.items():
        names = dict.fromkeys(_name(spec, path) for path, _ in spots)
        whole = label if labels[label] == 1 else f"{label} of {', '.join(names)}"
        found.append(Dimension(label=whole, size=size, spatial=spatial, spots=tuple(spots)))
    return tuple(found[:_MOST])


def _name(spec: ModelSpec, path: Path) -> str:
    """What a reader calls an input: `images.0`."""
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
    """Axes that the manifest gives a number, grouped as they change together."""
    shape = item.shape or ()
    if item.dtype not in _FLOATS:
        for axis in range(1, len(shape)):
            if isinstance(shape[axis], int):
                yield ("length" if axis == 1 else f"axis {axis}"), (axis,), False
        return
    image = len(shape) >= 4 or (len(shape) == 3 and shape[0] in (1, 3))
    if image:
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
