"""From a graph to its files: an SVG for the page, a few PDF pages for print, in bounded time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reportgen.sections.graphs import print_pages
from reportgen.sections.graphs.collapse import readable
from reportgen.sections.graphs.dot import dot_text
from reportgen.sections.graphs.edge_ports import with_ports
from reportgen.sections.graphs.graph import DrawnGraph, GraphMember
from reportgen.sections.graphs.graphviz_runner import (
    Deadline,
    Graphviz,
    GraphvizLayout,
    LayoutError,
)
from reportgen.sections.graphs.result import Drawing, Tile, missing
from reportgen.sections.graphs.svg import SvgPicture, picture

BOXES = 60  # that one picture may hold and still be read
SECONDS = 20.0  # for all layouts of one drawing
_COARSER = (40, 30, 22, 16, 10)  # boxes of the overview, until it can be read on one page


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attempt:
    boxes: int
    seconds: float
    engine: str = "dot"
    attributes: str = ""
    bearable: int = 6  # long edges


_QUICK = "nslimit=2 nslimit1=2 mclimit=0.1"
_ATTEMPTS = (
    _Attempt(boxes=BOXES, seconds=6),
    _Attempt(boxes=BOXES, seconds=4, attributes=_QUICK, bearable=0),
    _Attempt(boxes=BOXES // 2, seconds=4, attributes=f"{_QUICK} splines=line", bearable=0),
    _Attempt(boxes=BOXES // 3, seconds=3, engine="sfdp", attributes="overlap=prism"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawer:
    """Draws graphs into one model's folder.

    Attributes:
        graphviz: lays the graphs out.
        write: writes bytes to a file below the model's folder and returns its name.
        subject: the model's name, for labels.
        seconds: for all layouts of one drawing.
    """

    graphviz: Graphviz
    write: Callable[[str, bytes], str]
    subject: str
    seconds: float = SECONDS

    def draw(
        self, graph: DrawnGraph, *, name: str, title: str, note: str = "", total: int | None = None
    ) -> Drawing:
        """Draw `graph`, made of `total` nodes, as `graphs/NAME.svg` and its printed pages."""
        deadline = Deadline(self.seconds)
        prefix, label = f"{name}-", f"{title} of {self.subject}"
        found = self._first(graph, prefix, label, deadline)
        if found is None:
            return missing(f"graphviz did not lay this graph out within {self.seconds:g} s")
        small, laid, shown = found
        total = graph.size if total is None else total
        return Drawing(
            svg=self.write(f"graphs/{name}.svg", shown.svg.encode("utf-8")),
            nodes=small.size,
            edges=len(small.edges) + len(small.loops),
            collapsed=small.size < total,
            total_nodes=total,
            width_points=shown.width,
            height_points=shown.height,
            tiles=self._tiles(graph, laid, shown, name, label, deadline),
            note="; ".join(filter(None, (note, *_remarks(small)))),
        )

    def _first(
        self, graph: DrawnGraph, prefix: str, label: str, deadline: Deadline
    ) -> tuple[DrawnGraph, GraphvizLayout, SvgPicture] | None:
        """The first attempt that ends in time; each is coarser than the one before."""
        for attempt in _ATTEMPTS:
            small = readable(graph, attempt.boxes)
            shown = with_ports(small, bearable=attempt.bearable)
            text = dot_text(shown, prefix=prefix, attributes=attempt.attributes)
            try:
                laid = self.graphviz.lay_out(
                    text, seconds=deadline.left(attempt.seconds), engine=attempt.engine
                )
            except LayoutError:
                continue
            return small, laid, picture(laid.svg, shown, prefix=prefix, label=label)
        return None

    def _tiles(
        self,
        graph: DrawnGraph,
        laid: GraphvizLayout,
        shown: SvgPicture,
        name: str,
        label: str,
        deadline: Deadline,
    ) -> tuple[Tile, ...]:
        parts = _printed(laid, shown, pages=print_pages.MOST_TILES - 1)
        coarser = (boxes for boxes in _COARSER if boxes < graph.size)
        whole = parts if len(parts) == 1 else []
        for boxes in coarser if not whole else ():
            attempt = self._coarse(graph, boxes, name, label, deadline)
            if attempt is None:
                continue
            parts = parts or _printed(*attempt, pages=print_pages.MOST_TILES - 1)
            whole = _printed(*attempt, pages=1)
            if whole:
                break
        if parts == whole or not parts:
            printed, captions = whole, ["overview"] * len(whole)
        else:
            printed = [*whole, *parts]
            captions = ["overview"] * len(whole)
            captions += [f"part {n} of {len(parts)}" for n in range(1, len(parts) + 1)]
        return tuple(
            Tile(pdf=self.write(f"graphs/{name}-{number}.pdf", page), caption=caption)
            for number, (page, caption) in enumerate(zip(printed, captions, strict=True), start=1)
        )

    def _coarse(
        self, graph: DrawnGraph, boxes: int, name: str, label: str, deadline: Deadline
    ) -> tuple[GraphvizLayout, SvgPicture] | None:
        """The graph in fewer boxes, laid out; None where that takes too long."""
        small = with_ports(readable(graph, boxes))
        text = dot_text(small, prefix=f"{name}-", attributes=_QUICK)
        try:
            laid = self.graphviz.lay_out(text, seconds=deadline.left(3))
        except LayoutError:
            return None
        return laid, picture(laid.svg, small, prefix=f"{name}-", label=label)


def _printed(laid: GraphvizLayout, shown: SvgPicture, *, pages: int) -> list[bytes]:
    """The picture on at most so many pages; none where that cannot be read."""
    plan = print_pages.plan(shown, pages=pages)
    return list(print_pages.pages(laid.pdf, shown, plan)) if plan is not None else []


def _remarks(graph: DrawnGraph) -> list[str]:
    """How to read what was collapsed."""
    members: list[GraphMember] = [*graph.root.nodes(), *graph.root.groups()]
    remarks = []
    if any(member.repeat > 1 for member in members):
        remarks.append("equal neighbors are drawn once as × n")
    if graph.loops:
        remarks.append("a dashed arrow leads from one repeat into the next")
    return remarks


def file_writer(folder: Path) -> Callable[[str, bytes], str]:
    """A function that writes bytes to a file below `folder`, making its folders."""

    def write(file: str, content: bytes) -> str:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return file

    return write
