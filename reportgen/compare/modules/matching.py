"""Which modules of two trees are counterparts: top down by content and name, then moves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from reportgen.compare.modules.similarity import (
    SAME_NAME,
    SAME_TYPE,
    align,
    contains_once,
    likeness,
    shared_children,
)
from reportgen.compare.modules.tree import Node

_COVERED = 0.6  # share of the model's children that must be in a part for it to be the model


@dataclass(frozen=True, kw_only=True, slots=True)
class Regrouping:
    """One weight cut into several, or several joined: `one` is in the old or the new tree."""

    one: Node
    parts: tuple[Node, ...]
    is_split: bool


@dataclass(kw_only=True, slots=True, eq=False)
class Matching:
    """Counterparts of two trees.

    Attributes:
        old: the root.
        new: the root.
        pairs: the counterpart of every old node that has one.
        back: the same the other way round.
        wrapped: pairs of which the new one, or the old one, is inside of what stood there.
        exchanged: pairs that have changed places, both directions.
        regrouped: weights that were split or merged.
    """

    old: Node
    new: Node
    pairs: dict[Node, Node] = field(default_factory=dict)
    back: dict[Node, Node] = field(default_factory=dict)
    wrapped: list[tuple[Node, Node]] = field(default_factory=list)
    exchanged: dict[Node, Node] = field(default_factory=dict)
    regrouped: list[Regrouping] = field(default_factory=list)

    def add(self, a: Node, b: Node) -> None:
        """Note that `a` and `b` are counterparts."""
        self.pairs[a], self.back[b] = b, a

    def are_free(self, a: Node, b: Node) -> bool:
        """Whether neither has a counterpart yet."""
        return a not in self.pairs and b not in self.back


def match(old: Node, new: Node) -> Matching:
    """The counterparts of two trees that share their `Numbers`."""
    found = Matching(old=old, new=new)
    a, b = _roots(old, new)
    if (a, b) != (old, new):
        found.wrapped.append((a, b))
    found.exchanged = _exchanges(a, b)
    for x, y in found.exchanged.items():
        found.add(x, y)
    _walk(found, a, b)
    _find_moves(found)
    return found


def _roots(old: Node, new: Node) -> tuple[Node, Node]:
    """The whole models, or the whole of one and the part of the other that it has become."""
    if old.shape == new.shape:
        return old, new
    if inner := contains_once(new, old):
        return old, inner
    if inner := contains_once(old, new):
        return inner, new
    if inner := _changed_part(new, old):
        return old, inner
    if inner := _changed_part(old, new):
        return inner, new
    return old, new


def _changed_part(outer: Node, inner: Node) -> Node | None:
    """The part of `outer` that has more of the children of `inner` than `outer` itself has."""
    if not inner.children:
        return None
    least = max(shared_children(outer, inner) + 1, _COVERED * len(inner.children) - 1e-9)
    parts = [(shared_children(part, inner), part) for part in outer.subtree() if part is not outer]
    # of two that have as many children in common, the one of the same class
    most = max(parts, key=lambda each: (each[0], each[1].type == inner.type), default=None)
    return most[1] if most and most[0] >= least else None


def _exchanges(old: Node, new: Node) -> dict[Node, Node]:
    """Modules of which each has the other's old place, largest first; one pair per direction."""
    changed = [(x, y) for x, y in _same_places(old, new) if _content(x) != _content(y)]
    found: dict[Node, Node] = {}
    used: set[Node] = set()
    by_change: dict[tuple[object, object], list[tuple[Node, Node]]] = {}
    for x, y in changed:
        by_change.setdefault((_content(x), _content(y)), []).append((x, y))
    for x, y in sorted(changed, key=lambda each: -each[0].size):
        free = [
            [pair for pair in by_change.get(change, []) if not used & {*pair}]
            for change in ((_content(y), _content(x)), (_content(x), _content(y)))
        ]
        mate = None if used & {x, y} else _only(free[0], x)
        # of two that may be the other one, none is guessed at
        if mate is None or _only(free[1], mate[0]) != (x, y):
            continue
        other, other_new = mate
        found[x], found[other] = other_new, y
        for node in (x, y, other, other_new):
            used.update(node.subtree())
            used.update(node.ancestors())
    return found


def _only(pairs: list[tuple[Node, Node]], x: Node) -> tuple[Node, Node] | None:
    """The only one of `pairs` with which `x` may have changed places, siblings first."""
    siblings = [pair for pair in pairs if pair[0].parent is x.parent]
    # two activations of one block may be exchanged, two of distant blocks are just two changes
    candidates = siblings or (pairs if x.children or x.tensors else [])
    return candidates[0] if len(candidates) == 1 else None


def _content(node: Node) -> tuple[int, int]:
    return node.shape, node.valued


