"""Inputs for a model whose manifest names none: proposed from what is known, kept if they run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from reportgen.dummy_inputs.candidate import Choice, Search
from reportgen.dummy_inputs.dynamic_dims import has_free_batch
from reportgen.dummy_inputs.from_signature import SignatureSearch
from reportgen.dummy_inputs.from_timm import timm_choices
from reportgen.dummy_inputs.from_torchvision import torchvision_choices
from reportgen.dummy_inputs.from_transformers import ConfigSearch
from reportgen.dummy_inputs.trial_run import needs_values, trial, why_not, with_choice
from reportgen.dummy_inputs.vocab_range import over_whole_tables
from reportgen.error_text import one_line
from reportgen.errors import ModelError
from reportgen.sources import is_weightless
from reportgen.sources.loaded import Loaded

if TYPE_CHECKING:
    from reportgen.manifest import ModelSpec

__all__ = ["Choice", "guess_inputs", "knows_inputs", "with_dummy_inputs"]


def knows_inputs(spec: ModelSpec) -> bool:
    """Whether the manifest may leave the inputs out: the source says enough of them."""
    return spec.source.kind in ("torchvision", "timm", "transformers", "pt2")


def with_dummy_inputs(spec: ModelSpec, loaded: Loaded) -> tuple[ModelSpec, tuple[str, ...]]:
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
    batch = min(2, spec.batch) if loaded.batch is None else loaded.batch
    search = _search(spec, loaded)
    tries = _Tries(spec=spec, loaded=loaded)
    with trial(loaded.model):
        for choice in islice(search, search.tries):
            refusal = tries.refusal_of(choice, batch)
            if refusal is None and search.varies_batch and has_free_batch(choice):
                refusal = tries.refusal_of(choice, batch + 2, alone=choice)
            if refusal is None:
                whole = over_whole_tables(loaded.model, spec, choice, batch)
                return _noted(whole, *((_BY_TRYING,) if tries.first is not None else ()))
            search.learn(refusal)
    return tries.second_best(search)


_BY_TRYING = "the inputs were found by trying"
_UNTRIED = "the inputs could not be tried, for the weights have no values"


@dataclass(kw_only=True, slots=True)
class _Tries:
    """What was tried so far: the first refusal, and choices that are better than nothing.

    Attributes:
        alone: choices that ran with one batch and with no other.
        untried: choices of which shapes alone could not tell.
    """

    spec: ModelSpec
    loaded: Loaded
    first: Exception | None = None
    alone: list[Choice] = field(default_factory=list)
    untried: list[Choice] = field(default_factory=list)

    def refusal_of(
        self, choice: Choice, batch: int, alone: Choice | None = None
    ) -> Exception | None:
        """What a pass raises; `alone` is kept if it does."""
        refusal = why_not(self.loaded.model, with_choice(self.spec, choice), batch)
        if refusal is not None:
            self.first = self.first or refusal
            self.alone += [alone] if alone is not None else []
            if is_weightless(self.loaded.model) and needs_values(refusal):
                self.untried.append(choice)
        return refusal

    def second_best(self, search: Search) -> Choice:
        """What runs with one batch alone, or could not be tried.

        Raises:
            ModelError: there is neither.
        """
        if self.alone:
            return _noted(self.alone[0], _BY_TRYING)
        if self.untried:
            return _noted(min(self.untried, key=lambda choice: len(choice.inputs)), _UNTRIED)
        foreign = search.unwritable()
        if foreign:
            raise ModelError(
                f"forward's argument {foreign}, which no manifest can write",
                hint="name as source a function that returns a module whose forward takes tensors "
                "and makes it of them",
            )
        words = f": {type(self.first).__name__}: {one_line(self.first)}" if self.first else ""
        raise ModelError(
            f"no inputs were found that {self.spec.source.text!r} runs on{words}",
            hint="name them in the manifest under 'inputs'",
        )


def _noted(choice: Choice, *notes: str) -> Choice:
    return replace(choice, notes=(*choice.notes, *notes))


def _search(spec: ModelSpec, loaded: Loaded) -> Search:
    model, kind = loaded.model, spec.source.kind
    if loaded.inputs:
        return Search([Choice(inputs=loaded.inputs, dims=dict(loaded.dims))])
    if kind == "torchvision":
        return Search(torchvision_choices(spec.source.target, model))
    if kind == "timm":
        return Search(timm_choices(model, dict(spec.arguments)))
    if hasattr(model, "config") and hasattr(model, "main_input_name"):
        return ConfigSearch(model)
    return SignatureSearch(model)


def _taken(spec: ModelSpec, loaded: Loaded) -> int:
    """The manifest's batch if the program takes it, else the one it was exported with."""
    with trial(loaded.model):
        runs = why_not(loaded.model, spec, spec.batch) is None
    return spec.batch if runs or loaded.batch is None else loaded.batch
