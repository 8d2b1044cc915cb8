"""Inputs of transformers' models: from the configuration, the signature, and what a run says."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reportgen.guessing.choice import Choice, Search, filled
from reportgen.guessing.lessons import (
    resized,
    signature_of,
    wanted_names,
    wanted_placeholders,
    wanted_rank,
    wanted_sizes,
    wanted_tokens,
    wants_floats,
)
from reportgen.guessing.lookups import lowered, says_too_small
from reportgen.guessing.of_config import WANTED, anything, options
from reportgen.guessing.of_images import entry_rows, merged_patches, packed
from reportgen.guessing.of_layers import table_sizes
from reportgen.guessing.sizes import Sizes
from reportgen.manifest import InputSpec

if TYPE_CHECKING:
    from torch import nn

_BESIDES = ("pixel_values", "input_features", "input_values", "audio_values")
_AS_LONG = ("attention_mask", "mm_token_type_ids", "image_embeds_position_mask")
_MOST_ALIKE = 10  # passes that die of one cause, whatever they are given

_MOST_OF_A_RANK = 3

State = tuple[tuple[str, int], ...]
"""The arguments of one call, each with the number of the option that is taken for it."""


class ConfigSearch(Search):
    """Choices for one model, the most telling first; what a run says leads to the next ones."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._model = model
        self._config: Any = model.config
        self._parameters = _parameters(model)
        self._tables = table_sizes(model)
        self._sizes = Sizes(config=self._config)
        main = getattr(model, "main_input_name", "input_ids")
        self._main = tuple([main] if isinstance(main, str) else main)
        self._options: dict[str, list[InputSpec]] = {}
        self._seen: set[tuple[State, int]] = set()
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._last: State = ()
        self._placeholders = 0  # how many tokens stand for an image or a sound; runs tell
        self._queue: list[State] = []
        for names in self._beginnings():
            self._enqueue(tuple((name, 0) for name in names))

    def __next__(self) -> Choice:
        if not self._queue:
            self._embed()
        if not self._queue:
            raise StopIteration
        self._last = self._queue.pop(0)
        inputs = tuple(self._input(name, index) for name, index in self._last)
        missing = [name for name in _BESIDES if self._is_left_out(name)]
        left_out = (
            (f"the model also takes {' and '.join(missing)}; here it runs without",)
            if missing
            else ()
        )
        return Choice(inputs=inputs, notes=left_out)

    def _embed(self) -> None:
        """Where no tokens run, the model may be one that only takes their embeddings."""
        if "input_ids" in self._parameters and "inputs_embeds" in self._parameters:
            needed = [name for name in self._needed() if name != "input_ids"]
            self._enqueue((("inputs_embeds", 0), *((name, 0) for name in needed)))

    def learn(self, error: Exception) -> None:
        """Queue what the error of the last choice suggests: an argument, a size, an option."""
        cause = signature_of(error)
        self._deaths[cause] += 1
        if self._deaths[cause] > _MOST_ALIKE:
            return
        count = wanted_placeholders(error)
        if count is not None:
            self._count_placeholders(count)
        self._learn_sizes(error)
        self._learn_names(error)
        if wants_floats(error):
            self._take_floats()
        if says_too_small(error):
            self._shorten()
        self._learn_ranks(error)
        for place, (name, index) in enumerate(self._last):
            if index + 1 < len(self._all(name)):
                self._enqueue(_with(self._last, place, (name, index + 1)))
        for name in self._absent():
            if name in WANTED:
                self._enqueue((*self._last, (name, 0)))

    def _learn_sizes(self, error: Exception) -> None:
        given = tuple(self._input(name, index) for name, index in self._last)
        for size, other in reversed(list(dict.fromkeys(wanted_sizes(error, given)))):
            changed = [resized(item, size, other) for item in given]
            places = [n for n, pair in enumerate(zip(given, changed, strict=True)) if _differ(pair)]
            for place in places if len(places) > 1 else []:
                alone = [*given[:place], changed[place], *given[place + 1 :]]
                self._enqueue(self._stating(self._last, alone), first=True)
            self._enqueue(self._stating(self._last, changed), first=True)

    def _shorten(self) -> None:
        """Fewer tokens first: a table of positions is smaller than the configuration says."""
        for place, (name, index) in enumerate(self._last):
            if name.endswith("input_ids") and index + 1 < len(self._all(name)):
                self._enqueue(_with(self._last, place, (name, index + 1)), first=True)
        given = tuple(self._input(name, index) for name, index in self._last)
        for changed in lowered(given, self._tables):
            self._enqueue(self._stating(self._last, list(changed)), first=True)

    def _learn_ranks(self, error: Exception) -> None:
        """Options with as many dimensions as the error says."""
        rank = wanted_rank(error)
        for place, (name, index) in enumerate(self._last if rank else ()):
            ranks = [len(item.shape or ()) for item in self._all(name)]
            fitting = [n for n, found in enumerate(ranks) if found == rank != ranks[index]]
            for option in reversed(fitting[:_MOST_OF_A_RANK]):
                self._enqueue(_with(self._last, place, (name, option)), first=True)

    def _take_floats(self) -> None:
        """The next option with floats, for each argument that was given whole numbers."""
        for place, (name, index) in enumerate(self._last):
            known = self._all(name)
            floats = [n for n, item in enumerate(known) if item.dtype.startswith("float")]
            later = [n for n in floats if n > index]
            if not known[index].dtype.startswith("float") and later:
                for option in reversed(later):
                    self._enqueue(_with(self._last, place, (name, option)), first=True)

    def _stating(self, state: State, inputs: list[InputSpec]) -> State:
        """`state` with these inputs, each an option of its argument from now on."""
        new: list[tuple[str, int]] = []
        for (name, _), item in zip(state, inputs, strict=True):
            known = self._all(name)
            if item not in known:
                known.append(item)
            new.append((name, known.index(item)))
        return tuple(new)

    def _learn_names(self, error: Exception) -> None:
        absent = self._absent()
        wanted = wanted_names(error, absent)
        if len(wanted) > 1:
            self._enqueue((*self._last, *((name, 0) for name in wanted)), first=True)
        for name in wanted:
            self._enqueue((*self._last, (name, 0)), first=True)
        if "NoneType" in str(error):
            self._enqueue((*self._last, *((name, 0) for name in absent if name in WANTED)))
        for field in wanted_tokens(error):
            token = getattr(self._config, field, None)
            if isinstance(token, int) and "input_ids" in dict(self._last):
                given = [self._input(name, index) for name, index in self._last]
                changed = [_all_of(item, token) for item in given]
                self._enqueue(self._stating(self._last, changed), first=True)

    def _count_placeholders(self, wanted: int) -> None:
        """Take the count that a run asks for; some models state it times the width of a token."""
        width = self._sizes.text("hidden_size", "d_model") or 1
        if wanted == self._placeholders and wanted % width == 0:
            wanted //= width
        if wanted:
            self._placeholders = wanted
            self._enqueue(self._last, first=True)

    def _input(self, name: str, index: int) -> InputSpec:
        """One argument; beside an image or a sound, the tokens that stand for it if they must."""
        beside = any(given in _BESIDES for given, _ in self._last)
        if beside and self._placeholders:
            token = self._sizes.placeholder()
            if name == "input_ids" and token is not None:
                return filled(name, "batch", self._placeholders, value=token, keyword=True)
            if name in _AS_LONG:
                return filled(name, "batch", self._placeholders, value=1, keyword=True)
        return self._all(name)[index]

    def _all(self, name: str) -> list[InputSpec]:
        """What may be given for an argument so far: errors add to it."""
        if name not in self._options:
            known = [*self._patch_rows(name), *options(name, self._sizes)]
            beside_images = "pixel_values" in self._parameters
            if not known and name in self._needed():
                known = list(anything(name, self._sizes, beside_images=beside_images))
            self._options[name] = known
        return self._options[name]

    def _patch_rows(self, name: str) -> list[InputSpec]:
        """Beside a grid that must be given, images are rows of patches, of whichever width."""
        if "spatial_shapes" in self._parameters:
            return list(packed(name, self._sizes))
        grids = [n for n in self._needed() if "grid" in n]
        takes = name in ("pixel_values", "pixel_values_videos", "hidden_states")
        if not grids or not takes:
            return []
        return [*entry_rows(self._model, name), *merged_patches(name, self._sizes)]

    def _needed(self) -> list[str]:
        return [name for name, p in self._parameters.items() if p.default is p.empty]

    def _absent(self) -> list[str]:
        given = dict(self._last)
        return [n for n in self._parameters if n not in given and self._all(n)]

    def _beginnings(self) -> Iterator[list[str]]:
        needed = self._needed()
        main = [name for name in self._main if name in self._parameters]
        first = list(dict.fromkeys([*main, *needed])) or list(self._parameters)[:1]
        if self._decodes():
            first.append("decoder_input_ids")
        beside = [n for n in _BESIDES if n in self._parameters and n not in first]
        if "input_ids" in first and beside:
            more = self._grids(beside)
            yield [*first, *beside, *more]
            if len(beside) > 1:
                yield [*first, beside[0], *self._grids(beside[:1])]
        yield first
        if "attention_mask" in self._parameters:
            yield [*first, "attention_mask"]
        if "input_ids" in self._parameters and "input_ids" not in first:
            yield [*first, "input_ids"]

    def _grids(self, beside: list[str]) -> list[str]:
        if "pixel_values" not in beside:
            return []
        if "spatial_shapes" in self._parameters:
            return [n for n in ("pixel_attention_mask", "spatial_shapes") if n in self._parameters]
        return ["image_grid_thw"] if "image_grid_thw" in self._parameters else []

    def _decodes(self) -> bool:
        encodes_too = bool(getattr(self._config, "is_encoder_decoder", False))
        return encodes_too and "decoder_input_ids" in self._parameters

    def _is_left_out(self, name: str) -> bool:
        return name in self._parameters and name not in dict(self._last)

    def _enqueue(self, state: State, *, first: bool = False) -> None:
        state = tuple((n, i) for n, i in state if i < len(self._all(n)))
        key = (state, self._placeholders)
        if state and key not in self._seen:
            self._seen.add(key)
            self._queue.insert(0 if first else len(self._queue), state)


def _differ(pair: tuple[InputSpec, InputSpec]) -> bool:
    return pair[0] != pair[1]


def _with(state: State, place: int, entry: tuple[str, int]) -> State:
    return (*state[:place], entry, *state[place + 1 :])


def _all_of(item: InputSpec, token: int) -> InputSpec:
    if item.name != "input_ids":
        return item
    return item.model_copy(update={"low": token, "high": token + 1})


def _parameters(model: nn.Module) -> dict[str, inspect.Parameter]:
    found = inspect.signature(model.forward).parameters
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: p for name, p in found.items() if p.kind not in variadic}
