"""Values of a file that are outputs of a PyTorch module, and whether the two sides agree there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reportgen.sections.onnx.parity.intermediates import Inside, Node, read_values
from reportgen.sections.onnx.parity.module_calls import ModuleCall

if TYPE_CHECKING:
    from torch import Tensor

    from reportgen.onnx.runtime import Feed

# Whether two tensors agree, and the error as a multiple of what the tolerance allows.
Judge = Callable[["Tensor", "Tensor"], tuple[bool, float]]

_GLANCE = 256  # elements
_FAR = 0.1  # of an element and of the typical one
_MOST = 0.5  # of the elements


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Match:
    """A value of the file that is an output of a module.

    Attributes:
        call: the call of the module whose output it is, PyTorch's output being `reference`.
        excess: the largest error as a multiple of what the tolerance allows there.
    """

    value: str
    call: ModuleCall
    reference: Tensor
    found: Tensor
    agrees: bool
    excess: float


def match_modules(
    inside: Inside, calls: list[ModuleCall], feed: Feed, judge: Judge
) -> dict[str, Match]:
    """Every value that is the output of one of these calls, by its name.

    Where a value belongs to a module and to the one around it, the inner one has it.
    """
    pairs = list(_pairs(inside, calls))
    values = values_of(inside, feed, [name for names, _ in pairs for name in names])
    matches: dict[str, Match] = {}
    for names, call in pairs:  # an inner module's call ends before that of the outer one
        for reference in call.tensors:
            match = _match(names, call, reference, values, judge)
            if match is not None and not (match.value in matches and not match.agrees):
                matches.setdefault(match.value, match)
    return {name: _reconsidered(match, calls, judge) for name, match in matches.items()}


def values_of(inside: Inside, feed: Feed, names: Collection[str]) -> dict[str, Tensor]:
    """What the file computes for these names, without optimization."""
    import torch

    found = inside.run(feed, names) if names else {}
    return {name: torch.from_numpy(array) for name, array in found.items() if _is_numeric(array)}


def upstream(inside: Inside, end: str, agreeing: Collection[str]) -> list[str]:
    """The computed values that `end` comes from, itself first, back to those that agree."""
    found, open_ = {end: None}, [end]
    while open_:
        for name in _read_for(inside, open_.pop()):
            if name in inside.maker and name not in found and name not in agreeing:
                found[name] = None
                open_.append(name)
    return list(found)


def came_in(inside: Inside, end: str, matches: dict[str, Match]) -> list[Match]:
    """The agreeing outputs of modules from which `end` was computed."""
    agreeing = {name for name, match in matches.items() if match.agrees}
    region = upstream(inside, end, agreeing)
    read = {name for value in region for name in _read_for(inside, value)}
    return [matches[name] for name in sorted(read & agreeing)]


def _read_for(inside: Inside, value: str) -> Iterator[str]:
    node = inside.maker.get(value)
    return read_values(node.proto) if node else iter(())


def _pairs(inside: Inside, calls: list[ModuleCall]) -> Iterator[tuple[list[str], ModuleCall]]:
    """Each call with the values that leave its nodes, where it is certain which are its nodes."""
    by_path: dict[str, list[ModuleCall]] = {}
    for call in calls:
        by_path.setdefault(call.path, []).append(call)
    rows = {path: inside.runs_of(path) for path in by_path}
    done: dict[str, int] = {}
    for call in calls:
        number = done[call.path] = done.get(call.path, -1) + 1
        nodes = _nodes_of_call(rows[call.path], number, len(by_path[call.path]))
        if nodes:
            yield inside.leaving(nodes), call


def _nodes_of_call(rows: list[list[Node]], number: int, calls: int) -> list[Node]:
    if len(rows) == calls:
        return rows[number]
    return rows[0] if len(rows) == 1 and number == calls - 1 else []


def _match(
    names: list[str],
    call: ModuleCall,
    reference: Tensor,
    values: dict[str, Tensor],
    judge: Judge,
) -> Match | None:
    """The value that is this output: one that agrees, else the last of its shape."""
    found: Match | None = None
    for name in names:
        value = values.get(name)
        if value is None or value.shape != reference.shape:
            continue
        agrees, excess = judge(reference, value)
        found = Match(
            value=name,
            call=call,
            reference=reference,
            found=value,
            agrees=agrees,
            excess=excess,
        )
        if agrees:
            break
    return found


def _reconsidered(match: Match, calls: list[ModuleCall], judge: Judge) -> Match:
    """A convolution into which a batch norm was folded gives what the batch norm does."""
    if match.agrees:
        return match
    for reference in (tensor for call in calls for tensor in call.tensors):
        if may_agree(reference, match.found):
            agrees, excess = judge(reference, match.found)
            if agrees:
                return replace(match, reference=reference, agrees=True, excess=excess)
    return match


def may_agree(reference: Tensor, found: Tensor) -> bool:
    """A glance at some elements, before all are compared: most of them are not far apart."""
    if reference.shape != found.shape or reference.numel() == 0:
        return reference.shape == found.shape
    step = max(1, reference.numel() // _GLANCE)
    a, b = (tensor.detach().reshape(-1)[::step].double() for tensor in (reference, found))
    near = (a - b).abs() <= _FAR * (a.abs() + a.abs().nanmedian())
    return bool((near | ~(a.isfinite() & b.isfinite())).double().mean() > _MOST)


def _is_numeric(array: Any) -> bool:
    return getattr(array, "dtype", None) is not None and array.dtype.kind in "fiub"
