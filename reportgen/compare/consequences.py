"""Changes of shape that follow from an earlier change, separated from those that do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from reportgen.comparable import Graph


def causes_of(
    old: Graph, new: Graph, pairs: Mapping[int, int], changed: Collection[int]
) -> dict[int, int]:
    """Index of a new node -> index of a node that feeds it and changed its shape, or is new.

    Args:
        old: the old graph.
        new: the new graph.
        pairs: index in `old` -> index in `new`.
        changed: indexes in `new` of nodes whose outputs have another shape.

    A node that was removed is -1 - its index in `old`.
    """
    counterparts = set(pairs.values())
    causes: dict[int, int] = {}
    for a, b in new.edges:
        if a in changed or a not in counterparts:
            causes.setdefault(b, a)
    for a, b in old.edges:
        source = pairs.get(a, -1 - a)
        if b in pairs and (source < 0 or source in changed):
            causes.setdefault(pairs[b], source)
    return causes


def count_followers(causes: Mapping[int, int], silent: Collection[int]) -> Counter[int]:
    """How many of the nodes `silent` follow from each node that is not among them."""
    roots: dict[int, int] = {}
    followers: Counter[int] = Counter()
    for node in silent:
        way: list[int] = []
        source = node
        # nodes that changed places may form a cycle
        while source in silent and source not in roots:
            way.append(source)
            roots[source] = source
            source = causes[source]
        root = roots.get(source, source)
        roots.update(dict.fromkeys(way, root))
        followers[root] += 1
    return followers
