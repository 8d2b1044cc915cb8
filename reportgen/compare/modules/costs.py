"""How much of the change of parameters and MACs each edit causes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from reportgen.compare.modules.drafts import Draft
from reportgen.compare.modules.matching import Matching
from reportgen.compare.modules.tree import Node
from reportgen.compare.result import Edit


@dataclass(kw_only=True, slots=True)
class _Cost:
    parameters: int = 0
    macs: int = 0


def edits_with_costs(found: Matching, drafts: Sequence[Draft]) -> list[tuple[Draft, Edit]]:
    """The edits with what they cost; `drafts` are sorted.

    A module's own edit causes the change of its own cost. Where a module has none (a stride changes
    what all layers behind it cost) the nearest edit before it does.
    """
    costs = [_Cost() for _ in drafts]
    owner = _owners(drafts)
    known = all(
        node.record.macs is not None for root in (found.old, found.new) for node in root.subtree()
    )
    causes = [i for i, draft in enumerate(drafts) if draft.is_cause]
    for position, old, new in _changes(found):
        own = next((owner[n] for n in (*new, *old) if n in owner), None)
        parameters = _parameters(new) - _parameters(old)
        macs = _macs(new) - _macs(old) if known else 0
        cause = own if own is not None and drafts[own].is_cause else None
        if cause is None and causes:
            before = [i for i in causes if drafts[i].position <= position]
            cause = before[-1] if before else causes[0]
        if cause is not None:
            costs[cause].macs += macs
        # an edit elsewhere implies another shape, but not that a tied tensor counts elsewhere
        owner_of_parameters = own if own is not None or _shapes(old) == _shapes(new) else cause
        if owner_of_parameters is not None:
            costs[owner_of_parameters].parameters += parameters
    return [
        (draft, replace(draft.edit, parameters=cost.parameters, macs=cost.macs if known else None))
        for draft, cost in zip(drafts, costs, strict=True)
    ]


def _owners(drafts: Sequence[Draft]) -> dict[Node, int]:
    """The edit whose cost each module's is: the first that can change it."""
    owner: dict[Node, int] = {}
    ties = {"tied", "untied"}
    for index, draft in sorted(enumerate(drafts), key=lambda each: not each[1].is_cause):
        if draft.is_cause or draft.edit.kind in ties:
            for node in (*draft.old, *draft.new):
                owner.setdefault(node, index)
                if draft.edit.kind in ties:  # of a shared module the whole subtree
                    for inner in node.subtree():
                        owner.setdefault(inner, index)
    return owner


def _changes(found: Matching) -> Iterable[tuple[float, tuple[Node, ...], tuple[Node, ...]]]:
    """Pairs of modules and modules without a counterpart, with their places."""
    for b in found.new.subtree():
        a = found.back.get(b)
        yield b.position, (a,) if a else (), (b,)
    for a in found.old.subtree():
        if a not in found.pairs:
            yield a.position, (a,), ()


def _shapes(nodes: tuple[Node, ...]) -> list[tuple[int, ...]]:
    return [tensor.shape for node in nodes for tensor in node.tensors.values()]


def _parameters(nodes: tuple[Node, ...]) -> int:
    return sum(node.parameters for node in nodes)


def _macs(nodes: tuple[Node, ...]) -> int:
    return sum(record.macs or 0 for node in nodes for record in (node.record, *node.hidden))