def _same_places(a: Node, b: Node) -> Iterator[tuple[Node, Node]]:
    yield a, b
    names = {child.name: child for child in b.children}
    for x in a.children:
        y = names.get(x.name)
        # an index is another place if something was put in front of it
        if y is not None and (len(a.children) == len(b.children) or not x.is_index):
            yield from _same_places(x, y)


def _walk(found: Matching, a: Node, b: Node) -> None:
    found.add(a, b)
    for x, y in _pairs_of_children(found, a, b):
        _walk(found, x, y)


def _pairs_of_children(found: Matching, a: Node, b: Node) -> Iterator[tuple[Node, Node]]:
    """The pairs among the children of a pair; those found before are only passed on."""
    for x in a.children:  # exchanged ones
        if x in found.exchanged:
            yield x, found.exchanged[x]
    old = [x for x in a.children if x not in found.pairs]
    new = [y for y in b.children if y not in found.back]
    pairs = list(_equal_by_name(a, b, old, new) or _by_name_then_order(found, old, new))
    yield from pairs


def _equal_by_name(
    a: Node, b: Node, old: list[Node], new: list[Node]
) -> list[tuple[Node, Node]] | None:
    """Pairs of equal children; None if they are not equal."""
    if a.shape != b.shape or len(old) != len(new):
        return None
    names = {y.name: y for y in new}
    same = all(x.name in names and x.shape == names[x.name].shape for x in old)
    return [(x, names[x.name]) for x in old] if same else list(zip(old, new, strict=True))


def _by_name_then_order(
    found: Matching, old: list[Node], new: list[Node]
) -> Iterator[tuple[Node, Node]]:
    names = {y.name: y for y in new if not y.is_index}
    pairs: list[tuple[Node, Node]] = []
    for x in old:
        y = None if x.is_index else names.get(x.name)
        if y is not None and (pair := _same_name(found, x, y)):
            pairs.append(pair)
    # the place of what a wrapped module is inside of is taken as well
    taken = {each for pair in pairs for node in pair for each in (node, *node.ancestors())}
    rest_old = [x for x in old if x not in taken]
    rest_new = [y for y in new if y not in taken]
    regrouped = list(_regroupings(rest_old, rest_new))
    found.regrouped += regrouped
    taken = {node for each in regrouped for node in (each.one, *each.parts)}
    rest_old = [x for x in rest_old if x not in taken]
    rest_new = [y for y in rest_new if y not in taken]
    aligned = align(rest_old, rest_new)
    aligned += _in_gaps(rest_old, rest_new, aligned)
    for x, y in aligned:
        pairs.append(_inside(found, x, y) or (x, y))
    yield from pairs


def _same_name(found: Matching, x: Node, y: Node) -> tuple[Node, Node] | None:
    """The pair that one name makes: both modules, or one and the part of the other it became."""
    if x.shape == y.shape:
        return x, y
    if pair := _inside(found, x, y):
        return pair
    both_leaves = not x.children and not y.children
    return (x, y) if both_leaves or likeness(x, y) >= SAME_NAME else None


def _inside(found: Matching, x: Node, y: Node) -> tuple[Node, Node] | None:
    """The pair of `x` and the part of `y` that it became, or the reverse."""
    if x.shape == y.shape:
        return None
    fewest = min(len(x.children), len(y.children))
    if x.type == y.type and fewest and shared_children(x, y) == fewest:
        return None  # it is still there, and something was put into it
    inner_new, inner_old = contains_once(y, x), contains_once(x, y)
    if x.type != y.type:
        inner_new = inner_new or _like_part(y, x)
        inner_old = inner_old or _like_part(x, y)
    if inner_new is None and inner_old is None:
        return None
    pair = (x, inner_new) if inner_new is not None else (inner_old or x, y)
    found.wrapped.append(pair)
    return pair


def _like_part(outer: Node, inner: Node) -> Node | None:
    """The only part of `outer` that is like `inner`, which was wrapped and changed."""
    if not outer.children:
        return None
    if inner.children:
        return _changed_part(outer, inner)
    if not inner.tensors:
        return None
    found = [
        part
        for part in outer.subtree()
        if part is not outer and part.type == inner.type and likeness(part, inner) >= SAME_TYPE
    ]
    return found[0] if len(found) == 1 else None


def _in_gaps(
    old: list[Node], new: list[Node], aligned: list[tuple[Node, Node]]
) -> Iterator[tuple[Node, Node]]:
    """Leaves of two classes in one place: the only ones between two neighbors that are pairs."""
    at = {node: index for nodes in (old, new) for index, node in enumerate(nodes)}
    limits = [(-1, -1), *((at[x], at[y]) for x, y in aligned), (len(old), len(new))]
    for (i, j), (next_i, next_j) in pairwise(limits):
        if (next_i - i, next_j - j) == (2, 2):
            x, y = old[i + 1], new[j + 1]
            if x.is_index and y.is_index and not (x.children or y.children):
                yield x, y


