"""Equal edits of repeated blocks become one line; shifts of indices become ranges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from reportgen.compare.result import Edit

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")  # layer1 and layer2 are names
_MANY = 4  # different values of one field in repeated blocks, as of a rate that grows with depth


def fold(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """`edits` in their order, equal ones of repeated blocks folded into the first."""
    edits = list(edits)
    values: dict[object, set[tuple[str, str]]] = {}
    for edit in edits:
        values.setdefault(_place(edit), set()).add(_values(edit))
    groups: dict[object, list[Edit]] = {}
    for edit in edits:
        many = edit.kind == "changed" and len(values[_place(edit)]) >= _MANY
        key = _shift(edit) if edit.kind == "shifted" else (_place(edit), many or _values(edit))
        groups.setdefault(key, []).append(edit)
    return tuple(map(_folded, groups.values()))


def _place(edit: Edit) -> object:
    """Equal for edits whose paths differ in indices only."""
    return edit.kind, edit.type, edit.field, edit.note, _pattern(edit.old), _pattern(edit.new)


def _values(edit: Edit) -> tuple[str, str]:
    if edit.kind in ("tied", "untied"):  # keys of blocks differ as their paths do
        return _pattern(edit.before) or "", _pattern(edit.after) or ""
    return edit.before, edit.after


def _pattern(path: str | None) -> str | None:
    return None if path is None else _INDEX.sub("#", path)


def _shift(edit: Edit) -> object:
    parents = [(path or "").rpartition(".")[0] for path in (edit.old, edit.new)]
    return edit.kind, *parents, int(edit.after) - int(edit.before)


def _folded(group: Sequence[Edit]) -> Edit:
    first, last = group[0], group[-1]
    if len(group) == 1:
        return first
    is_range = first.kind == "shifted" or len({_values(each) for each in group}) > 1
    return replace(
        first,
        type=first.type if len({each.type for each in group}) == 1 else "",
        before=f"{first.before}…{last.before}" if is_range else first.before,
        after=f"{first.after}…{last.after}" if is_range else first.after,
        also=tuple((each.old if each.new is None else each.new) or "" for each in group[1:]),
        modules=sum(each.modules for each in group),
        parameters=sum(each.parameters for each in group),
        macs=None if first.macs is None else sum(each.macs or 0 for each in group),
    )
