"""Which node of the old graph is which of the new one: through the modules, then in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from reportgen.comparable import Graph, OperatorNode
from reportgen.compare.alignment import align_nodes
from reportgen.compare.result import ModulesDiff

ENDS = ("input", "output")
"""Kinds of nodes that belong to the whole model, whatever it is wrapped in."""

Key = tuple[str, ...]


def pair_nodes(old: Graph, new: Graph, modules: ModulesDiff) -> dict[int, int]:
    """Index of a node in `old` -> index of its counterpart in `new`, in the order of `old`."""
    names = _ModuleNames(
        pairs={pair.old: pair.new for pair in modules.pairs},
        added=frozenset(modules.added),
        removed=frozenset(modules.removed),
    )
    pairs = _align_groups(
        old, new, range(len(old.nodes)), range(len(new.nodes)), names.of_old, names.of_new
    )
    # An exporter gives a fused operator the origin of one of its modules; if that one goes, of a
    # neighbor. So operators of modules that came or went are compared with those beside them.
    for gone in (True, False):
        taken = set(pairs.values())
        pairs |= _align_groups(
            old,
            new,
            [
                i
                for i, node in enumerate(old.nodes)
                if i not in pairs
                and node.kind == "operation"
                and (node.module in names.removed) == gone
            ],
            [
                j
                for j, node in enumerate(new.nodes)
                if j not in taken
                and node.kind == "operation"
                and (node.module in names.added) != gone
            ],
            names.parent_of_old,
            names.parent_of_new,
        )
    return dict(sorted(pairs.items()))


@dataclass(frozen=True, slots=True)
class _ModuleNames:
    """Keys that are equal for modules that are counterparts."""

    pairs: dict[str, str]
    added: frozenset[str]
    removed: frozenset[str]

    def of_old(self, path: str) -> Key:
        if path in self.pairs:
            return ("both", self.pairs[path])
        # without records of modules, as for an ONNX file, equal paths are counterparts
        return ("old" if path in self.removed else "both", path)

    def of_new(self, path: str) -> Key:
        return ("new" if path in self.added else "both", path)

    def parent_of_old(self, path: str) -> Key:
        return self.of_old(_parent(path))

    def parent_of_new(self, path: str) -> Key:
        return self.of_new(_parent(path))


def _parent(path: str) -> str:
    return path.rpartition(".")[0]


def _key(node: OperatorNode, module_key: Callable[[str], Key]) -> Key:
    return (node.kind,) if node.kind in ENDS else module_key(node.module)


def _align_groups(
    old: Graph,
    new: Graph,
    among_old: Iterable[int],
    among_new: Iterable[int],
    old_key: Callable[[str], Key],
    new_key: Callable[[str], Key],
) -> dict[int, int]:
    before: dict[Key, list[int]] = defaultdict(list)
    after: dict[Key, list[int]] = defaultdict(list)
    for i in among_old:
        before[_key(old.nodes[i], old_key)].append(i)
    for j in among_new:
        after[_key(new.nodes[j], new_key)].append(j)
    return {
        here[i]: after[key][j]
        for key, here in before.items()
        for j_list in [after.get(key, [])]
        for i, j in align_nodes([old.nodes[i] for i in here], [new.nodes[j] for j in j_list])
    }
