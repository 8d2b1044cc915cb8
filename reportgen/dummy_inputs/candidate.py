"""One candidate set of inputs, builders of its parts, and changes to nested parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from reportgen.manifest import Constant, InputSpec

Dims = tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A set of inputs to try, with the sizes of its named dims.

    Attributes:
        inputs: the inputs, in order.
        dims: the sizes of their named dims, other than batch.
        notes: remarks for the report, one sentence each.
    """

    inputs: tuple[InputSpec, ...]
    dims: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class CandidateSearch(Iterator[Candidate]):
    """Iterates over candidates for one model, the most likely first; `learn` may add more.

    Attributes:
        tries: the maximum number of candidates to try.
        varies_batch: whether candidates that run with one batch size only are a last resort.
    """

    tries = 60
    varies_batch = False

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._candidates = iter(candidates)

    def __next__(self) -> Candidate:
        return next(self._candidates)

    def learn(self, error: Exception) -> None:
        """Use the error of the last candidate to choose the next ones."""

    def unsupported_argument(self) -> str:
        """An argument that a manifest cannot describe, as `a Foo for 'x'`; "" for none."""
        return ""


def tensor(
    name: str | None,
    *dims: int | str,
    dtype: str = "float32",
    low: float | None = None,
    high: float | None = None,
    keyword: bool = False,
) -> InputSpec:
    """A random tensor; integers are in [low, high)."""
    return InputSpec.model_validate(
        {"name": name, "shape": dims, "dtype": dtype, "low": low, "high": high, "keyword": keyword}
    )


def indices(name: str | None, *dims: int | str, count: int, keyword: bool = False) -> InputSpec:
    """Random integers in [0, count), such as token ids."""
    # InputSpec rejects the empty range of a count of 0
    return tensor(name, *dims, dtype="int64", high=max(1, count), keyword=keyword)


def filled(
    name: str | None, *dims: int | str, value: int, dtype: str = "int64", keyword: bool = False
) -> InputSpec:
    """Integers that all equal `value`, such as a mask of ones."""
    return tensor(name, *dims, dtype=dtype, low=value, high=value + 1, keyword=keyword)


def fixed_values(name: str | None, *dims: int | str, values: tuple[int, ...]) -> InputSpec:
    """Fixed integers along the last dim, passed as a keyword."""
    return InputSpec.model_validate(
        {"name": name, "shape": dims, "dtype": "int64", "values": values, "keyword": True}
    )


def constant(
    name: str | None, value: str | bool | int | float | None, *, keyword: bool = True
) -> InputSpec:
    """A constant argument."""
    return InputSpec(name=name, keyword=keyword, value=Constant(value=value))


Inputs = tuple[InputSpec, ...]


def parts_of(inputs: Inputs) -> list[tuple[str, InputSpec]]:
    """Every tensor and constant with its dict key, or the name of the input that contains it."""
    return [pair for item in inputs for pair in _below(item.name or "", item)]


def _below(name: str, item: InputSpec) -> Iterator[tuple[str, InputSpec]]:
    if item.items is None and item.fields is None:
        yield name, item
    for part in item.items or ():
        yield from _below(name, part)
    for key, part in (item.fields or {}).items():
        yield from _below(key, part)


def with_part(inputs: Inputs, place: int, part: InputSpec) -> Inputs:
    """`inputs` with part number `place` of `parts_of` replaced; its name and keyword are kept."""
    # every_part visits the parts in the order of parts_of
    count = iter(range(len(parts_of(inputs))))

    def change(item: InputSpec) -> InputSpec:
        if next(count) != place:
            return item
        return part.model_copy(update={"name": item.name, "keyword": item.keyword})

    return every_part(inputs, change)


def every_part(inputs: Inputs, change: Callable[[InputSpec], InputSpec]) -> Inputs:
    """`inputs` with `change` applied to every tensor and constant."""
    return tuple(_changed(item, change) for item in inputs)


def _changed(item: InputSpec, change: Callable[[InputSpec], InputSpec]) -> InputSpec:
    if item.items is not None:
        return item.model_copy(update={"items": every_part(item.items, change)})
    if item.fields is not None:
        fields = {key: _changed(part, change) for key, part in item.fields.items()}
        return item.model_copy(update={"fields": fields})
    return change(item)
