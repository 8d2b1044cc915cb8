"""Inputs of other sizes, as an error suggests: the size it wanted, a part of it, another side."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from reportgen.dummy_inputs.error_parsing import found_and_wanted, resized, wanted_sizes
from reportgen.dummy_inputs.nested_specs import Inputs, every_part, parts_of, with_part
from reportgen.manifest import InputSpec

_LONGEST = 100_000
_ROUND = (32, 16, 8, 4, 2, 1)


class Resizing:
    """What the sizes in errors teach; it remembers how much came of which side."""

    def __init__(self) -> None:
        self._points: dict[tuple[int, int], list[tuple[int, float]]] = {}

    def after(self, error: Exception, inputs: Inputs) -> list[Inputs]:
        """The inputs to try after `error`, the likeliest first."""
        told = [*_exchanged(error, inputs)]
        for found, wanted in found_and_wanted(error):
            shifted = [*_shifted(inputs, wanted - found)]
            sides = [*self._of_sides(inputs, found, wanted)]
            told += [*shifted, *sides] if len(parts_of(inputs)) > 1 else [*sides, *shifted]
        return list({repr(one): one for one in told if one != inputs}.values())

    def _of_sides(self, inputs: Inputs, found: int, wanted: int) -> Iterator[Inputs]:
        """Another side where a flattened picture, volume or sound has the wrong number of values.

        The root of that number is linear in the side, but for rounding in the layers.
        """
        for place, (_, part) in enumerate(parts_of(inputs)):
            side, rank = _side_of(part)
            if not side:
                continue
            points = self._points.setdefault((place, wanted), [])
            points.append((side, found ** (1 / rank)))
            other = _rounder(_meeting(points, wanted ** (1 / rank)), {s for s, _ in points})
            if 1 <= other <= _LONGEST:
                yield with_part(inputs, place, resized_sides(part, side, other))


def _exchanged(error: Exception, inputs: Inputs) -> Iterator[Inputs]:
    """A size that stands in the inputs and the error, for another one that the error states."""
    given = tuple(part for _, part in parts_of(inputs))
    for size, other in dict.fromkeys(wanted_sizes(error, given)):
        yield every_part(inputs, partial(resized, size=size, other=other))
        places = [place for place, part in enumerate(given) if size in (part.shape or ())]
        for place in places if len(places) > 1 else ():
            yield with_part(inputs, place, resized(given[place], size, other))


def _shifted(inputs: Inputs, more: int) -> Iterator[Inputs]:
    """So many features more or fewer in one input of several, as what is concatenated needs."""
    for place, (_, part) in enumerate(parts_of(inputs)):
        shape = part.shape or ()
        axis = 1 if len(shape) > 3 else len(shape) - 1
        size = shape[axis] if shape and part.dtype.startswith("float") else None
        if isinstance(size, int) and size + more > 0:
            longer = (*shape[:axis], size + more, *shape[axis + 1 :])
            yield with_part(inputs, place, part.model_copy(update={"shape": longer}))


def _side_of(part: InputSpec) -> tuple[int, int]:
    """The side of a picture, a volume or a sound behind its channels, and in how many directions.

    (0, 0) for anything else.
    """
    sides = [dim for dim in (part.shape or ())[2:] if isinstance(dim, int)]
    if not sides or part.dtype == "int64":
        return 0, 0
    return sides[-1], sum(side == sides[-1] for side in sides)


def resized_sides(part: InputSpec, side: int, other: int) -> InputSpec:
    """`part` with `other` for every side of the length `side`; its channels stay."""
    shape = part.shape or ()
    changed = tuple(other if dim == side else dim for dim in shape[2:])
    return part.model_copy(update={"shape": (*shape[:2], *changed)})


def _meeting(points: list[tuple[int, float]], wanted: float) -> int:
    """The side at which the line through the two nearest points reaches `wanted`."""
    nearest = sorted(points, key=lambda point: abs(point[1] - wanted))[:2]
    (side, found), *others = nearest
    if others and others[0][1] != found:
        return round(side + (wanted - found) * (others[0][0] - side) / (others[0][1] - found))
    return round(side * wanted / found) if found else side + 1


def _rounder(side: int, tried: set[int]) -> int:
    """The roundest number near `side` that was not tried."""
    near = [side, side + 1, side - 1, side + 2, side - 2]
    left = [number for number in near if number not in tried] or [side]
    return next(n for step in _ROUND for n in left if n % step == 0)
