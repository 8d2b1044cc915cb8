"""Make PDFs of pages for paper with WeasyPrint, in child processes with a time limit.

A child is `reportgen.pdf.weasyprint_process`; it frees its memory when it ends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from reportgen.errors import OutputError
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
        """Start a process for the first page ahead of time."""
        self._idle.append(_Layouter())

    def make(
        self,
        page: str,
        root: Path,
        chapters: Sequence[bytes] = (),
        *,
        seconds: float = _SECONDS,
        stopped: Event | None = None,
    ) -> bytes:
        """The PDF of the HTML `page`, with the graph tiles (PDF files in `root`) placed on it.

        Args:
            page: of `render_chapter` or `render_print`.
            root: the folder that the names of tiles refer to.
            chapters: PDFs whose pages take the places of the sheets in `page`.
            seconds: the time limit.
            stopped: the layout is killed if another thread sets it.

        Raises:
            OutputError: the layout exceeded `seconds`, or was killed.
            RuntimeError: the layout failed or warned, which is a bug in reportgen.
        """
        try:
            layouter = self._idle.pop()  # atomic
        except IndexError:
            layouter = _Layouter()
        with layouter.killed_on_error():
            made = layouter.lay_out(page, root, chapters, seconds, stopped or Event())
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
                # -P: a `random.py` in the current folder would hide the standard library's
                [sys.executable, "-P", "-m", "reportgen.pdf.weasyprint_process"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=os.environ | {"TMPDIR": str(self._folder)},  # WeasyPrint's own files
                bufsize=0,  # of a process that has ended, nothing is left to write
            )
            self._resources = stack.pop_all()

    def lay_out(
        self, page: str, root: Path, chapters: Sequence[bytes], seconds: float, stopped: Event
    ) -> bytes:
        source, target = self._folder / "page.html", self._folder / "report.pdf"
        source.write_text(page, encoding="utf-8", newline="\n")
        files = [self._folder / f"{number}.pdf" for number in range(len(chapters))]
        for file, content in zip(files, chapters, strict=True):
            file.write_bytes(content)
        self._ask([str(path) for path in (source, root, target, *files)])
        self._wait(seconds, stopped)
        return target.read_bytes()

    def _ask(self, paths: list[str]) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(paths).encode() + b"\n")  # one system call: it is short
        except BrokenPipeError:
            raise self._failure() from None

    def _wait(self, seconds: float, stopped: Event) -> None:
        """Wait for the line that says that the PDF is there."""
        stdout = self._process.stdout
        assert stdout is not None
        end = time.monotonic() + seconds
        while time.monotonic() < end and not stopped.is_set():
            if select.select([stdout], [], [], min(seconds, _POLL_SECONDS))[0]:
                if stdout.readline():
                    return
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
