"""A graph as text for graphviz; no label of any model can break it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from html import escape

from reportgen.sections.graphs.graph import DrawnGraph, Edge, GraphGroup, GraphMember, GraphNode
from reportgen.units import format_count

FONTS = "Inter,Report Hangul,NanumGothic,sans-serif"
BOLD_FONTS = "Inter Semi Bold,Report Hangul,NanumGothic,sans-serif"
TITLE_POINTS = 10.0
LINE_POINTS = 8.5

TEXT, FAINT, EDGE = "#1c2330", "#515b6b", "#68717f"
GROUP_FILL, GROUP_LINE = "#f6f7f9", "#c4cad4"
KINDS: dict[str, tuple[str, str]] = {  # kind -> fill, line
    "module": ("#e6eefb", "#5f83bd"),
    "repeat": ("#e6eefb", "#5f83bd"),
    "operation": ("#ffffff", "#8a93a1"),
    "function": ("#ffffff", "#8a93a1"),
    "parameter": ("#d9eef7", "#3f8fb0"),
    "input": ("#fdf1d8", "#b98a2c"),
    "output": ("#e0f2d8", "#5d9a44"),
    "port": ("#f1e8fb", "#8e6bbd"),
}

_LONGEST_TITLE = 44
_LONGEST_ROW = 46


def dot_text(graph: DrawnGraph, *, prefix: str, attributes: str = "") -> str:
    """The graph in graphviz's language.

    Args:
        graph: what is drawn.
        prefix: put before every id, so that drawings can share a page: `modules-`.
        attributes: more graph attributes, such as `nslimit=2`.
    """
    return "\n".join(_lines(graph, prefix, attributes)) + "\n"


def _lines(graph: DrawnGraph, prefix: str, attributes: str) -> Iterator[str]:
    yield "digraph g {"
    yield f'graph [id="{prefix}graph" bgcolor="transparent" margin=0 pad=0.06'
    yield f'  fontname="{FONTS}" fontsize={LINE_POINTS} labeljust=l'
    yield f"  ranksep=0.26 nodesep=0.22 {attributes}]"
    yield f'node [shape=box style="rounded,filled" fontname="{FONTS}" fontsize={LINE_POINTS}'
    yield f'  fontcolor="{FAINT}" height=0.3 width=0.5 margin="0.1,0.05" penwidth=0.9]'
    yield f'edge [color="{EDGE}" penwidth=0.9 arrowsize=0.55]'
    for member in graph.root.members:
        yield from _member(member, prefix)
    for number, (edge, loop) in enumerate(_ordered(graph)):
        kind = 'class="loop" style=dashed constraint=false' if loop else 'class="flow"'
        yield f'n{edge[0]} -> n{edge[1]} [id="{prefix}e{number}" {kind}]'
    yield "}"


def _ordered(graph: DrawnGraph) -> list[tuple[Edge, bool]]:
    return [(e, False) for e in sorted(graph.edges)] + [(e, True) for e in sorted(graph.loops)]


def _member(member: GraphMember, prefix: str) -> Iterator[str]:
    if isinstance(member, GraphNode):
        yield _box(member, prefix)
        return
    number = abs(member.key)
    yield f"subgraph cluster_{number} {{"
    yield f'graph [id="{prefix}c{number}" class="{member.kind}" style="rounded,filled"'
    yield f'  fillcolor="{GROUP_FILL}" color="{GROUP_LINE}" penwidth=0.8 margin=7'
    yield f"  label=<{_heading(member)}>]"
    for inner in member.members:
        yield from _member(inner, prefix)
    yield "}"


def _box(node: GraphNode, prefix: str) -> str:
    fill, line = KINDS[node.kind]
    rows = "".join(f'{_escaped(row)}<BR ALIGN="LEFT"/>' for row in _rows(node))
    space = '<FONT POINT-SIZE="2"> <BR/></FONT>' if rows else ""
    label = f'{_bold(_title(node))}<BR ALIGN="LEFT"/>{space}{rows}'
    return (
        f'n{node.key} [id="{prefix}n{node.key}" class="{node.kind}" label=<{label}>'
        f' fillcolor="{fill}" color="{line}"]'
    )


def _bold(text: str) -> str:
    return (
        f'<FONT FACE="{BOLD_FONTS}" POINT-SIZE="{TITLE_POINTS}" COLOR="{TEXT}">'
        f"{_escaped(text)}</FONT>"
    )


def _heading(group: GraphGroup) -> str:
    details = [group.name] if group.name else []
    if group.parameters is not None:
        details.append(parameters_text(group))
    if group.varies:
        details.append("the first is shown")
    row = capped(" · ".join(details), 2 * _LONGEST_ROW)
    face = f'<FONT FACE="{BOLD_FONTS}" COLOR="{TEXT}">{_escaped(_title(group))}</FONT>'
    return f'{face}   <FONT COLOR="{FAINT}">{_escaped(row)}</FONT>' if row else face


def _title(member: GraphMember) -> str:
    """The class or operator, with how often it repeats."""
    title = capped(member.title, _LONGEST_TITLE) or "(no name)"
    if member.repeat == 1:
        return title
    return f"{title} × {member.repeat}" + (" in parallel" if member.parallel else "")


def _rows(node: GraphNode) -> list[str]:
    """Name, arguments, shape and parameters in as few rows as stay short."""
    pieces = [capped(piece, _LONGEST_ROW) for piece in (node.name, *node.lines)]
    if node.parameters is not None and node.kind not in ("parameter", "input"):
        pieces.append(parameters_text(node))
    rows: list[str] = []
    for piece in filter(None, pieces):
        if rows and len(rows[-1]) + len(piece) + 3 <= _LONGEST_ROW:
            rows[-1] += f" · {piece}"
        else:
            rows.append(piece)
    return rows


def parameters_text(member: GraphMember) -> str:
    """`25.6 M parameters`; those of all repeats together."""
    number = member.parameters or 0
    return f"{format_count(number)} parameter{'' if number == 1 else 's'}"


def tooltip(member: GraphMember) -> str:
    """Everything a box knows, in one line of text."""
    pieces = [_title(member), member.path or member.name, *member.lines]
    if member.parameters is not None:
        pieces.append(parameters_text(member))
    return capped(" · ".join(filter(None, map(plain, pieces))), 300)


def plain(text: str) -> str:
    """The text without control, bidi and unassigned characters, Hangul composed."""
    composed = unicodedata.normalize("NFC", text)
    kept = (" " if unicodedata.category(c) in ("Zl", "Zp", "Cc") else c for c in composed)
    return " ".join("".join(c for c in kept if unicodedata.category(c)[0] != "C").split())


def capped(text: str, longest: int) -> str:
    """The text, plain, with its middle left out where it is longer than `longest`."""
    text = plain(text)
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def _escaped(text: str) -> str:
    """The text for a label in markup; graphviz stumbles over a piece that is a `]` alone."""
    return escape(text).replace("\\", "&#92;").replace("[", "&#91;").replace("]", "&#93;")
