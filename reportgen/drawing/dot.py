"""Graphviz: a graph as DOT text, and its layout as SVG and PDF within a time limit."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path

from reportgen.drawing.graph import DrawnGraph, Edge, GraphGroup, GraphMember, GraphNode
from reportgen.errors import SectionError
from reportgen.fonts import write_font_configuration
from reportgen.units import format_count

# shipped with the report, so that text has the width that graphviz measured
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
    "added": ("#e3f4e1", "#2c7a2c"),
    "removed": ("#fdecea", "#b3261e"),
    "changed": ("#fff3d6", "#9a6700"),
    "moved": ("#e6eefb", "#3b6fb5"),
    "unchanged": ("#f6f7f9", "#a9b1bd"),
}
_BORDERS = {  # a change is recognized without its color
    "added": "penwidth=2.4",
    "removed": 'style="rounded,filled,dashed" penwidth=1.6',
    "changed": "peripheries=2",
    "moved": "penwidth=1.6",
}

_LONGEST_TITLE = 44
_LONGEST_ROW = 46


def dot_text(graph: DrawnGraph, *, prefix: str, attributes: str = "") -> str:
    """The graph in the DOT language.

    Args:
        graph: the graph.
        prefix: prefix of every id, unique on the page: `modules-`.
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
        # constraint=false: a loop must not change the ranks
        kind = 'class="loop" style=dashed constraint=false' if loop else 'class="flow"'
        yield f'n{edge[0]} -> n{edge[1]} [id="{prefix}e{number}" {kind}]'
    yield "}"


def _ordered(graph: DrawnGraph) -> list[tuple[Edge, bool]]:
    return [(e, False) for e in sorted(graph.edges)] + [(e, True) for e in sorted(graph.loops)]


def _member(member: GraphMember, prefix: str) -> Iterator[str]:
    if isinstance(member, GraphNode):
        yield _box(member, prefix)
        return
    # dot starts a cluster's name with "cluster"; the key of a repeat is negative
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
        f' fillcolor="{fill}" color="{line}" {_BORDERS.get(node.kind, "")}]'
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
    title = capped(member.title, _LONGEST_TITLE) or "(no name)"
    if member.repeat == 1:
        return title
    return f"{title} × {member.repeat}" + (" in parallel" if member.parallel else "")


def _rows(node: GraphNode) -> list[str]:
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
    """All details of a box in one line of text."""
    pieces = [_title(member), member.path or member.name, *member.lines]
    if member.parameters is not None:
        pieces.append(parameters_text(member))
    return capped(" · ".join(filter(None, map(plain, pieces))), 300)


def plain(text: str) -> str:
    """The text without control, bidi and unassigned characters, Hangul composed."""
    # bidi marks would reorder the text around them; XML forbids most control characters
    composed = unicodedata.normalize("NFC", text)
    kept = (" " if unicodedata.category(c) in ("Zl", "Zp", "Cc") else c for c in composed)
    return " ".join("".join(c for c in kept if unicodedata.category(c)[0] != "C").split())


def capped(text: str, longest: int) -> str:
    """The plain text; if longer than `longest`, its middle is replaced by `…`."""
    text = plain(text)
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2  # paths differ at both ends, so the middle is cut
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def _escaped(text: str) -> str:
    # an HTML label; graphviz rejects a `]` on its own
    return escape(text).replace("\\", "&#92;").replace("[", "&#91;").replace("]", "&#93;")


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphvizLayout:
    """The SVG and the one-page PDF that graphviz wrote for one graph."""

    svg: bytes
    pdf: bytes


class LayoutError(Exception):
    """Graphviz failed or exceeded its time limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graphviz:
    """Runs graphviz with the fonts of the report, in a temporary folder."""

    folder: Path
    environment: dict[str, str]

    def lay_out(self, text: str, *, seconds: float, engine: str = "dot") -> GraphvizLayout:
        """Run `engine` on `text` for at most `seconds`.

        Raises:
            LayoutError: it failed or exceeded the time limit.
        """
        svg, pdf = self.folder / "out.svg", self.folder / "out.pdf"
        # both formats in one run, because the layout takes the time; -q: no warnings on stderr
        command = [engine, "-q", "-Tsvg", "-o", str(svg), "-Tpdf", "-o", str(pdf)]
        self._run(command, text, seconds)
        return GraphvizLayout(svg=svg.read_bytes(), pdf=pdf.read_bytes())

    def png(self, text: str, *, seconds: float) -> bytes:
        """Run dot on `text` for at most `seconds`; two pixels for a point.

        Raises:
            LayoutError: it failed or exceeded the time limit.
        """
        target = self.folder / "out.png"
        self._run(["dot", "-q", "-Gdpi=144", "-Tpng", "-o", str(target)], text, seconds)
        return target.read_bytes()

    def _run(self, command: list[str], text: str, seconds: float) -> None:
        engine = command[0]
        try:
            subprocess.run(
                command,
                input=text.encode("utf-8"),
                env=self.environment,
                capture_output=True,
                timeout=max(seconds, 0.001),
                check=True,
            )
        except subprocess.TimeoutExpired as error:
            raise LayoutError(f"{engine} did not finish in {seconds:.1f} s") from error
        except subprocess.CalledProcessError as error:
            reason = error.stderr.decode("utf-8", "replace").strip().splitlines()[:1]
            raise LayoutError(f"{engine} failed: {''.join(reason)}") from error


@contextmanager
def graphviz() -> Iterator[Graphviz]:
    """Graphviz with the shipped fonts and a temporary folder.

    Raises:
        SectionError: graphviz is not installed.
    """
    if shutil.which("dot") is None:
        raise SectionError(
            "graphviz's dot is not installed", hint="apt install graphviz, or brew install graphviz"
        )
    with tempfile.TemporaryDirectory(prefix="reportgen-graphs-") as name:
        folder = Path(name)
        configuration = write_font_configuration(folder)
        environment = os.environ | {
            "FONTCONFIG_FILE": str(configuration),
            "LC_ALL": "C.UTF-8",
        }
        yield Graphviz(folder=folder, environment=environment)


class Deadline:
    """A time limit shared by several steps."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, at_most: float) -> float:
        """The remaining seconds, at most `at_most`."""
        return min(at_most, max(self._end - time.monotonic(), 0.0))
