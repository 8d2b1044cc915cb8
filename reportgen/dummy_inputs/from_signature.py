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
    unsupported_argument,
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
MIXED = 4  # options per argument that are combined with those of other arguments


class ForwardArguments:
    """The arguments of a model's forward and the options to try for each.

    Attributes:
        names: all except `*args` and `**kwargs`.
        takes_more: whether there is `*args`, for example in a wrapper.
        takes_keys: whether there is `**kwargs`.
        tables: the number of rows of each embedding.
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
        """The first required argument of a custom class, as `a Foo for 'x'`; "" for none."""
        return unsupported_argument(self._usages, self.needed())

    def needed(self) -> list[str]:
        """The arguments without a default."""
        return [name for name, p in self._parameters.items() if p.default is p.empty]

    def first_options(self) -> list[list[list[InputSpec]]]:
        """The argument lists to try first; each argument as the list of its options in order."""
        if self.needed():
            return [[self._ranked(name) for name in self.needed()]]
        if self.takes_more and not self.names:
            return [[self.options_of("")]]
        return [[], *([self._ranked(name)] for name in self.names[:1])]

    def optional(self, name: str) -> InputSpec:
        """The first option of an argument that was omitted, as a keyword."""
        made = self._built(name, self._usages[name], 0)
        return made.model_copy(update={"name": name, "keyword": True})

    def options_of(self, name: str, usage: Usage | None = None) -> list[InputSpec]:
        """The options for a tensor or constant of this name; their `name` is not set."""
        if name not in self._options:
            if usage is not None and usage.kind == "constant":
                known = [constant(None, value, keyword=False) for value in usage.values]
            else:
                known = self._tensors_called(name)
            self._options[name] = known
        return self._options[name]

    def _ranked(self, name: str) -> list[InputSpec]:
        usage, parameter = self._usages[name], self._parameters[name]
        # `source, target = edge_index` unpacks a tensor of two rows
        if usage.doubtful and is_edge_list(name):
            usage = Usage()
        count = len(self.options_of(name, _innermost(usage)))
        built = [self._built(name, usage, number) for number in range(count)]
        if usage.doubtful:
            plain = self.options_of(name)
            built = [item for pair in zip(built, plain, strict=False) for item in pair]
        if usage.optional:
            # only second, because more of the model runs with a tensor
            built.insert(1, constant(None, None, keyword=False))
        keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        return [item.model_copy(update={"name": name, "keyword": keyword}) for item in built]

    def _built(self, name: str, usage: Usage, number: int) -> InputSpec:
        """The `number`-th option of an argument, with the structure of `usage`."""
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
        rest = self._proposals if suits is None else _matching_first(self._proposals, suits)
        known = list(dict.fromkeys([*known, *rest]))
        return [_of_graph(item) for item in known] if self._is_graph else known


def distinct_kinds(options: list[InputSpec], given: InputSpec | None = None) -> list[InputSpec]:
    """The first option of each rank and kind of dtype, except those of `given`."""
    firsts: dict[tuple[str, int, str], InputSpec] = {}
    for option in options:
        firsts.setdefault(_form_of(option), option)
    if given is not None:
        firsts.pop(_form_of(given), None)
    return list(firsts.values())[:MIXED]


def _form_of(item: InputSpec) -> tuple[str, int, str]:
    is_float = item.dtype.startswith(FLOATS)
    return item.kind, len(item.shape or ()), "float" if is_float else item.dtype


def _matching_first(items: list[InputSpec], suits: Callable[[InputSpec], bool]) -> list[InputSpec]:
    return sorted(items, key=lambda item: not suits(item))


def _innermost(usage: Usage) -> Usage:
    return _innermost(usage.parts[0]) if usage.parts else usage


def _of_graph(item: InputSpec) -> InputSpec:
    """`item` with dim `nodes` instead of `batch`: a graph has no batch dim."""
    shape = item.shape and tuple("nodes" if dim == "batch" else dim for dim in item.shape)
    return item.model_copy(update={"shape": shape})


def _signature(model: nn.Module) -> dict[str, inspect.Parameter]:
    forward: Any = model.forward
    try:
        return dict(inspect.signature(forward).parameters)
    except (TypeError, ValueError):
        # a TorchScript method has a schema instead; its first argument is self
        names = [argument.name for argument in forward.schema.arguments[1:]]
        kind = inspect.Parameter.POSITIONAL_ONLY
        return {name: inspect.Parameter(name, kind) for name in names}


_MAX_SAME_ERROR = 12  # candidates with the same error, after which it is ignored
# every 7th try is not one that an error suggested: suggestions alone can use up all tries
_SUGGESTION_PERIOD = 7


class SignatureSearch(CandidateSearch):
    """Candidates for a module without a configuration."""

    tries = 200
    varies_batch = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._arguments = ForwardArguments(model)
        self._failures: Counter[tuple[str, str]] = Counter()
        self._size_changes = SizeChanges()
        self._seen: set[str] = set()
        self._suggested: list[Inputs] = []  # by errors; tried first
        self._next: list[Inputs] = []  # tried candidates with the next option of one argument
        self._last: Inputs = ()
        self._turn = 0
        self._initial = self._combined()

    def __next__(self) -> Candidate:
        while True:
            inputs = self._next_inputs()
            # several errors may suggest the same inputs
            key = repr(inputs)
            if key not in self._seen:
                self._seen.add(key)
                self._last = inputs
                return Candidate(inputs=inputs, dims=self._dims(inputs))

    def _next_inputs(self) -> Inputs:
        """The next inputs: suggestions of errors, else alternately initial and next ones."""
        self._turn += 1
        if self._suggested and self._turn % _SUGGESTION_PERIOD:
            return self._suggested.pop(0)
        if self._turn % 2 or not self._next:
            initial = next(self._initial, None)
            if initial is not None:
                return initial
        for queue in (self._next, self._suggested):
            if queue:
                return queue.pop(0)
        raise StopIteration

    def unsupported_argument(self) -> str:
        """The first required argument of a custom class; "" for none."""
        return self._arguments.unsupported_argument()

    def learn(self, error: Exception) -> None:
        """Queue the inputs that the error of the last candidate suggests."""
        cause = error_signature(error)
        self._failures[cause] += 1
        if self._failures[cause] > _MAX_SAME_ERROR:
            return
        suggested = [*self._with_names(error), *self._size_changes.after(error, self._last)]
        suggested += self._with_types(error)
        suggested += self._with_ranks(error)
        if is_index_out_of_range(error):
            suggested += lower_indices(self._last, self._arguments.tables)
        self._suggested[:0] = suggested
        self._next += self._with_next_options()

    def _with_names(self, error: Exception) -> Iterator[Inputs]:
        """Inputs with one more dict key or argument."""
        key = expected_key(error)
        if key is not None:
            yield from self._with_key(key)
        # a wrapper with `*args`: the error names the arguments of the wrapped forward
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
        """Inputs with one float tensor replaced by an integer one, or the reverse."""
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
        rank = expected_rank(error)
        for place, (name, part) in enumerate(parts_of(self._last) if rank else ()):
            known = self._arguments.options_of(name)
            fitting = [item for item in known if len(item.shape or ()) == rank]
            if len(part.shape or ()) != rank:
                yield from (with_part(self._last, place, item) for item in fitting[:MIXED])

    def _with_next_options(self) -> Iterator[Inputs]:
        for place, (name, part) in enumerate(parts_of(self._last)):
            known = self._arguments.options_of(name)
            # the options have no name, see `options_of`
            bare = part.model_copy(update={"name": None, "keyword": False})
            later = known[known.index(bare) + 1 :] if bare in known else []
            for option in dict.fromkeys([*later[:1], *distinct_kinds(later, bare)[:1]]):
                yield with_part(self._last, place, option)

    def _combined(self) -> Iterator[Inputs]:
        """The n-th option of every argument, alternating with combinations of different kinds."""
        for ranked in self._arguments.first_options():
            if not ranked:
                yield ()
                continue
            same_rank = (
                tuple(options[min(number, len(options) - 1)] for options in ranked)
                for number in range(max(map(len, ranked)))
            )
            mixed = product(*map(distinct_kinds, ranked)) if ranked[1:] else ()
            for pair in zip_longest(same_rank, mixed):
                yield from (inputs for inputs in pair if inputs is not None)

    def _dims(self, inputs: Inputs) -> dict[str, int]:
        used = {dim for item in inputs for dim in item.named_dims()}
        return {name: size for name, size in GRAPH_DIMS.items() if name in used}
