"""`reportgen graph`: one graph of one model as a picture, a page or DOT."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reportgen.comparable import Graph, ModuleRecord
from reportgen.drawing.collapse import readable, with_ports
from reportgen.drawing.dot import LayoutError, dot_text, graphviz
from reportgen.drawing.graph import DrawnGraph
from reportgen.drawing.svg import picture
from reportgen.errors import OutputError, ReportgenError
from reportgen.manifest import InputSpec, ModelSpec, parse_source
from reportgen.outcome import Skipped
from reportgen.render import render_graphs
from reportgen.sections.graphs import complete_graphs, file_data
from reportgen.sections.layers import SECTION as LAYERS
from reportgen.viewer.drawn import drawn_graph, focused
from reportgen.viewer.layout import graph_layouts
from reportgen.workers.child import load_context
from reportgen.workers.job import Job
from reportgen.workers.limits import machine_memory

Kind = Literal["modules", "autograd", "onnx"]
FORMATS = ("svg", "pdf", "png", "html", "dot")
_BOXES = 60  # of a picture without --depth
_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphRequest:
    """What to draw.

    Attributes:
        source: as in a manifest.
        inputs: () to derive them from the model.
        kind: None for the module graph, or of an ONNX file its own.
        depth: clusters nested deeper are closed; None for as many boxes as a reader can take in.
        focus: path of the module to show alone; "" for all.
    """

    source: str
    inputs: tuple[InputSpec, ...] = ()
    kind: Kind | None = None
    depth: int | None = None
    focus: str = ""


def write_graph(request: GraphRequest, output: Path) -> None:
    """Write the graph to `output`, whose suffix is the format.

    Raises:
        ReportgenError: the format, the source, an input or the part to show is invalid, or
            graphviz does not lay the graph out.
    """
    format_ = output.suffix.lower().removeprefix(".")
    if format_ not in FORMATS:
        raise ReportgenError(
            f"cannot write {output.name!r}: unknown format",
            hint=f"end --output with {', '.join(f'.{each}' for each in FORMATS)}",
        )
    with tempfile.TemporaryDirectory(prefix="reportgen-graph-") as folder:
        context = _load(request, Path(folder))
        graph = _graph(context, request)
        is_page = format_ == "html"
        modules = _modules(context) if is_page else ()
        # a part has other nodes than the file
        file = (
            file_data(context) if is_page and graph.name == "onnx" and not request.focus else None
        )
    if request.focus:
        graph = focused(graph, request.focus)
    if is_page:
        title = f"{request.source}: {graph.name} graph"
        page = render_graphs(
            title, [graph], graph_layouts(graph), modules, file=file, depth=request.depth
        )
        _write(output, page.encode("utf-8"))
        return
    types = _types(context)
    drawn = drawn_graph(graph, types, depth=request.depth)
    if request.depth is None:
        drawn = readable(drawn, _BOXES)
    _write(output, _drawing(with_ports(drawn), format_, request.source))


def _write(output: Path, content: bytes) -> None:
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(output)  # whole or not at all
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise OutputError(
            f"cannot write {output}: {error.strerror}", hint="choose another file with --output"
        ) from error


def _load(request: GraphRequest, folder: Path) -> Any:
    source = parse_source(request.source, Path.cwd())
    spec = ModelSpec(name="model", source=source, inputs=request.inputs)
    return load_context(
        Job(
            spec=spec,
            targets=(),
            sections=("graphs",),
            folder=folder,
            seconds=_SECONDS,
            memory_bytes=machine_memory(),
            threads=os.cpu_count() or 1,
            timings=False,
        )
    )


def _graph(context: Any, request: GraphRequest) -> Graph:
    wanted = request.kind or ("modules" if hasattr(context, "model") else "onnx")
    graphs = {graph.name: graph for graph in complete_graphs(context, wanted)}
    if wanted not in graphs:
        raise ReportgenError(
            f"{request.source} has no {wanted} graph",
            hint=f"use --kind {' or '.join(graphs)}" if graphs else "use --kind modules",
        )
    return graphs[wanted]


def _types(context: Any) -> Mapping[str, str]:
    model = getattr(context, "model", None)
    return {p: type(m).__name__ for p, m in model.named_modules()} if model is not None else {}


def _modules(context: Any) -> tuple[ModuleRecord, ...]:
    if not hasattr(context, "model"):
        return ()
    layers = LAYERS.analyze(context)
    return () if isinstance(layers, Skipped) else LAYERS.comparable(layers).modules


def _drawing(graph: DrawnGraph, format_: str, label: str) -> bytes:
    prefix = "graph-"
    text = dot_text(graph, prefix=prefix)
    if format_ == "dot":
        return text.encode("utf-8")
    with graphviz() as programs:
        try:
            if format_ == "png":
                return programs.png(text, seconds=_SECONDS)
            laid = programs.lay_out(text, seconds=_SECONDS)
        except LayoutError as error:
            raise ReportgenError(
                f"{error} for {graph.size} boxes",
                hint="use a smaller --depth, --focus PATH, or --output with .html",
            ) from error
    if format_ == "pdf":
        return laid.pdf
    return picture(laid.svg, graph, prefix=prefix, label=label).svg.encode("utf-8")
