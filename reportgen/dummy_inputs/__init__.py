"""Inputs for a model whose manifest specifies none: candidates are tried until one runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args

from reportgen.dummy_inputs.candidate import Candidate, CandidateSearch
from reportgen.dummy_inputs.from_signature import SignatureSearch
from reportgen.dummy_inputs.from_transformers import ConfigSearch
from reportgen.dummy_inputs.from_vision_libraries import timm_candidates, torchvision_candidates
from reportgen.dummy_inputs.trial_run import (
    has_batch_dim,
    is_meta_failure,
    run_error,
    trial_mode,
    widen_to_vocabulary,
    with_candidate,
)
from reportgen.error_text import one_line
from reportgen.errors import ModelError
from reportgen.manifest import Dtype
from reportgen.sources import is_weightless
from reportgen.sources.loaded import Loaded

if TYPE_CHECKING:
    from torch import nn

    from reportgen.manifest import InputSpec, ModelSpec

__all__ = ["Candidate", "guess_inputs", "knows_inputs", "with_dummy_inputs", "with_weights_dtype"]


def knows_inputs(spec: ModelSpec) -> bool:
    """Whether the inputs may be omitted because they can be derived from the source."""
    return spec.source.kind in ("torchvision", "timm", "transformers", "pt2", "object")


def with_dummy_inputs(spec: ModelSpec, loaded: Loaded) -> tuple[ModelSpec, tuple[str, ...]]:
    """`spec` with inputs on which the model ran, and notes.

    Inputs that the manifest specifies are kept; without a dtype they get that of the weights.

    Raises:
        ModelError: no candidate runs.
    """
    if spec.inputs or not knows_inputs(spec):
        return with_weights_dtype(spec, loaded.model)
    candidate = guess_inputs(spec, loaded)
    kept = with_candidate(spec, candidate)
    if loaded.inputs and loaded.batch is not None:
        kept = kept.model_copy(update={"batch": _usable_batch(kept, loaded)})
    return kept, (
        *candidate.notes,
        "the manifest specifies no inputs; they were derived from the model",
    )


def with_weights_dtype(spec: ModelSpec, model: nn.Module) -> tuple[ModelSpec, tuple[str, ...]]:
    """`spec` with the dtype of the weights for inputs without one, and a note if that matters.

    PyTorch multiplies no float32 input by bfloat16 weights. Weights of several dtypes decide
    nothing: the model converts its inputs then.
    """
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()}
    names = [name for item in spec.inputs for name in _without_dtype(item)]
    if len(dtypes) != 1 or not names:
        return spec, ()
    dtype = str(dtypes.pop()).removeprefix("torch.")
    if dtype == "float32" or dtype not in get_args(Dtype):
        return spec, ()
    inputs = tuple(_in_dtype(item, dtype) for item in spec.inputs)
    note = f"the manifest gives no dtype for {' and '.join(names)}: {dtype}, as the weights have"
    return spec.model_copy(update={"inputs": inputs}), (note,)


def _without_dtype(item: InputSpec) -> Iterator[str]:
    if item.lacks_dtype:
        yield item.name or "the input"
    for part in item.parts:
        yield from _without_dtype(part)


def _in_dtype(item: InputSpec, dtype: str) -> InputSpec:
    update: dict[str, Any] = {"dtype": dtype} if item.lacks_dtype else {}
    if item.items is not None:
        update["items"] = tuple(_in_dtype(part, dtype) for part in item.items)
    if item.fields is not None:
        update["fields"] = {key: _in_dtype(part, dtype) for key, part in item.fields.items()}
    return item.model_copy(update=update)


def guess_inputs(spec: ModelSpec, loaded: Loaded) -> Candidate:
    """The first candidate on which the model of `spec` runs; deterministic.

    Raises:
        ModelError: no candidate runs; the message quotes the first error.
    """
    # small, because up to 200 candidates run; a program may accept only the batch of its export
    batch = min(2, spec.batch) if loaded.batch is None else loaded.batch
    search = _search(spec, loaded)
    trials = _Trials(spec=spec, loaded=loaded)
    with trial_mode(loaded.model):
        for candidate in islice(search, search.tries):
            error = trials.try_candidate(candidate, batch)
            # a shape found by trial may fit one batch size by chance, so a second one must run too
            if error is None and search.varies_batch and has_batch_dim(candidate):
                error = trials.try_candidate(candidate, batch + 2, alone=candidate)
            if error is None:
                whole = widen_to_vocabulary(loaded.model, spec, candidate, batch)
                return _noted(whole, *((_BY_TRIAL,) if trials.first is not None else ()))
            search.learn(error)
    return trials.fallback(search)


_BY_TRIAL = "the inputs were found by trial"
_UNTRIED = "the inputs could not be tried because the model has no weight values"


@dataclass(kw_only=True, slots=True)
class _Trials:
    """The first error so far, and candidates to fall back on.

    Attributes:
        one_batch_size: candidates that ran with one batch size only.
        untried: candidates that a pass on meta cannot check, because it reads values.
    """

    spec: ModelSpec
    loaded: Loaded
    first: Exception | None = None
    one_batch_size: list[Candidate] = field(default_factory=list)
    untried: list[Candidate] = field(default_factory=list)

    def try_candidate(
        self, candidate: Candidate, batch: int, alone: Candidate | None = None
    ) -> Exception | None:
        """The error of a pass; on an error, `alone` is recorded in `one_batch_size`."""
        error = run_error(self.loaded.model, with_candidate(self.spec, candidate), batch)
        if error is not None:
            self.first = self.first or error
            self.one_batch_size += [alone] if alone is not None else []
            if is_weightless(self.loaded.model) and is_meta_failure(error):
                self.untried.append(candidate)
        return error

    def fallback(self, search: CandidateSearch) -> Candidate:
        """A candidate that runs with one batch size only, or that could not be checked.

        Raises:
            ModelError: there is none.
        """
        # it ran with values, so it precedes candidates that could not be checked
        if self.one_batch_size:
            return _noted(self.one_batch_size[0], _BY_TRIAL)
        if self.untried:
            return _noted(min(self.untried, key=lambda candidate: len(candidate.inputs)), _UNTRIED)
        unsupported = search.unsupported_argument()
        if unsupported:
            raise ModelError(
                f"forward expects {unsupported}; "
                "a manifest can describe tensors and constants only",
                hint="use a function as source that returns a module whose forward takes tensors "
                "and builds this object from them",
            )
        cause = f": {type(self.first).__name__}: {one_line(self.first)}" if self.first else ""
        raise ModelError(
            f"no inputs were found on which {self.spec.source.text!r} runs{cause}",
            hint="specify them: `inputs` in a manifest or in Python, --input on the command line",
        )


def _noted(candidate: Candidate, *notes: str) -> Candidate:
    return replace(candidate, notes=(*candidate.notes, *notes))


def _search(spec: ModelSpec, loaded: Loaded) -> CandidateSearch:
    model, kind = loaded.model, spec.source.kind
    if loaded.inputs:
        return CandidateSearch([Candidate(inputs=loaded.inputs, dims=dict(loaded.dims))])
    if kind == "torchvision":
        return CandidateSearch(torchvision_candidates(spec.source.target, model))
    if kind == "timm":
        return CandidateSearch(timm_candidates(model, dict(spec.arguments)))
    # not the source's kind: a Python file may return a PreTrainedModel too
    if hasattr(model, "config") and hasattr(model, "main_input_name"):
        return ConfigSearch(model)
    return SignatureSearch(model)


def _usable_batch(spec: ModelSpec, loaded: Loaded) -> int:
    """The manifest's batch if the program accepts it, else the batch it was exported with."""
    with trial_mode(loaded.model):
        runs = run_error(loaded.model, spec, spec.batch) is None
    return spec.batch if runs or loaded.batch is None else loaded.batch
