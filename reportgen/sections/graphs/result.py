"""What the graphs section says of one model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One printed page of a drawing: a vector PDF beside the SVG."""

    pdf: str  # file, relative to the model's folder; used for printing, not published
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """One graph as drawn, or the reason why it is not there."""

    svg: str | None  # file, relative to the model's folder: "graphs/modules.svg"
    nodes: int  # drawn
    edges: int
    collapsed: bool  # some modules are drawn as one box
    total_nodes: int  # before collapsing
    width_points: float
    height_points: float
    tiles: tuple[Tile, ...]  # overview first
    note: str  # what was collapsed, or why there is no drawing; "" for neither


@dataclass(frozen=True, kw_only=True, slots=True)
class Graphs:
    """The drawings of one model."""

    modules: Drawing
    autograd: Drawing
    onnx: Drawing


def missing(reason: str) -> Drawing:
    """A drawing that is not there, and why."""
    return Drawing(svg=None, nodes=0, edges=0, collapsed=False, total_nodes=0, width_points=0.0,
                   height_points=0.0, tiles=(), note=reason)  # fmt: skip


def files_of(result: Graphs) -> tuple[str, ...]:
    """The drawings that could be made."""
    drawings = (result.modules, result.autograd, result.onnx)
    return tuple(drawing.svg for drawing in drawings if drawing.svg is not None)
