"""The child that lays a PDF out: `python -m reportgen.outputs.weasyprint_process PAGE ROOT PDF`."""

from __future__ import annotations

import hashlib
import io
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pikepdf
import weasyprint
from weasyprint.urls import URLFetcher

from reportgen.render.drawings import TILE

_POINTS_PER_PIXEL = 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """Where a tile goes: a page and a rectangle in points, measured from the lower left."""

    page: int
    file: str
    left: float
    bottom: float
    right: float
    top: float


class _Refusing(URLFetcher):  # type: ignore[misc]
    """Gives out what a page carries in itself, and remembers whatever else was asked for."""

    def __init__(self) -> None:
        super().__init__(allowed_protocols=("data",))
        self.refused: list[str] = []

    def fetch(self, url: str, headers: Any = None) -> Any:
        if not url.startswith("data:"):
            self.refused.append(url)
        return super().fetch(url, headers)


class _Kept(logging.Handler):
    """Keeps what WeasyPrint complains of: each complaint is something missing on paper."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def layout(page: str, root: Path) -> bytes:
    """The PDF of `page`, its tiles placed; equal input gives equal bytes.

    Raises:
        RuntimeError: WeasyPrint warned, or the page asked for something outside itself.
    """
    kept, fetcher = _Kept(), _Refusing()
    logger = logging.getLogger("weasyprint")
    logger.handlers[:] = [kept]
    logger.setLevel(logging.WARNING)
    document = weasyprint.HTML(string=page, url_fetcher=fetcher).render()
    identifier = hashlib.sha256(page.encode()).digest()[:16]
    bare = document.write_pdf(pdf_tags=True, pdf_identifier=identifier)
    complaints = [*kept.lines, *(f"refused: {url[:200]}" for url in fetcher.refused)]
    if complaints:
        raise RuntimeError("\n".join(complaints))
    return _with_tiles(bare, spots(document), root)


def spots(document: Any) -> list[Spot]:
    """The places that a laid-out page leaves for tiles."""
    found = []
    for number, page in enumerate(document.pages):
        for name, (left, top, right, bottom) in page.anchors.items():
            if name.startswith(TILE):
                found.append(
                    Spot(
                        page=number,
                        file=unquote(name.removeprefix(TILE)),
                        left=left * _POINTS_PER_PIXEL,
                        bottom=(page.height - bottom) * _POINTS_PER_PIXEL,
                        right=right * _POINTS_PER_PIXEL,
                        top=(page.height - top) * _POINTS_PER_PIXEL,
                    )
                )
    return found


def _with_tiles(bare: bytes, places: list[Spot], root: Path) -> bytes:
    target = io.BytesIO()
    with pikepdf.open(io.BytesIO(bare)) as pdf:
        for number, spot in enumerate(places):
            with pikepdf.open(root / spot.file) as tile:
                _place(pdf, spot, tile.pages[0], pikepdf.Name(f"/Tile{number}"))
        pdf.save(
            target,
            deterministic_id=True,
            object_stream_mode=pikepdf.ObjectStreamMode.generate,
            recompress_flate=False,
        )
    return target.getvalue()


def _place(pdf: pikepdf.Pdf, spot: Spot, tile: pikepdf.Page, name: pikepdf.Name) -> None:
    """Draw `tile` into its spot. `Page.add_overlay` does the same under a random name."""
    page, box = (
        pdf.pages[spot.page],
        pikepdf.Rectangle(spot.left, spot.bottom, spot.right, spot.top),
    )
    form = pdf.copy_foreign(tile.as_form_xobject())
    page.add_resource(form, pikepdf.Name.XObject, name)
    placement = page.calc_form_xobject_placement(
        form, name, box, invert_transformations=True, allow_shrink=True, allow_expand=True
    )
    page.contents_add(b"q", prepend=True)
    page.contents_add(b"Q\n" + placement)


def main(page: str, root: str, target: str) -> None:
    """Read the page, write the PDF."""
    Path(target).write_bytes(layout(Path(page).read_text(encoding="utf-8"), Path(root)))


if __name__ == "__main__":
    main(*sys.argv[1:])
