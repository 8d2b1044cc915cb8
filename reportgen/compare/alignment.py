"""Two sequences of nodes aligned in order, each pair scored by how alike the two are."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from reportgen.comparable import OperatorNode

Pair = tuple[int, int]  # indexes into the two sequences

_MOST_CELLS = 250_000  # of the table; beyond that, runs of equal nodes are aligned
_ENDS = ("input", "output", "parameter")  # nodes with names that their user chose


@dataclass(frozen=True, slots=True)
class _Traits:
    """What of a node is compared; the names of values are not among it."""

    kind: str
    operator: str
    name: str
    attributes: str
    outputs: tuple[str, ...]

    @property
    def sort_key(self) -> tuple[Hashable, ...]:
        return (self.kind, self.operator, self.name, self.attributes, self.outputs)


def align_nodes(old: Sequence[OperatorNode], new: Sequence[OperatorNode]) -> list[Pair]:
    """Pairs of indexes, ascending in both; the mirrored call gives the mirrored pairs."""
    a, b = [_traits(node) for node in old], [_traits(node) for node in new]
    # ties are broken one way, so the sides must not decide which way that is
    if [each.sort_key for each in a] <= [each.sort_key for each in b]:
        return _align(a, b)
    return [(i, j) for j, i in _align(b, a)]


def _traits(node: OperatorNode) -> _Traits:
    name = node.id.partition("/")[2].rpartition(".")[2] if node.kind in _ENDS else ""
    attributes = json.dumps(dict(node.attributes), sort_keys=True)
    return _Traits(node.kind, node.operator, name, attributes, node.outputs)


def _align(a: list[_Traits], b: list[_Traits]) -> list[Pair]:
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    inner_a, inner_b = a[start : len(a) - end], b[start : len(b) - end]
    found = _by_runs(inner_a, inner_b)
    return [
        *((i, i) for i in range(start)),
        *((i + start, j + start) for i, j in found),
        *((len(a) - k, len(b) - k) for k in range(end, 0, -1)),
    ]


def _best(a: list[_Traits], b: list[_Traits]) -> list[Pair]:
    """The alignment of the highest total score (Needleman-Wunsch without a gap penalty)."""
    table = [[0.0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a) - 1, -1, -1):
        for j in range(len(b) - 1, -1, -1):
            score = _score(a[i], b[j])
            matched = table[i + 1][j + 1] + score if score else 0.0
            table[i][j] = max(matched, table[i + 1][j], table[i][j + 1])
    pairs: list[Pair] = []
    i = j = 0
    while i < len(a) and j < len(b):
        score = _score(a[i], b[j])
        if score and table[i][j] == table[i + 1][j + 1] + score:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif table[i][j] == table[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _score(a: _Traits, b: _Traits) -> float:
    """0 for nodes that are no counterparts; powers of two add up without rounding."""
    if a.kind != b.kind:
        return 0.0
    if a.kind in _ENDS:
        # the n-th input is the n-th input, whatever its name; a parameter is what it is called
        return 1.0 + (a.name == b.name) if a.kind != "parameter" or a.name == b.name else 0.0
    if a.operator != b.operator:
        # a module of another class at the same place
        return 0.5 if a.kind == "module" else 0.0
    return 1.0 + 0.25 * (a.attributes == b.attributes) + 0.25 * (a.outputs == b.outputs)


def _by_runs(a: list[_Traits], b: list[_Traits], level: int = 0) -> list[Pair]:
    """Runs of equal nodes first, then what lies between two of them."""
    if len(a) * len(b) <= _MOST_CELLS:
        return _best(a, b)
    if level == len(_KEYS):
        return []
    key = _KEYS[level]
    matcher = SequenceMatcher(None, list(map(key, a)), list(map(key, b)), autojunk=False)
    pairs: list[Pair] = []
    i = j = 0
    for block in matcher.get_matching_blocks():
        between = _by_runs(a[i : block.a], b[j : block.b], level + 1)
        pairs.extend((i + x, j + y) for x, y in between)
        pairs.extend((block.a + k, block.b + k) for k in range(block.size))
        i, j = block.a + block.size, block.b + block.size
    return pairs


_KEYS: tuple[Callable[[_Traits], Hashable], ...] = (
    lambda node: node,
    lambda node: (node.kind, node.operator, node.name, node.attributes),
    lambda node: (node.kind, node.operator, node.name),
)
