"""Graph drawings as files: an SVG for the page and at most six PDF pages for print."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reportgen.drawing.collapse import MAX_LONG_EDGES, readable, with_ports
from reportgen.drawing.dot import (
    LINE_POINTS,
    Deadline,
    Graphviz,
    GraphvizLayout,
    LayoutError,
    dot_text,
)
from reportgen.drawing.graph import DrawnGraph, GraphMember
from reportgen.drawing.svg import SvgBox, SvgPicture, picture
from reportgen.error_text import LIMIT_EVENT
from reportgen.sections.graphs.result import Drawing, Tile, missing

BOXES = 60  # more boxes in one picture are unreadable
SECONDS = 20.0  # for all layouts of one drawing
_COARSER = (40, 30, 22, 16, 10)  # boxes of the overview; the first that fits one page is used


@dataclass(frozen=True, kw_only=True, slots=True)
class _LayoutAttempt:
    boxes: int
    seconds: float
    engine: str = "dot"
    attributes: str = ""
    max_long_edges: int = MAX_LONG_EDGES


# bounds on dot's network simplex, unbounded by default, and on its crossing reduction
_QUICK = "nslimit=2 nslimit1=2 mclimit=0.1"
# 17 s together, which leaves 3 of SECONDS for an overview in print
_ATTEMPTS = (
    _LayoutAttempt(boxes=BOXES, seconds=6),
    _LayoutAttempt(boxes=BOXES, seconds=4, attributes=_QUICK, max_long_edges=0),
    _LayoutAttempt(
        boxes=BOXES // 2, seconds=4, attributes=f"{_QUICK} splines=line", max_long_edges=0
    ),
    # force-directed: no ranks to optimize, and prism moves overlapping boxes apart
    _LayoutAttempt(boxes=BOXES // 3, seconds=3, engine="sfdp", attributes="overlap=prism"),
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
            sys.audit(LIMIT_EVENT, "time")  # a faster machine may draw it: not cached
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

    def picture(self, graph: DrawnGraph, *, name: str, title: str) -> SvgPicture | None:
        """`graph` as one SVG that is not written; None if it was not laid out in time."""
        found = self._first(graph, f"{name}-", f"{title} of {self.subject}", Deadline(self.seconds))
        return found[2] if found else None

    def _first(
        self, graph: DrawnGraph, prefix: str, label: str, deadline: Deadline
    ) -> tuple[DrawnGraph, GraphvizLayout, SvgPicture] | None:
        """The first layout that finishes in time; each attempt is coarser than the one before."""
        for attempt in _ATTEMPTS:
            small = readable(graph, attempt.boxes)
            shown = with_ports(small, max_long_edges=attempt.max_long_edges)
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
        # one page less, for the overview
        parts = _printed(laid, shown, pages=MOST_TILES - 1)
        coarser = (boxes for boxes in _COARSER if boxes < graph.size)
        whole = parts if len(parts) == 1 else []
        for boxes in coarser if not whole else ():
            attempt = self._coarse(graph, boxes, name, label, deadline)
            if attempt is None:
                continue
            parts = parts or _printed(*attempt, pages=MOST_TILES - 1)
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
        small = with_ports(readable(graph, boxes))
        text = dot_text(small, prefix=f"{name}-", attributes=_QUICK)
        try:
            laid = self.graphviz.lay_out(text, seconds=deadline.left(3))
        except LayoutError:
            return None
        return laid, picture(laid.svg, small, prefix=f"{name}-", label=label)


def _printed(laid: GraphvizLayout, shown: SvgPicture, *, pages: int) -> list[bytes]:
    """The picture on at most `pages` pages; [] if the text would be too small to read."""
    plan = plan_pages(shown, pages=pages)
    return list(page_pdfs(laid.pdf, shown, plan)) if plan is not None else []


def _remarks(graph: DrawnGraph) -> list[str]:
    members: list[GraphMember] = [*graph.root.nodes(), *graph.root.groups()]
    remarks = []
    if any(member.repeat > 1 for member in members):
        remarks.append("equal neighbors are drawn once as × n")
    if graph.loops:
        remarks.append("a dashed arrow leads from one repeat into the next")
    return remarks


def file_writer(folder: Path) -> Callable[[str, bytes], str]:
    """A function that writes bytes to a file below `folder` and creates missing folders."""

    def write(file: str, content: bytes) -> str:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return file

    return write


SMALLEST_TEXT_POINTS = 5.5
MOST_TILES = 6

# Usable points of an A4 page without margins, running heads and a heading.
# CSS shrinks a larger tile.
_LONG, _SHORT, _HEADING = 668.0, 483.0, 26.0
_LANDSCAPE_FROM = 610.0  # CSS rotates a page this wide instead of shrinking it
_GAP = 20.0  # between columns
_OVERLAP = 6.0  # shown on both sides of a cut
_SMALLEST_SCALE = SMALLEST_TEXT_POINTS / LINE_POINTS
_SCALES = tuple(1 - step / 50 for step in range(18) if 1 - step / 50 >= _SMALLEST_SCALE)


@dataclass(frozen=True, kw_only=True, slots=True)
class PageStrip:
    """A piece of a drawing between two heights, in points from its upper edge."""

    top: float
    bottom: float

    @property
    def height(self) -> float:
        """Its height in points of the drawing."""
        return self.bottom - self.top


@dataclass(frozen=True, kw_only=True, slots=True)
class PagePlan:
    """How a drawing is cut: the scale, the strips, and how many strips stand side by side."""

    scale: float
    strips: tuple[PageStrip, ...]
    columns: int

    @property
    def pages(self) -> list[tuple[PageStrip, ...]]:
        """The strips of each page."""
        return [self.strips[i : i + self.columns] for i in range(0, len(self.strips), self.columns)]


def plan_pages(picture: SvgPicture, *, pages: int) -> PagePlan | None:
    """The plan with the fewest readable pages and, on these, the largest scale.

    None if more than `pages` pages are needed.
    """
    for number in range(1, pages + 1):
        for scale in _SCALES:
            for width, height in ((_SHORT, _LONG - _HEADING), (_LONG, _SHORT - _HEADING)):
                found = _plan(picture, scale, width, height)
                if found is not None and len(found.pages) <= number:
                    return found
    return None


def _plan(picture: SvgPicture, scale: float, width: float, height: float) -> PagePlan | None:
    columns = int((width + _GAP) / (picture.width * scale + _GAP))
    strips = _strips(picture, height / scale) if columns else None
    if strips is None:
        return None
    return PagePlan(scale=scale, strips=strips, columns=columns)


def _strips(picture: SvgPicture, longest: float) -> tuple[PageStrip, ...] | None:
    """The drawing cut between boxes into pieces of at most `longest` points; None if impossible."""
    cuts = _gaps(picture.boxes)
    strips: list[PageStrip] = []
    top = 0.0
    while picture.height - top > longest - _OVERLAP:
        # the overlap is added on both sides of a strip
        fitting = [cut for cut in cuts if top + 1 < cut <= top + longest - 2 * _OVERLAP]
        if not fitting:
            return None
        strips.append(PageStrip(top=max(top - _OVERLAP, 0.0), bottom=fitting[-1] + _OVERLAP))
        top = fitting[-1]
    return (*strips, PageStrip(top=max(top - _OVERLAP, 0.0), bottom=picture.height))


def _gaps(boxes: tuple[SvgBox, ...]) -> list[float]:
    """Heights at which a horizontal cut crosses no box: the middle of each gap."""
    gaps: list[float] = []
    lowest: float | None = None
    for box in sorted(boxes, key=lambda box: box.top):
        if lowest is not None and box.top > lowest:
            gaps.append((lowest + box.top) / 2)
        lowest = box.bottom if lowest is None else max(lowest, box.bottom)
    return gaps


def page_pdfs(pdf: bytes, picture: SvgPicture, plan: PagePlan) -> Iterator[bytes]:
    """One single-page PDF per page of the plan, cropped to its content."""
    for strips in plan.pages:
        yield _page(pdf, picture, plan.scale, strips)


def _page(pdf: bytes, picture: SvgPicture, scale: float, strips: tuple[PageStrip, ...]) -> bytes:
    import pikepdf

    with pikepdf.open(io.BytesIO(pdf)) as document:
        page = document.pages[0]
        up = float(page.mediabox[3])  # PDF measures upwards, the SVG downwards
        step = picture.width * scale + _GAP
        height = max(strip.height for strip in strips) * scale
        forms = pikepdf.Dictionary()
        content: list[str] = []
        for number, strip in enumerate(strips):
            lower, upper = up - strip.bottom, up - strip.top
            forms[f"/Strip{number}"] = _form(document, page, lower, upper)
            x, y = number * step, height - upper * scale
            content.append(f"q {scale:.4f} 0 0 {scale:.4f} {x:.3f} {y:.3f} cm /Strip{number} Do Q")
            right = x + picture.width * scale
            content.extend(_mark(x, right, y + edge * scale) for edge in _cuts(strip, picture, up))
        width = _page_width(len(strips) * step - _GAP, scale)
        new = pikepdf.Dictionary(
            Type=pikepdf.Name.Page,
            MediaBox=[0, 0, round(width, 2), round(height, 2)],
            Resources=pikepdf.Dictionary(XObject=forms),
            Contents=document.make_stream("\n".join(content).encode("ascii")),
        )
        document.pages.append(pikepdf.Page(new))
        del document.pages[0]
        return _saved(document)


def _page_width(width: float, scale: float) -> float:
    # widened to landscape if shrinking to the text width made the text unreadable
    shrunk = scale * _SHORT / width
    return width if width <= _SHORT or shrunk >= _SMALLEST_SCALE else max(width, _LANDSCAPE_FROM)


def _cuts(strip: PageStrip, picture: SvgPicture, up: float) -> list[float]:
    """Heights of the strip's edges at which the drawing continues, in points from the bottom."""
    edges = [up - strip.top] if strip.top > 0 else []
    return edges + ([up - strip.bottom] if strip.bottom < picture.height else [])


