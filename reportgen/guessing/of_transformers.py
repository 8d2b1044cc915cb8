"""Inputs of transformers' models: from the configuration, the signature, and what a run says."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reportgen.guessing.choice import Choice, filled
from reportgen.guessing.of_config import WANTED, options
from reportgen.guessing.sizes import Sizes
from reportgen.manifest import InputSpec

if TYPE_CHECKING:
    from torch import nn

_TOKENS = re.compile(r"(?:image|video|audio) features and (?:image|video|audio) tokens", re.I)
_NUMBER = re.compile(r"\d+")
_BESIDES = ("pixel_values", "input_features", "input_values", "audio_values")

State = tuple[tuple[str, int], ...]
"""The arguments of one call, each with the number of the option that is taken for it."""


class Search(Iterator[Choice]):
    """Choices for one model, the most telling first; what a run says leads to the next ones."""

    def __init__(self, model: nn.Module) -> None:
        self._config: Any = model.config
        self._parameters = _parameters(model)
        self._sizes = Sizes(config=self._config)
        main = getattr(model, "main_input_name", "input_ids")
        self._main = tuple([main] if isinstance(main, str) else main)
        self._seen: set[tuple[State, int]] = set()
        self._last: State = ()
        self._placeholders = 0  # how many tokens stand for an image or a sound; runs tell
        self._queue: list[State] = []
        for names in self._beginnings():
            self._enqueue(tuple((name, 0) for name in names))

    def __next__(self) -> Choice:
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

    def _input(self, name: str, index: int) -> InputSpec:
        """One argument; beside an image or a sound, the tokens that stand for it if they must."""
        beside = any(given in _BESIDES for given, _ in self._last)
        if beside and self._placeholders:
            token = self._sizes.placeholder()
            if name == "input_ids" and token is not None:
                return filled(name, "batch", self._placeholders, value=token, keyword=True)
            if name in ("attention_mask", "mm_token_type_ids"):
                return filled(name, "batch", self._placeholders, value=1, keyword=True)
        return options(name, self._sizes)[index]

    def learn(self, error: Exception) -> None:
        """Queue what the error of the last choice suggests: an argument, a length, an option."""
        text = str(error)
        if _TOKENS.search(text):
            self._count_placeholders([int(number) for number in _NUMBER.findall(text)])
        given = {name for name, _ in self._last}
        absent = [n for n in self._parameters if n not in given and options(n, self._sizes)]
        for name in absent:
            if re.search(rf"\b{name}\b", text):
                self._enqueue((*self._last, (name, 0)), first=True)
        if "NoneType" in text:
            known = [(name, 0) for name in absent if name in WANTED]
            self._enqueue((*self._last, *known))
        for place, (name, index) in enumerate(self._last):
            if index + 1 < len(options(name, self._sizes)):
                changed = (*self._last[:place], (name, index + 1), *self._last[place + 1 :])
                self._enqueue(changed)

    def _count_placeholders(self, numbers: list[int]) -> None:
        """Take the count that a run asks for; some models state it times the width of a token."""
        wanted, width = max(numbers, default=0), self._sizes.text("hidden_size", "d_model") or 1
        if wanted == self._placeholders and wanted % width == 0:
            wanted //= width
        if wanted:
            self._placeholders = wanted
            self._enqueue(self._last, first=True)

    def _beginnings(self) -> Iterator[list[str]]:
        needed = [name for name, p in self._parameters.items() if p.default is p.empty]
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
        has_grid = "pixel_values" in beside and "image_grid_thw" in self._parameters
        return ["image_grid_thw"] if has_grid else []

    def _decodes(self) -> bool:
        encodes_too = bool(getattr(self._config, "is_encoder_decoder", False))
        return encodes_too and "decoder_input_ids" in self._parameters

    def _is_left_out(self, name: str) -> bool:
        given = {given for given, _ in self._last}
        return name in self._parameters and name not in given

    def _enqueue(self, state: State, *, first: bool = False) -> None:
        state = tuple((n, i) for n, i in state if i < len(options(n, self._sizes)))
        key = (state, self._placeholders)
        if state and key not in self._seen:
            self._seen.add(key)
            self._queue.insert(0 if first else len(self._queue), state)


def _parameters(model: nn.Module) -> dict[str, inspect.Parameter]:
    found = inspect.signature(model.forward).parameters
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {name: p for name, p in found.items() if p.kind not in variadic}
