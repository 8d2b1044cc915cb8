"""Join the PDF of a report's frame with those of its chapters.

The frame is laid out with an empty sheet for each page of each chapter, so that its table of
contents, its links and its footers have the final page numbers. Here the chapters' pages take the
places of the sheets, whose footers they get; outlines, link targets and structure are joined.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pikepdf

from reportgen.pdf.places import Sheet, is_place


def sheets_of(chapter: pikepdf.Pdf) -> tuple[Sheet, ...]:
    """What the frame needs to know of the pages of `chapter`."""
    anchors: list[list[str]] = [[] for _ in chapter.pages]
    for name, page, _ in _targets(chapter):
        anchors[page].append(name)
    return tuple(
        Sheet(landscape=_is_landscape(page), anchors=tuple(names))
        for page, names in zip(chapter.pages, anchors, strict=True)
    )


def join(frame: pikepdf.Pdf, chapters: Sequence[pikepdf.Pdf], first_sheets: Sequence[int]) -> None:
    """Replace the sheets of `frame` by the pages of `chapters`.

    `first_sheets` has the index of the first sheet of each chapter.
    """
    joined = _Joined.of_frame(frame, chapters, first_sheets)
    for chapter, first in zip(chapters, first_sheets, strict=True):
        joined.add(chapter, first)
    joined.write()


@dataclass(kw_only=True, slots=True)
class _Joined:
    """What the document refers to its pages by: targets of links, bookmarks, structure.

    Each is in the order of the pages, by the index of its page, when it is written.
    """

    pdf: pikepdf.Pdf
    targets: dict[str, pikepdf.Object] = field(default_factory=dict)
    bookmarks: list[tuple[int, pikepdf.OutlineItem]] = field(default_factory=list)
    elements: list[tuple[int, pikepdf.Object]] = field(default_factory=list)
    parents: list[tuple[int, pikepdf.Object]] = field(default_factory=list)

    @classmethod
    def of_frame(
        cls, pdf: pikepdf.Pdf, chapters: Sequence[pikepdf.Pdf], first_sheets: Sequence[int]
    ) -> _Joined:
        """What `pdf` has on the pages that are no sheets."""
        sheets = {
            first + number
            for first, chapter in zip(first_sheets, chapters, strict=True)
            for number in range(len(chapter.pages))
        }
        return cls(
            pdf=pdf,
            targets={name: to for name, page, to in _targets(pdf) if page not in sheets},
            bookmarks=list(_bookmarks(pdf, pdf, 0)),
            elements=[each for each in _elements(pdf) if each[0] not in sheets],
            # The keys of pages are their indices, those of links follow.
            parents=[each for each in _parents(pdf) if each[0] not in sheets],
        )

    def add(self, chapter: pikepdf.Pdf, first: int) -> None:
        """Put the pages of `chapter` in the places of the sheets from `first` on."""
        key = self._next_key()
        for index, page in enumerate(chapter.pages):
            sheet = self.pdf.pages[first + index]
            self.pdf.pages[first + index] = page
            placed = self.pdf.pages[first + index]
            _draw_footer(sheet, placed)
            for each in (placed.obj, *placed.obj.get("/Annots", ())):
                for name in ("/StructParents", "/StructParent"):
                    if name in each:
                        each[name] += key
        # After the pages: references to a page are copied if the page itself was.
        structure = self.pdf.copy_foreign(chapter.Root.StructTreeRoot)
        self.parents += [(key + each, parent) for each, parent in _pairs(structure.ParentTree.Nums)]
        self.elements += [(first, element) for element in structure.K[0].K]
        self.bookmarks += _bookmarks(chapter, self.pdf, first)
        self.targets |= {name: _moved(to, self.pdf, first + n) for name, n, to in _targets(chapter)}

    def write(self) -> None:
        """Write everything into the document."""
        root = self.pdf.Root
        document = root.StructTreeRoot.K[0]
        for _, element in self.elements:
            element.P = document
        document.K = pikepdf.Array([element for _, element in _in_order(self.elements)])
        root.StructTreeRoot.ParentTree.Nums = _flat(_in_order(self.parents))
        targets = [(pikepdf.String(name), to) for name, to in sorted(self.targets.items())]
        root.Names.Dests.Names = _flat(targets)
        with self.pdf.open_outline() as outline:
            outline.root[:] = [bookmark for _, bookmark in _in_order(self.bookmarks)]

    def _next_key(self) -> int:
        return max((key for key, _ in self.parents), default=-1) + 1


def _in_order(found: Iterable[tuple[int, Any]]) -> list[tuple[int, Any]]:
    return sorted(found, key=lambda each: each[0])  # stable, and not by the objects


def _targets(pdf: pikepdf.Pdf) -> Iterator[tuple[str, int, pikepdf.Object]]:
    """Name, index of the page and destination of each target of a link."""
    indices = _indices(pdf)
    if "/Names" in pdf.Root:
        for name, to in _pairs(pdf.Root.Names.Dests.Names):
            if not is_place(str(name)):
                yield str(name), indices[to[0].objgen], to


def _elements(pdf: pikepdf.Pdf) -> Iterator[tuple[int, pikepdf.Object]]:
    """Index of the page and structure element of each part of the document."""
    indices = _indices(pdf)
    for element in pdf.Root.StructTreeRoot.K[0].K:
        yield indices[element.Pg.objgen], element


def _parents(pdf: pikepdf.Pdf) -> Iterator[tuple[int, pikepdf.Object]]:
    """The structure elements of marked content, by the key of its page or link."""
    for key, parent in _pairs(pdf.Root.StructTreeRoot.ParentTree.Nums):
        yield int(key), parent


def _bookmarks(
    source: pikepdf.Pdf, target: pikepdf.Pdf, first: int
) -> Iterator[tuple[int, pikepdf.OutlineItem]]:
    """The bookmarks of `source`, whose pages are those of `target` from `first` on."""
    indices = _indices(source)
    with source.open_outline() as outline:
        for item in outline.root:
            yield _page_of(item, indices, first), _bookmark(item, indices, target, first)


def _bookmark(
    item: pikepdf.OutlineItem, indices: dict[tuple[int, int], int], target: pikepdf.Pdf, first: int
) -> pikepdf.OutlineItem:
    destination = _moved(item.destination, target, _page_of(item, indices, first))
    copy = pikepdf.OutlineItem(item.title, destination=destination)
    copy.is_closed = item.is_closed
    copy.children[:] = [_bookmark(child, indices, target, first) for child in item.children]
    return copy


def _page_of(item: pikepdf.OutlineItem, indices: dict[tuple[int, int], int], first: int) -> int:
    destination: Any = item.destination  # WeasyPrint writes arrays
    page, *_ = destination
    return first + indices[page.objgen]


def _moved(destination: Any, pdf: pikepdf.Pdf, page: int) -> pikepdf.Array:
    _, *view = destination
    return pikepdf.Array([pdf.pages[page].obj, *view])


def _draw_footer(sheet: pikepdf.Page, page: pikepdf.Page) -> None:
    """Draw the content of `sheet` on `page`. It is no part of the text, so that its marks go."""
    for kind in ("/Font", "/ExtGState"):
        for name, resource in sheet.resources[kind].items():
            page.resources[kind][_of_footer(name)] = resource
    footer: list[Any] = []
    for each in pikepdf.parse_content_stream(sheet):
        operator, operands = str(each.operator), list(each.operands)
        if operator in ("Tf", "gs"):
            operands[0] = _of_footer(str(operands[0]))
        if operator not in ("BMC", "BDC", "EMC"):
            footer.append((operands, each.operator))
    # WeasyPrint turns the y axis of a page upside down: q and Q keep that from the footer.
    page.contents_add(b"q", prepend=True)
    drawn = pikepdf.unparse_content_stream(footer)
    page.contents_add(b"Q\n/Artifact BMC\n%s\nEMC" % drawn)
    page.contents_coalesce()  # three streams of a page take more bytes than one


def _of_footer(name: str) -> pikepdf.Name:
    """The name of a resource of the frame, beside those of the chapter."""
    return pikepdf.Name(f"/Footer{name[1:]}")


def _indices(pdf: pikepdf.Pdf) -> dict[tuple[int, int], int]:
    """The index of each page, by the number of its object."""
    return {page.obj.objgen: index for index, page in enumerate(pdf.pages)}


def _is_landscape(page: pikepdf.Page) -> bool:
    left, bottom, right, top = map(float, page.mediabox)
    return right - left > top - bottom


def _pairs(flat: pikepdf.Object) -> Iterator[tuple[Any, Any]]:
    """Keys and values, as the trees of a PDF store them."""
    values = iter(flat)
    return zip(values, values, strict=True)


def _flat(pairs: Sequence[tuple[object, pikepdf.Object]]) -> pikepdf.Array:
    return pikepdf.Array([each for pair in pairs for each in pair])
