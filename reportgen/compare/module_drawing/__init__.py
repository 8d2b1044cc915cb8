"""One drawing of the old and the new module graph: what was added, removed, changed and moved."""

from __future__ import annotations

from reportgen.comparable import Comparable, Graph
from reportgen.compare.graph_pairs import pair_nodes
from reportgen.compare.graphs import diff_graph
from reportgen.compare.module_drawing.marks import SIGNS, marks_of
from reportgen.compare.module_drawing.merged import MergedGraph
from reportgen.compare.result import ModulesDiff
from reportgen.drawing.collapse import with_ports
from reportgen.drawing.dot import Deadline, Graphviz, LayoutError, dot_text, graphviz
from reportgen.drawing.fold_repeats import folded
from reportgen.drawing.graph import DrawnGraph, GraphMember
from reportgen.drawing.svg import SvgPicture, picture
from reportgen.errors import SectionError

_MOST_BOXES = 40
# an A4 page without margins and a heading, at the smallest scale with readable text
_WIDEST, _TALLEST = 740.0, 980.0
_DEEPEST = 8
_SECONDS = 8.0
_QUICK = "nslimit=2 nslimit1=2 mclimit=0.1"  # bounds on dot's network simplex


def draw_module_diff(
    old: Comparable, new: Comparable, modules: ModulesDiff, *, name: str = "changes"
) -> str:
    """The drawing as SVG; "" if nothing changed, a graph is missing, or graphviz is.

    Args:
        old: what the old report offers.
        new: what the new one offers.
        modules: the comparison of the modules.
        name: the prefix of every id, unique on the page.
    """
    before, after = _module_graph(old), _module_graph(new)
    if before is None or after is None:
        return ""
    changes = diff_graph(before, after, modules).nodes
    if not changes and not modules.edits:
        return ""
    merged = MergedGraph(
        before,
        after,
        pair_nodes(before, after, modules),
        modules,
        {record.path: record.type for record in old.modules},
        {record.path: record.type for record in new.modules},
        marks_of(modules, changes),
    )
    try:
        with graphviz() as programs:
            return _fitting(merged, programs, name)
    except SectionError:  # graphviz is not installed
        return ""


def _module_graph(side: Comparable) -> Graph | None:
    return next((graph for graph in side.graphs if graph.name == "modules"), None)


def _fitting(merged: MergedGraph, programs: Graphviz, name: str) -> str:
    """The deepest drawing that fits a page; the shallowest if none does."""
    deadline = Deadline(_SECONDS)
    smallest = ""
    size = -1
    for depth in range(_DEEPEST, -1, -1):
        graph = merged.drawn(depth)
        if graph.size > _MOST_BOXES:
            graph = folded(graph, loose=False)  # blocks with the same change
        if not _shows_change(graph):
            return ""
        if graph.size == size or (graph.size > _MOST_BOXES and depth > 0):
            continue
        size = graph.size
        shown = _laid_out(graph, programs, deadline, name)
        if shown is not None:
            smallest = shown.svg
            if shown.width <= _WIDEST and shown.height <= _TALLEST:
                break
    return smallest


def _shows_change(graph: DrawnGraph) -> bool:
    """Whether a mark is seen; a module that never ran is in no graph."""
    signs = tuple(f"{sign} " for sign in SIGNS.values())
    members: list[GraphMember] = [*graph.root.nodes(), *graph.root.groups()]
    return any(member.title.startswith(signs) for member in members)


def _laid_out(
    graph: DrawnGraph, programs: Graphviz, deadline: Deadline, name: str
) -> SvgPicture | None:
    shown, prefix = with_ports(graph), f"{name}-"
    text = dot_text(shown, prefix=prefix, attributes=_QUICK)
    try:
        laid = programs.lay_out(text, seconds=deadline.left(_SECONDS / 2))
    except LayoutError:
        return None
    label = "Module graph of both reports: what changed"
    return picture(laid.svg, shown, prefix=prefix, label=label)
