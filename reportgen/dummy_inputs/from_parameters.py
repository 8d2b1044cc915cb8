"""What may be given for each argument of one transformers model, in order; errors add to it."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs.from_config import anything, options
from reportgen.dummy_inputs.from_images import entry_rows, merged_patches, packed
from reportgen.dummy_inputs.from_layers import table_sizes
from reportgen.dummy_inputs.from_names import options_of_name, prefers
from reportgen.dummy_inputs.from_usage import usages_of
from reportgen.dummy_inputs.sizes import Sizes
from reportgen.manifest import InputSpec

if TYPE_CHECKING:
    from torch import nn

_AS_ROWS = ("pixel_values", "pixel_values_videos", "hidden_states")


class Parameters:
    """The parameters of one forward, each with what it may be given.

    Attributes:
        names: of all but `*args` and `**kwargs`.
        needed: those that have no default.
        tables: how many rows each embedding of the model has.
    """

    def __init__(self, model: nn.Module, sizes: Sizes) -> None:
        self._model = model
        self._sizes = sizes
        self._found = _parameters(model)
        self._options: dict[str, list[InputSpec]] = {}
        self._asked: set[str] = set()
        self.names = tuple(self._found)
        self.needed = [name for name, p in self._found.items() if p.default is p.empty]
        self.tables = table_sizes(model)

    def options(self, name: str) -> list[InputSpec]:
        """What may be given for an argument so far; [] if it can be left out and is not known."""
        if name not in self._options:
            known = [*self._patch_rows(name), *options(name, self._sizes)]
            is_needed = name in self.needed or name in self._asked
            self._options[name] = known if known or not is_needed else self._unheard(name)
        return self._options[name]

    def ask(self, name: str) -> None:
        """Have options for an argument that can be left out and of which nothing is known."""
        if not self.options(name):
            self._asked.add(name)
            del self._options[name]

    def foreign(self) -> str:
        """The first needed argument that must be an object of a class of its own; "" for none."""
        usages = usages_of(self._model.forward, self.names)
        wanted = ((name, usages[name].foreign) for name in self.needed)
        return next((f"{name!r} is a {foreign}" for name, foreign in wanted if foreign), "")

    def number_of(self, name: str, item: InputSpec) -> int:
        """Which option of an argument `item` is; it is one from now on."""
        known = self.options(name)
        if item not in known:
            known.append(item)
        return known.index(item)

    def _unheard(self, name: str) -> list[InputSpec]:
        """What the name of an argument, its declaration or nothing at all suggests."""
        named = options_of_name(name, self.tables)
        called = [item.model_copy(update={"name": name, "keyword": True}) for item in named]
        rest = anything(name, self._sizes, beside_images="pixel_values" in self._found)
        suits = prefers("ids" if self._is_of_integers(name) else name)
        known = list(dict.fromkeys([*called, *rest]))
        return sorted(known, key=lambda item: suits is not None and not suits(item))

    def _is_of_integers(self, name: str) -> bool:
        declared = str(self._found[name].annotation)
        return "LongTensor" in declared and "FloatTensor" not in declared

    def _patch_rows(self, name: str) -> list[InputSpec]:
        """Beside a grid that must be given, images are rows of patches, of whichever width."""
        if "spatial_shapes" in self._found:
            return list(packed(name, self._sizes))
        if not any("grid" in other for other in self.needed) or name not in _AS_ROWS:
            return []
        return [*entry_rows(self._model, name), *merged_patches(name, self._sizes)]


def _parameters(model: nn.Module) -> dict[str, inspect.Parameter]:
    forward: Any = model.forward
    found = inspect.signature(forward).parameters
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: p for name, p in found.items() if p.kind not in variadic}
