"""The multiply-adds of an exported file, an independent count of its model's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reportgen.onnx.model import Nodes, read_nodes
from reportgen.onnx.runtime import feed_for
from reportgen.sections.onnx.parity.case import call_tensors
from reportgen.sections.onnx.result import NodeCost

if TYPE_CHECKING:
    from reportgen.context import ModelContext
    from reportgen.onnx.export import OnnxFile
    from reportgen.onnx.runtime import Feed


def cost_of_export(context: ModelContext, file: OnnxFile, inputs: Sequence[str]) -> NodeCost:
    """The cost at the manifest's batch, or at the one that the file is made for.

    `inputs` are the names of the file's inputs, in its order. The model is lent as it was
    exported, since a run of the file, where shapes can be had by nothing else, takes its inputs.
    """
    batch = file.batch or context.batch

    def feed() -> Feed:
        return feed_for(inputs, call_tensors(context, context.examples(batch)))

    sizes = {**context.spec.dims, "batch": batch}
    nodes = read_nodes(file.path, sizes, None if file.structure_only else feed)
    return cost_of_nodes(nodes, batch)


def cost_of_nodes(nodes: Nodes, batch: int) -> NodeCost:
    """The cost of `nodes`, whose shapes are those of `batch` samples."""
    modules: Counter[str] = Counter()
    for node in nodes.nodes:
        if node.macs:
            modules[node.module] += node.macs
    return NodeCost(
        batch=batch,
        macs=nodes.macs,
        uncounted=dict(sorted(nodes.uncounted.items())),
        modules=dict(sorted(modules.items())),
    )
