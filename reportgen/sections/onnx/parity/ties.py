"""Accepts differences that are ties: indices of equal scores, rows in an undefined order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reportgen.sections.onnx.parity.compare import Compared, is_close
from reportgen.sections.onnx.parity.recorders import Selection, record_selections

if TYPE_CHECKING:
    from torch import Tensor

# Scores this close are equal up to rounding: multiples of the dtype's epsilon times the largest
# score. The tolerance of a comparison would be too wide: the neighbor of the best index of a
# smooth curve lies within it.
_ROUNDINGS = {4: 64, 8: 64}  # by bytes of an element
_FEW_ROUNDINGS = 8  # half precision, whose epsilon is already large
_MOST_ROWS = 2048  # in another position: they are compared pairwise

Tensors = Sequence["Tensor"]


def accept_ties(
    compared: list[Compared], reference: Tensors, found: Tensors, call: Callable[[], Any]
) -> list[Compared]:
    """`compared` with those outputs passed that differ only in the choice among equal scores.

    An index may point at another score than PyTorch's if the two scores, taken from PyTorch, are
    equal up to rounding. Rows of outputs may be in another order if an operator does not define it,
    or if the rows that changed places have equal scores; all outputs with these rows must have the
    same new order, and one of them must be the selected scores or indices.

    Args:
        compared: every output in its order.
        reference: what PyTorch gave, in the same order.
        found: what the file gave.
        call: runs the PyTorch model again, to record its selections.
    """
    if not _may_be_ties(compared, reference, found):  # without another call of the model
        return compared
    selections = record_selections(call)
    result = [
        _excuse_indices(one, wanted, given, selections)
        for one, wanted, given in zip(compared, reference, found, strict=True)
    ]
    for selection in selections:
        if all(one.parity.passed for one in result):
            break
        result = _excuse_order(result, reference, found, selection)
    return [_hinted(one, *sides) for one, *sides in zip(result, reference, found, strict=True)]


def _may_be_ties(compared: list[Compared], reference: Tensors, found: Tensors) -> bool:
    return any(
        not one.parity.passed
        and wanted.shape == given.shape
        and (_holds_indices(wanted) or have_same_values(wanted, given, *_tolerance(one)))
        for one, wanted, given in zip(compared, reference, found, strict=True)
    )


def _holds_indices(tensor: Tensor) -> bool:
    """Whether the values could be indices: whole numbers of any dtype."""
    import torch

    if tensor.dtype.is_floating_point:
        return bool((tensor == tensor.round()).all())
    return not (tensor.dtype.is_complex or tensor.dtype == torch.bool)


def have_same_values(wanted: Tensor, given: Tensor, absolute: float, relative: float) -> bool:
    """Whether the sorted values agree within a tolerance."""
    if wanted.dtype.is_complex or wanted.shape != given.shape:
        return False
    a, b = (tensor.detach().double().reshape(-1).sort().values for tensor in (wanted, given))
    return bool(is_close(a, b, absolute, relative).all())


def _tolerance(one: Compared) -> tuple[float, float]:
    return one.parity.absolute_tolerance, one.parity.relative_tolerance


def _hinted(one: Compared, wanted: Tensor, given: Tensor) -> Compared:
    if not one.parity.max_absolute_error or one.parity.passed:
        return one
    if not have_same_values(wanted, given, *_tolerance(one)):
        return one
    return _noted(one, "the same values in another order")


def _noted(one: Compared, note: str, **changes: Any) -> Compared:
    earlier = one.parity.note if not changes.get("passed") else ""
    text = "; ".join(filter(None, (earlier, note)))
    return replace(one, parity=replace(one.parity, note=text, **changes))


def _excuse_indices(
    one: Compared, wanted: Tensor, given: Tensor, selections: list[Selection]
) -> Compared:
    if one.parity.passed or wanted.shape != given.shape or not _holds_indices(wanted):
        return one
    for selection in selections:
        other = _as_indices(selection, wanted, given)
        if other is None or not _is_as_good(selection, other):
            continue
        moved = int((wanted != given).sum())
        note = f"{moved} of {wanted.numel()} indices differ, all between equal scores"
        note = f"{note} ({selection.operator})"
        return _noted(one, note, passed=True, max_absolute_error=0.0, max_relative_error=0.0)
    return one


def _as_indices(selection: Selection, wanted: Tensor, given: Tensor) -> Tensor | None:
    """The file's indices, shaped as the selection; None if PyTorch's output is not its indices."""
    own = selection.indices.movedim(-1, selection.axis)
    if wanted.numel() != own.numel() or not bool((wanted.reshape(-1) == own.reshape(-1)).all()):
        return None
    return given.reshape(own.shape).movedim(selection.axis, -1).long()


def _is_as_good(selection: Selection, other: Tensor) -> bool:
    """Whether other indices point at equal scores, without repetition."""
    size = selection.scores.shape[-1]
    if bool(((other < 0) | (other >= size)).any()):
        return False
    ordered = other.sort(-1).values
    if bool((ordered[..., 1:] == ordered[..., :-1]).any()):
        return False
    # suppression: a box of an equal score is another box
    if not selection.open_set and not bool((ordered == selection.indices.sort(-1).values).all()):
        return False
    before = selection.scores.gather(-1, selection.indices)
    return bool(_are_tied(selection, before, selection.scores.gather(-1, other)).all())


def _are_tied(selection: Selection, a: Tensor, b: Tensor) -> Tensor:
    return is_close(a.double(), b.double(), _rounding(selection.scores), 0.0)


def _rounding(scores: Tensor) -> float:
    import torch

    if not scores.dtype.is_floating_point:
        return 0.0
    size = scores.element_size()
    finite = scores[scores.isfinite()]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    return _ROUNDINGS.get(size, _FEW_ROUNDINGS) * torch.finfo(scores.dtype).eps * largest


def _excuse_order(
    compared: list[Compared], reference: Tensors, found: Tensors, selection: Selection
) -> list[Compared]:
    """Pass every output that contains the rows of `selection` in another order."""
    lead = selection.indices.shape
    # an unordered selection of everything chooses nothing
    takes_all = lead[-1] == selection.scores.shape[-1]
    if (
        selection.axis != selection.indices.ndim - 1
        or lead[-1] < 2
        or (takes_all and not selection.ordered)
    ):
        return compared
    members = [
        place
        for place, (wanted, given) in enumerate(zip(reference, found, strict=True))
        if wanted.shape == given.shape and wanted.shape[: len(lead)] == lead
    ]
    if all(compared[place].parity.passed for place in members):
        return compared
    # otherwise the outputs have these leading axes by chance, such as a sequence beside a choice
    if not any(_is_selected(selection, reference[place]) for place in members):
        return compared
    rows = [_OutputRows(compared[place], reference[place], found[place], lead) for place in members]
    keys = selection.scores.gather(-1, selection.indices).reshape(-1, lead[-1])
    moved = 0
    for group in range(keys.shape[0]):
        places = _matching([row.group(group) for row in rows])
        if places is None or not _may_move(selection, keys[group], places):
            return compared
        moved += sum(place != there for place, there in places.items())
    why = (
        "all between equal scores"
        if selection.ordered
        else f"{selection.operator} does not define the order"
    )
    note = f"{moved} of {keys.numel()} rows are in another position, {why}"
    if selection.ordered:
        note = f"{note} ({selection.operator})"
    return [
        _noted(one, note, passed=True, max_absolute_error=0.0, max_relative_error=0.0)
        if place in members and not one.parity.passed
        else one
        for place, one in enumerate(compared)
    ]


def _is_selected(selection: Selection, output: Tensor) -> bool:
    """Whether an output is the selected indices, or a monotonic function of their scores."""
    if output.shape != selection.indices.shape or output.dtype.is_complex:
        return False
    own, keys = output.detach().double(), selection.scores.gather(-1, selection.indices).double()
    if bool((own == selection.indices).all()):
        return True
    steps = own.gather(-1, keys.argsort(-1)).diff(dim=-1)
    return bool((steps >= 0).all() or (steps <= 0).all())


class _OutputRows:
    """An output as rows by group, each row flat."""

    def __init__(self, one: Compared, wanted: Tensor, given: Tensor, lead: Any) -> None:
        import torch

        flat = (torch.view_as_real(t) if t.dtype.is_complex else t for t in (wanted, given))
        self._wanted, self._given = (
            t.detach().double().reshape(-1, lead[-1], t.numel() // lead.numel()) for t in flat
        )
        self._tolerance = one.parity.absolute_tolerance, one.parity.relative_tolerance

    def group(self, index: int) -> tuple[Tensor, Tensor, tuple[float, float]]:
        return self._wanted[index], self._given[index], self._tolerance


def _matching(parts: list[tuple[Tensor, Tensor, tuple[float, float]]]) -> dict[int, int] | None:
    """The new position of every row that moved; None if the rows are not the same."""
    import torch

    in_place = torch.stack(
        [is_close(wanted, given, *tolerance).all(-1) for wanted, given, tolerance in parts]
    ).all(0)
    astray = (~in_place).nonzero().reshape(-1)  # rows that agree where they are stay there
    if astray.numel() > _MOST_ROWS:
        return None
    fits = torch.ones(astray.numel(), astray.numel(), dtype=torch.bool)
    for wanted, given, tolerance in parts:
        for row, place in enumerate(astray.tolist()):
            fits[row] &= is_close(wanted[place].expand_as(given[astray]), given[astray], *tolerance
                                  ).all(-1)  # fmt: skip
    places: dict[int, int] = {}
    for row, place in enumerate(astray.tolist()):
        free = fits[row].nonzero().reshape(-1)
        if free.numel() == 0:
            return None
        fits[:, free[0]] = False
        places[place] = int(astray[free[0]])
    return places


def _may_move(selection: Selection, keys: Tensor, places: dict[int, int]) -> bool:
    if not selection.ordered:
        return True
    if not places or bool((keys == keys[0]).all()):  # equal scores alone sort nothing
        return not places
    here, there = keys[list(places)], keys[list(places.values())]
    return bool(_are_tied(selection, here, there).all())
