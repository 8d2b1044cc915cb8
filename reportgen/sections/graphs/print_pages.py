"""A drawing on paper: the fewest pages on which its text can be read, as vector PDFs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from reportgen.drawing.dot import LINE_POINTS
from reportgen.drawing.svg import SvgBox, SvgPicture

SMALLEST_TEXT_POINTS = 6.0

# Usable points of an A4 page without margins, running heads and a heading.
# CSS shrinks a larger tile.
_LONG, _SHORT, _HEADING = 668.0, 483.0, 26.0
_LANDSCAPE_FROM = 610.0  # CSS rotates a page this wide instead of shrinking it
_GAP = 20.0  # between columns
_OVERLAP = 6.0  # shown on both sides of a cut
_SMALLEST_SCALE = SMALLEST_TEXT_POINTS / LINE_POINTS
_SCALES = tuple(1 - step / 50 for step in range(18) if 1 - step / 50 >= _SMALLEST_SCALE)


@dataclass(frozen=True, kw_only=True, slots=True)
class PagePiece:
    """A piece of a drawing, in points from its upper left corner."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        """Its width in points of the drawing."""
        return self.right - self.left

    @property
    def height(self) -> float:
        """Its height in points of the drawing."""
        return self.bottom - self.top


@dataclass(frozen=True, kw_only=True, slots=True)
class PagePlan:
    """How a drawing is cut: the scale, the pieces, and how many pieces stand side by side.

    `bands` is the number of pieces that stand side by side in the drawing: 1 if it is not too wide.
    """

    scale: float
    pieces: tuple[PagePiece, ...]
    columns: int = 1
    bands: int = 1

    @property
    def pages(self) -> list[tuple[PagePiece, ...]]:
        """The pieces of each page."""
        starts = range(0, len(self.pieces), self.columns)
        return [self.pieces[i : i + self.columns] for i in starts]

    def place(self, page: int) -> str:
        """Where a page is in a drawing that is cut both ways; "" in others."""
        row, column = divmod(page, self.bands)
        return f", row {row + 1}, column {column + 1}" if self.bands > 1 else ""

    def neighbors(self, page: int) -> dict[str, int]:
        """The pages on which the drawing continues, by the side of the drawing: `above`, `left`."""
        column = page % self.bands
        beside = {
            "above": page - self.bands,
            "left": page - 1 if column > 0 else -1,
            "right": page + 1 if column < self.bands - 1 else -1,
            "below": page + self.bands,
        }
        return {side: each for side, each in beside.items() if 0 <= each < len(self.pages)}


def plan_pages(picture: SvgPicture, *, pages: int) -> PagePlan | None:
    """The plan with the fewest readable pages and, on these, the largest scale.

    A drawing that is too wide is cut from top to bottom as well. None if more than `pages` pages
    are needed.
    """
    best: PagePlan | None = None
    for plan in (_plan_strips, _plan_grid):
        for scale in _SCALES:
            for width, height in ((_SHORT, _LONG - _HEADING), (_LONG, _SHORT - _HEADING)):
                found = plan(picture, scale, width, height)
                if found is not None and len(found.pages) <= pages:
                    best, pages = found, len(found.pages) - 1  # others must have fewer
                    if pages == 0:
                        return best
    return best


def _plan_strips(picture: SvgPicture, scale: float, width: float, height: float) -> PagePlan | None:
    columns = int((width + _GAP) / (picture.width * scale + _GAP))
    pieces = _strips(picture, height / scale) if columns else None
    if pieces is None:
        return None
    return PagePlan(scale=scale, pieces=pieces, columns=columns)


def _strips(picture: SvgPicture, longest: float) -> tuple[PagePiece, ...] | None:
    """The drawing cut between boxes into pieces of at most `longest` points; None if impossible."""
    cuts = _gaps(picture.boxes)
    pieces: list[PagePiece] = []
    top = 0.0

    def piece(bottom: float) -> PagePiece:
        upper = max(top - _OVERLAP, 0.0)
        return PagePiece(left=0.0, top=upper, right=picture.width, bottom=bottom)

    while picture.height - top > longest - _OVERLAP:
        # the overlap is added on both sides of a strip
        fitting = [cut for cut in cuts if top + 1 < cut <= top + longest - 2 * _OVERLAP]
        if not fitting:
            return None
        pieces.append(piece(fitting[-1] + _OVERLAP))
        top = fitting[-1]
    return (*pieces, piece(picture.height))


def _gaps(boxes: tuple[SvgBox, ...]) -> list[float]:
    """Heights at which a horizontal cut crosses no box: the middle of each gap."""
    gaps: list[float] = []
    lowest: float | None = None
    for box in sorted(boxes, key=lambda box: box.top):
        if lowest is not None and box.top > lowest:
            gaps.append((lowest + box.top) / 2)
        lowest = box.bottom if lowest is None else max(lowest, box.bottom)
    return gaps


def _plan_grid(picture: SvgPicture, scale: float, width: float, height: float) -> PagePlan | None:
    sides = [(box.left, box.right) for box in picture.boxes]
    columns = _spans(sides, picture.width, width / scale)
    rows = _spans([(box.top, box.bottom) for box in picture.boxes], picture.height, height / scale)
    if columns is None or rows is None or len(columns) == 1:
        return None
    pieces = tuple(
        PagePiece(left=left, top=top, right=right, bottom=bottom)
        for top, bottom in rows
        for left, right in columns
    )
    return PagePlan(scale=scale, pieces=pieces, bands=len(columns))


def _spans(
    boxes: list[tuple[float, float]], total: float, longest: float
) -> list[tuple[float, float]] | None:
    """Overlapping spans from 0 to `total` in which every box is whole somewhere.

    Each cut crosses as few boxes as possible; boxes that it crosses are on both sides.
    """
    spans: list[tuple[float, float]] = []
    start = begin = 0.0  # the last cut, and where the span after it begins
    while total - begin > longest:
        edges = {edge + side for box in boxes for edge, side in zip(box, (-1, 1), strict=True)}
        options = []
        for cut in sorted(edge for edge in edges if start + 1 < edge < begin + longest):
            crossed = [box for box in boxes if box[0] < cut < box[1]]
            end = max([cut, *(right for _, right in crossed)]) + _OVERLAP
            again = min([cut, *(left for left, _ in crossed)]) - _OVERLAP
            if end - begin <= longest and again > begin:
                options.append((len(crossed), -cut, end, again))
        # a cut near the start would waste a page
        late = [option for option in options if -option[1] > begin + longest / 2]
        if not (late or options):
            return None
        _, cut, end, begin_next = min(late or options)
        spans.append((begin, min(end, total)))
        start, begin = -cut, begin_next
    return [*spans, (begin, total)]


def page_pdfs(pdf: bytes, picture: SvgPicture, plan: PagePlan) -> Iterator[bytes]:
    """One single-page PDF per page of the plan, cropped to its content."""
    for strips in plan.pages:
        yield _page(pdf, picture, plan.scale, strips)


def _page(pdf: bytes, picture: SvgPicture, scale: float, pieces: tuple[PagePiece, ...]) -> bytes:
    import pikepdf

    with pikepdf.open(io.BytesIO(pdf)) as document:
        page = document.pages[0]
        up = float(page.mediabox[3])  # PDF measures upwards, the SVG downwards
        step = pieces[0].width * scale + _GAP
        height = max(piece.height for piece in pieces) * scale
        forms = pikepdf.Dictionary()
        content: list[str] = []
        for number, piece in enumerate(pieces):
            forms[f"/Piece{number}"] = _form(document, page, piece)
            x = number * step - piece.left * scale
            y = height - (up - piece.top) * scale
            content.append(f"q {scale:.4f} 0 0 {scale:.4f} {x:.3f} {y:.3f} cm /Piece{number} Do Q")
            content.extend(_marks(piece, picture, up, scale, x, y))
        width = _page_width(len(pieces) * step - _GAP, scale)
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
    # widened to landscape if shrinking to the text width made the text unreadable
    shrunk = scale * _SHORT / width
    return width if width <= _SHORT or shrunk >= _SMALLEST_SCALE else max(width, _LANDSCAPE_FROM)


def _marks(
    piece: PagePiece, picture: SvgPicture, up: float, scale: float, x: float, y: float
) -> Iterator[str]:
    """Dotted lines at the edges at which the drawing continues."""
    left, right = x + piece.left * scale, x + piece.right * scale
    lower, upper = y + (up - piece.bottom) * scale, y + (up - piece.top) * scale
    if piece.top > 0:
        yield _mark(left, upper, right, upper)
    if piece.bottom < picture.height:
        yield _mark(left, lower, right, lower)
    if piece.left > 0:
        yield _mark(left, lower, left, upper)
    if piece.right < picture.width:
        yield _mark(right, lower, right, upper)


def _mark(x0: float, y0: float, x1: float, y1: float) -> str:
    # a dotted line distinguishes a cut from the end of the graph
    return f"q 0.6 G 0.6 w [1 2] 0 d {x0:.2f} {y0:.2f} m {x1:.2f} {y1:.2f} l S Q"


def _form(document: Any, page: Any, piece: PagePiece) -> Any:
    """A piece of the page as a form XObject."""
    # a BBox only hides text outside; it is removed, so that a search finds each label once
    import pikepdf

    up = float(page.mediabox[3])
    kept: list[Any] = []
    inside = True
    for instruction in pikepdf.parse_content_stream(page):
        name = str(instruction.operator)
        if name == "Tm":  # in graphviz's PDF y grows downwards
            x, y = (float(instruction.operands[n]) for n in (4, 5))
            inside = piece.left <= x <= piece.right and piece.top <= y <= piece.bottom
        if inside or name not in ("Tj", "TJ"):
            kept.append(instruction)
        if name == "ET":
            inside = True
    form = document.make_stream(pikepdf.unparse_content_stream(kept))
    form.Type, form.Subtype = pikepdf.Name.XObject, pikepdf.Name.Form
    form.BBox = pikepdf.Array([piece.left, up - piece.bottom, piece.right, up - piece.top])
    form.Resources = page.Resources
    return form


def _saved(document: Any) -> bytes:
    # dates: the same graph must give the same bytes
    if "/Info" in document.trailer:
        del document.trailer["/Info"]
    target = io.BytesIO()
    # the default ID depends on the time
    document.save(target, deterministic_id=True, compress_streams=True)
    return target.getvalue()
