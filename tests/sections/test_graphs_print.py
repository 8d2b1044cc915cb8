"""How a drawing is cut into printed pages: strips, and a grid where it is too wide."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise

import pikepdf
import pytest

from reportgen.drawing.dot import LINE_POINTS, dot_text, graphviz
from reportgen.drawing.graph import GraphGroup, GraphNode, make_graph
from reportgen.drawing.svg import SvgBox, SvgPicture, picture
from reportgen.sections.graphs.print_pages import (
    SMALLEST_TEXT_POINTS,
    PagePiece,
    PagePlan,
    page_pdfs,
    plan_pages,
)

_PAGE = 668.0  # the longer side of a page, in points


def _rows(columns: int, rows: int) -> SvgPicture:
    """Boxes of 100 x 30 points side by side, below each other."""
    boxes = tuple(
        SvgBox(left=120.0 * c, top=50.0 * r, right=120.0 * c + 100, bottom=50.0 * r + 30)
        for r in range(rows)
        for c in range(columns)
    )
    return SvgPicture(svg="", width=120.0 * columns, height=50.0 * rows, boxes=boxes)


def test_a_narrow_drawing_is_one_page_or_strips_side_by_side() -> None:
    small = plan_pages(_rows(2, 6), pages=5)
    assert small is not None
    assert (small.scale, len(small.pages), small.bands) == (1.0, 1, 1)
    tall = plan_pages(_rows(1, 60), pages=5)
    assert tall is not None
    assert tall.bands == 1
    assert tall.columns >= 2
    assert tall.place(0) == ""
    longer = plan_pages(_rows(1, 160), pages=5)
    assert longer is not None
    assert longer.neighbors(0) == {"below": 1}
    assert longer.neighbors(len(longer.pages) - 1) == {"above": len(longer.pages) - 2}


def test_a_wide_drawing_is_cut_both_ways_between_its_boxes() -> None:
    wide = _rows(14, 8)
    plan = plan_pages(wide, pages=5)
    assert plan is not None
    assert plan.bands == 2
    assert plan.place(1) == ", row 1, column 2"
    assert plan.neighbors(0) == {"right": 1} | ({"below": 2} if len(plan.pages) > 2 else {})
    assert plan.scale * LINE_POINTS >= SMALLEST_TEXT_POINTS
    assert all(piece.width * plan.scale <= _PAGE for piece in plan.pieces)
    for box in wide.boxes:  # whole on some page
        assert any(
            piece.left <= box.left
            and box.right <= piece.right
            and piece.top <= box.top
            and box.bottom <= piece.bottom
            for piece in plan.pieces
        )


def test_a_box_in_the_way_of_a_cut_is_whole_on_both_sides() -> None:
    wide = _rows(14, 2)
    router = SvgBox(left=700.0, top=120.0, right=960.0, bottom=150.0)
    plan = plan_pages(
        SvgPicture(svg="", width=wide.width, height=170.0, boxes=(*wide.boxes, router)), pages=5
    )
    assert plan is not None
    holding = [p for p in plan.pieces if p.left <= router.left and router.right <= p.right]
    assert holding
    for one, two in pairwise(plan.pieces):
        assert two.left < one.right  # nothing is lost between


def test_a_page_within_a_grid_has_four_neighbors() -> None:
    piece = PagePiece(left=0.0, top=0.0, right=1.0, bottom=1.0)
    plan = PagePlan(scale=1.0, pieces=(piece,) * 9, bands=3)
    assert plan.neighbors(4) == {"above": 1, "left": 3, "right": 5, "below": 7}
    assert plan.neighbors(2) == {"left": 1, "below": 5}
    assert plan.neighbors(6) == {"above": 3, "right": 7}


def test_what_needs_more_pages_has_no_plan() -> None:
    assert plan_pages(_rows(40, 60), pages=5) is None


@pytest.mark.slow
def test_the_pages_of_a_wide_drawing_have_each_label_that_is_whole_there() -> None:
    experts = [GraphNode(key=n, kind="module", title=f"expert number {n}") for n in range(1, 17)]
    router = GraphNode(key=90, kind="input", title="router")
    ends = [router, GraphNode(key=91, kind="output", title="sum")]
    edges = {(90, e.key) for e in experts} | {(e.key, 91) for e in experts}
    graph = make_graph(GraphGroup(key=99, title="model", members=(*experts, *ends)), edges)
    with graphviz() as programs:
        laid = programs.lay_out(dot_text(graph, prefix="g-"), seconds=20)
    shown = picture(laid.svg, graph, prefix="g-", label="experts")
    plan = plan_pages(shown, pages=5)
    assert plan is not None
    assert plan.bands >= 2
    for page in page_pdfs(laid.pdf, shown, plan):
        with pikepdf.open(BytesIO(page)) as pdf:
            box = [float(edge) for edge in pdf.pages[0].mediabox]
            assert box[2] <= _PAGE + 60
            assert len(pdf.pages) == 1