def _mark(left: float, right: float, y: float) -> str:
    # a dotted line distinguishes a cut from the end of the graph
    return f"q 0.6 G 0.6 w [1 2] 0 d {left:.2f} {y:.2f} m {right:.2f} {y:.2f} l S Q"


def _form(document: Any, page: Any, lower: float, upper: float) -> Any:
    """The page between two heights as a form XObject."""
    # a BBox only hides text outside; it is removed, so that a search finds each label once
    import pikepdf

    up = float(page.mediabox[3])
    kept: list[Any] = []
    inside = True
    for instruction in pikepdf.parse_content_stream(page):
        name = str(instruction.operator)
        if name == "Tm":  # in graphviz's PDF y grows downwards
            inside = lower <= up - float(instruction.operands[5]) <= upper
        if inside or name not in ("Tj", "TJ"):
            kept.append(instruction)
        if name == "ET":
            inside = True
    form = document.make_stream(pikepdf.unparse_content_stream(kept))
    form.Type, form.Subtype = pikepdf.Name.XObject, pikepdf.Name.Form
    form.BBox = pikepdf.Array([0, lower, page.mediabox[2], upper])
    form.Resources = page.Resources
    return form


def _saved(document: Any) -> bytes:
    # dates: the same graph must give the same bytes
    if "/Info" in document.trailer:
        del document.trailer["/Info"]
    target = io.BytesIO()
    # the default ID depends on the time
    document.save(target, deterministic_id=True, compress_streams=True)
    return target.getvalue()
