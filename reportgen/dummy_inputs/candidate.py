"""One set of inputs that might be right: what is tried, and written down when it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from reportgen.manifest import Constant, InputSpec

Dims = tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Inputs that might be right, with the sizes of the dims they name.

    Attributes:
        inputs: the inputs, in order.
        dims: the sizes of their named dims, other than batch.
        notes: what a reader should know of them, one sentence each.
    """

    inputs: tuple[InputSpec, ...]
    dims: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Search(Iterator[Choice]):
    """Choices for one model, the likeliest first; one that learns overrides `learn`.

    Attributes:
        tries: how many are worth trying.
        varies_batch: whether a choice that runs with one batch alone is put behind the others.
    """

    tries = 60
    varies_batch = False

    def __init__(self, choices: Iterable[Choice] = ()) -> None:
        self._choices = iter(choices)

    def __next__(self) -> Choice:
        return next(self._choices)

    def learn(self, error: Exception) -> None:
        """Let the error of the last choice lead to the next ones."""

    def unwritable(self) -> str:
        """Why no manifest can hold the inputs; "" where one may."""
        return ""


def tensor(
    name: str | None,
    *dims: int | str,
    dtype: str = "float32",
    low: float | None = None,
    high: float | None = None,
    keyword: bool = False,
) -> InputSpec:
    """A random tensor; integers lie in [low, high)."""
    return InputSpec.model_validate(
        {"name": name, "shape": dims, "dtype": dtype, "low": low, "high": high, "keyword": keyword}
    )


def indices(name: str | None, *dims: int | str, count: int, keyword: bool = False) -> InputSpec:
    """Random whole numbers from 0 up to `count`, such as the ids of a vocabulary."""
    return tensor(name, *dims, dtype="int64", high=max(1, count), keyword=keyword)


def filled(
    name: str | None, *dims: int | str, value: int, dtype: str = "int64", keyword: bool = False
) -> InputSpec:
    """Whole numbers that are all `value`, such as a mask of ones."""
    return tensor(name, *dims, dtype=dtype, low=value, high=value + 1, keyword=keyword)


def given(name: str | None, *dims: int | str, values: tuple[int, ...]) -> InputSpec:
    """Whole numbers that stand along the last dim, passed by name."""
    return InputSpec.model_validate(
        {"name": name, "shape": dims, "dtype": "int64", "values": values, "keyword": True}
    )


def constant(
    name: str | None, value: str | bool | int | float | None, *, keyword: bool = True
) -> InputSpec:
    """A constant argument."""
    return InputSpec(name=name, keyword=keyword, value=Constant(value=value))
