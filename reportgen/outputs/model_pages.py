"""The pages of models: made as soon as a model is analyzed, while others still are."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any

from reportgen.outputs.section_files import digest_of_report
from reportgen.pdf.places import Sheet
from reportgen.pdf.process import PdfMaker
from reportgen.render import prepare_pages, render_chapter, render_model
from reportgen.report import ModelReport, Report, Timings, report_of_model

Reuse = Callable[[list[Any], Callable[[], bytes]], bytes]
"""Returns what the function makes, or what it made of an equal list in an earlier build."""


def make_again(_: list[Any], make: Callable[[], bytes]) -> bytes:
    """The `Reuse` that reuses nothing."""
    return make()


@dataclass(frozen=True, kw_only=True, slots=True)
class PageOptions:
    """What the pages of all models have in common.

    Attributes:
        work: the folder with the files that sections wrote, in `models/<name>/`.
        formats: any of `FORMATS`.
        models: how many models the report has.
        live: a value that changes with each report, for pages that reload themselves when it
            changes; "" in the last one; None for pages that do not reload.
        brief_pdf: whether the PDF has two pages for each model instead of every section.
        reuse: where pages and chapters come from if nothing changed that they are made of.
    """

    work: Path
    formats: Collection[str]
    models: int
    live: str | None = None
    brief_pdf: bool = False
    reuse: Reuse = make_again


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPages:
    """The HTML page and the PDF chapter of each model, in the making; from `making_pages`.

    Attributes:
        options: what all pages have in common.
        pdfs: lays out the PDFs.
        rendering: held by the thread that renders a page: Python runs one at a time, and so the
            layout of the first chapter begins as early as possible.
        stopped: set at the end.
    """

    options: PageOptions
    pdfs: PdfMaker
    rendering: Lock
    stopped: Event
    _executor: ThreadPoolExecutor
    _html: dict[str, Future[bytes]] = field(default_factory=dict)
    _chapters: dict[str, Future[bytes]] = field(default_factory=dict)
    _sheets: dict[str, Future[tuple[Sheet, ...]]] = field(default_factory=dict)

    def prepare(self) -> None:
        """Load what pages are made with, while there are no results yet."""
        if {"html", "pdf"}.intersection(self.options.formats):
            self._executor.submit(self._prepare)

    def _prepare(self) -> None:
        # One after the other: children import torch meanwhile, and what is analyzed waits for it.
        prepare_pages()
        if "pdf" in self.options.formats:
            self.pdfs.prepare()

    def start(self, title: str, model: ModelReport, number: int, timings: Timings | None) -> None:
        """Start the pages of `model`, the `number`th of the report with this title."""
        options, report = self.options, report_of_model(title, model, timings)
        digest = "" if options.reuse is make_again else digest_of_report(report, options.work)
        if "pdf" in options.formats:  # first, as it takes longer
            self._sheets[model.name] = Future()
            self._chapters[model.name] = self._executor.submit(
                self._make_chapter, model, number, digest
            )
        if "html" in options.formats:
            self._html[model.name] = self._executor.submit(self._make_html, report, digest)

    def start_all(self, report: Report) -> None:
        """Start the pages of all models of `report`."""
        for number, model in enumerate(report.models, start=1):
            self.start(report.title, model, number, report.timings)

    def html(self, model: ModelReport) -> bytes:
        """The page of `model`, when it is finished."""
        return self._html[model.name].result()

    def chapters(self, models: Iterable[ModelReport]) -> list[bytes]:
        """The PDF chapters of `models`, when all are finished."""
        return [self._chapters[model.name].result() for model in models]

    def sheets(self, model: ModelReport) -> tuple[Sheet, ...]:
        """What the chapter of `model` takes in the frame, when it is laid out."""
        laid_out, chapter = self._sheets[model.name], self._chapters[model.name]
        either: tuple[Future[Any], ...] = (laid_out, chapter)
        wait(either, return_when=FIRST_COMPLETED)
        # no layout if the chapter comes from an earlier build, or failed
        return laid_out.result() if laid_out.done() else _sheets_of(chapter.result())

    def _make_html(self, report: Report, digest: str) -> bytes:
        work, live = self.options.work, self.options.live

        def make() -> bytes:
            with self.rendering:
                return render_model(report, report.models[0], work, live=live or "").encode()

        return self.options.reuse([digest, "index.html", live], make)

    def _make_chapter(self, model: ModelReport, number: int, digest: str) -> bytes:
        work, models, brief = self.options.work, self.options.models, self.options.brief_pdf
        laid_out = self._sheets[model.name].set_result

        def make() -> bytes:
            with self.rendering:
                page = render_chapter(model, work, number=number, models=models, brief=brief)
            return self.pdfs.make(page, work, laid_out=laid_out, stopped=self.stopped)

        return self.options.reuse([digest, "chapter", number, models, brief], make)


@contextmanager
def making_pages(options: PageOptions, *, processes: int | None = None) -> Iterator[ModelPages]:
    """A `ModelPages` that uses so many `processes` at once; None for one per CPU.

    What still runs at the end of the block is stopped.
    """
    stopped, pdfs = Event(), PdfMaker()
    try:
        with ThreadPoolExecutor(max_workers=processes or os.cpu_count()) as executor:
            try:
                yield ModelPages(
                    options=options,
                    pdfs=pdfs,
                    rendering=Lock(),
                    stopped=stopped,
                    _executor=executor,
                )
            finally:
                stopped.set()
                executor.shutdown(wait=False, cancel_futures=True)
    finally:
        pdfs.close()  # after the last thread has returned its process


def _sheets_of(chapter: bytes) -> tuple[Sheet, ...]:
    import pikepdf  # not needed if the PDF is in the cache

    from reportgen.pdf import join

    with pikepdf.open(io.BytesIO(chapter)) as pdf:
        return join.sheets_of(pdf)
