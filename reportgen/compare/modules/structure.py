"""Edits of the tree itself: what was added, removed, moved, renamed, wrapped, split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from reportgen.compare.modules.drafts import (
    Draft,
    draft_of_pair,
    position_of_removed,
    source_of,
)
from reportgen.compare.modules.matching import Matching, split_dimension
from reportgen.compare.modules.tree import Node
from reportgen.compare.result import Edit


def structure_edits(found: Matching) -> Iterator[Draft]:
    """All edits of the structure, unsorted."""
    yield from _wrapped(found)
    yield from _exchanged(found)
    yield from _regrouped(found)
    for a, b in found.pairs.items():
        yield from _wrappers(a, b)
        yield from _place(found, a, b)
    yield from _regions(found)


def _wrapped(found: Matching) -> Iterator[Draft]:
    for a, b in found.wrapped:
        around_new = _unpaired_above(b, found.back)
        around_old = _unpaired_above(a, found.pairs)
        if around_new:
            fields = {"type": around_new[-1].type, "modules": len(around_new)}
            draft = draft_of_pair("wrapped", a, b, **fields)
            draft.old, draft.new = (), tuple(around_new)
            yield draft
        if around_old:
            fields = {"type": around_old[-1].type, "modules": len(around_old)}
            draft = draft_of_pair("unwrapped", a, b, **fields)
            draft.old, draft.new = tuple(around_old), ()
            yield draft


def _unpaired_above(node: Node, paired: dict[Node, Node]) -> list[Node]:
    """The nearest ancestors that have no counterpart, innermost first."""
    above = []
    for each in node.ancestors():
        if each in paired:
            break
        above.append(each)
    return above


def _wrappers(a: Node, b: Node) -> Iterator[Draft]:
    """Wrappers that change no result, such as DataParallel."""
    left, right = Counter(a.wrappers), Counter(b.wrappers)
    for kind in right - left:
        draft = draft_of_pair("wrapped", a, b, type=kind)
        draft.old = draft.new = ()
        yield draft
    for kind in left - right:
        draft = draft_of_pair("unwrapped", a, b, type=kind)
        draft.old = draft.new = ()
        yield draft


def _exchanged(found: Matching) -> Iterator[Draft]:
    items = list(found.exchanged.items())
    for two in zip(items[::2], items[1::2], strict=True):  # one after the other in the dict
        a, b = min(two, key=lambda pair: pair[0].position)
        other, other_new = max(two, key=lambda pair: pair[0].position)
        draft = draft_of_pair("exchanged", a, b, modules=a.size + other.size)
        draft.position = other_new.position
        draft.old, draft.new = (a, other), (b, other_new)
        yield draft


def _regrouped(found: Matching) -> Iterator[Draft]:
    for each in found.regrouped:
        names = ", ".join(part.name for part in each.parts)
        one, parts = each.one, each.parts
        old, new = ((one,), parts) if each.is_split else (parts, (one,))
        first = min(new, key=lambda node: node.position)
        edit = Edit(
            kind="split" if each.is_split else "merged",
            old=old[0].path,
            new=new[0].path,
            type=one.type,
            before=one.name if each.is_split else names,
            after=names if each.is_split else one.name,
            modules=1 + len(parts),
            note=f"dimension {split_dimension(one)}",
            source=source_of(first),
        )
        yield Draft(edit=edit, position=first.position, old=old, new=new)


def _place(found: Matching, a: Node, b: Node) -> Iterator[Draft]:
    if a in found.exchanged or (a, b) in found.wrapped or a.parent is None or b.parent is None:
        return
    if found.pairs.get(a.parent) is not b.parent:
        yield draft_of_pair("moved", a, b, modules=b.size)
    elif a.name != b.name and a.is_index and b.is_index:
        yield draft_of_pair("shifted", a, b, before=a.name, after=b.name, modules=b.size)
    elif a.name != b.name:
        yield draft_of_pair("renamed", a, b, modules=b.size)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Region:
    """A subtree without a counterpart, less the parts of it that have one."""

    top: Node
    nodes: tuple[Node, ...]


def _regions_of(root: Node, paired: dict[Node, Node], skip: set[Node]) -> list[_Region]:
    """The regions below `root`; the nodes of `skip` belong to other edits."""
    found: list[_Region] = []

    def visit(node: Node, is_inside: bool) -> None:
        free = node not in paired and node not in skip
        if free and not is_inside:
            found.append(_Region(top=node, nodes=tuple(_free(node, paired, skip))))
        for child in node.children:
            visit(child, free)

    visit(root, False)
    return found


def _free(node: Node, paired: dict[Node, Node], skip: set[Node]) -> Iterator[Node]:
    if node not in paired and node not in skip:
        yield node
        for child in node.children:
            yield from _free(child, paired, skip)


def _regions(found: Matching) -> Iterator[Draft]:
    skip = {node for each in found.regrouped for node in (each.one, *each.parts)}
    for a, b in found.wrapped:
        skip |= {*_unpaired_above(a, found.pairs), *_unpaired_above(b, found.back)}
    removed = _regions_of(found.old, found.pairs, skip)
    added = _regions_of(found.new, found.back, skip)
    for old, new in _replacements(found, removed, added):
        removed.remove(old)
        added.remove(new)
        draft = draft_of_pair("type", old.top, new.top, before=old.top.type, after=new.top.type,
                              modules=len(new.nodes))  # fmt: skip
        draft.old, draft.new = old.nodes, new.nodes
        yield draft
    yield from _added(found, added, _equal_ones(removed, "removed"))
    yield from _removed(found, removed, _equal_ones(added, "added"))


def _equal_ones(regions: list[_Region], what: str) -> dict[int, str]:
    """By shape, that several modules may be the counterpart: none is guessed at."""
    numbers = Counter(each.top.shape for each in regions if each.top.tensors or each.top.children)
    return {shape: f"equal to each of {n} {what} ones" for shape, n in numbers.items() if n > 1}


def _replacements(
    found: Matching, removed: list[_Region], added: list[_Region]
) -> list[tuple[_Region, _Region]]:
    """Regions that stand in the same place of one parent, under the same name."""
    places = {(each.top.parent, each.top.name): each for each in added}
    pairs = []
    for old in removed:
        parent = old.top.parent
        new = places.get((found.pairs.get(parent), old.top.name)) if parent else None
        if new is None or parent is None or new.top.parent is None:
            continue
        same_number = len(parent.children) == len(new.top.parent.children)
        if same_number or not old.top.is_index:
            pairs.append((old, new))
    return pairs


def _added(found: Matching, regions: list[_Region], equal: dict[int, str]) -> Iterator[Draft]:
    repeated: dict[tuple[Node, int], list[_Region]] = {}
    for region in regions:
        run = _run_of_equal(region.top, found.back)
        if run is not None:
            repeated.setdefault(run, []).append(region)
            continue
        shared = region.top.record.shared_with
        note = f"the same instance as {shared}" if shared else equal.get(region.top.shape, "")
        edit = Edit(
            kind="added",
            new=region.top.path,
            type=region.top.type,
            modules=len(region.nodes),
            note=note,
            source=source_of(region.top),
        )
        yield Draft(edit=edit, position=region.top.position, new=region.nodes)
    for together in repeated.values():
        parent = together[0].top.parent
        if parent is not None:
            yield _repeated(found.back[parent], parent, together, is_more=True)


def _removed(found: Matching, regions: list[_Region], equal: dict[int, str]) -> Iterator[Draft]:
    repeated: dict[tuple[Node, int], list[_Region]] = {}
    for region in regions:
        run = _run_of_equal(region.top, found.pairs)
        if run is not None:
            repeated.setdefault(run, []).append(region)
            continue
        edit = Edit(
            kind="removed",
            old=region.top.path,
            type=region.top.type,
            modules=len(region.nodes),
            note=equal.get(region.top.shape, ""),
            source=source_of(region.top),
        )
        position = position_of_removed(found, region.top)
        yield Draft(edit=edit, position=position, old=region.nodes)
    for together in repeated.values():
        parent = together[0].top.parent
        if parent is not None:
            yield _repeated(parent, found.pairs[parent], together, is_more=False)


def _run(node: Node) -> list[Node]:
    """The siblings of one shape, side by side, among which `node` is."""
    siblings = node.parent.children if node.parent else [node]
    at = siblings.index(node)
    start = end = at
    while start > 0 and siblings[start - 1].shape == node.shape:
        start -= 1
    while end + 1 < len(siblings) and siblings[end + 1].shape == node.shape:
        end += 1
    return siblings[start : end + 1]


def _run_of_equal(node: Node, paired: dict[Node, Node]) -> tuple[Node, int] | None:
    """The first of the run of equal siblings, some of which have counterparts, and its shape.

    Of equal ones side by side nobody can tell which is new.
    """
    if not node.is_index or node.parent not in paired:
        return None
    run = _run(node)
    # the counterparts may all have changed alike
    if not any(each in paired and paired[each].parent is paired[node.parent] for each in run):
        return None
    return run[0], node.shape


def _repeated(a: Node, b: Node, regions: list[_Region], *, is_more: bool) -> Draft:
    top = regions[0].top
    longer = len(_run(top))
    shorter = longer - len(regions)
    before, after = (shorter, longer) if is_more else (longer, shorter)
    if len({child.type for child in (*a.children, *b.children)}) == 1:
        before, after = len(a.children), len(b.children)
    nodes = tuple(node for region in regions for node in region.nodes)
    draft = draft_of_pair("repeated", a, b, type=top.type, before=str(before), after=str(after),
                          modules=len(nodes))  # fmt: skip
    draft.old, draft.new = ((), nodes) if is_more else (nodes, ())
    return draft
