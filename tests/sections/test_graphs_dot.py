"""What graphviz is given and what comes of it: no label breaks it, no layout takes for ever."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Iterator
from xml.etree import ElementTree

import pikepdf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reportgen.drawing.dot import Graphviz, LayoutError, capped, dot_text, graphviz, plain
from reportgen.drawing.graph import DrawnGraph, Edge, GraphGroup, GraphNode, make_graph
from reportgen.drawing.svg import SvgPicture, picture
from reportgen.sections.graphs import print_pages
from reportgen.sections.graphs.draw import Drawer

NASTY = [
    "<b>", "<<x>", "a\\", "\\N\\G", '"', "'", "a\0b", "\x1b[31m", "\u202eevil", "&amp;", "&#0;",
    "]]>", "]",
    "[", "-->", "한국어", "\u1112\u1161\u11ab", "x" * 500, "", " ", "\ufffe", "\u2028", "{}|<p>",
    "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
]  # fmt: skip


@pytest.fixture(scope="module")
def programs() -> Iterator[Graphviz]:
    with graphviz() as found:
        yield found


def chain(count: int, titles: list[str] | None = None) -> DrawnGraph:
    nodes = tuple(
        GraphNode(key=k, kind="module", title=titles[k - 1] if titles else f"Layer{k}",
             name=titles[k - 1] if titles else "", lines=("1 × 2",))
        for k in range(1, count + 1)
    )  # fmt: skip
    edges: set[Edge] = {(k, k + 1) for k in range(1, count)}
    return make_graph(GraphGroup(key=0, title="m", members=nodes), edges)


def pictured(graph: DrawnGraph, programs: Graphviz) -> tuple[SvgPicture, bytes]:
    laid = programs.lay_out(dot_text(graph, prefix="t-"), seconds=20)
    return picture(laid.svg, graph, prefix="t-", label="t"), laid.pdf


def text_of(pdf: bytes) -> int:
    """How many pieces of text a page shows."""
    with pikepdf.open(io.BytesIO(pdf)) as document:
        forms = document.pages[0].Resources.XObject.values()
        shown = [i for f in forms for i in pikepdf.parse_content_stream(f)]
    return sum(str(instruction.operator) in ("Tj", "TJ") for instruction in shown)


@given(st.lists(st.one_of(st.text(max_size=30), st.sampled_from(NASTY)), min_size=30, max_size=30))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_label_breaks_graphviz_or_the_page(programs: Graphviz, titles: list[str]) -> None:
    shown, _ = pictured(chain(len(titles), titles), programs)
    assert len(shown.boxes) == len(titles)
    ElementTree.fromstring(shown.svg)


def test_every_nasty_label_survives_as_plain_text(programs: Graphviz) -> None:
    group = GraphGroup(
        key=50, title='<a href="x">', name="\\", members=tuple(chain(2, NASTY).root.nodes())
    )
    graph = make_graph(GraphGroup(key=0, title="m", members=(group,)), {(1, 2)})
    shown, _ = pictured(graph, programs)
    assert "&lt;b&gt;" in shown.svg
    shown, _ = pictured(chain(len(NASTY), NASTY), programs)
    assert "한국어" in shown.svg
    assert "한" in shown.svg  # letters composed
    assert "\u202e" not in shown.svg


@given(st.text())
def test_plain_text_holds_no_control_and_no_second_line(text: str) -> None:
    assert plain(text).isprintable()
    assert plain(plain(text)) == plain(text)


@given(st.text(), st.integers(5, 60))
def test_capped_text_is_never_longer_than_its_cap(text: str, longest: int) -> None:
    assert len(capped(text, longest)) <= longest


def test_a_layout_ends_at_its_time_limit(programs: Graphviz) -> None:
    nodes = tuple(GraphNode(key=k, kind="module", title="x") for k in range(1, 400))
    edges = {(a, b) for a in range(1, 400) for b in range(a + 1, 400, 7)}
    graph = make_graph(GraphGroup(key=0, title="m", members=nodes), edges)
    begun = time.monotonic()
    with pytest.raises(LayoutError, match="did not finish"):
        programs.lay_out(dot_text(graph, prefix="t-"), seconds=1)
    assert time.monotonic() - begun < 3


def test_a_drawing_that_never_ends_is_said_to_be_missing(programs: Graphviz) -> None:
    drawer = Drawer(graphviz=programs, write=lambda file, _: file, subject="m", seconds=0)
    drawing = drawer.draw(chain(3), name="modules", title="Module graph")
    assert drawing.svg is None
    assert drawing.note == "graphviz did not lay this graph out within 0 s"


def test_text_that_graphviz_refuses_is_an_error_of_its_own(programs: Graphviz) -> None:
    with pytest.raises(LayoutError, match="failed"):
        programs.lay_out("digraph {", seconds=5)


def test_the_same_graph_gives_the_same_bytes_in_svg_and_print(programs: Graphviz) -> None:
    runs = []
    for _ in range(2):
        shown, pdf = pictured(chain(5), programs)
        plan = print_pages.plan_pages(shown, pages=1)
        assert plan is not None
        runs.append((shown.svg, list(print_pages.page_pdfs(pdf, shown, plan))))
        time.sleep(1.1)  # a date would differ by now
    assert runs[0] == runs[1]


@pytest.mark.parametrize("count", [3, 40, 90])
def test_printed_pages_hold_every_box_once_and_none_is_cut(programs: Graphviz, count: int) -> None:
    shown, pdf = pictured(chain(count), programs)
    plan = print_pages.plan_pages(shown, pages=6)
    assert plan is not None
    for strip in plan.pieces:
        for box in shown.boxes:
            whole = strip.top <= box.top and box.bottom <= strip.bottom
            outside = box.bottom <= strip.top or strip.bottom <= box.top
            assert whole or outside
    pages = list(print_pages.page_pdfs(pdf, shown, plan))
    assert sum(map(text_of, pages)) == 3 * count  # a title, the space below it and one line each
    assert plan.scale * 8.5 >= print_pages.SMALLEST_TEXT_POINTS - 0.01
    for page in pages:
        with pikepdf.open(io.BytesIO(page)) as document:
            width, height = sorted(float(side) for side in document.pages[0].mediabox[2:])
            assert width <= 483
            assert height <= 668


def test_the_page_can_set_every_color(programs: Graphviz) -> None:
    shown, _ = pictured(chain(2), programs)
    for kind in ("module", "operation", "parameter", "input", "output", "text", "faint", "edge"):
        assert f"var(--graph-{kind},light-dark(#" in shown.svg
    assert not re.search(r"fill=\"#[0-9a-f]{3}\"", shown.svg)
