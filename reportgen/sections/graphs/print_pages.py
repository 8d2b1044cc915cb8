"""A drawing on paper: A4 pages that text can be read on, cut between the boxes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reportgen.sections.graphs.dot import LINE_POINTS
from reportgen.sections.graphs.svg import SvgBox, SvgPicture

SMALLEST_TEXT_POINTS = 5.5
MOST_TILES = 6

# What print leaves of A4 beside margins, running heads and a heading; a larger tile is shrunk.
_LONG, _SHORT, _HEADING = 668.0, 483.0, 26.0
_ALONE = 610.0  # a page this wide is turned rather than shrunk
_GAP = 20.0  # between columns
_OVERLAP = 6.0  # shown on both sides of a cut
_SMALLEST_SCALE = SMALLEST_TEXT_POINTS / LINE_POINTS
_SCALES = tuple(1 - step / 50 for step in range(18) if 1 - step / 50 >= _SMALLEST_SCALE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """A piece of a drawing between two heights, in points from its upper edge."""

    top: float
    bottom: float

    @property
    def height(self) -> float:
        """Its height in points of the drawing."""
        return self.bottom - self.top


@dataclass(frozen=True, kw_only=True, slots=True)
class PagePlan:
    """How a drawing is cut: at which scale, into which strips, so many beside each other."""

    scale: float
    strips: tuple[Strip, ...]
    columns: int

    @property
    def pages(self) -> list[tuple[Strip, ...]]:
        """The strips of each page."""
        return [self.strips[i : i + self.columns] for i in range(0, len(self.strips), self.columns)]


def plan(picture: SvgPicture, *, pages: int) -> PagePlan | None:
    """How to print `picture` on as few pages as can be read, as large as it goes on these.

    None where `pages` are not enough.
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


def _strips(picture: SvgPicture, longest: float) -> tuple[Strip, ...] | None:
    """The drawing cut where no box stands, each piece at most `longest`; None if impossible."""
    cuts = _gaps(picture.boxes)
    strips: list[Strip] = []
    top = 0.0
    while picture.height - top > longest - _OVERLAP:
        fitting = [cut for cut in cuts if top + 1 < cut <= top + longest - 2 * _OVERLAP]
        if not fitting:
            return None
        strips.append(Strip(top=max(top - _OVERLAP, 0.0), bottom=fitting[-1] + _OVERLAP))
        top = fitting[-1]
    return (*strips, Strip(top=max(top - _OVERLAP, 0.0), bottom=picture.height))


def _gaps(boxes: tuple[SvgBox, ...]) -> list[float]:
    """Heights at which a horizontal cut meets no box, one in the middle of each gap."""
    gaps: list[float] = []
    lowest: float | None = None
    for box in sorted(boxes, key=lambda box: box.top):
        if lowest is not None and box.top > lowest:
            gaps.append((lowest + box.top) / 2)
        lowest = box.bottom if lowest is None else max(lowest, box.bottom)
    return gaps


def pages(pdf: bytes, picture: SvgPicture, plan: PagePlan) -> Iterator[bytes]:
    """One single-page PDF after the other, each as small as what stands on it."""
    for strips in plan.pages:
        yield _page(pdf, picture, plan.scale, strips)


def _page(pdf: bytes, picture: SvgPicture, scale: float, strips: tuple[Strip, ...]) -> bytes:
    import pikepdf

    with pikepdf.open(io.BytesIO(pdf)) as document:
        page = document.pages[0]
        up = float(page.mediabox[3])
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
    """Wide enough that nobody shrinks the page to the width of the text below what can be read."""
    shrunk = scale * _SHORT / width
    return width if width <= _SHORT or shrunk >= _SMALLEST_SCALE else max(width, _ALONE)


def _cuts(strip: Strip, picture: SvgPicture, up: float) -> list[float]:
    """Where the drawing goes on beyond a strip, in points from its lower edge."""
    edges = [up - strip.top] if strip.top > 0 else []
    return edges + ([up - strip.bottom] if strip.bottom < picture.height else [])


def _mark(left: float, right: float, y: float) -> str:
    """A dotted line, so that nobody takes a cut for the end of the graph."""
    return f"q 0.6 G 0.6 w [1 2] 0 d {left:.2f} {y:.2f} m {right:.2f} {y:.2f} l S Q"


def _form(document: Any, page: Any, lower: float, upper: float) -> Any:
    """The page between two heights as a form, without the text outside: nothing is found twice."""
    import pikepdf

    up = float(page.mediabox[3])
    kept: list[Any] = []
    inside = True
    for instruction in pikepdf.parse_content_stream(page):
        name = str(instruction.operator)
        if name == "Tm":  # graphviz's pages are drawn upside down: y grows downwards
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
    """The bytes of a document without its dates, the same every time."""
    if "/Info" in document.trailer:
        del document.trailer["/Info"]
    target = io.BytesIO()
    document.save(target, deterministic_id=True, compress_streams=True)
    return target.getvalue()
