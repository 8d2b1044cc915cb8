"""Whole numbers that run over a whole table: a model that ran on ten words may know thousands."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs.candidate import Choice
from reportgen.dummy_inputs.from_layers import table_sizes
from reportgen.dummy_inputs.nested_specs import parts_of, with_part
from reportgen.dummy_inputs.trial_run import why_not, with_choice
from reportgen.pytree import modules_of
from reportgen.sources import is_weightless

if TYPE_CHECKING:
    from torch import nn

    from reportgen.manifest import InputSpec, ModelSpec


def over_whole_tables(model: nn.Module, spec: ModelSpec, choice: Choice, batch: int) -> Choice:
    """`choice`, which the model ran on, its whole numbers up to the end of what they look up.

    The last row of a larger embedding is asked for: the number goes up to it if it gets there.
    """
    if is_weightless(model):
        return choice  # shapes alone would believe in every row
    for place, (_, part) in enumerate(parts_of(choice.inputs)):
        for size in sorted(table_sizes(model), reverse=True):
            if not _may_grow(part, size):
                continue
            last = _at_place(choice, place, part.model_copy(update={"low": size - 1, "high": size}))
            if _looks_up(model, with_choice(spec, last), batch, size):
                choice = _at_place(choice, place, part.model_copy(update={"high": size}))
                break
    return choice


def _may_grow(part: InputSpec, size: int) -> bool:
    is_range = part.high is not None and part.high > 1 and "int" in part.dtype
    return is_range and not part.low and part.high < size  # type: ignore[operator]


def _at_place(choice: Choice, place: int, part: InputSpec) -> Choice:
    return replace(choice, inputs=with_part(choice.inputs, place, part))


def _looks_up(model: nn.Module, spec: ModelSpec, batch: int, size: int) -> bool:
    """Whether the model runs, and an embedding of `size` rows is asked for its last one."""
    from torch import nn

    asked: list[bool] = []

    def look(_: nn.Module, args: tuple[Any, ...]) -> None:
        asked.append(bool(args) and bool((args[0] == size - 1).any()))

    tables = [m for m in modules_of(model) if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    handles = [t.register_forward_pre_hook(look) for t in tables if t.num_embeddings == size]
    try:
        return why_not(model, spec, batch) is None and any(asked)
    finally:
        for handle in handles:
            handle.remove()
