"""A change of the model while it is being written down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from reportgen.compare.modules.matching import Matching
from reportgen.compare.modules.tree import Node
from reportgen.compare.result import Edit, EditKind

# Kinds that can change what the modules after them cost.
_CAUSES = {
    "added", "removed", "type", "changed", "split", "merged", "reshaped", "transposed", "repeated",
    "wrapped", "unwrapped", "exchanged", "moved",
}  # fmt: skip
# Changes that leave all shapes alone.
_NO_CAUSE = (".trainable", ".persistent", ".dtype", "trainable", "dtype")


@dataclass(kw_only=True, slots=True, eq=False)
class Draft:
    """One edit, and the modules whose change of cost is its own.

    Attributes:
        edit: without costs.
        position: of the place in the new model, by which edits are sorted.
        old: modules of the old model.
        new: modules of the new model.
    """

    edit: Edit
    position: float
    old: tuple[Node, ...] = ()
    new: tuple[Node, ...] = ()

    @property
    def is_cause(self) -> bool:
        """Whether it can change what other modules cost."""
        return self.edit.kind in _CAUSES and not self.edit.field.endswith(_NO_CAUSE)


def draft_of_pair(kind: EditKind, a: Node, b: Node, **fields: Any) -> Draft:
    """An edit of a module that both models have."""
    fields = {"type": b.type, **fields}
    edit = Edit(kind=kind, old=a.path, new=b.path, source=source_of(b), **fields)
    return Draft(edit=edit, position=b.position, old=(a,), new=(b,))


def source_of(node: Node) -> str:
    """The line where the user finds the module: its class, or the call of a class of torch."""
    record = node.record
    # the code of torch itself is no place to look at; an empty call is unknown
    return record.call if record.source.startswith("torch/") else record.source


def position_of_removed(found: Matching, node: Node) -> float:
    """Where the old module would stand in the new model: behind what stood before it."""
    if node.parent is None:
        return -0.5
    before: Iterable[Node] = [c for c in node.parent.children if c.position < node.position]
    for sibling in reversed(list(before)):
        if sibling in found.pairs:
            return max(each.position for each in found.pairs[sibling].subtree()) + 0.5
    parent = found.pairs.get(node.parent)
    return parent.position + 0.5 if parent else position_of_removed(found, node.parent)
