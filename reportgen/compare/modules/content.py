"""Edits of modules that both models have: class, attributes, tensors, ties and values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from reportgen.comparable import StateTensor
from reportgen.compare.modules.drafts import Draft, draft_of_pair
from reportgen.compare.modules.fields import (
    Difference,
    attribute_differences,
    shape_text,
    stated_differences,
    texts,
)
from reportgen.compare.modules.matching import Matching
from reportgen.compare.modules.tree import Node

Property = Callable[[StateTensor], str]


def content_edits(found: Matching) -> Iterator[Draft]:
    """All edits of paired modules, unsorted."""
    below = differences_below(found)
    for a, b in found.pairs.items():
        yield from _own(a, b, below[b])
    yield from _uniform(found, "dtype", lambda t: t.dtype, _is_floating)
    yield from _uniform(found, "trainable", lambda t: str(t.trainable).lower(), _is_parameter)
    for a, b in found.pairs.items():
        yield from _persistence(a, b)
    yield from _weights(found)
    yield from _ties(found)


def differences_below(found: Matching) -> dict[Node, list[Difference]]:
    """Of every new node the attributes that differ in the nodes below it, each change once."""
    below: dict[Node, dict[str, Difference]] = {node: {} for node in found.new.subtree()}
    for b in reversed(list(found.new.subtree())):
        if b.parent is None:
            continue
        own = attribute_differences(found.back[b], b) if b in found.back else []
        above = below[b.parent]
        above |= below[b]
        above |= {f"{each.field} {each.old} {each.new}": each for each in own}
    return {node: list(each.values()) for node, each in below.items()}


def _own(a: Node, b: Node, below: list[Difference]) -> Iterator[Draft]:
    stated = stated_differences(a, b, below)
    converted = conversion_kind(a, b)
    if converted:
        old, new = a.tensors["weight"].shape, b.tensors["weight"].shape
        yield draft_of_pair(
            converted, a, b, field="weight.shape", before=shape_text(old), after=shape_text(new),
            note=f"{a.type} → {b.type}" if a.type != b.type else "",
        )  # fmt: skip
        stated = [each for each in stated if each.field != "weight.shape"]
    elif a.type != b.type:
        yield draft_of_pair("type", a, b, before=a.type, after=b.type)
    for each in stated:
        before, after = texts(each.old, each.new)
        if each.field.endswith(".shape") and isinstance(each.old, list):
            before, after = (_shape(value) for value in (each.old, each.new))
        yield draft_of_pair("changed", a, b, field=each.field, before=before, after=after)


def _shape(value: object) -> str:
    return shape_text(value) if isinstance(value, list) else str(value)


def conversion_kind(a: Node, b: Node) -> Literal["reshaped", "transposed", ""]:
    """How the values of the weight of `a` become those of the weight of `b`, beyond copying."""
    if not {"weight"} <= a.tensors.keys() & b.tensors.keys() or a.children or b.children:
        return ""
    old, new = a.tensors["weight"].shape, b.tensors["weight"].shape
    if {a.type, b.type} == {"Conv1D", "Linear"}:  # of transformers: (inputs, outputs)
        return "transposed" if old == new[::-1] else ""
    if old != new and [n for n in old if n != 1] == [n for n in new if n != 1]:
        return "reshaped"
    return ""


# Properties of tensors ---------------------------------------------------------------------------


def _is_floating(tensor: StateTensor) -> bool:
    return tensor.dtype.startswith(("float", "bfloat", "complex"))


def _is_parameter(tensor: StateTensor) -> bool:
    return tensor.kind == "parameter"


def _common(a: Node, b: Node) -> Iterator[tuple[StateTensor, StateTensor]]:
    for name, old in a.tensors.items():
        if name in b.tensors:
            yield old, b.tensors[name]


def _uniform(
    found: Matching, field: str, value: Property, counts: Callable[[StateTensor], bool]
) -> Iterator[Draft]:
    """A property of tensors, at the highest module all of whose tensors changed alike."""
    changes: dict[Node, set[tuple[str, str]]] = {}
    for b in reversed(list(found.new.subtree())):
        a = found.back.get(b)
        own = {
            (value(old), value(new))
            for old, new in (_common(a, b) if a else ())
            if counts(old) or counts(new)
        }
        changes[b] = own.union(*(changes[child] for child in b.children))
    yield from _highest(found, found.new, field, value, changes)


def _highest(
    found: Matching, b: Node, field: str, value: Property, changes: dict[Node, set[tuple[str, str]]]
) -> Iterator[Draft]:
    a = found.back.get(b)
    if len(changes[b]) == 1 and a is not None:
        [(before, after)] = changes[b]
        owners = [child for child in b.children if changes[child]]
        # a container of one such module says less than the module
        if len(owners) != 1 or any(True for _ in _common(a, b)):
            if before != after:
                yield draft_of_pair("changed", a, b, field=field, before=before, after=after,
                                    modules=b.size)  # fmt: skip
            return
    elif a is not None:
        for old, new in _common(a, b):
            if value(old) != value(new):
                yield draft_of_pair("changed", a, b, field=f"{new.name}.{field}",
                                    before=value(old), after=value(new))  # fmt: skip
    for child in b.children:
        yield from _highest(found, child, field, value, changes)


def _persistence(a: Node, b: Node) -> Iterator[Draft]:
    for old, new in _common(a, b):
        if old.persistent != new.persistent:
            before, after = texts(old.persistent, new.persistent)
            field = f"{new.name}.persistent"
            yield draft_of_pair("changed", a, b, field=field, before=before, after=after)


def _weights(found: Matching) -> Iterator[Draft]:
    """One edit if values differ: at the lowest module that has all tensors whose values do."""
    known, changed = 0, []
    before, after = set(), set()
    for a, b in found.pairs.items():
        for old, new in _common(a, b):
            if old.shape == new.shape and old.dtype == new.dtype and (old.digest or new.digest):
                known += 1
                before.add(bool(old.digest))
                after.add(bool(new.digest))
                changed += [b] if old.digest != new.digest else []
    if not changed:
        return
    top = _common_ancestor(changed)
    while top not in found.back and top.parent is not None:
        top = top.parent
    if top in found.back:
        yield draft_of_pair(
            "weights", found.back[top], top,
            before="given" if before == {True} else "random",
            after="given" if after == {True} else "random",
            modules=len(set(changed)), note=f"{len(changed)} of {known} tensors",
        )  # fmt: skip


def _common_ancestor(nodes: Iterable[Node]) -> Node:
    lines = [[*reversed(list(node.ancestors())), node] for node in nodes]
    depth = 0
    while depth < min(map(len, lines)) and len({line[depth] for line in lines}) == 1:
        depth += 1
    return lines[0][max(0, depth - 1)]


# Ties --------------------------------------------------------------------------------------------


def _ties(found: Matching) -> Iterator[Draft]:
    old_at, new_at = ({n.path: n for n in root.subtree()} for root in (found.old, found.new))
    for a, b in found.pairs.items():
        yield from _shared(found, a, b, old_at, new_at)
        if a.record.shared_with or b.record.shared_with:
            continue
        for old, new in _common(a, b):
            was, now = _first_key(a, old), _first_key(b, new)
            partner = _mapped_key(now, found.back, new_at) if new.tied_to else None
            if partner is not None and _root_key(partner, old_at) != was:
                yield draft_of_pair("tied", a, b, field=new.name, before=old.tied_to,
                                    after=new.tied_to)  # fmt: skip
                continue
            partner = _mapped_key(was, found.pairs, old_at) if old.tied_to else None
            if partner is not None and _root_key(partner, new_at) != now:
                yield draft_of_pair("untied", a, b, field=new.name, before=old.tied_to,
                                    after=new.tied_to)  # fmt: skip


def _first_key(node: Node, tensor: StateTensor) -> str:
    return tensor.tied_to or f"{node.path}.{tensor.name}".lstrip(".")


def _owner(key: str, nodes: dict[str, Node]) -> Node | None:
    return nodes.get(key.rpartition(".")[0])


def _mapped_key(key: str, pairs: dict[Node, Node], nodes: dict[str, Node]) -> str | None:
    """The key of the other model that has the tensor `key` of this one."""
    owner = _owner(key, nodes)
    other = pairs.get(owner) if owner else None
    name = key.rpartition(".")[2]
    return f"{other.path}.{name}".lstrip(".") if other and name in other.tensors else None


def _root_key(key: str, nodes: dict[str, Node]) -> str:
    """The first key of the tensor that `key` names."""
    owner = _owner(key, nodes)
    tensor = owner.tensors.get(key.rpartition(".")[2]) if owner else None
    return tensor.tied_to or key if tensor else key


def _shared(
    found: Matching, a: Node, b: Node, old_at: dict[str, Node], new_at: dict[str, Node]
) -> Iterator[Draft]:
    """One instance in two places, or no longer."""
    above = b.parent
    if above is not None and above.record.shared_with:  # said of the module above
        return
    if b.record.shared_with and not a.record.shared_with:
        partner = new_at.get(b.record.shared_with)
        if partner is not None and partner in found.back:
            yield draft_of_pair("tied", a, b, after=b.record.shared_with, modules=b.size)
    elif a.record.shared_with and not b.record.shared_with:
        partner = old_at.get(a.record.shared_with)
        inner = a.parent is not None and a.parent.record.shared_with
        if partner is not None and partner in found.pairs and not inner:
            yield draft_of_pair("untied", a, b, before=a.record.shared_with, modules=b.size)
