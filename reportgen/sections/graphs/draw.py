"""Graph drawings as files: an SVG for the page and a few PDF pages for print."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from reportgen.drawing.collapse import MAX_LONG_EDGES, in_runs, readable, with_ports
from reportgen.drawing.dot import (
    Deadline,
    Graphviz,
    GraphvizLayout,
    LayoutError,
    dot_text,
    graphviz,
)
from reportgen.drawing.graph import DrawnGraph, GraphMember
from reportgen.drawing.svg import SvgPicture, picture
from reportgen.error_text import LIMIT_EVENT
from reportgen.errors import SectionError
from reportgen.sections.graphs.print_pages import page_pdfs, plan_pages
from reportgen.sections.graphs.result import Drawing, Tile, missing

BOXES = 60  # more boxes in one picture are unreadable
SECONDS = 20.0  # for all layouts of one drawing
_PARTS = 5  # printed pages of a drawing besides its overview
_BOXES_ON_PAGE, _MOST_PARTS = 8, 12  # of a drawing of too many boxes: it could not be collapsed
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
class _PrintedPage:
    """A page before it is written; the fields are those of `Tile`."""

    pdf: bytes
    caption: str
    neighbors: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawer:
    """Draws graphs into one model's folder.

    Attributes:
        graphviz: lays the graphs out; None if it is not installed.
        write: writes bytes to a file below the model's folder and returns its name.
        subject: the model's name, for labels.
        seconds: for all layouts of one drawing.
        why_none: why there is no graphviz, and what to do.
    """

    graphviz: Graphviz | None
    write: Callable[[str, bytes], str]
    subject: str
    seconds: float = SECONDS
    why_none: str = ""

    def draw(
        self, graph: DrawnGraph, *, name: str, title: str, note: str = "", total: int | None = None
    ) -> Drawing:
        """Draw `graph` as `graphs/NAME.svg` and its printed pages.

        `total` is the number of nodes of the complete graph, of which `graph` may leave some out.
        """
        if self.graphviz is None:
            return missing(self.why_none)
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
                laid = self._lay_out(text, deadline.left(attempt.seconds), attempt.engine)
            except LayoutError:
                continue
            return small, laid, picture(laid.svg, shown, prefix=prefix, label=label)
        return None

    def _lay_out(self, text: str, seconds: float, engine: str = "dot") -> GraphvizLayout:
        if self.graphviz is None:
            raise LayoutError(self.why_none)
        return self.graphviz.lay_out(text, seconds=seconds, engine=engine)

    def _tiles(
        self,
        graph: DrawnGraph,
        laid: GraphvizLayout,
        shown: SvgPicture,
        name: str,
        label: str,
        deadline: Deadline,
    ) -> tuple[Tile, ...]:
        pages = min(max(_PARTS, len(shown.boxes) // _BOXES_ON_PAGE), _MOST_PARTS)
        parts = _printed(laid, shown, pages=pages)
        coarser = (boxes for boxes in _COARSER if boxes < graph.size)
        whole = parts if len(parts) == 1 else []
        for boxes in coarser if not whole else ():
            attempt = self._coarse(graph, boxes, name, label, deadline)
            if attempt is None:
                continue
            parts = parts or _printed(*attempt, pages=_PARTS)
            whole = _printed(*attempt, pages=1)
            if whole:
                break
        printed = [replace(page, caption="overview") for page in whole]
        if parts != whole:
            printed += parts
        return tuple(
            Tile(
                pdf=self.write(f"graphs/{name}-{number}.pdf", page.pdf),
                caption=page.caption,
                neighbors=page.neighbors,
            )
            for number, page in enumerate(printed, start=1)
        )

    def _coarse(
        self, graph: DrawnGraph, boxes: int, name: str, label: str, deadline: Deadline
    ) -> tuple[GraphvizLayout, SvgPicture] | None:
        small = readable(graph, boxes)
        if small.size > 2 * boxes:  # operations in no module
            small = in_runs(graph, boxes)
        small = with_ports(small)
        text = dot_text(small, prefix=f"{name}-", attributes=_QUICK)
        try:
            laid = self._lay_out(text, deadline.left(3))
        except LayoutError:
            return None
        return laid, picture(laid.svg, small, prefix=f"{name}-", label=label)


@contextmanager
def drawer_into(folder: Path, subject: str) -> Iterator[Drawer]:
    """A drawer of the model `subject`; without graphviz it has no drawings and says why."""
    with ExitStack() as stack:
        programs, why_none = None, ""
        try:
            programs = stack.enter_context(graphviz())
        except SectionError as error:
            why_none = f"{error.error}: {error.hint}"
        yield Drawer(
            graphviz=programs, write=file_writer(folder), subject=subject, why_none=why_none
        )


def _printed(laid: GraphvizLayout, shown: SvgPicture, *, pages: int) -> list[_PrintedPage]:
    """The picture on at most `pages` pages; [] if the text would be too small to read."""
    plan = plan_pages(shown, pages=pages)
    if plan is None:
        return []
    total = len(plan.pages)
    return [
        _PrintedPage(
            pdf=pdf,
            caption=f"part {n + 1} of {total}{plan.place(n)}",
            neighbors={side: page + 1 for side, page in plan.neighbors(n).items()},
        )
        for n, pdf in enumerate(page_pdfs(laid.pdf, shown, plan))
    ]


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
