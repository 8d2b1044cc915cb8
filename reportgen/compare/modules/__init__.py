"""Modules of two reports -> what changed in the model, and whether an old checkpoint loads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reportgen.comparable import ModuleRecord
from reportgen.compare.modules.content import content_edits
from reportgen.compare.modules.costs import edits_with_costs
from reportgen.compare.modules.fields import attribute_differences, tensor_differences
from reportgen.compare.modules.folding import fold
from reportgen.compare.modules.matching import Matching, match
from reportgen.compare.modules.snippet import load_snippet, rename_map_json
from reportgen.compare.modules.state_dict import diff_state_dict
from reportgen.compare.modules.structure import structure_edits
from reportgen.compare.modules.tree import Node, Numbers, build_tree
from reportgen.compare.result import FieldChange, ModulesDiff, PathGroup, PathPair

__all__ = ["diff_modules", "diff_state_dict", "load_snippet", "rename_map_json"]


def diff_modules(old: Sequence[ModuleRecord], new: Sequence[ModuleRecord]) -> ModulesDiff:
    """What changed in the tree of modules, each change once."""
    if not old or not new:
        return ModulesDiff()
    numbers = Numbers()
    found = match(build_tree(old, numbers), build_tree(new, numbers))
    drafts = [*structure_edits(found), *content_edits(found)]
    drafts.sort(key=lambda draft: draft.position)  # stable: structure first
    pairs = {a.path: b.path for a, b in found.pairs.items()} | dict(_hidden_pairs(found))
    after = set(pairs.values())
    return ModulesDiff(
        edits=fold(edit for _, edit in edits_with_costs(found, drafts)),
        added=tuple(record.path for record in new if record.path not in after),
        removed=tuple(record.path for record in old if record.path not in pairs),
        moved=tuple(PathPair(old=a, new=b) for a, b in pairs.items() if a != b),
        changed=tuple(change for a, b in found.pairs.items() for change in _fields(a, b)),
        pairs=tuple(PathPair(old=a, new=b) for a, b in pairs.items()),
        regrouped=tuple(
            PathGroup(old=one, new=parts) if each.is_split else PathGroup(old=parts, new=one)
            for each in found.regrouped
            for one, parts in [((each.one.path,), tuple(part.path for part in each.parts))]
        ),
    )


def _hidden_pairs(found: Matching) -> Iterator[tuple[str, str]]:
    """Pairs of the records that belong to parametrizations, by their place in the module."""
    for a, b in found.pairs.items():
        places = {record.path[len(b.path) :].lstrip("."): record.path for record in b.hidden}
        for record in a.hidden:
            place = record.path[len(a.path) :].lstrip(".")
            if place in places:
                yield record.path, places[place]


def _fields(a: Node, b: Node) -> Iterator[FieldChange]:
    if a.type != b.type:
        yield FieldChange(path=b.path, field="type", old=a.type, new=b.type)
    for each in (*attribute_differences(a, b), *tensor_differences(a, b)):
        yield FieldChange(path=b.path, field=each.field, old=each.old, new=each.new)
    for name, tensor in a.tensors.items():
        other = b.tensors.get(name)
        if other is not None and tensor.dtype != other.dtype:
            field = f"{name}.dtype"
            yield FieldChange(path=b.path, field=field, old=tensor.dtype, new=other.dtype)
