"""Candidate inputs of any module, from its layers, its forward's signature and code, and errors."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product, zip_longest
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs.argument_hints import (
    GRAPH_DIMS,
    Usage,
    is_edge_list,
    is_state,
    options_of_name,
    prefers,
    usages_of,
)
from reportgen.dummy_inputs.candidate import (
    Candidate,
    CandidateSearch,
    Inputs,
    constant,
    parts_of,
    with_part,
)
from reportgen.dummy_inputs.error_parsing import (
    SizeChanges,
    error_signature,
    expected_key,
    expected_names,
    expected_rank,
    expects_floats,
    expects_integers,
    is_index_out_of_range,
    lower_indices,
    missing_arguments,
)
from reportgen.dummy_inputs.from_layers import proposals_of, states_of, table_sizes
from reportgen.manifest import InputSpec

if TYPE_CHECKING:
    from torch import nn

FLOATS = ("float", "bfloat", "complex")
MIXED = 4  # options of each argument that are mixed with those of the others


class ForwardArguments:
    """The arguments of one model's forward.

    Attributes:
        names: of all but `*args` and `**kwargs`.
        takes_more: whether there is `*args`, as where a wrapper hides another forward.
        takes_keys: whether there is `**kwargs`.
        tables: how many rows its embeddings have.
    """

    def __init__(self, model: nn.Module) -> None:
        found = _signature(model)
        kinds = {p.kind for p in found.values()}
        self.takes_more = inspect.Parameter.VAR_POSITIONAL in kinds
        self.takes_keys = inspect.Parameter.VAR_KEYWORD in kinds
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        self._parameters = {name: p for name, p in found.items() if p.kind not in variadic}
        self.names = tuple(self._parameters)
        self.tables = table_sizes(model)
        self._usages = usages_of(model.forward, self.names)
        self._proposals = proposals_of(model)
        self._states = states_of(model)
        self._is_graph = any(is_edge_list(name) for name in self.names)
        self._options: dict[str, list[InputSpec]] = {}

    def unsupported_argument(self) -> str:
        """The first argument that must be an object of a class of its own; "" for none."""
        wanted = ((name, self._usages[name].unsupported_class) for name in self.needed())
        return next(
            (
                f"{name!r} is a {unsupported_class}"
                for name, unsupported_class in wanted
                if unsupported_class
            ),
            "",
        )

    def needed(self) -> list[str]:
        """Those that have no default."""
        return [name for name, p in self._parameters.items() if p.default is p.empty]

    def first_options(self) -> list[list[list[InputSpec]]]:
        """Lists of arguments to begin with, each argument with what it may be given in order."""
        if self.needed():
            return [[self._ranked(name) for name in self.needed()]]
        if self.takes_more and not self.names:
            return [[self.options_of("")]]
        return [[], *([self._ranked(name)] for name in self.names[:1])]

    def optional(self, name: str) -> InputSpec:
        """The likeliest form of an argument that was left out."""
        made = self._built(name, self._usages[name], 0)
        return made.model_copy(update={"name": name, "keyword": True})

    def options_of(self, name: str, usage: Usage | None = None) -> list[InputSpec]:
        """What a tensor or a constant of this name may be; without its name."""
        if name not in self._options:
            if usage is not None and usage.kind == "constant":
                known = [constant(None, value, keyword=False) for value in usage.values]
            else:
                known = self._tensors_called(name)
            self._options[name] = known
        return self._options[name]

    def _ranked(self, name: str) -> list[InputSpec]:
        """What one argument may be given, likely things first."""
        usage, parameter = self._usages[name], self._parameters[name]
        if usage.doubtful and is_edge_list(name):
            usage = Usage()
        count = len(self.options_of(name, _innermost(usage)))
        built = [self._built(name, usage, number) for number in range(count)]
        if usage.doubtful:
            plain = self.options_of(name)
            built = [item for pair in zip(built, plain, strict=False) for item in pair]
        if usage.optional:
            built.insert(1, constant(None, None, keyword=False))
        keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        return [item.model_copy(update={"name": name, "keyword": keyword}) for item in built]

    def _built(self, name: str, usage: Usage, number: int) -> InputSpec:
        """The `number`-th form of an argument, structures from the inside out."""
        if usage.kind == "dict":
            parts = {key: self._built(key, usage.parts[0], number) for key in usage.keys}
            return InputSpec(fields=parts)
        if usage.kind in ("list", "tuple"):
            items = [self._built(name, part, number) for part in usage.parts]
            return InputSpec.model_validate({"items": items, "tuple": usage.kind == "tuple"})
        options = self.options_of(name, usage)
        return options[min(number, len(options) - 1)]

    def _tensors_called(self, name: str) -> list[InputSpec]:
        known = options_of_name(name, self.tables)
        if self._states and is_state(name):
            known = [*self._states, *known]
        suits = prefers(name)
        rest = self._proposals if suits is None else _first_those(self._proposals, suits)
        known = list(dict.fromkeys([*known, *rest]))
        return [_of_graph(item) for item in known] if self._is_graph else known


def distinct_kinds(options: list[InputSpec], given: InputSpec | None = None) -> list[InputSpec]:
    """The first option of each rank and kind of dtype; none of those that `given` has."""
    firsts: dict[tuple[str, int, str], InputSpec] = {}
    for option in options:
        firsts.setdefault(_form_of(option), option)
    if given is not None:
        firsts.pop(_form_of(given), None)
    return list(firsts.values())[:MIXED]


def _form_of(item: InputSpec) -> tuple[str, int, str]:
    is_float = item.dtype.startswith(FLOATS)
    return item.kind, len(item.shape or ()), "float" if is_float else item.dtype


def _first_those(items: list[InputSpec], suits: Callable[[InputSpec], bool]) -> list[InputSpec]:
    return sorted(items, key=lambda item: not suits(item))


def _innermost(usage: Usage) -> Usage:
    """What a list, a tuple or a dict holds in the end."""
    return _innermost(usage.parts[0]) if usage.parts else usage


def _of_graph(item: InputSpec) -> InputSpec:
    """A graph's nodes stand where other models have their samples."""
    shape = item.shape and tuple("nodes" if dim == "batch" else dim for dim in item.shape)
    return item.model_copy(update={"shape": shape})


