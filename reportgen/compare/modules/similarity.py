"""How much two modules are alike, and which of two lists of modules are counterparts."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from difflib import SequenceMatcher

from reportgen.comparable import StateTensor
from reportgen.compare.modules.tree import Node, freeze

SAME_NAME = 0.35  # least likeness of modules that have one name
SAME_TYPE = 0.55  # least likeness of modules that have one class only
_SAME_FAMILY = 0.3
_MOST_CELLS = 60_000  # of a table of scores
_ACTIVATIONS = {
    "ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish",
    "Sigmoid", "Hardsigmoid", "Hardswish", "Hardtanh", "Tanh", "Softplus", "Softsign", "Swish",
    "QuickGELU", "QuickGELUActivation", "GELUActivation", "NewGELUActivation", "GELUTanh",
}  # fmt: skip
_FAMILIES = ("Norm", "Drop", "Pool", "Conv", "Linear", "Embed")


def likeness(a: Node, b: Node) -> float:
    """From 0 to 1: 0.35 class, 0.25 tensors, 0.2 name, 0.2 attributes or children."""
    return (
        0.35 * (a.type == b.type)
        + 0.25 * _likeness_of_tensors(_tensors(a), _tensors(b))
        + 0.2 * (a.name == b.name)
        + 0.2 * _likeness_inside(a, b)
    )


def _tensors(node: Node) -> dict[str, StateTensor]:
    found = dict(node.tensors)
    for child in node.children:
        found.update((f"{child.name}.{name}", tensor) for name, tensor in child.tensors.items())
    return found


def _likeness_of_tensors(a: dict[str, StateTensor], b: dict[str, StateTensor]) -> float:
    if not a and not b:
        return 1.0
    score = 0.0
    for name in a.keys() & b.keys():
        if a[name].shape == b[name].shape:
            score += 1
        elif len(a[name].shape) == len(b[name].shape):
            score += 0.5
    return score / max(len(a), len(b))


def _likeness_inside(a: Node, b: Node) -> float:
    if not a.children and not b.children:
        names = a.attributes.keys() | b.attributes.keys()
        equal = sum(a.attributes.get(name) == b.attributes.get(name) for name in names)
        return equal / len(names) if names else 1.0
    if not a.children or not b.children:  # something was put into a leaf
        return 0.5 * (a.attributes == b.attributes)
    return 2 * shared_children(a, b) / (len(a.children) + len(b.children))


def shared_children(a: Node, b: Node) -> int:
    """How many children the two have in common, by name and class; indices by class only."""
    few, many = sorted((a.kinds, b.kinds), key=len)
    return sum(min(number, many[kind]) for kind, number in few.items() if kind in many)


def family(kind: str) -> str:
    """What a class is a kind of: `Norm`, `Conv`; "" if unknown."""
    if kind in _ACTIVATIONS:
        return "activation"
    return next((word for word in _FAMILIES if word in kind), "")


def contains_once(outer: Node, inner: Node) -> Node | None:
    """The only subtree strictly below `outer` that equals `inner` up to names."""
    if outer.size <= inner.size:
        return None
    found = [n for n in outer.subtree() if n is not outer and n.shape == inner.shape]
    return found[0] if len(found) == 1 else None


def _score(a: Node, b: Node) -> float:
    """How good a pair of `a` and `b` is; 0 if they are no counterparts."""
    name = 0.01 * (a.name == b.name)
    if a.shape == b.shape:
        values = 0.5 * (a.valued == b.valued != 0)
        # the last term: of two orders that are equally good, both directions choose the same
        return 1 + 0.15 * math.log(1 + a.size) + name + values + 1e-6 * _content(a)
    if a.type == b.type and (alike := likeness(a, b)) >= SAME_TYPE:
        return alike + 1e-6 * (_content(a) + _content(b))
    if a.is_index and b.is_index and (contains_once(a, b) or contains_once(b, a)):
        return 0.6 + name
    if a.children and a.kinds == b.kinds:  # another class with the same parts
        return max(_SAME_FAMILY, likeness(a, b)) + name
    both_leaves = not a.children and not b.children
    if both_leaves and a.is_index and b.is_index and family(a.type) == family(b.type) != "":
        return _SAME_FAMILY + name
    return 0.0


def _content(node: Node) -> float:
    text = f"{node.type} {freeze(dict(node.attributes))} {node.size}"
    return zlib.crc32(text.encode()) / 2**32


def align(old: Sequence[Node], new: Sequence[Node]) -> list[tuple[Node, Node]]:
    """Pairs of counterparts that keep the order of both lists, with the greatest total score."""
    start, limit = 0, min(len(old), len(new))
    while start < limit and _certain(old[start], new[start]):
        start += 1
    end = 0
    while end < limit - start and _certain(old[-1 - end], new[-1 - end]):
        end += 1
    inner = old[start : len(old) - end], new[start : len(new) - end]
    tail = zip(old[len(old) - end :], new[len(new) - end :], strict=True)
    return [*zip(old[:start], new[:start], strict=True), *_align_middle(*inner), *tail]


def _certain(a: Node, b: Node) -> bool:
    return a.shape == b.shape and a.valued == b.valued


def _align_middle(old: Sequence[Node], new: Sequence[Node]) -> list[tuple[Node, Node]]:
    if len(old) * len(new) <= _MOST_CELLS:
        return _best_alignment(old, new)
    matcher = SequenceMatcher(None, [n.shape for n in old], [n.shape for n in new], autojunk=False)
    pairs: list[tuple[Node, Node]] = []
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            pairs += zip(old[i:i_end], new[j:j_end], strict=True)
        elif (i_end - i) * (j_end - j) <= _MOST_CELLS:
            pairs += _best_alignment(old[i:i_end], new[j:j_end])
        else:  # too many for a table: by name
            by_name = {node.name: node for node in new[j:j_end]}
            pairs += [
                (a, b) for a in old[i:i_end] if (b := by_name.get(a.name)) and _score(a, b) > 0
            ]
    return pairs


def _best_alignment(old: Sequence[Node], new: Sequence[Node]) -> list[tuple[Node, Node]]:
    """Needleman and Wunsch's alignment; a gap costs nothing."""
    scores = [[_score(a, b) for b in new] for a in old]
    best = [[0.0] * (len(new) + 1) for _ in range(len(old) + 1)]
    for i in range(len(old) - 1, -1, -1):
        for j in range(len(new) - 1, -1, -1):
            paired = best[i + 1][j + 1] + scores[i][j] if scores[i][j] else 0.0
            best[i][j] = max(paired, best[i + 1][j], best[i][j + 1])
    pairs, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        if scores[i][j] and best[i][j] == best[i + 1][j + 1] + scores[i][j]:
            pairs.append((old[i], new[j]))
            i, j = i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs
