"""What each argument of any forward may be given: by its usage, its name, and the layers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs.candidate import constant
from reportgen.dummy_inputs.from_layers import proposals_of, states_of, table_sizes
from reportgen.dummy_inputs.from_names import is_state, joins_nodes, options_of_name, prefers
from reportgen.dummy_inputs.from_usage import Usage, usages_of
from reportgen.manifest import InputSpec

if TYPE_CHECKING:
    from torch import nn

FLOATS = ("float", "bfloat", "complex")
MIXED = 4  # options of each argument that are mixed with those of the others


class Arguments:
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
        self._is_graph = any(joins_nodes(name) for name in self.names)
        self._options: dict[str, list[InputSpec]] = {}

    def foreign(self) -> str:
        """The first argument that must be an object of a class of its own; "" for none."""
        wanted = ((name, self._usages[name].foreign) for name in self.needed())
        return next((f"{name!r} is a {foreign}" for name, foreign in wanted if foreign), "")

    def needed(self) -> list[str]:
        """Those that have no default."""
        return [name for name, p in self._parameters.items() if p.default is p.empty]

    def beginnings(self) -> list[list[list[InputSpec]]]:
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
        if usage.doubtful and joins_nodes(name):
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


def unlike(options: list[InputSpec], given: InputSpec | None = None) -> list[InputSpec]:
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
