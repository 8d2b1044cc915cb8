"""A drawing on paper: A4 pages that text can be read on, cut between the boxes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reportgen.sections.graphs.dot import LINE_POINTS
from reportgen.sections.graphs.svg import Box, Picture

if TYPE_CHECKING:
    import pikepdf

POINTS_PER_MM = 72 / 25.4
MARGIN_MM = 15
CAPTION_MM = 20  # of the height, left to a heading and a caption
SMALLEST_TEXT_POINTS = 5.5
MOST_TILES = 6

_LONG = (297 - 2 * MARGIN_MM) * POINTS_PER_MM
_SHORT = (210 - 2 * MARGIN_MM) * POINTS_PER_MM
_CAPTION = CAPTION_MM * POINTS_PER_MM
_GAP = 20.0  # between columns
_OVERLAP = 6.0  # shown on both sides of a cut
_SMALLEST_SCALE = SMALLEST_TEXT_POINTS / LINE_POINTS
_SCALES = tuple(1 - step / 50 for step in range(18) if 1 - step / 50 >= _SMALLEST_SCALE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How a drawing is cut: at which scale, into which strips, so many beside each other."""

    scale: float
    strips: tuple[tuple[float, float], ...]  # top and bottom, points of the drawing
    columns: int

    @property
    def pages(self) -> list[tuple[tuple[float, float], ...]]:
        """The strips of each page."""
        return [
            self.strips[i : i + self.columns] for i in range(0, len(self.strips), self.columns)
        ]


def plan(picture: Picture, *, pages: int) -> Plan | None:
    """How to print `picture` on as few pages as can be read, as large as it goes on these.

    None where `pages` are not enough.
    """
    for number in range(1, pages + 1):
        for scale in _SCALES:
            for width, height in ((_SHORT, _LONG - _CAPTION), (_LONG, _SHORT - _CAPTION)):
                found = _plan(picture, scale, width, height)
                if found is not None and len(found.pages) <= number:
                    return found
    return None


def _plan(picture: Picture, scale: float, width: float, height: float) -> Plan | None:
    columns = int((width + _GAP) / (picture.width * scale + _GAP))
    strips = _strips(picture, height / scale) if columns else None
    if strips is None:
        return None
    return Plan(scale=scale, strips=strips, columns=columns)


def _strips(picture: Picture, longest: float) -> tuple[tuple[float, float], ...] | None:
    """The drawing cut where no box stands, each piece at most `longest`; None if impossible."""
    cuts = _gaps(picture.boxes)
    strips: list[tuple[float, float]] = []
    top = 0.0
    while picture.height - top > longest:
        fitting = [cut for cut in cuts if top + 1 < cut <= top + longest - _OVERLAP]
        if not fitting:
            return None
        strips.append((max(top - _OVERLAP, 0.0), fitting[-1] + _OVERLAP))
        top = fitting[-1]
    return (*strips, (max(top - _OVERLAP, 0.0), picture.height))


def _gaps(boxes: tuple[Box, ...]) -> list[float]:
    """Heights at which a horizontal cut meets no box, one in the middle of each gap."""
    gaps: list[float] = []
    lowest = 0.0
    for box in sorted(boxes, key=lambda box: box.top):
        if gaps or lowest:
            if box.top > lowest:
                gaps.append((lowest + box.top) / 2)
        lowest = max(lowest, box.bottom)
    return gaps


def pages(pdf: bytes, picture: Picture, plan: Plan) -> Iterator[bytes]:
    """One single-page PDF after the other, each as small as what stands on it."""
    for strips in plan.pages:
        yield _page(pdf, picture, plan, strips)


def _page(pdf: bytes, picture: Picture, plan: Plan, strips: tuple[tuple[float, float], ...]) -> bytes:
    import pikepdf

    with pikepdf.open(io.BytesIO(pdf)) as document:
        page = document.pages[0]
        across = float(page.mediabox[2])
        up = float(page.mediabox[3])
        scale, (kx, ky) = plan.scale, (picture.width / across, picture.height / up)
        step = picture.width * scale + _GAP
        height = max(bottom - top for top, bottom in strips) * scale
        content: list[str] = []
        resources = pikepdf.Dictionary()
        for number, (top, bottom) in enumerate(strips):
            form = _form(document, page, (up - bottom / ky, up - top / ky))
            resources[f"/Strip{number}"] = form
            y = height - (bottom - top) * scale - (up - bottom / ky) * ky * scale
            content.append(
                f"q {kx * scale:.5f} 0 0 {ky * scale:.5f} {number * step:.3f} {y:.3f} cm "
                f"/Strip{number} Do Q"
            )
            content.extend(_marks(number, strips, top, bottom, picture, scale, step, height))
        width = len(strips) * step - _GAP
        new = pikepdf.Page(pikepdf.Dictionary(
            Type=pikepdf.Name.Page,
            MediaBox=[0, 0, round(width, 2), round(height, 2)],
            Resources=pikepdf.Dictionary(XObject=resources),
            Contents=document.make_stream("\n".join(content).encode("ascii")),
        ))  # fmt: skip
        document.pages.append(new)
        del document.pages[0]
        return _saved(document)


def _marks(number: int, strips: tuple[tuple[float, float], ...], top: float, bottom: float,
           picture: Picture, scale: float, step: float, height: float) -> Iterator[str]:  # fmt: skip
    """A dotted line at every cut, so that nobody takes it for the end of the graph."""
    left, right = number * step, number * step + picture.width * scale
    heights = [height] if top > 0 else []
    if bottom < picture.height:
        heights.append(height - (bottom - top) * scale)
    for y in heights:
        yield f"q 0.6 G 0.6 w [1 2] 0 d {left:.2f} {y:.2f} m {right:.2f} {y:.2f} l S Q"


def _form(document: pikepdf.Pdf, page: pikepdf.Page, band: tuple[float, float]) -> pikepdf.Object:
    """The page's content between two heights as a form, without text outside: nothing twice."""
    import pikepdf

    box = [0, band[0], page.mediabox[2], band[1]]
    up = float(page.mediabox[3])
    kept: list[object] = []
    inside = True
    for operands, operator in pikepdf.parse_content_stream(page):
        name = str(operator)
        if name == "Tm":  # graphviz's pages are drawn upside down: y grows downwards
            inside = band[0] <= up - float(operands[5]) <= band[1]  # type: ignore[arg-type]
        if inside or name not in ("Tj", "TJ"):
            kept.append((operands, operator))
        if name == "ET":
            inside = True
    form = document.make_stream(pikepdf.unparse_content_stream(kept))  # type: ignore[arg-type]
    form.Type, form.Subtype = pikepdf.Name.XObject, pikepdf.Name.Form
    form.BBox = pikepdf.Array(box)
    form.Resources = page.Resources
    return form


def _saved(document: pikepdf.Pdf) -> bytes:
    if "/Info" in document.trailer:
        del document.trailer["/Info"]
    target = io.BytesIO()
    document.remove_unreferenced_resources()
    document.save(target, deterministic_id=True, compress_streams=True)
    return target.getvalue()
