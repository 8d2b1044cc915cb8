"""Inputs for a model whose manifest names none: proposed from what is known, kept if they run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from reportgen.errors import ModelError
from reportgen.guessing.choice import Choice
from reportgen.guessing.of_signature import signature_choices
from reportgen.guessing.of_timm import timm_choices
from reportgen.guessing.of_torchvision import torchvision_choices
from reportgen.guessing.of_transformers import Search
from reportgen.guessing.trying import needs_values, trial, why_not, with_choice
from reportgen.plain_words import one_line
from reportgen.sources import is_weightless
from reportgen.sources.loaded import Loaded

if TYPE_CHECKING:
    from reportgen.manifest import ModelSpec

__all__ = ["Choice", "guess_inputs", "knows_inputs", "with_guessed_inputs"]

_TRIES = 60


def knows_inputs(spec: ModelSpec) -> bool:
    """Whether the manifest may leave the inputs out: the source says enough of them."""
    return spec.source.kind in ("torchvision", "timm", "transformers", "pt2")


def with_guessed_inputs(spec: ModelSpec, loaded: Loaded) -> tuple[ModelSpec, tuple[str, ...]]:
    """`spec` with inputs that the model ran on, and a note of them, where it names none.

    Raises:
        ModelError: nothing that was tried runs.
    """
    if spec.inputs or not knows_inputs(spec):
        return spec, ()
    choice = guess_inputs(spec, loaded)
    kept = with_choice(spec, choice)
    if loaded.inputs and loaded.batch is not None:
        kept = kept.model_copy(update={"batch": _taken(kept, loaded)})
    return kept, (*choice.notes, "no inputs are named; the model's own were taken")


def guess_inputs(spec: ModelSpec, loaded: Loaded) -> Choice:
    """Inputs that the model of `spec` runs on, found by trying; the same for the same model.

    Raises:
        ModelError: nothing that was tried runs; the message quotes the first refusal.
    """
    first: Exception | None = None
    untried: list[Choice] = []
    batch = min(2, spec.batch) if loaded.batch is None else loaded.batch
    with trial(loaded.model):
        search = _search(spec, loaded)
        for count, choice in enumerate(islice(search, _TRIES)):
            refusal = why_not(loaded.model, with_choice(spec, choice), batch)
            if refusal is None:
                return _noted(choice, *(("the inputs were found by trying",) if count else ()))
            first = first or refusal
            if is_weightless(loaded.model) and needs_values(refusal):
                untried.append(choice)
            if isinstance(search, Search):
                search.learn(refusal)
    if untried:
        least = min(untried, key=lambda choice: len(choice.inputs))
        return _noted(least, "the inputs could not be tried, for the weights have no values")
    words = f": {type(first).__name__}: {one_line(first)}" if first is not None else ""
    raise ModelError(
        f"no inputs were found that {spec.source.text!r} runs on{words}",
        hint="name them in the manifest under 'inputs'",
    )


def _noted(choice: Choice, *notes: str) -> Choice:
    return replace(choice, notes=(*choice.notes, *notes))


def _search(spec: ModelSpec, loaded: Loaded) -> Iterator[Choice]:
    model, kind = loaded.model, spec.source.kind
    if loaded.inputs:
        return iter([Choice(inputs=loaded.inputs, dims=dict(loaded.dims))])
    if kind == "torchvision":
        return torchvision_choices(spec.source.target, model)
    if kind == "timm":
        return timm_choices(model, dict(spec.arguments))
    if hasattr(model, "config") and hasattr(model, "main_input_name"):
        return Search(model)
    return signature_choices(model)


def _taken(spec: ModelSpec, loaded: Loaded) -> int:
    """The manifest's batch if the program takes it, else the one it was exported with."""
    with trial(loaded.model):
        runs = why_not(loaded.model, spec, spec.batch) is None
    return spec.batch if runs or loaded.batch is None else loaded.batch
