"""The result of the graphs section."""

from __future__ import annotations

from dataclasses import dataclass, field

from reportgen.comparable import Comparable
from reportgen.sections.graphs.complete.onnx_facts import OnnxFacts
from reportgen.sections.graphs.complete.stored import StoredGraph, unpack_graph
from reportgen.sections.graphs.roles import ModuleRole
from reportgen.viewer.layout import GraphLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One printed page of a drawing: a vector PDF beside the SVG.

    Attributes:
        pdf: file, relative to the model's folder; used for printing, not published.
        caption: `overview` or `part 1 of 3`.
        neighbors: numbers of the parts in which the drawing continues, by side: `{"below": 2}`.
    """

    pdf: str
    caption: str
    neighbors: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """One drawn graph, or the reason why there is none."""

    svg: str | None  # file, relative to the model's folder: "graphs/modules.svg"
    nodes: int  # drawn
    edges: int
    collapsed: bool  # some nodes are merged into one box
    total_nodes: int  # before collapsing
    width_points: float
    height_points: float
    tiles: tuple[Tile, ...]  # overview first
    note: str  # how to read the drawing, or why there is none; may be ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graphs:
    """The drawings of one model, and its complete graphs as data, those that exist."""

    modules: Drawing
    autograd: Drawing
    onnx: Drawing
    complete: tuple[StoredGraph, ...] = ()
    layouts: tuple[GraphLayout, ...] = ()  # of the complete graphs, for the viewer
    onnx_facts: OnnxFacts | None = None  # of the nodes of the complete graph
    roles: tuple[ModuleRole, ...] = ()  # of the modules of torch.nn that ran
    loss: str = ""  # as in the manifest


def missing(reason: str) -> Drawing:
    """A missing drawing with the reason."""
    return Drawing(
        svg=None,
        nodes=0,
        edges=0,
        collapsed=False,
        total_nodes=0,
        width_points=0.0,
        height_points=0.0,
        tiles=(),
        note=reason,
    )


def files_of(result: Graphs) -> tuple[str, ...]:
    """The files of the drawings."""
    return tuple(drawing.svg for drawing in _drawings(result) if drawing.svg is not None)


def print_files_of(result: Graphs) -> tuple[str, ...]:
    """The printed pages of the drawings."""
    return tuple(tile.pdf for drawing in _drawings(result) for tile in drawing.tiles)


def _drawings(result: Graphs) -> tuple[Drawing, ...]:
    return result.modules, result.autograd, result.onnx


def comparable_of(result: Graphs) -> Comparable:
    """The complete graphs."""
    return Comparable(graphs=tuple(map(unpack_graph, result.complete)))
