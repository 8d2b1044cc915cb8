"""Layers: parameters, shapes, cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.sections.layers.metrics import (
    comparable_of,
    counts_of,
    files_of,
    methods_of,
    metrics_of,
)
from reportgen.sections.layers.page import FILTERS
from reportgen.sections.layers.result import (
    ExecutedVia,
    Experts,
    Failure,
    ForwardBackwardCost,
    Layer,
    Layers,
    LayerTime,
    PassTime,
    Roofline,
    TorchinfoTotals,
    Uncounted,
    Unregistered,
)
from reportgen.sections.layers.rules import RULES
from reportgen.sections.section import Section

if TYPE_CHECKING:
    from reportgen.context import ModelContext, OnnxFileContext

__all__ = [
    "SECTION",
    "ExecutedVia",
    "Experts",
    "Failure",
    "ForwardBackwardCost",
    "Layer",
    "LayerTime",
    "Layers",
    "PassTime",
    "Roofline",
    "TorchinfoTotals",
    "Uncounted",
    "Unregistered",
    "analyze",
    "analyze_forward",
]


def analyze(context: ModelContext) -> Layers:
    """The layers of a model and the cost of one forward pass; writes the two tables.

    If the forward pass fails, the tables end there, and `Layers.failure` says why.

    Raises:
        SectionError: the shapes of lazy layers are unknown, or a model on the meta device
            needs values.
    """
    from reportgen.sections.layers.analysis import LayersAnalysis  # torch only from here on

    return LayersAnalysis(context).result()


def analyze_forward(context: ModelContext) -> Layers:
    """The layers and the cost of a forward pass alone, quickly and without files.

    Without the backward pass, torchinfo's figures and checks of the stored values.

    Raises:
        SectionError: as for `analyze`.
    """
    from reportgen.sections.layers.analysis import LayersAnalysis  # torch only from here on

    return LayersAnalysis(context, forward_only=True).layers()


def analyze_file(context: OnnxFileContext) -> Layers:
    """The nodes of an ONNX file and their cost; writes the two tables."""
    from reportgen.sections.layers.onnx_layers import analyze_onnx, summary_text
    from reportgen.sections.layers.tables import layers_csv

    result = analyze_onnx(context)
    context.write(result.table_file, layers_csv(result.layers))
    context.write(result.summary_file, summary_text(result))
    return result


SECTION = Section(
    name="layers",
    title="Layers",
    result=Layers,
    analyze=analyze,
    imports=("reportgen.sections.layers.analysis", "torchinfo"),
    share=lambda context: context.torchinfo(),
    analyze_file=analyze_file,
    reads=frozenset({"targets", "threads"}),
    rules=RULES,
    metrics=metrics_of,
    methods=methods_of,
    counts=counts_of,
    comparable=comparable_of,
    files=files_of,
    filters=FILTERS,
)
