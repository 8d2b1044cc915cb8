"""Graphs: the modules, autograd and the ONNX graph as drawings."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from reportgen.context import Context
from reportgen.sections.graphs.analysis import (
    analyze,
    analyze_file,
    complete_graphs,
    facts_of_file,
)
from reportgen.sections.graphs.complete.onnx_facts import OnnxFacts
from reportgen.sections.graphs.complete.stored import unpack_graph
from reportgen.sections.graphs.result import (
    Drawing,
    Graphs,
    Tile,
    comparable_of,
    files_of,
    print_files_of,
)
from reportgen.sections.graphs.rules import RULES
from reportgen.sections.section import Section
from reportgen.viewer.page_data import data_block, graph_data

__all__ = ["SECTION", "Drawing", "Graphs", "Tile", "analyze", "complete_graphs", "file_data"]


def sentence_case(text: str) -> str:
    """The text with an upper-case first letter; the rest is unchanged."""
    return text[:1].upper() + text[1:]


def viewer_data(result: Graphs) -> Markup:
    """The complete graphs and their layouts, for the scripts of the page."""
    graphs = graph_data(map(unpack_graph, result.complete), result.layouts)
    for graph in graphs:
        if graph["name"] == "onnx" and result.onnx_facts is not None:
            graph["file"] = _facts_data(result.onnx_facts)
    return data_block("graph-data", graphs)


def file_data(context: Context) -> dict[str, Any]:
    """What the viewer shows of the context's ONNX file besides its graph."""
    return _facts_data(facts_of_file(context))


def _facts_data(facts: OnnxFacts) -> dict[str, Any]:
    """As `FileFacts` in `templates/viewer/data.js` has it."""
    return {
        "properties": facts.properties,
        "tensors": [
            [
                *(each.name, each.dtype, each.shape, each.bytes, each.external),
                *(each.statistics, each.zeros, each.bins, each.sampled),
            ]
            for each in facts.tensors
        ],
        "names": facts.names,
        "inputs": facts.inputs,
        "outputs": facts.outputs,
        "formal": facts.formal,
        "versions": facts.versions,
        "metadata": facts.metadata,
        "classes": facts.classes,
    }


SECTION = Section(
    name="graphs",
    title="Graphs",
    result=Graphs,
    analyze=analyze,
    # torch and sympy import these when the exporter runs
    imports=(
        "reportgen.onnx.export",
        "torch.export._trace",
        "torch.onnx._internal.exporter._compat",
        "onnxscript.function_libs.torch_lib.ops",
        "sympy.tensor.tensor",
    ),
    exports=True,
    analyze_file=analyze_file,
    rules=RULES,
    comparable=comparable_of,
    files=files_of,
    print_files=print_files_of,
    reads=frozenset({"name", "loss", "onnx.opset", "onnx.dynamic", "threads"}),
    filters={"sentence_case": sentence_case, "viewer_data": viewer_data},
)
