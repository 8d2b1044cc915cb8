"""Graphviz's SVG prepared for inline use: prefixed ids, tooltips, light and dark colors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from reportgen.drawing import dot
from reportgen.drawing.graph import DrawnGraph

_SVG = "http://www.w3.org/2000/svg"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")

# Defaults for dark pages; a page overrides them by --graph-KIND and --graph-KIND-line.
_DARK: Mapping[str, tuple[str, str]] = {
    "module": ("#22314c", "#7ba0dd"),
    "repeat": ("#22314c", "#7ba0dd"),
    "operation": ("#23272f", "#8f99a8"),
    "function": ("#23272f", "#8f99a8"),
    "parameter": ("#173a49", "#5fb4d6"),
    "input": ("#43351a", "#d9ab4d"),
    "output": ("#243d1c", "#85c46a"),
    "port": ("#352a4a", "#b596e2"),
    "added": ("#1d3a20", "#7ed07e"),
    "removed": ("#43211f", "#ff9a91"),
    "changed": ("#42340f", "#e3b341"),
    "moved": ("#22314c", "#7ba0dd"),
    "unchanged": ("#23272f", "#5f6875"),
}
_DARK_TEXT, _DARK_FAINT, _DARK_EDGE = "#e8ebf0", "#aeb7c4", "#97a1b0"
_DARK_GROUP_FILL, _DARK_GROUP_LINE = "#1a1e25", "#444d5b"


@dataclass(frozen=True, kw_only=True, slots=True)
class SvgBox:
    """The frame of a node, in points from the top left corner of the drawing."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SvgPicture:
    """A finished SVG, its size in points, and the frames of its nodes."""

    svg: str
    width: float
    height: float
    boxes: tuple[SvgBox, ...]


def picture(svg: bytes, graph: DrawnGraph, *, prefix: str, label: str) -> SvgPicture:
    """Graphviz's SVG as inline markup; several can share a page.

    Args:
        svg: the SVG as graphviz wrote it.
        graph: the drawn graph, for the tooltips.
        prefix: the prefix of every id, as given to `dot_text`.
        label: the `aria-label` of the picture.
    """
    # otherwise every tag gets a prefix, ns0:svg, which HTML does not read as SVG
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(svg)  # noqa: S314 - trusted: written by graphviz
    width, height = (float(root.attrib[side].removesuffix("pt")) for side in ("width", "height"))
    boxes = tuple(_boxes(root))
    _retitle(root, graph, prefix)
    _unstyle(root)
    root.attrib |= {"id": f"{prefix}svg", "class": "graph-drawing", "role": "img",
                    "aria-label": dot.plain(label), "font-family": dot.FONTS}  # fmt: skip
    _raise_headings(root)  # after the classes, which the texts keep
    style = ElementTree.Element(f"{{{_SVG}}}style")
    style.text = _style(".graph-drawing")
    root.insert(0, style)
    text = ElementTree.tostring(root, encoding="unicode")
    return SvgPicture(svg=text + "\n", width=width, height=height, boxes=boxes)


def _retitle(root: ElementTree.Element, graph: DrawnGraph, prefix: str) -> None:
    members = {f"{prefix}n{node.key}": dot.tooltip(node) for node in graph.root.nodes()}
    members |= {f"{prefix}c{abs(g.key)}": dot.tooltip(g) for g in graph.root.groups()}
    for group in root.iter(f"{{{_SVG}}}g"):
        title = group.find(f"{{{_SVG}}}title")
        if title is None:
            continue
        tooltip = members.get(group.attrib.get("id", ""))
        if tooltip is not None:
            title.text = tooltip
        else:
            # graphviz's own, such as "n1->n2", would be shown as a tooltip
            group.remove(title)


def _raise_headings(root: ElementTree.Element) -> None:
    # SVG paints in document order, and edges may cross the names of groups
    headings = ElementTree.SubElement(root[0], f"{{{_SVG}}}g", {"class": "headings"})
    for group in root.iter(f"{{{_SVG}}}g"):
        if group.attrib.get("class", "").startswith("cluster"):
            for text in group.findall(f"{{{_SVG}}}text"):
                group.remove(text)
                headings.append(text)


def _unstyle(root: ElementTree.Element) -> None:
    """Replace fonts and text colors by classes, so that the page can style them."""
    for text in root.iter(f"{{{_SVG}}}text"):
        family = text.attrib.pop("font-family", "")
        text.attrib["class"] = "faint"
        if family == dot.BOLD_FONTS:
            text.attrib["class"], text.attrib["font-weight"] = "strong", "600"


def _style(scope: str) -> str:
    rules = [
        "svg:root{color-scheme:light dark}",
        # 3x3 in a name stays 3x3, and digits keep the widths that dot measured
        f"{scope} text{{font-feature-settings:'calt' 0;font-variant-numeric:normal}}",
        f"{scope} text.strong{{fill:{_either('text', dot.TEXT, _DARK_TEXT)}}}",
        f"{scope} text.faint{{fill:{_either('faint', dot.FAINT, _DARK_FAINT)}}}",
        f"{scope} .headings text{{paint-order:stroke;stroke-width:4px;stroke-linejoin:round;"
        f"stroke:{_either('group', dot.GROUP_FILL, _DARK_GROUP_FILL)}}}",
        f"{scope} .edge path{{stroke:{_either('edge', dot.EDGE, _DARK_EDGE)}}}",
        f"{scope} .edge polygon{{fill:{_either('edge', dot.EDGE, _DARK_EDGE)};"
        f"stroke:{_either('edge', dot.EDGE, _DARK_EDGE)}}}",
        f"{scope} .cluster path{{fill:{_either('group', dot.GROUP_FILL, _DARK_GROUP_FILL)};"
        f"stroke:{_either('group-line', dot.GROUP_LINE, _DARK_GROUP_LINE)}}}",
    ]
    for kind, (fill, line) in dot.KINDS.items():
        dark_fill, dark_line = _DARK[kind]
        rules.append(
            f"{scope} .node.{kind} path{{fill:{_either(kind, fill, dark_fill)};"
            f"stroke:{_either(f'{kind}-line', line, dark_line)}}}"
        )
    # of a double border the second frame, which would hide the first
    rules.append(f"{scope} .node.changed path+path{{fill:none}}")
    return "".join(rules)


def _either(name: str, light: str, dark: str) -> str:
    return f"var(--graph-{name},light-dark({light},{dark}))"


def _boxes(root: ElementTree.Element) -> list[SvgBox]:
    """The frame of every node; graphviz measures upwards from the lower edge."""
    found: list[SvgBox] = []
    shift = _NUMBER.findall(root[0].attrib["transform"].split("translate")[1])
    right, down = float(shift[0]), float(shift[1])
    for group in root.iter(f"{{{_SVG}}}g"):
        if group.attrib.get("class", "").startswith("node"):
            frame = next(g for g in group if g.tag in (f"{{{_SVG}}}path", f"{{{_SVG}}}polygon"))
            numbers = [float(n) for n in _NUMBER.findall(frame.get("d") or frame.attrib["points"])]
            xs, ys = numbers[::2], numbers[1::2]
            found.append(SvgBox(left=min(xs) + right, right=max(xs) + right,
                             top=min(ys) + down, bottom=max(ys) + down))  # fmt: skip
    return found
