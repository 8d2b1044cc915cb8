"""A model's module records as a tree whose subtrees can be compared by one number."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from reportgen.comparable import ModuleRecord, StateTensor

# Wrappers that change no result, and the name under which they register what they wrap.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "OptimizedModule": "_orig_mod",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "OffloadWrapper": "_checkpoint_wrapped_module",
}
PARAMETRIZATIONS = "parametrizations"
# A reparametrized weight by the tensors that replace it: suffixes of torch.nn.utils.
_REPLACED = {
    ("_g", "_v"): "weight_norm",
    ("_orig", "_mask"): "pruned",
    ("_orig", "_u"): "spectral_norm",
}


@dataclass(kw_only=True, slots=True, eq=False)
class Node:
    """One module, without wrappers and parametrizations, which are noted.

    Attributes:
        record: of the module itself.
        name: in its parent; "" is the model.
        position: in order of registration.
        attributes: of the record, and how its weights are reparametrized.
        tensors: by name; a reparametrized weight under its plain name.
        wrappers: classes that wrap it, outermost first.
        hidden: records of its parametrizations.
        kinds: name and class of its children; an index counts as no name.
        size: number of modules in the subtree.
        shape: equal for subtrees that differ in names only.
        deep: equal for subtrees that also have the same names, indices left out.
        valued: equal for subtrees of one shape whose weights have equal values; 0 if unknown.
    """

    record: ModuleRecord
    name: str
    position: int
    parent: Node | None
    attributes: Mapping[str, JsonValue]
    tensors: Mapping[str, StateTensor]
    children: list[Node] = field(default_factory=list)
    wrappers: tuple[str, ...] = ()
    hidden: tuple[ModuleRecord, ...] = ()
    kinds: Counter[tuple[str, str]] = field(default_factory=Counter)
    size: int = 1
    shape: int = 0
    deep: int = 0
    valued: int = 0

    @property
    def path(self) -> str:
        """Path of the module in the model."""
        return self.record.path

    @property
    def type(self) -> str:
        """Class name."""
        return self.record.type

    @property
    def is_index(self) -> bool:
        """Whether its name is a place in a list."""
        # the digits of a ModuleDict are names
        return self.name.isdigit() and self.parent is not None and "Dict" not in self.parent.type

    @property
    def parameters(self) -> int:
        """Elements of its own parameters that no module before it has."""
        return sum(map(_new_parameters, (self.record, *self.hidden)))

    def subtree(self) -> Iterator[Node]:
        """The module and all below it, depth first."""
        yield self
        for child in self.children:
            yield from child.subtree()

    def ancestors(self) -> Iterator[Node]:
        """Its parent, and so on up to the model."""
        if self.parent is not None:
            yield self.parent
            yield from self.parent.ancestors()


def _new_parameters(record: ModuleRecord) -> int:
    if record.shared_with:
        return 0
    inside = f"{record.path}." if record.path else ""
    own = {f"{inside}{tensor.name}" for tensor in record.tensors}
    tied = {
        tensor.tied_to: math.prod(tensor.shape)
        for tensor in record.tensors
        if tensor.kind == "parameter" and tensor.tied_to and tensor.tied_to not in own
    }
    return record.parameters - sum(tied.values())


class Numbers:
    """A number for every distinct value, shared by two trees: equal numbers mean equal values."""

    def __init__(self) -> None:
        self._known: dict[object, int] = {}

    def of(self, value: object) -> int:
        """The number of `value`, from 1 on."""
        return self._known.setdefault(value, len(self._known) + 1)


def build_tree(records: Sequence[ModuleRecord], numbers: Numbers) -> Node:
    """The tree of `records`, which are depth first and begin with the model itself."""
    nodes: dict[str, Node] = {}
    for position, record in enumerate(records):
        parent = nodes.get(record.path.rpartition(".")[0]) if record.path else None
        node = Node(
            record=record,
            name=record.path.rpartition(".")[2],
            position=position,
            parent=parent,
            attributes=record.attributes,
            tensors={tensor.name: tensor for tensor in record.tensors},
        )
        nodes[record.path] = node
        if parent is not None:
            parent.children.append(node)
    root = _without_wrappers(nodes[records[0].path])
    for node in reversed(list(root.subtree())):
        _fold_parametrizations(node)
        _number(node, numbers)
    return root


def _without_wrappers(node: Node) -> Node:
    """`node`, or what it wraps in its place."""
    while len(node.children) == 1 and node.children[0].name == _WRAPPERS.get(node.type):
        [inner] = node.children
        inner.wrappers = (*node.wrappers, node.type)
        inner.name, inner.parent = node.name, node.parent
        node = inner
    node.children = [_without_wrappers(child) for child in node.children]
    return node


def _fold_parametrizations(node: Node) -> None:
    """Put reparametrized weights back under their plain names, and note how they were made."""
    tensors, attributes = dict(node.tensors), dict(node.attributes)
    for (first, second), how in _REPLACED.items():
        for name in [t.removesuffix(first) for t in node.tensors if t.endswith(first)]:
            if f"{name}{second}" in node.tensors:
                parts = [node.tensors[f"{name}{suffix}"] for suffix in (first, second)]
                for part in parts:
                    tensors.pop(part.name, None)
                tensors[name] = replace(_largest(parts), name=name)
                attributes[f"{PARAMETRIZATIONS}.{name}"] = how
    for child in [each for each in node.children if each.name == PARAMETRIZATIONS]:
        node.children.remove(child)
        node.hidden = tuple(each.record for each in child.subtree())
        for steps in child.children:
            parts = [t for n, t in steps.tensors.items() if n.startswith("original")]
            if parts:
                tensors[steps.name] = replace(_largest(parts), name=steps.name)
    node.tensors, node.attributes = tensors, attributes


def _largest(tensors: Iterable[StateTensor]) -> StateTensor:
    return max(tensors, key=lambda tensor: math.prod(tensor.shape))


def _number(node: Node, numbers: Numbers) -> None:
    """Set size and numbers of `node`, whose children have theirs.

    Left out is what says nothing about the structure: dtypes, values, ties, what is trained.
    """
    tensors = tuple(sorted((t.name, t.shape, t.kind) for t in node.tensors.values()))
    own = numbers.of((node.type, freeze(dict(node.attributes)), tensors))
    children = node.children
    node.kinds.update(("" if child.is_index else child.name, child.type) for child in children)
    digests = tuple(sorted((t.name, t.digest) for t in node.tensors.values()))
    node.size = 1 + sum(child.size for child in children)
    node.shape = numbers.of(("shape", own, tuple(child.shape for child in children)))
    names = tuple(("" if child.is_index else child.name, child.deep) for child in children)
    node.deep = numbers.of(("deep", own, names))
    if all(digest for _, digest in digests) and all(child.valued for child in children):
        values = tuple(child.valued for child in children)
        node.valued = numbers.of(("valued", own, digests, values))


def freeze(value: JsonValue) -> object:
    """`value` as something that can be a key of a dict."""
    if isinstance(value, dict):
        return tuple((key, freeze(value[key])) for key in sorted(value))
    # True == 1 in Python, but not as an attribute
    return tuple(map(freeze, value)) if isinstance(value, list) else (type(value).__name__, value)
