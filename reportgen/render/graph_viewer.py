"""The graph viewer of a page: its scripts, and what the page adds to a section's graphs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from markupsafe import Markup

from reportgen.comparable import Graph, ModuleRecord, joined
from reportgen.fonts import templates_dir
from reportgen.outcome import Done
from reportgen.render.changes import Changes
from reportgen.report import ModelReport
from reportgen.sections import SECTIONS
from reportgen.viewer.layout import GraphLayout
from reportgen.viewer.page_data import data_block, graph_data, module_data

# each uses what stands before it
_SCRIPTS = (
    "elements", "icons", "data", "compose", "colors", "scene", "view", "search", "paths", "tables",
    "minimap", "export", "links", "keyboard", "card", "tools", "state", "viewer", "main",
)  # fmt: skip
_COMMENT = re.compile(r"[ \t]*/\*\*.*?\*/|(?:^|[ \t])//[^\n]*$", re.DOTALL | re.MULTILINE)
_INDENT = re.compile(r"^\s+|\s+$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewerParts:
    """What a page needs: the loader runs the script, whose hash the page's policy names."""

    loader: Markup
    script: str
    blocks: Markup


def viewer_parts(model: ModelReport, bodies: Mapping[str, Markup]) -> ViewerParts | None:
    """The parts of a model's page; None if no section has graphs."""
    if not any('id="graph-data"' in body for body in bodies.values()):
        return None
    return _parts(data_block("module-data", _page_data(model)))


def parts_of_graphs(
    graphs: Sequence[Graph],
    layouts: Sequence[GraphLayout],
    modules: Iterable[ModuleRecord],
    file: Mapping[str, Any] | None,
) -> ViewerParts:
    """The parts of a page that has nothing but the viewer."""
    data = graph_data(graphs, layouts)
    for graph in data:
        if graph["name"] == "onnx" and file is not None:
            graph["file"] = file
    page = {"modules": module_data(modules), "findings": [], "figures": {}, "remarks": []}
    blocks = data_block("graph-data", data)
    return _parts(blocks + data_block("module-data", page))


def parts_of_changes(changes: Changes | None) -> ViewerParts | None:
    """The parts of a page about two reports; None if no graph changed."""
    if changes is None or not changes.views:
        return None
    several = len({name for name, _ in changes.views}) > 1
    data = []
    for name, view in changes.views:
        (graph,) = graph_data([view.graph], view.layouts)
        graph |= {"marks": view.marks, "notes": view.notes, "facts": module_data(view.modules)}
        data.append(graph | ({"name": f"{name}: {view.graph.name}"} if several else {}))
    page: dict[str, Any] = {"modules": [], "findings": [], "figures": {}, "remarks": []}
    return _parts(data_block("graph-data", data) + data_block("module-data", page))


def _parts(blocks: Markup) -> ViewerParts:
    script = viewer_script()
    return ViewerParts(
        loader=Markup(_source("loader").strip()),  # noqa: S704 - our own
        script=script,
        blocks=data_block("viewer-code", [["style", viewer_style()], ["script", script]]) + blocks,
    )


@cache
def viewer_script() -> str:
    """The scripts of the viewer as one, without comments."""
    text = "\n".join(map(_source, _SCRIPTS))
    return f'(() => {{\n"use strict";\n{text}\n}})();\n'


def _source(name: str) -> str:
    """One script without comments and indentation."""
    text = (templates_dir() / f"viewer/{name}.js").read_text(encoding="utf-8")
    return _INDENT.sub("", _COMMENT.sub("", text))


@cache
def viewer_style() -> str:
    """The style sheet of the viewer, without comments."""
    text = (templates_dir() / "viewer.css").read_text(encoding="utf-8")
    plain = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"\s*([{};,])\s*", r"\1", re.sub(r"\s+", " ", plain)).strip()


def _page_data(model: ModelReport) -> dict[str, Any]:
    results = {s.name: s.outcome.result for s in model.sections if isinstance(s.outcome, Done)}
    offered = joined(s.comparable(results[s.name]) for s in SECTIONS if s.name in results)
    return {
        "modules": module_data(offered.modules),
        "findings": _findings(model),
        "figures": {
            figure.key: {
                "label": figure.label,
                "unit": figure.unit,
                "logarithmic": figure.logarithmic,
                "values": dict(figure.values),
            }
            for figure in offered.module_figures
        },
        "remarks": [asdict(remark) for remark in offered.remarks],
    }


def _findings(model: ModelReport) -> Iterable[dict[str, str]]:
    return [
        {"code": finding.code, "where": finding.where, "message": finding.message}
        for finding in model.findings
        if finding.where
    ]
