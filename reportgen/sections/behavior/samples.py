"""Samples in a batch: the axis that they lie along, one alone, one replaced by another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from reportgen.example_inputs import Examples
from reportgen.sections.behavior.comparison import is_same
from reportgen.sections.behavior.runner import mapped, tensors_of


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