def _find_moves(found: Matching) -> None:
    """Pair left-over subtrees that are unique on both sides; equal ones are never guessed at."""
    keys: list[Callable[[Node], Hashable]] = [
        lambda n: _has_substance(n) and n.valued,
        lambda n: _has_substance(n) and n.deep,
        lambda n: _has_substance(n) and n.shape,
        lambda n: _has_substance(n) and (n.shape, n.name),
    ]
    for key in keys:
        _move(found, key)
    _move(
        found,
        lambda n: _has_substance(n) and not n.is_index and (n.type, n.name),
        lambda x, y: likeness(x, y) >= SAME_TYPE,
    )
    # what has no weights moves along with what stood beside it
    _move(found, lambda n: (n.shape, n.name), lambda x, y: _follows(found, x, y))


def _has_substance(node: Node) -> bool:
    return bool(node.tensors or node.children)


def _follows(found: Matching, x: Node, y: Node) -> bool:
    if x.parent is None or y.parent is None or y.parent in found.back:
        return False
    return any(found.pairs.get(each) in y.parent.children for each in x.parent.children)


def _move(
    found: Matching,
    key: Callable[[Node], Hashable],
    agree: Callable[[Node, Node], bool] | None = None,
) -> None:
    """Pair those that have one key, which is falsy for nodes that do not count."""
    regrouped = {node for each in found.regrouped for node in (each.one, *each.parts)}
    left = _unique(
        (n for n in found.old.subtree() if n not in found.pairs and n not in regrouped), key
    )
    right = _unique(
        (n for n in found.new.subtree() if n not in found.back and n not in regrouped), key
    )
    both = [(x, right[value]) for value, x in left.items() if value in right]
    for x, y in sorted(both, key=lambda pair: -pair[0].size):
        # equal parts of what was removed and of what was added elsewhere are a coincidence
        is_place = _is_below_pair(x, found.pairs) or _is_below_pair(y, found.back)
        if is_place and found.are_free(x, y) and (agree is None or agree(x, y)):
            _walk(found, x, y)


def _is_below_pair(node: Node, paired: dict[Node, Node]) -> bool:
    return node.parent is None or node.parent in paired


def _unique(nodes: Iterable[Node], key: Callable[[Node], Hashable]) -> dict[Hashable, Node]:
    nodes = list(nodes)
    numbers = Counter(map(key, nodes))
    return {key(n): n for n in nodes if numbers[key(n)] == 1 and key(n)}


def _regroupings(old: list[Node], new: list[Node]) -> Iterator[Regrouping]:
    """Weights of `old` that were cut into several of `new`, or joined."""
    old = [x for x in old if not x.is_index and _weight(x)]
    new = [y for y in new if not y.is_index and _weight(y)]
    for one, several, is_split in (
        *((x, new, True) for x in old),
        *((y, old, False) for y in new),
    ):
        parts = _parts_of(one, several)
        if parts:
            yield Regrouping(one=one, parts=parts, is_split=is_split)


def _weight(node: Node) -> tuple[int, ...]:
    weight = node.tensors.get("weight")
    return weight.shape if weight and not node.children and len(weight.shape) > 1 else ()


def split_dimension(node: Node) -> int:
    """The dimension of the weight that counts outputs."""
    return 1 if node.type == "Conv1D" else 0  # of transformers: (inputs, outputs)


def _parts_of(one: Node, several: list[Node]) -> tuple[Node, ...]:
    """The modules whose weights, put together, have the shape of that of `one`, in its order."""
    dim, shape = split_dimension(one), _weight(one)
    like = [
        each
        for each in several
        if each.type == one.type
        and each.tensors.keys() == one.tensors.keys()
        and len(_weight(each)) == len(shape)
        and _without(_weight(each), dim) == _without(shape, dim)
    ]
    if len(like) < 2 or sum(_weight(each)[dim] for each in like) != shape[dim]:
        return ()
    # qkv -> q, k, v: the fused name gives the order
    places = [one.name.find(_word(each.name)) for each in like]
    if -1 not in places and len(set(places)) == len(places):
        like = [each for _, each in sorted(zip(places, like, strict=True), key=lambda p: p[0])]
    return tuple(like)


def _word(name: str) -> str:
    """What distinguishes a part's name: `q` of `q_proj`, `gate` of `gate_proj`."""
    return next((word for word in name.split("_") if word not in ("to", "w", "in", "proj")), name)


def _without(shape: tuple[int, ...], dim: int) -> tuple[int, ...]:
    return shape[:dim] + shape[dim + 1 :]
