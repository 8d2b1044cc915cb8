"""What a drawing says of each module and function that changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from reportgen.compare.result import Edit, ModulesDiff, NodeChange

MarkKind = Literal["added", "removed", "changed", "moved"]
SIGNS: dict[str, str] = {"added": "+", "removed": "−", "changed": "Δ", "moved": "→"}
"""The sign before each title: colors are not needed to read a drawing."""

_MOVES = ("moved", "renamed", "wrapped", "unwrapped", "exchanged")
_SEEN = ("shifted", "added", "removed")  # in the drawing itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """How one box is marked, and one line per change."""

    kind: MarkKind
    lines: tuple[str, ...] = ()


def marks_of(modules: ModulesDiff, nodes: Iterable[NodeChange]) -> dict[str, Mark]:
    """Path of a module in the new model, or id of a node in the new graph -> its mark."""
    lines: dict[str, list[str]] = defaultdict(list)
    changed: set[str] = set()
    for edit in modules.edits:
        if edit.new is None or edit.kind in _SEEN:
            continue
        if edit.kind == "exchanged" and edit.old is not None:
            lines[edit.old].append(f"exchanged with {edit.new}")
        for path in (edit.new, *edit.also):
            lines[path].append(_edit_line(edit, folded=path != edit.new))
            if edit.kind not in _MOVES:
                changed.add(path)
    for change in nodes:
        if change.new is not None and change.old is not None and change.new not in changed:
            lines[change.new].append(_node_line(change))
            changed.add(change.new)
    return {
        path: Mark(kind="changed" if path in changed else "moved", lines=tuple(_once(texts)))
        for path, texts in lines.items()
    }


def _once(texts: Iterable[str]) -> Iterator[str]:
    yield from dict.fromkeys(filter(None, texts))


def _edit_line(edit: Edit, *, folded: bool) -> str:
    if edit.kind == "exchanged":
        return f"exchanged with {edit.old}"
    if edit.kind in _MOVES:
        # of folded edits only the first has its old path
        return "" if folded else f"was {edit.old or 'the whole model'}"
    if edit.kind == "type":
        return f"was {edit.before}"
    if edit.kind == "repeated":
        return f"{edit.before} → {edit.after} equal ones"
    values = f"{edit.before or 'none'} → {edit.after or 'none'}"
    return f"{edit.field or edit.kind} {values}" if edit.before or edit.after else edit.kind


def _node_line(change: NodeChange) -> str:
    if change.field == "type":
        return f"was {change.before}"
    # functions have arguments by position; a reader counts from one
    field = f"argument {int(change.field) + 1}:" if change.field.isdigit() else change.field
    return f"{field} {change.before or 'none'} → {change.after or 'none'}"
