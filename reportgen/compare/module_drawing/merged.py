"""The old and the new module graph as one tree of boxes, in which unchanged parts are closed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, groupby

from reportgen.comparable import Graph, OperatorNode
from reportgen.compare.graph_pairs import ENDS
from reportgen.compare.module_drawing.marks import SIGNS, Mark
from reportgen.compare.result import ModulesDiff
from reportgen.drawing.graph import DrawnGraph, Edge, GraphGroup, GraphMember, GraphNode, make_graph

_GONE = "\0"  # ends the name of a removed module: a new one may have the same name
_FEWEST = 2  # unchanged neighbors drawn as one box
_MOST_LINES = 4  # on one box


@dataclass(slots=True)
class _Part:
    """A module that contains others, under construction."""

    name: str
    path: str
    members: dict[str, _Part | int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Box:
    """One node of either graph."""

    node: OperatorNode
    mark: Mark | None


class MergedGraph:
    """Both graphs merged; `drawn` closes what is unchanged.

    Args:
        old: the old module graph.
        new: the new one.
        pairs: index in `old` -> index in `new`.
        modules: the comparison of the modules.
        old_types: path -> class, of the old model.
        types: the same of the new model.
        marks: as `marks_of` returns them.
    """

    def __init__(
        self,
        old: Graph,
        new: Graph,
        pairs: Mapping[int, int],
        modules: ModulesDiff,
        old_types: Mapping[str, str],
        types: Mapping[str, str],
        marks: Mapping[str, Mark],
    ) -> None:
        self._pairs, self._marks = pairs, marks
        self._old_types, self._types = old_types, dict(types)
        self._renamed = {pair.old: pair.new for pair in modules.pairs}
        self._boxes: dict[int, _Box] = {}
        self._root = _Part("", "")
        self._collect(old, new)
        self._edges = self._merged_edges(old, new)

    def drawn(self, depth: int) -> DrawnGraph:
        """The graph for drawing, in which parts below `depth` are closed, changed or not."""
        return _Closing(self._root, self._boxes, self._edges, self._types, self._marks).graph(depth)

    def _collect(self, old: Graph, new: Graph) -> None:
        """Boxes in the new order; a removed one follows what it followed before."""
        removed: dict[int, list[int]] = defaultdict(list)
        last = -1
        for i in range(len(old.nodes)):
            if i not in self._pairs:
                removed[last].append(i)
            last = self._pairs.get(i, last)
        kept = set(self._pairs.values())
        for j in range(-1, len(new.nodes)):
            if j >= 0:
                node = new.nodes[j]
                added = Mark(kind="added") if j not in kept else None
                self._add(j, node, added or self._marks.get(node.id), self._parent(node))
            for i in removed[j]:
                node = old.nodes[i]
                self._add(-1 - i, node, Mark(kind="removed"), self._place_of(node))

    @staticmethod
    def _parent(node: OperatorNode) -> str:
        inner = node.kind == "module"
        return node.module.rpartition(".")[0] if inner else node.module

    def _place_of(self, node: OperatorNode) -> str:
        return "" if node.kind in ENDS else self._place(self._parent(node))

    def _place(self, path: str) -> str:
        """Where a part of the old model would be in the new one."""
        if not path or path in self._renamed:
            return self._renamed.get(path, "")
        above, _, name = path.rpartition(".")
        place = f"{self._place(above)}.{name}{_GONE}".removeprefix(".")
        self._types[place] = self._old_types.get(path, "")
        return place

    def _add(self, key: int, node: OperatorNode, mark: Mark | None, place: str) -> None:
        self._boxes[key] = _Box(node=node, mark=mark)
        part, path = self._root, ""
        for name in filter(None, place.split(".")):
            path = f"{path}.{name}" if path else name
            inner = part.members.setdefault(f"part {name}", _Part(name, path))
            assert isinstance(inner, _Part)
            part = inner
        part.members[f"box {key}"] = key

    def _merged_edges(self, old: Graph, new: Graph) -> set[Edge]:
        edges: set[Edge] = set(new.edges)
        for a, b in old.edges:
            if a not in self._pairs or b not in self._pairs:  # those between kept ones are new's
                edges.add((self._pairs.get(a, -1 - a), self._pairs.get(b, -1 - b)))
        return edges


class _Closing:
    def __init__(
        self,
        root: _Part,
        boxes: Mapping[int, _Box],
        edges: set[Edge],
        types: Mapping[str, str],
        marks: Mapping[str, Mark],
    ) -> None:
        self._root, self._boxes, self._edges = root, boxes, edges
        self._types, self._marks = types, marks
        self._keys = count(1)
        self._home: dict[int, int] = {}  # box of the merged graph -> key of the drawn one

    def graph(self, depth: int) -> DrawnGraph:
        members = self._members(self._root, depth)
        edges = {(self._home[a], self._home[b]) for a, b in self._edges}
        root = GraphGroup(key=next(self._keys), title="model", members=members)
        return make_graph(root, edges)

    def _members(self, part: _Part, depth: int) -> tuple[GraphMember, ...]:
        runs = groupby(part.members.values(), key=self._is_quiet)
        return tuple(
            member
            for quiet, run in runs
            for member in (self._quiet(part, list(run)) if quiet else self._open(run, depth))
        )

    def _open(self, run: Iterable[_Part | int], depth: int) -> Iterator[GraphMember]:
        for member in run:
            yield self._part(member, depth) if isinstance(member, _Part) else self._box(member)

    def _quiet(self, above: _Part, run: list[_Part | int]) -> Iterator[GraphMember]:
        """Unchanged neighbors in the part `above`: one box."""
        if len(run) < _FEWEST:
            yield from self._open(run, 0)
            return
        inside = [key for member in run for key in self._keys_in(member)]
        names = [self._title(member) for member in (run[0], run[-1])]
        short = dict.fromkeys(name.removeprefix(f"{above.path}.") for name in names)
        yield GraphNode(
            key=self._closed(inside),
            kind="unchanged",
            title=f"{len(inside)} unchanged",
            lines=(" … ".join(short),),
        )

    def _is_quiet(self, member: _Part | int) -> bool:
        """Whether nothing changed in it; inputs and outputs stay visible."""
        if isinstance(member, int):
            box = self._boxes[member]
            return box.mark is None and box.node.kind not in ENDS
        return self._mark_of(member) is None and all(map(self._is_quiet, member.members.values()))

    def _mark_of(self, part: _Part) -> Mark | None:
        return self._marks.get(part.path)

    def _keys_in(self, member: _Part | int) -> Iterator[int]:
        if isinstance(member, int):
            yield member
        else:
            for inner in member.members.values():
                yield from self._keys_in(inner)

    def _closed(self, inside: list[int]) -> int:
        key = next(self._keys)
        self._home.update(dict.fromkeys(inside, key))
        return key

    def _title(self, member: _Part | int) -> str:
        if isinstance(member, _Part):
            return _shown(member.path)
        node = self._boxes[member].node
        return node.module if node.kind == "module" else node.operator

    def _part(self, part: _Part, depth: int) -> GraphMember:
        inside = list(self._keys_in(part))
        kinds = {mark.kind if (mark := self._boxes[key].mark) else None for key in inside}
        own = self._mark_of(part)
        title = self._types.get(part.path) or _last(part)
        whole = kinds in ({"added"}, {"removed"}) and own is None
        if whole and len(inside) == 1:
            return self._box(inside[0])
        if whole or kinds == {None}:
            (kind,) = kinds
            lines = (f"{len(inside)} modules and functions",) if whole else own.lines if own else ()
            return self._group_box(part, inside, title, kind or (own.kind if own else ""), lines)
        if depth <= 0:
            return self._group_box(part, inside, title, "changed", tuple(self._summary(inside)))
        details = (_last(part), *(own.lines if own else ()))
        sign = f"{SIGNS[own.kind]} " if own else ""
        return GraphGroup(
            key=next(self._keys),
            title=f"{sign}{title}",
            name=" · ".join(details),
            path=_shown(part.path),
            members=self._members(part, depth - 1),
        )

    def _summary(self, inside: list[int]) -> Iterator[str]:
        """What changed in a part, equal changes once: `Δ SiLU was ReLU × 12`."""
        marked = [(box.node, box.mark) for key in inside if (box := self._boxes[key]).mark]
        texts = Counter(
            " ".join([SIGNS[mark.kind], node.operator, *mark.lines[:1]])
            for node, mark in marked
            if mark is not None
        )
        for text, number in texts.most_common(_MOST_LINES - 1):
            yield f"{text} × {number}" if number > 1 else text
        if rest := sum(texts.values()) - sum(n for _, n in texts.most_common(_MOST_LINES - 1)):
            yield f"{rest} more"

    def _group_box(
        self, part: _Part, inside: list[int], title: str, kind: str, lines: tuple[str, ...]
    ) -> GraphNode:
        return GraphNode(
            key=self._closed(inside),
            kind=kind or "unchanged",
            title=f"{SIGNS[kind]} {title}" if kind else title,
            name=_last(part),
            path=_shown(part.path),
            lines=lines[:_MOST_LINES],
        )

    def _box(self, key: int) -> GraphNode:
        box = self._boxes[key]
        node, mark = box.node, box.mark
        ends = node.kind in ENDS
        title = node.id.partition("/")[2] or node.kind if ends else node.operator
        return GraphNode(
            key=self._closed([key]),
            kind=mark.kind if mark else node.kind if ends else "unchanged",
            title=f"{SIGNS[mark.kind]} {title}" if mark else title,
            name=node.module.rpartition(".")[2] if node.kind == "module" else "",
            path=node.module,
            lines=(*(mark.lines[:_MOST_LINES] if mark else ()), *node.outputs[:1]),
        )


def _shown(name: str) -> str:
    return name.replace(_GONE, "")


def _last(part: _Part) -> str:
    return _shown(part.name)
