"""PDF layout: `main` runs in a process of its own.

Each PDF takes two lines of the input and two of the output, all JSON: the paths of the page, of its
root and of the PDF to write; the sheets that the page takes in a frame; the paths of the chapters'
PDFs, if the page is a frame; and true when the PDF is there.
"""

from __future__ import annotations

import gc
import hashlib
import io
import json
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pikepdf
import weasyprint
from weasyprint.urls import URLFetcher

from reportgen.pdf.join import join
from reportgen.pdf.places import SHEET, TILE, Sheet, is_place

_POINTS_PER_PIXEL = 0.75  # CSS has 96 pixels per inch


@dataclass(frozen=True, kw_only=True, slots=True)
class TilePlace:
    """Page and rectangle of a graph tile, in points from the lower left corner."""

    page: int
    file: str
    left: float
    bottom: float
    right: float
    top: float


class _DataUrlFetcher(URLFetcher):  # type: ignore[misc]
    """Fetches data URLs only and records all other URLs."""

    def __init__(self) -> None:
        super().__init__(allowed_protocols=("data",))
        self.refused: list[str] = []

    def fetch(self, url: str, headers: Any = None) -> Any:
        if not url.startswith("data:"):
            self.refused.append(url)  # WeasyPrint logs the error below and goes on
        return super().fetch(url, headers)


class _WarningRecorder(logging.Handler):
    """Records WeasyPrint's warnings; each one means that something is missing in the PDF."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """A page that is laid out and not drawn yet; from `lay_out`."""

    document: Any
    identifier: bytes
    recorder: _WarningRecorder
    fetcher: _DataUrlFetcher

    def sheets(self) -> tuple[Sheet, ...]:
        """What `join.sheets_of` returns for the PDF."""
        found, known = [], set[str]()
        for page in self.document.pages:
            own = {name for name in page.anchors if not is_place(name)} - known
            known |= own  # of equal ids the first one counts
            landscape = page.width > page.height
            found.append(Sheet(landscape=landscape, anchors=tuple(sorted(own))))
        return tuple(found)

    def pdf(self, root: Path, chapters: Callable[[], Sequence[Path]] = tuple) -> bytes:
        """The PDF with all tiles placed; equal input gives equal bytes.

        The sheets of the page are replaced by the pages of `chapters`, PDF files. They are called
        for when everything else is drawn.

        Raises:
            RuntimeError: WeasyPrint warned, or the page refers to an external URL.
        """
        bare = self.document.write_pdf(pdf_tags=True, pdf_identifier=self.identifier)
        refused = (f"refused: {url[:200]}" for url in self.fetcher.refused)
        warnings = [*self.recorder.lines, *refused]
        if warnings:
            raise RuntimeError("\n".join(warnings))
        target = io.BytesIO()
        with ExitStack() as opened:
            pdf = opened.enter_context(pikepdf.open(io.BytesIO(bare)))
            _place_tiles(pdf, tile_places(self.document), root)
            parts = [opened.enter_context(pikepdf.open(chapter)) for chapter in chapters()]
            if parts:
                join(pdf, parts, first_sheets(self.document))
            pdf.save(
                target,
                deterministic_id=True,  # the default depends on the time
                object_stream_mode=pikepdf.ObjectStreamMode.generate,
                recompress_flate=False,
            )
        return target.getvalue()


def lay_out(page: str) -> Layout:
    """Lay out the HTML `page`."""
    recorder, fetcher = _WarningRecorder(), _DataUrlFetcher()
    logger = logging.getLogger("weasyprint")
    logger.handlers[:] = [recorder]
    logger.setLevel(logging.WARNING)
    return Layout(
        document=weasyprint.HTML(string=page, url_fetcher=fetcher).render(),
        identifier=hashlib.sha256(page.encode()).digest()[:16],
        recorder=recorder,
        fetcher=fetcher,
    )


def first_sheets(document: Any) -> list[int]:
    """The page of the first sheet of each chapter in a rendered document."""
    return [
        number
        for number, page in enumerate(document.pages)
        if any(name.startswith(SHEET) and name.endswith("-0") for name in page.anchors)
    ]


def tile_places(document: Any) -> list[TilePlace]:
    """The places of all tiles in a rendered document."""
    found = []
    for number, page in enumerate(document.pages):
        for name, (left, top, right, bottom) in page.anchors.items():
            if name.startswith(TILE):
                found.append(
                    TilePlace(
                        page=number,
                        file=unquote(name.removeprefix(TILE)),
                        left=left * _POINTS_PER_PIXEL,
                        bottom=(page.height - bottom) * _POINTS_PER_PIXEL,
                        right=right * _POINTS_PER_PIXEL,
                        top=(page.height - top) * _POINTS_PER_PIXEL,
                    )
                )
    return found


def _place_tiles(pdf: pikepdf.Pdf, places: list[TilePlace], root: Path) -> None:
    for number, place in enumerate(places):
        with pikepdf.open(root / place.file) as tile:
            _place(pdf, place, tile.pages[0], pikepdf.Name(f"/Tile{number}"))


def _place(pdf: pikepdf.Pdf, place: TilePlace, tile: pikepdf.Page, name: pikepdf.Name) -> None:
    """Draw `tile` into its place; `Page.add_overlay` would use a random resource name."""
    page = pdf.pages[place.page]
    box = pikepdf.Rectangle(place.left, place.bottom, place.right, place.top)
    form = pdf.copy_foreign(tile.as_form_xobject())
    page.add_resource(form, pikepdf.Name.XObject, name)
    placement = page.calc_form_xobject_placement(
        form, name, box, invert_transformations=True, allow_shrink=True, allow_expand=True
    )
    # WeasyPrint turns the y axis of a page upside down: q and Q keep that from the tile.
    page.contents_add(b"q", prepend=True)
    page.contents_add(b"Q\n" + placement)


def main() -> None:
    """Lay out pages until the input ends."""
    # The boxes of a layout live until its end: looking for garbage among them takes a fifth of
    # the time and frees nothing.
    gc.disable()
    for line in sys.stdin:
        page, root, target = map(Path, json.loads(line))
        layout = lay_out(page.read_text(encoding="utf-8"))
        _answer([asdict(sheet) for sheet in layout.sheets()])
        target.write_bytes(layout.pdf(root, _chapters))
        _answer(True)
        del layout
        gc.collect()


def _chapters() -> list[Path]:
    return [Path(path) for path in json.loads(sys.stdin.readline())]


def _answer(value: object) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
