"""Inputs of any module: from its layers, its forward's signature and code, and what a run says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product, zip_longest
from typing import TYPE_CHECKING

from reportgen.dummy_inputs.candidate import Choice, Search
from reportgen.dummy_inputs.embedding_bounds import lowered, says_too_small
from reportgen.dummy_inputs.error_parsing import (
    missing_arguments,
    signature_of,
    wanted_key,
    wanted_names,
    wanted_rank,
    wants_floats,
    wants_integers,
)
from reportgen.dummy_inputs.from_arguments import FLOATS, MIXED, Arguments, unlike
from reportgen.dummy_inputs.from_names import GRAPH_DIMS
from reportgen.dummy_inputs.nested_specs import Inputs, parts_of, with_part
from reportgen.dummy_inputs.resize_from_error import Resizing

if TYPE_CHECKING:
    from torch import nn

_MOST_ALIKE = 12  # passes that die of one cause, whatever they are given
_IN_A_ROW = 7  # tries of what errors told before one of something else


class SignatureSearch(Search):
    """Choices for a module of which only its code is known."""

    tries = 200
    varies_batch = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._arguments = Arguments(model)
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._resizing = Resizing()
        self._seen: set[str] = set()
        self._told: list[Inputs] = []  # by an error, tried before everything else
        self._next: list[Inputs] = []  # one option further than what was tried
        self._last: Inputs = ()
        self._turn = 0
        self._beginnings = self._combined()

    def __next__(self) -> Choice:
        while True:
            inputs = self._drawn()
            key = repr(inputs)
            if key not in self._seen:
                self._seen.add(key)
                self._last = inputs
                return Choice(inputs=inputs, dims=self._dims(inputs))

    def _drawn(self) -> Inputs:
        """What an error told; else beginnings and next options by turns."""
        self._turn += 1
        if self._told and self._turn % _IN_A_ROW:
            return self._told.pop(0)
        if self._turn % 2 or not self._next:
            beginning = next(self._beginnings, None)
            if beginning is not None:
                return beginning
        for waiting in (self._next, self._told):
            if waiting:
                return waiting.pop(0)
        raise StopIteration

    def unwritable(self) -> str:
        """The first argument that must be an object of a class of its own."""
        return self._arguments.foreign()

    def learn(self, error: Exception) -> None:
        """Queue what the error of the last choice suggests, before everything else."""
        cause = signature_of(error)
        self._deaths[cause] += 1
        if self._deaths[cause] > _MOST_ALIKE:
            return
        told = [*self._with_names(error), *self._resizing.after(error, self._last)]
        told += self._with_types(error)
        told += self._with_ranks(error)
        if says_too_small(error):
            told += lowered(self._last, self._arguments.tables)
        self._told[:0] = told
        self._next += self._with_next_options()

    # what the errors teach --------------------------------------------------------------------

    def _with_names(self, error: Exception) -> Iterator[Inputs]:
        """A key or an argument more."""
        key = wanted_key(error)
        if key is not None:
            yield from self._with_key(key)
        if self._arguments.takes_more:
            missing = missing_arguments(error)
            yield (*self._last, *(self._arguments.options_of(name)[0] for name in missing))
        given = {item.name for item in self._last}
        absent = [name for name in self._arguments.names if name not in given]
        for name in wanted_names(error, absent):
            yield (*self._last, self._arguments.optional(name))

    def _with_key(self, key: str) -> Iterator[Inputs]:
        part = self._arguments.options_of(key)[0]
        for place, item in enumerate(self._last):
            if item.fields is not None and key not in item.fields:
                longer = item.model_copy(update={"fields": {**item.fields, key: part}})
                yield (*self._last[:place], longer, *self._last[place + 1 :])
        if self._arguments.takes_keys and key.isidentifier():
            yield (*self._last, part.model_copy(update={"name": key, "keyword": True}))

    def _with_types(self, error: Exception) -> Iterator[Inputs]:
        """Whole numbers for floats, or floats for whole numbers, in one place."""
        integers = wants_integers(error)
        if not integers and not wants_floats(error):
            return
        for place, (name, part) in enumerate(parts_of(self._last)):
            is_integer = not part.dtype.startswith(FLOATS)
            if part.shape is None or is_integer == integers:
                continue
            others = [
                option
                for option in self._arguments.options_of(name)
                if option.shape is not None and option.dtype.startswith(FLOATS) != integers
            ]
            for option in others[:MIXED]:
                yield with_part(self._last, place, option)

    def _with_ranks(self, error: Exception) -> Iterator[Inputs]:
        """One tensor of as many dimensions as the error says, in place of another."""
        rank = wanted_rank(error)
        for place, (name, part) in enumerate(parts_of(self._last) if rank else ()):
            known = self._arguments.options_of(name)
            fitting = [item for item in known if len(item.shape or ()) == rank]
            if len(part.shape or ()) != rank:
                yield from (with_part(self._last, place, item) for item in fitting[:MIXED])

    def _with_next_options(self) -> Iterator[Inputs]:
        for place, (name, part) in enumerate(parts_of(self._last)):
            known = self._arguments.options_of(name)
            bare = part.model_copy(update={"name": None, "keyword": False})
            later = known[known.index(bare) + 1 :] if bare in known else []
            for option in dict.fromkeys([*later[:1], *unlike(later, bare)[:1]]):
                yield with_part(self._last, place, option)

    # what is tried first ----------------------------------------------------------------------

    def _combined(self) -> Iterator[Inputs]:
        """The same number of option for every argument, and mixtures of unlike ones, by turns."""
        for ranked in self._arguments.beginnings():
            if not ranked:
                yield ()
                continue
            alike = (
                tuple(options[min(number, len(options) - 1)] for options in ranked)
                for number in range(max(map(len, ranked)))
            )
            mixed = product(*map(unlike, ranked)) if ranked[1:] else ()
            for pair in zip_longest(alike, mixed):
                yield from (inputs for inputs in pair if inputs is not None)

    def _dims(self, inputs: Inputs) -> dict[str, int]:
        used = {dim for item in inputs for dim in item.named_dims()}
        return {name: size for name, size in GRAPH_DIMS.items() if name in used}
