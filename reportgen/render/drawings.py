"""Drawings in a page: SVG files cleaned and inlined, and the places of their printed tiles."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

from markupsafe import Markup

from reportgen.charts.svg import bare, inline
from reportgen.pdf.places import TILE

_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".svg": "image/svg+xml",
}

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_ELEMENTS = frozenset({
    "svg", "g", "title", "desc", "path", "polygon", "polyline", "line", "rect", "circle",
    "ellipse", "text", "tspan", "defs", "linearGradient", "radialGradient", "stop", "marker",
    "style", "clipPath",
})  # fmt: skip
_LOCAL = re.compile(r"url\(\s*['\"]?#([^)'\"]+)['\"]?\s*\)")
# CSS can load files without a script; `</` would end the style element of an HTML page.
_ANY_ADDRESS = re.compile(r"url\(|@import|expression\(|</", re.IGNORECASE)

# A4 less the margins of print.css, in points: what a tile may fill. A larger one is shrunk.
PAGE_WIDTH, PAGE_HEIGHT = 483.0, 700.0
LANDSCAPE_WIDTH, LANDSCAPE_HEIGHT = 722.0, 456.0
_HEADING = 66.0  # a heading and a sentence, where the tile is the first of its drawing
_INLINE_HEIGHT = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a tile goes in print: an id to find it by, the shape of its page, and its size."""

    id: str
    page: str  # "inline" within the text, or a page of its own: "portrait" | "landscape"
    width_points: float
    height_points: float


def inline_svg(path: Path, prefix: str) -> Markup:
    """The drawing at `path` as markup for a page, its ids made unique by `prefix`.

    Only shapes and text survive: no script, no handler, no address that leads out of the page.
    """
    root = ElementTree.fromstring(path.read_bytes())  # noqa: S314 - our graphviz wrote it
    _clean(root, prefix)
    # The style sheet of the page scales it by its view box.
    root.attrib.pop("width", None)
    root.attrib.pop("height", None)
    # Without a prefix: an HTML parser does not recognize <ns0:svg>.
    ElementTree.register_namespace("", _SVG)
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - cleaned above


def place(root: Path, file: str, *, with_heading: bool) -> Place:
    """The place of the tile `file`, a path relative to `root`; a heading takes some room."""
    width, height = _page_size(root / file)
    page = _page_shape(width, height)
    wide, high = (
        (LANDSCAPE_WIDTH, LANDSCAPE_HEIGHT) if page == "landscape" else (PAGE_WIDTH, PAGE_HEIGHT)
    )
    scale = min(1.0, wide / width, (high - _HEADING if with_heading else high) / height)
    return Place(
        id=TILE + quote(file, safe="/"),
        page=page,
        width_points=round(width * scale, 2),
        height_points=round(height * scale, 2),
    )


def _page_shape(width: float, height: float) -> str:
    if width > height and width > 1.1 * PAGE_WIDTH:
        return "landscape"
    fits = min(1.0, PAGE_WIDTH / width) * height <= _INLINE_HEIGHT
    return "inline" if fits else "portrait"


def _page_size(path: Path) -> tuple[float, float]:
    import pikepdf  # as in `fonts`: not needed if all pages are in the cache

    with pikepdf.open(path) as pdf:
        left, bottom, right, top = (float(edge) for edge in pdf.pages[0].mediabox)
    return right - left, top - bottom


def _clean(element: ElementTree.Element, prefix: str) -> None:
    for child in list(element):  # a copy, as children are removed
        if _name(child) in _ELEMENTS:
            _clean(child, prefix)
        elif _name(child) == "a":
            child.tag = f"{{{_SVG}}}g"  # the shapes in a link stay, its address goes
            _clean(child, prefix)
        else:
            element.remove(child)
    if _name(element) == "style" and _ANY_ADDRESS.search(element.text or ""):
        element.text = ""
    for name, value in list(element.attrib.items()):
        cleaned = _attribute(name, value, prefix)
        if cleaned is None:
            del element.attrib[name]
        else:
            element.attrib[name] = cleaned


def _attribute(name: str, value: str, prefix: str) -> str | None:
    plain = name.rpartition("}")[2].lower()
    if plain.startswith("on") or (name.startswith("{") and name != _XLINK):
        return None
    if plain == "href":
        return f"#{_prefixed(value[1:], prefix)}" if value.startswith("#") else None
    if plain == "id":
        return _prefixed(value, prefix)
    localized = _LOCAL.sub(lambda match: f"url(#{_prefixed(match[1], prefix)})", value)
    outside = _LOCAL.sub("", value)
    return None if _ANY_ADDRESS.search(outside) else localized


def _prefixed(name: str, prefix: str) -> str:
    return name if name.startswith(prefix) else prefix + name


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def plot_svg(folder: Path, file: str, *, on_paper: bool) -> Markup:
    """The plot in `file` as markup; for paper without the data that is embedded in it."""
    svg = inline((folder / file).read_text(encoding="utf-8"))
    return bare(svg) if on_paper else svg


def data_uri(folder: Path, file: str) -> str:
    """The picture in `file` as a `data:` URI."""
    content = base64.b64encode((folder / file).read_bytes()).decode()
    return f"data:{_TYPES[Path(file).suffix]};base64,{content}"
