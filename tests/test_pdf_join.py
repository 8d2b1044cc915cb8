"""A PDF of chapters that were laid out each by itself is as one that was laid out at once."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import pikepdf
import pytest
from report_values import full_report, small_report, work_folder, write_in

from reportgen.errors import OutputError
from reportgen.outputs import PageOptions, making_pages, model_pages, writing
from reportgen.pdf.join import sheets_of
from reportgen.pdf.process import PdfMaker
from reportgen.pdf.weasyprint_process import lay_out
from reportgen.render import render_chapter, render_print
from reportgen.report import Report

pytestmark = pytest.mark.slow
BOOKMARKED = ("h1", "h2", "h3", "h4")


def _report() -> Report:
    """Two models; one has a section that failed, the other drawings in landscape."""
    models = {each.name: each for each in full_report().models}
    drawn = models["vit_b_16"]
    drawn = replace(drawn, sections=tuple(s for s in drawn.sections if s.name == "graphs"))
    return replace(small_report(), models=(models["transformer"], drawn))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return work_folder(_report(), tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def file(work: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out")
    write_in(output, _report(), work, {"pdf"})
    return output / "report.pdf"


@pytest.fixture
def pdf(file: Path) -> Iterator[pikepdf.Pdf]:
    with pikepdf.open(file) as opened:
        yield opened


@pytest.fixture(scope="module")
def texts(file: Path) -> list[str]:
    """The text of each page."""
    done = subprocess.run(["pdftotext", "-layout", file, "-"], capture_output=True, check=True)
    return done.stdout.decode().split("\f")[:-1]


class _Headings(HTMLParser):
    """Level and text of the headings that have a bookmark."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[int, str]] = []
        self._level = 0
        self._hidden = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section" and ("class", "contents") in attrs:
            self._hidden = tag
        if tag == "section" and any(n == "class" and (v or "")[:5] == "cover" for n, v in attrs):
            self._hidden = tag
        if tag in BOOKMARKED and not self._hidden:
            self._level = int(tag[1])
            self.found.append((self._level, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in BOOKMARKED:
            self._level = 0
        if tag == self._hidden:
            self._hidden = ""

    def handle_data(self, data: str) -> None:
        if self._level:
            level, text = self.found[-1]
            self.found[-1] = (level, text + data)


def _outline(pdf: pikepdf.Pdf) -> list[tuple[int, str, int]]:
    """Level, title and page of each bookmark."""
    pages = {page.obj.objgen: number for number, page in enumerate(pdf.pages)}
    found = []

    def walk(items: list[pikepdf.OutlineItem], level: int) -> None:
        for item in items:
            found.append((level, str(item.title), pages[item.destination[0].objgen]))
            walk(item.children, level + 1)

    with pdf.open_outline() as outline:
        walk(outline.root, 1)
    return found


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _targets(pdf: pikepdf.Pdf) -> dict[str, int]:
    """The page of each target of a link."""
    pages = {page.obj.objgen: number for number, page in enumerate(pdf.pages)}
    names = list(pdf.Root.Names.Dests.Names)
    assert [str(name) for name in names[::2]] == sorted(str(name) for name in names[::2])
    return {
        str(name): pages[to[0].objgen] for name, to in zip(names[::2], names[1::2], strict=True)
    }


def test_the_sheets_of_a_chapter_are_known_before_it_is_drawn(work: Path) -> None:
    for number, model in enumerate(_report().models, start=1):
        laid_out = lay_out(render_chapter(model, work, number=number, models=2))
        with pikepdf.open(io.BytesIO(laid_out.pdf(work))) as drawn:
            assert laid_out.sheets() == sheets_of(drawn)
        assert f"model-{number}" in laid_out.sheets()[0].anchors


def test_the_outline_has_every_heading_on_its_page(
    pdf: pikepdf.Pdf, texts: list[str], work: Path
) -> None:
    report = _report()
    chapters = [
        _Headings(render_chapter(each, work, number=number, models=2)).found
        for number, each in enumerate(report.models, start=1)
    ]
    frame = _Headings(render_print(report, [])).found
    back = frame.index((1, "How each figure was made"))
    expected = [*frame[:back], *(each for found in chapters for each in found), *frame[back:]]
    outline = _outline(pdf)
    assert [_squeezed(title) for _, title, _ in outline] == [_squeezed(t) for _, t in expected]
    assert [level for level, *_ in outline if level == 1] == [n for n, _ in expected if n == 1]
    assert [page for *_, page in outline] == sorted(page for *_, page in outline)
    for _, title, page in outline:
        assert _squeezed(title)[:30] in _squeezed(texts[page])


def test_every_link_leads_to_the_page_of_what_it_names(pdf: pikepdf.Pdf, texts: list[str]) -> None:
    targets = _targets(pdf)
    links = [
        str(link.Dest)
        for page in pdf.pages
        for link in page.obj.get("/Annots", ())
        if link.Subtype == "/Link"
    ]
    assert set(links) <= set(targets)
    for number, each in enumerate(_report().models, start=1):
        assert links.count(f"model-{number}") >= 2  # of the cover and of the contents
        assert texts[targets[f"model-{number}"]].lstrip().startswith(each.name)
        for section in each.sections:
            if section.outcome.status != "skipped":
                page = targets[f"model-{number}-{section.name}"]
                assert re.search(rf"^ *{section.title}$", texts[page], re.MULTILINE)
    assert not [name for name in targets if name.startswith(("sheet:", "tile:"))]


def test_each_part_of_a_drawing_is_bookmarked_with_links_to_those_beside_it(
    pdf: pikepdf.Pdf,
) -> None:
    pages = {
        title: page for _, title, page in _outline(pdf) if title.startswith("Module graph: part")
    }
    assert list(pages) == [
        "Module graph: part 1 of 2 (below: part 2)",
        "Module graph: part 2 of 2 (above: part 1)",
    ]
    targets = _targets(pdf)
    linked = [
        [targets[str(link.Dest)] for link in pdf.pages[page].obj.Annots] for page in pages.values()
    ]
    assert linked == [[page] for page in reversed(pages.values())]


def test_page_numbers_are_those_of_the_pages(pdf: pikepdf.Pdf, texts: list[str]) -> None:
    assert len(texts) == len(pdf.pages)
    for number, text in enumerate(texts[1:], start=2):
        assert text.split()[-1] == str(number)
        assert text.rstrip().splitlines()[-1].split()[0] == "Small"  # the title of the report
    targets = _targets(pdf)
    numbers = [int(n) for n in re.findall(r"\. *(\d+)$", texts[1], re.MULTILINE)]
    links = [str(link.Dest) for link in pdf.pages[1].obj.Annots]
    assert numbers == [targets[name] + 1 for name in dict.fromkeys(links)]


def test_running_headers_are_those_of_the_chapters(pdf: pikepdf.Pdf, texts: list[str]) -> None:
    starts = [(page, title) for level, title, page in _outline(pdf) if level == 1]
    assert [texts[page + 1].split()[0] for page, title in starts if title == "vit_b_16"] == [
        "vit_b_16"
    ]
    sizes = {tuple(map(float, page.mediabox[2:])) for page in pdf.pages}
    assert len({width > height for width, height in sizes}) == 2


def test_all_marked_content_belongs_to_the_structure(pdf: pikepdf.Pdf) -> None:
    nums = list(pdf.Root.StructTreeRoot.ParentTree.Nums)
    keys = [int(key) for key in nums[::2]]
    assert keys == sorted(set(keys))
    parents = dict(zip(keys, nums[1::2], strict=True))
    pages = {page.obj.objgen: number for number, page in enumerate(pdf.pages)}
    for number, page in enumerate(pdf.pages):
        marks = [
            int(each.operands[1].MCID)
            for each in pikepdf.parse_content_stream(page)
            if str(each.operator) == "BDC"
        ]
        own = parents.pop(int(page.obj.StructParents))
        assert sorted(marks) == list(range(len(own)))
        assert {pages[element.Pg.objgen] for element in own} <= {number}
        for link in page.obj.get("/Annots", ()):
            assert parents.pop(int(link.StructParent)).S in ("/Link", "/NonStruct")
    assert parents == {}
    document = pdf.Root.StructTreeRoot.K[0]
    order = [pages[element.Pg.objgen] for element in document.K]
    assert order == sorted(order)
    assert all(element.P.objgen == document.objgen for element in document.K)


def test_the_title_the_language_and_the_fonts_are_those_of_one_document(pdf: pikepdf.Pdf) -> None:
    assert str(pdf.docinfo["/Title"]) == "Small"
    assert str(pdf.Root.Lang) == "en"
    assert pdf.Root.MarkInfo.Marked
    assert pdf.check_pdf_syntax() == []


def _layout_script(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """Run `lines` of a shell before the layouts."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\n{lines}\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [("kill -9 $$", OutputError, "was killed"), ("exit 3", RuntimeError, r"failed \(status 3\)")],
)
def test_a_chapter_that_fails_keeps_the_previous_report(
    work: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: str,
    error: type[Exception],
    message: str,
) -> None:
    output = tmp_path / "out"
    write_in(output, _report(), work, {"json"})
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    _layout_script(tmp_path, monkeypatch, lines)
    with pytest.raises(error, match=message):
        write_in(output, replace(_report(), title="Other"), work, {"json", "pdf"})
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "python"]


def test_layouts_are_stopped_when_the_build_ends_without_them(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _layout_script(tmp_path, monkeypatch, f"echo $$ > {tmp_path}/started; exec sleep 600")
    options = PageOptions(work=work, formats={"pdf"}, models=2)
    started = tmp_path / "started"
    with making_pages(options, processes=1) as pages:
        pages.start_all(_report())
        while not (started.is_file() and started.read_text()):
            time.sleep(0.02)
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_one_changed_model_is_one_chapter_and_one_page(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    kept: dict[str, bytes] = {}

    def reuse(made_of: list[Any], make: Callable[[], bytes]) -> bytes:
        key = repr(made_of)
        if key not in kept:
            kept[key] = make()
        return kept[key]

    def record(module: ModuleType | type, name: str, result: Any) -> None:
        def called(*args: Any, **_: Any) -> Any:
            made.append(f"{name} {len(args[0].models)}" if name == "render_index" else name)
            return result

        monkeypatch.setattr(module, name, called)

    record(model_pages, "render_model", "a page")
    record(PdfMaker, "make", lay_out("<html lang=en><p>A chapter.").pdf(work))
    record(writing, "render_index", "the first page")

    def build(report: Report) -> list[str]:
        made.clear()
        write_in(tmp_path / "out", report, work, {"html", "pdf"}, reuse=reuse)
        return sorted(made)

    report = _report()
    whole = ["make", "render_index 2"]
    assert build(report) == sorted([*whole, *["make", "render_model"] * 2])
    assert build(report) == []
    changed = replace(report.models[1], comment="changed")
    report = replace(report, models=(report.models[0], changed))
    assert build(report) == sorted([*whole, "make", "render_model"])
    assert build(replace(report, environment={"torch": "3"})) == whole