def _signature(model: nn.Module) -> dict[str, inspect.Parameter]:
    """The signature of forward; a traced program has a schema in its place."""
    forward: Any = model.forward
    try:
        return dict(inspect.signature(forward).parameters)
    except (TypeError, ValueError):
        names = [argument.name for argument in forward.schema.arguments[1:]]
        kind = inspect.Parameter.POSITIONAL_ONLY
        return {name: inspect.Parameter(name, kind) for name in names}


_MOST_ALIKE = 12  # passes that die of one cause, whatever they are given
_IN_A_ROW = 7  # tries of what errors suggested before one of something else


class SignatureSearch(CandidateSearch):
    """Choices for a module of which only its code is known."""

    tries = 200
    varies_batch = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._arguments = ForwardArguments(model)
        self._failures: Counter[tuple[str, str]] = Counter()
        self._resizing = SizeChanges()
        self._seen: set[str] = set()
        self._suggested: list[Inputs] = []  # by an error, tried before everything else
        self._next: list[Inputs] = []  # one option further than what was tried
        self._last: Inputs = ()
        self._turn = 0
        self._first_candidates = self._combined()

    def __next__(self) -> Candidate:
        while True:
            inputs = self._next_inputs()
            key = repr(inputs)
            if key not in self._seen:
                self._seen.add(key)
                self._last = inputs
                return Candidate(inputs=inputs, dims=self._dims(inputs))

    def _next_inputs(self) -> Inputs:
        """What an error suggested; else first_options and next options by turns."""
        self._turn += 1
        if self._suggested and self._turn % _IN_A_ROW:
            return self._suggested.pop(0)
        if self._turn % 2 or not self._next:
            beginning = next(self._first_candidates, None)
            if beginning is not None:
                return beginning
        for waiting in (self._next, self._suggested):
            if waiting:
                return waiting.pop(0)
        raise StopIteration

    def unsupported_argument(self) -> str:
        """The first argument that must be an object of a class of its own."""
        return self._arguments.unsupported_argument()

    def learn(self, error: Exception) -> None:
        """Queue what the error of the last candidate suggests, before everything else."""
        cause = error_signature(error)
        self._failures[cause] += 1
        if self._failures[cause] > _MOST_ALIKE:
            return
        suggested = [*self._with_names(error), *self._resizing.after(error, self._last)]
        suggested += self._with_types(error)
        suggested += self._with_ranks(error)
        if is_index_out_of_range(error):
            suggested += lower_indices(self._last, self._arguments.tables)
        self._suggested[:0] = suggested
        self._next += self._with_next_options()

    # what the errors teach --------------------------------------------------------------------

    def _with_names(self, error: Exception) -> Iterator[Inputs]:
        """A key or an argument more."""
        key = expected_key(error)
        if key is not None:
            yield from self._with_key(key)
        if self._arguments.takes_more:
            missing = missing_arguments(error)
            yield (*self._last, *(self._arguments.options_of(name)[0] for name in missing))
        given = {item.name for item in self._last}
        absent = [name for name in self._arguments.names if name not in given]
        for name in expected_names(error, absent):
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
        integers = expects_integers(error)
        if not integers and not expects_floats(error):
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
        rank = expected_rank(error)
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
            for option in dict.fromkeys([*later[:1], *distinct_kinds(later, bare)[:1]]):
                yield with_part(self._last, place, option)

    # what is tried first ----------------------------------------------------------------------

    def _combined(self) -> Iterator[Inputs]:
        """The n-th option of every argument, alternating with mixtures of different kinds."""
        for ranked in self._arguments.first_options():
            if not ranked:
                yield ()
                continue
            alike = (
                tuple(options[min(number, len(options) - 1)] for options in ranked)
                for number in range(max(map(len, ranked)))
            )
            mixed = product(*map(distinct_kinds, ranked)) if ranked[1:] else ()
            for pair in zip_longest(alike, mixed):
                yield from (inputs for inputs in pair if inputs is not None)

    def _dims(self, inputs: Inputs) -> dict[str, int]:
        used = {dim for item in inputs for dim in item.named_dims()}
        return {name: size for name, size in GRAPH_DIMS.items() if name in used}
