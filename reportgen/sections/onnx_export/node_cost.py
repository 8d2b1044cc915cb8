"""The multiply-adds of an exported file, an independent count of its model's."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from reportgen.onnx_nodes import Nodes, read_nodes
from reportgen.sections.onnx_export.result import NodeCost

if TYPE_CHECKING:
    from reportgen.export import OnnxFile
    from reportgen.study import Study


def cost_of_export(study: Study, file: OnnxFile) -> NodeCost:
    """The cost at the manifest's batch, or at the one that the file is made for."""
    batch = file.batch or study.batch
    return cost_of_nodes(read_nodes(file.path, {**study.spec.dims, "batch": batch}), batch)


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
