"""Make PDFs of pages for paper with WeasyPrint, in child processes with a time limit.

A child is `reportgen.pdf.weasyprint_process`; it frees its memory when it ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from reportgen.errors import OutputError
from reportgen.pdf.places import Sheet
from reportgen.python_process import python_command
from reportgen.scratch import scratch_folder

_SECONDS = 300  # six models take less than a minute, see test_outputs.py
_POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class PdfMaker:
    """Processes that wait for the next page, since importing WeasyPrint takes half a second.

    Several threads may use it.
    """

    _idle: list[_Layouter] = field(default_factory=list)

    def prepare(self) -> None:
        """Start a process for the next page ahead of time, if none waits."""
        if not self._idle:
            self._idle.append(_Layouter())

    def make(
        self,
        page: str,
        root: Path,
        chapters: Callable[[], Sequence[bytes]] = tuple,
        *,
        laid_out: Callable[[tuple[Sheet, ...]], object] = lambda _: None,
        seconds: float = _SECONDS,
        stopped: Event | None = None,
    ) -> bytes:
        """The PDF of the HTML `page`, with the graph tiles (PDF files in `root`) placed on it.

        Args:
            page: of `render_chapter` or `render_print`.
            root: the folder that the names of tiles refer to.
            chapters: called when the page is laid out: returns the PDFs whose pages take the
                places of its sheets.
            laid_out: called with the sheets that the page takes in a frame, before it is drawn.
            seconds: the time limit, first of the layout, then of drawing.
            stopped: the layout is killed if another thread sets it.

        Raises:
            OutputError: the layout exceeded `seconds`, or was killed.
            RuntimeError: the layout failed or warned, which is a bug in reportgen.
        """
        stopped = stopped or Event()
        try:
            layouter = self._idle.pop()  # atomic
        except IndexError:
            layouter = _Layouter()
        with layouter.killed_on_error():
            laid_out(layouter.lay_out(page, root, seconds, stopped))
            made = layouter.draw(chapters(), seconds, stopped)
        self._idle.append(layouter)
        return made

    def close(self) -> None:
        """End the processes; pages that are being laid out are not waited for."""
        while self._idle:
            self._idle.pop().close()


class _Layouter:
    """One process, in a folder for its files."""

    def __init__(self) -> None:
        with ExitStack() as stack:
            self._folder = stack.enter_context(scratch_folder())
            self._errors = stack.enter_context((self._folder / "errors").open("w+b"))
            self._process = subprocess.Popen(
                python_command("reportgen.pdf.weasyprint_process"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=os.environ | {"TMPDIR": str(self._folder)},  # WeasyPrint's own files
                bufsize=0,  # of a process that has ended, nothing is left to write
            )
            self._resources = stack.pop_all()

    def lay_out(self, page: str, root: Path, seconds: float, stopped: Event) -> tuple[Sheet, ...]:
        """Lay out `page` and begin to draw it."""
        source = self._folder / "page.html"
        source.write_text(page, encoding="utf-8", newline="\n")
        self._ask([source, root, self._target])
        return tuple(
            Sheet(landscape=sheet["landscape"], anchors=tuple(sheet["anchors"]))
            for sheet in self._answer(seconds, stopped)
        )

    def draw(self, chapters: Sequence[bytes], seconds: float, stopped: Event) -> bytes:
        """The PDF of the page, with the pages of `chapters` in the places of its sheets."""
        files = [self._folder / f"{number}.pdf" for number in range(len(chapters))]
        for file, content in zip(files, chapters, strict=True):
            file.write_bytes(content)
        self._ask(files)
        self._answer(seconds, stopped)
        return self._target.read_bytes()

    @property
    def _target(self) -> Path:
        return self._folder / "report.pdf"

    def _ask(self, paths: Sequence[Path]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        line = json.dumps([str(path) for path in paths]).encode() + b"\n"
        try:
            stdin.write(line)  # one system call: it is short
        except BrokenPipeError:
            raise self._failure() from None

    def _answer(self, seconds: float, stopped: Event) -> Any:
        """Wait for the next line of the process."""
        stdout = self._process.stdout
        assert stdout is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end and not stopped.is_set():
            if select.select([stdout], [], [], min(seconds, _POLL_SECONDS))[0]:
                if line := stdout.readline():
                    return json.loads(line)
                raise self._failure()
        raise OutputError(
            f"the PDF layout exceeded the time limit of {seconds:.0f} s",
            hint="omit it with --format html,json,md, or build a report of fewer models",
        )

    def _failure(self) -> Exception:
        status = self._process.wait()
        if status == -signal.SIGKILL:  # Linux kills processes so when memory runs out
            return OutputError(
                "the PDF layout was killed (SIGKILL), probably because memory ran out",
                hint="omit it with --format html,json,md, or build a report of fewer models",
            )
        self._errors.seek(0)
        last = self._errors.read().decode(errors="replace").strip()[-4000:]
        return RuntimeError(f"the PDF layout failed (status {status}):\n{last}")

    @contextmanager
    def killed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._process.kill()  # does nothing to one that has ended
        with self._resources, self._process:
            pass  # wait for its end, then delete its folder
