"""The dynamic dims of an ONNX file's inputs: which is the batch, and a size for each other one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reportgen.onnx.model.shapes import evaluate

_IMAGE_RANK, _IMAGE_SIZE, _LENGTH, _COLORS = 4, 224, 16, 3
_FEW_CHANNELS = (1, 3, 4)  # gray, color, color with transparency

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# exporters invent these where the user gave no name
_INVENTED = re.compile(r"|unk__\d+|[su]\d+|.*_dynamic_axes_\d+|\?|None|-1")
_BATCH = {"batch", "batches", "batchsize", "bs", "nbatch"}
_BATCH_LETTERS = ("B", "b", "N", "n")  # the more certain ones first
_SIDES = {"height", "width", "h", "w", "rows", "cols", "columns"}
_CHANNELS = {"channel", "channels", "c"}
_NOT_BATCH = {
    *_SIDES, *_CHANNELS,
    "seq", "sequence", "seqlen", "time", "timesteps", "steps", "frames", "tokens", "length", "len",
    "t", "l", "s", "past", "nodes", "edges", "points", "boxes", "vertices", "rois", "layers",
    "heads",
}  # fmt: skip


class DynamicDims:
    """The dims of the inputs of one file.

    The batch is the dim that is named so, on whatever axis; without such a name it is the first
    axis, unless that has the name of something else. Two dims of one name are one.

    Args:
        inputs: the file's inputs, `onnx.ValueInfoProto`s.
        given: sizes from the manifest by name.

    Attributes:
        sizes: of the dims other than the batch that `shape_of` met, by name.
        batch_names: how the file calls the batch; empty if it has no name.
    """

    def __init__(self, inputs: Sequence[Any], given: Mapping[str, int]) -> None:
        self.sizes: dict[str, int] = {}
        self._given = given
        named = [[_name(dim) for dim in value.type.tensor_type.shape.dim] for value in inputs]
        self.batch_names = _batch_names(named)
        self._expressions: dict[str, str] = {}

    def shape_of(self, value: Any) -> tuple[int | str, ...]:
        """Sizes, `batch`, and names of other dims of an input."""
        axes = value.type.tensor_type.shape.dim
        return tuple(self._dim(value.name, axes, axis) for axis in range(len(axes)))

    def resolve(self) -> None:
        """Give the dims that are expressions of others (`past + 1`) the sizes that follow."""
        for name, expression in self._expressions.items():
            size = evaluate(expression, self.sizes)
            if size and name not in self._given:
                self.sizes[name] = size

    def _dim(self, of: str, axes: Sequence[Any], axis: int) -> int | str:
        size, written = axes[axis].dim_value, axes[axis].dim_param
        # 0 or -1 cannot be the size of an input; it stands for an unknown one
        if axes[axis].HasField("dim_value") and size > 0:
            return int(size)
        if self._is_batch(axes, axis):
            return "batch"
        name = written if written.isidentifier() else f"{of}_{axis}"
        name = name if name.isidentifier() else f"dim_{axis}"
        if written and not written.isidentifier():
            self._expressions.setdefault(name, written)
        self.sizes.setdefault(name, self._given.get(name, _default_size(axes, axis)))
        return name

    def _is_batch(self, axes: Sequence[Any], axis: int) -> bool:
        names = [_name(dim) for dim in axes]
        name = names[axis]
        if name in self.batch_names:
            return True
        if axis or name in self._given or self.batch_names.intersection(names):
            return False
        is_other = bool(_words(name) & _NOT_BATCH or self.batch_names)
        return bool(_INVENTED.fullmatch(name)) or not is_other


def _batch_names(inputs: Sequence[Sequence[str]]) -> frozenset[str]:
    everything = {name for names in inputs for name in names}
    spoken = frozenset(n for n in everything if n.isidentifier() and _words(n) & _BATCH)
    if spoken:
        return spoken
    for letter in _BATCH_LETTERS:
        # N also counts points: it is the batch on the first axis, or after a sequence
        if any(
            letter in names and (names[0] == letter or bool(_words(names[0]) & _NOT_BATCH))
            for names in inputs
        ):
            return frozenset({letter})
    return frozenset()


def _default_size(axes: Sequence[Any], axis: int) -> int:
    words = _words(_name(axes[axis]))
    if words & _SIDES:
        return _IMAGE_SIZE
    if len(axes) != _IMAGE_RANK:
        return _LENGTH
    if words & _CHANNELS:
        return _COLORS
    if words & _NOT_BATCH:  # the keys of an attention have four axes too
        return _LENGTH
    return _IMAGE_SIZE if axis in _sides_of_image(axes) else _LENGTH


def _sides_of_image(axes: Sequence[Any]) -> Iterator[int]:
    """The axes of height and width: before the channels if these are few and last."""
    is_last = axes[3].dim_value in _FEW_CHANNELS and axes[1].dim_value not in _FEW_CHANNELS
    yield from (1, 2) if is_last or bool(_words(_name(axes[3])) & _CHANNELS) else (2, 3)


def _name(dim: Any) -> str:
    return str(dim.dim_param)


def _words(name: str) -> set[str]:
    """The words of `seq_len`, `batchSize`, `num-tokens` in small letters."""
    return {word.lower() for word in _WORD.findall(name)}
