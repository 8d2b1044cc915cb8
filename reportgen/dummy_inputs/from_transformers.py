"""Candidate inputs of transformers models, from the configuration, the signature and errors."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs.argument_hints import (
    documented_ranks,
    options_of_name,
    prefers,
    unsupported_argument,
    usages_of,
)
from reportgen.dummy_inputs.candidate import Candidate, CandidateSearch, filled
from reportgen.dummy_inputs.config_sizes import Sizes
from reportgen.dummy_inputs.error_parsing import (
    error_signature,
    excess_dims,
    expected_names,
    expected_placeholders,
    expected_rank,
    expected_sizes,
    expected_tokens,
    expects_booleans,
    expects_floats,
    expects_integers,
    found_and_expected,
    is_index_out_of_range,
    lower_indices,
    read_names,
    resized,
)
from reportgen.dummy_inputs.from_config import OPTIONAL_INPUTS, generic_options, options
from reportgen.dummy_inputs.from_images import merged_patches, packed, patch_embedding_inputs
from reportgen.dummy_inputs.from_layers import table_sizes
from reportgen.manifest import InputSpec

if TYPE_CHECKING:
    from torch import nn

_PATCH_ARGUMENTS = ("pixel_values", "pixel_values_videos", "hidden_states")


class ForwardParameters:
    """The parameters of a model's forward and the options to try for each.

    Attributes:
        names: all except `*args` and `**kwargs`.
        needed: those without a default.
        tables: the number of rows of each embedding.
    """

    def __init__(self, model: nn.Module, sizes: Sizes) -> None:
        self._model = model
        self._sizes = sizes
        self._found = _parameters(model)
        self._options: dict[str, list[InputSpec]] = {}
        self._requested: set[str] = set()
        self.names = tuple(self._found)
        self.needed = [name for name, p in self._found.items() if p.default is p.empty]
        self.tables = table_sizes(model)

    def options(self, name: str) -> list[InputSpec]:
        """The options of an argument so far; [] if it is optional and unknown."""
        if name not in self._options:
            # the generic options only if they are needed: every further option is one more try
            known = [*self._patch_rows(name), *options(name, self._sizes)]
            is_needed = name in self.needed or name in self._requested
            self._options[name] = known if known or not is_needed else self._options_by_name(name)
        return self._options[name]

    def request(self, name: str) -> None:
        """Make options for an optional argument that has none."""
        if not self.options(name):
            self._requested.add(name)
            del self._options[name]

    def unsupported_argument(self) -> str:
        """The first required argument of a custom class, as `a Foo for 'x'`; "" for none."""
        return unsupported_argument(usages_of(self._model.forward, self.names), self.needed)

    def number_of(self, name: str, item: InputSpec) -> int:
        """The index of `item` among the options of an argument; it is added if it is new."""
        known = self.options(name)
        if item not in known:
            known.append(item)
        return known.index(item)

    def _options_by_name(self, name: str) -> list[InputSpec]:
        named = options_of_name(name, self.tables)
        keywords = [item.model_copy(update={"name": name, "keyword": True}) for item in named]
        rest = generic_options(name, self._sizes, beside_images="pixel_values" in self._found)
        suits = prefers("ids" if self._is_of_integers(name) else name)
        known = list(dict.fromkeys([*keywords, *rest]))
        return sorted(known, key=lambda item: suits is not None and not suits(item))

    def _is_of_integers(self, name: str) -> bool:
        # an annotation of both, such as in a union, says nothing
        declared = str(self._found[name].annotation)
        return "LongTensor" in declared and "FloatTensor" not in declared

    def _patch_rows(self, name: str) -> list[InputSpec]:
        """Rows of patches, if the model requires a grid: such models take no whole images."""
        if "spatial_shapes" in self._found:
            return list(packed(name, self._sizes))
        if not any("grid" in other for other in self.needed) or name not in _PATCH_ARGUMENTS:
            return []
        return [*patch_embedding_inputs(self._model, name), *merged_patches(name, self._sizes)]


def _parameters(model: nn.Module) -> dict[str, inspect.Parameter]:
    forward: Any = model.forward
    found = inspect.signature(forward).parameters
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: p for name, p in found.items() if p.kind not in variadic}


# arguments for another modality than text; optional in models of text and images
_OTHER_MODALITIES = ("pixel_values", "input_features", "input_values", "audio_values")
# masks that must be as long as `input_ids`, whose length changes with the placeholders
_TOKEN_MASKS = ("attention_mask", "mm_token_type_ids", "image_embeds_position_mask")
_MAX_SAME_ERROR = 10  # candidates with the same error, after which it is ignored
# of them whose sizes are tried first; the sizes of an error that recurs lead nowhere
_MAX_PRIORITY = 4
_MAX_PER_RANK = 4
# the initial candidates that are still queued come first in these; suggestions could use up
# every try, and mllama, for one, runs only with the text alone
_FINAL_TRIES = 15

_NEVER_ADDED = frozenset({
    "labels", "past_key_values", "use_cache", "return_dict", "output_attentions",
    "output_hidden_states", "logits_to_keep", "cache_position", "head_mask",
})  # fmt: skip
"""Arguments that are never added, even if the failing code reads them: they switch outputs on or
continue an earlier call."""

State = tuple[tuple[str, int], ...]
"""The arguments of one call, each with the index of its option."""


class ConfigSearch(CandidateSearch):
    """Candidates from a transformers configuration; errors suggest the next ones."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._config: Any = model.config
        self._sizes = Sizes(config=self._config)
        self._parameters = ForwardParameters(model, self._sizes)
        self._names = self._parameters.names
        self._documented = documented_ranks(model.forward)
        main = getattr(model, "main_input_name", "input_ids")
        # a list in OneFormer
        self._main = tuple([main] if isinstance(main, str) else main)
        self._seen: set[tuple[State, int]] = set()
        self._failures: Counter[tuple[str, str]] = Counter()
        self._last: State = ()
        self._placeholders = 0  # number of tokens that an image or audio replaces; stated by errors
        self._queue: list[State] = []
        self._turn = 0
        self._first = [tuple((name, 0) for name in names) for names in self._first_candidates()]
        for state in self._first:
            self._enqueue(state)

    def __next__(self) -> Candidate:
        if not self._queue:
            self._queue_embeddings()
        if not self._queue:
            raise StopIteration
        self._last = self._next_inputs()
        inputs = tuple(self._input(name, index) for name, index in self._last)
        missing = [name for name in _OTHER_MODALITIES if self._is_omitted(name)]
        left_out = (
            (f"the model also accepts {' and '.join(missing)}, omitted here",) if missing else ()
        )
        return Candidate(inputs=inputs, notes=left_out)

    def _next_inputs(self) -> State:
        self._turn += 1
        is_late = self._turn > self.tries - _FINAL_TRIES
        remaining = [state for state in self._first if state in self._queue] if is_late else []
        state = remaining[0] if remaining else self._queue[0]
        self._queue.remove(state)
        return state

    def _queue_embeddings(self) -> None:
        # some models take embeddings instead of token ids
        if "input_ids" in self._names and "inputs_embeds" in self._names:
            needed = [name for name in self._parameters.needed if name != "input_ids"]
            self._enqueue((("inputs_embeds", 0), *((name, 0) for name in needed)))

    def unsupported_argument(self) -> str:
        """The first required argument of a custom class; "" for none."""
        return self._parameters.unsupported_argument()

    def learn(self, error: Exception) -> None:
        """Queue the arguments, sizes and options that the error of the last candidate suggests."""
        cause = error_signature(error)
        self._failures[cause] += 1
        if self._failures[cause] > _MAX_SAME_ERROR:
            return
        count = expected_placeholders(error)
        if count is not None:
            self._count_placeholders(count)
        self._learn_sizes(error, is_new=self._failures[cause] <= _MAX_PRIORITY)
        self._learn_names(error)
        self._learn_kinds(error)
        if is_index_out_of_range(error):
            self._queue_fewer_tokens()
        self._learn_ranks(error)
        self._learn_widths(error)
        self._learn_documented()
        for place, (name, index) in enumerate(self._last):
            if index + 1 < len(self._parameters.options(name)):
                self._enqueue(_replaced(self._last, place, (name, index + 1)))
        for name in self._absent():
            if name in OPTIONAL_INPUTS:
                self._enqueue((*self._last, (name, 0)))

    def _learn_sizes(self, error: Exception, *, is_new: bool) -> None:
        given = tuple(self._input(name, index) for name, index in self._last)
        # reversed, because each is put in front of the queue; the same in the methods below
        for size, other in reversed(list(dict.fromkeys(expected_sizes(error, given)))):
            changed = [resized(item, size, other) for item in given]
            places = [n for n, pair in enumerate(zip(given, changed, strict=True)) if _differ(pair)]
            for place in places if len(places) > 1 else []:
                alone = [*given[:place], changed[place], *given[place + 1 :]]
                self._enqueue(self._state_of(self._last, alone), first=is_new)
            self._enqueue(self._state_of(self._last, changed), first=is_new)

    def _queue_fewer_tokens(self) -> None:
        """Queue fewer tokens: the position embedding may be smaller than configured."""
        for place, (name, index) in enumerate(self._last):
            if name.endswith("input_ids") and index + 1 < len(self._parameters.options(name)):
                self._enqueue(_replaced(self._last, place, (name, index + 1)), first=True)
        given = tuple(self._input(name, index) for name, index in self._last)
        for changed in lower_indices(given, self._parameters.tables):
            self._enqueue(self._state_of(self._last, list(changed)), first=True)

    def _learn_ranks(self, error: Exception) -> None:
        rank, spare = expected_rank(error), excess_dims(error)
        for place, (name, index) in enumerate(self._last if rank or spare else ()):
            had = len(self._parameters.options(name)[index].shape or ())
            for option in reversed(self._of_rank(place, rank or had - spare)):
                self._enqueue(_replaced(self._last, place, (name, option)), first=True)

    def _learn_widths(self, error: Exception) -> None:
        """Queue options whose last dim is the size that a matrix product expected."""
        for _, expected in found_and_expected(error):
            for place, (name, index) in enumerate(self._last):
                shapes = [item.shape or ("",) for item in self._parameters.options(name)]
                fitting = [n for n, shape in enumerate(shapes) if shape[-1] == expected]
                if fitting and index not in fitting:
                    self._enqueue(_replaced(self._last, place, (name, fitting[0])), first=True)

    def _learn_documented(self) -> None:
        """Queue the last candidate with the documented rank of each argument."""
        state = self._last
        for place, (name, _) in enumerate(state):
            fitting = self._of_rank(place, self._documented.get(name))
            state = _replaced(state, place, (name, fitting[0])) if fitting else state
        self._enqueue(state, first=True)

    def _of_rank(self, place: int, rank: int | None) -> list[int]:
        """The first options of `rank` dimensions; [] if the last candidate has this rank."""
        name, index = self._last[place]
        ranks = [len(item.shape or ()) for item in self._parameters.options(name)]
        fitting = [n for n, found in enumerate(ranks) if found == rank != ranks[index]]
        return fitting[:_MAX_PER_RANK]

    def _learn_kinds(self, error: Exception) -> None:
        if expects_floats(error):
            self._queue_dtype("float", self._last)
        if expects_integers(error):
            # the error of an embedding does not state which argument it got
            self._queue_dtype("int", self._read_by(error) or self._last)
        if expects_booleans(error):
            self._queue_boolean_masks()

    def _queue_boolean_masks(self) -> None:
        # Gemma 3n requires boolean masks for audio
        given = [self._input(name, index) for name, index in self._last]
        self._enqueue(
            self._state_of(self._last, [_as_boolean_mask(item) for item in given]), first=True
        )

    def _queue_dtype(self, dtype: str, suspects: State) -> None:
        """Queue later options of `dtype` for each argument of `suspects` that has another dtype."""
        for place, (name, index) in enumerate(self._last):
            known = self._parameters.options(name)
            if (name, index) not in suspects or known[index].dtype.startswith(dtype):
                continue
            later = [n for n in range(index + 1, len(known)) if known[n].dtype.startswith(dtype)]
            for option in reversed(later):
                self._enqueue(_replaced(self._last, place, (name, option)), first=True)

    def _read_by(self, error: Exception) -> State:
        """The arguments that the innermost failing line reads."""
        read = read_names(error, [name for name, _ in self._last])
        return tuple(pair for pair in self._last if pair[0] in read)

    def _state_of(self, state: State, inputs: list[InputSpec]) -> State:
        """`state` with `inputs` as options, which are added if they are new."""
        pairs = zip(state, inputs, strict=True)
        return tuple((name, self._parameters.number_of(name, item)) for (name, _), item in pairs)

    def _learn_names(self, error: Exception) -> None:
        absent = self._absent()
        # lxmert, rag and blt require arguments that are unknown until an error names them
        known = expected_names(error, absent)
        for names in (self._without_options(error, known), known):
            if len(names) > 1:
                self._enqueue((*self._last, *((name, 0) for name in names)), first=True)
            for name in names:
                self._enqueue((*self._last, (name, 0)), first=True)
        if "NoneType" in str(error):
            self._enqueue((*self._last, *((name, 0) for name in absent if name in OPTIONAL_INPUTS)))
        for field in expected_tokens(error):
            token = getattr(self._config, field, None)
            # BART: "All examples must have the same number of <eos> tokens."
            if isinstance(token, int) and "input_ids" in dict(self._last):
                given = [self._input(name, index) for name, index in self._last]
                changed = [_filled_with(item, token) for item in given]
                self._enqueue(self._state_of(self._last, changed), first=True)

    def _count_placeholders(self, expected: int) -> None:
        """Set the number of placeholder tokens; some errors state it times the hidden size."""
        width = self._sizes.text("hidden_size", "d_model") or 1
        if expected == self._placeholders and expected % width == 0:
            expected //= width
        if expected:
            self._placeholders = expected
            self._enqueue(self._last, first=True)

    def _input(self, name: str, index: int) -> InputSpec:
        """One argument; token ids become placeholder tokens if an image or audio requires them."""
        beside = any(given in _OTHER_MODALITIES for given, _ in self._last)
        if beside and self._placeholders:
            token = self._sizes.placeholder()
            if name == "input_ids" and token is not None:
                return filled(name, "batch", self._placeholders, value=token, keyword=True)
            if name in _TOKEN_MASKS:
                return filled(name, "batch", self._placeholders, value=1, keyword=True)
        return self._parameters.options(name)[index]

    def _without_options(self, error: Exception, known: list[str]) -> list[str]:
        """The arguments that the error mentions, if one of them has no options yet."""
        given = dict(self._last)
        left = [n for n in self._names if n not in given and n not in _NEVER_ADDED]
        mentioned = expected_names(error, left)
        new = [name for name in mentioned if name not in known]
        for name in new:
            self._parameters.request(name)
        return mentioned if new else []

    def _absent(self) -> list[str]:
        given = dict(self._last)
        return [n for n in self._names if n not in given and self._parameters.options(n)]

    def _first_candidates(self) -> Iterator[list[str]]:
        needed = self._parameters.needed
        main = [name for name in self._main if name in self._names]
        first = list(dict.fromkeys([*main, *needed])) or list(self._names[:1])
        if self._has_decoder():
            first.append("decoder_input_ids")
        beside = [n for n in _OTHER_MODALITIES if n in self._names and n not in first]
        # the whole model first: the text alone would leave out its image or audio encoder
        if "input_ids" in first and beside:
            more = self._grids(beside)
            yield [*first, *beside, *more]
            if len(beside) > 1:
                yield [*first, beside[0], *self._grids(beside[:1])]
        yield first
        if "attention_mask" in self._names:
            yield [*first, "attention_mask"]
        if "input_ids" in self._names and "input_ids" not in first:
            yield [*first, "input_ids"]

    def _grids(self, beside: list[str]) -> list[str]:
        if "pixel_values" not in beside:
            return []
        if "spatial_shapes" in self._names:
            return [n for n in ("pixel_attention_mask", "spatial_shapes") if n in self._names]
        return ["image_grid_thw"] if "image_grid_thw" in self._names else []

    def _has_decoder(self) -> bool:
        encodes_too = bool(getattr(self._config, "is_encoder_decoder", False))
        return encodes_too and "decoder_input_ids" in self._names

    def _is_omitted(self, name: str) -> bool:
        return name in self._names and name not in dict(self._last)

    def _enqueue(self, state: State, *, first: bool = False) -> None:
        state = tuple((n, i) for n, i in state if i < len(self._parameters.options(n)))
        key = (state, self._placeholders)
        if state and key not in self._seen:
            self._seen.add(key)
            self._queue.insert(0 if first else len(self._queue), state)


def _differ(pair: tuple[InputSpec, InputSpec]) -> bool:
    return pair[0] != pair[1]


def _replaced(state: State, place: int, entry: tuple[str, int]) -> State:
    return (*state[:place], entry, *state[place + 1 :])


def _as_boolean_mask(item: InputSpec) -> InputSpec:
    if "mask" not in str(item.name) or item.dtype != "int64":
        return item
    return item.model_copy(update={"dtype": "bool", "low": None, "high": None})


def _filled_with(item: InputSpec, token: int) -> InputSpec:
    if item.name != "input_ids":
        return item
    return item.model_copy(update={"low": token, "high": token + 1})
