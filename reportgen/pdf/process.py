"""Make a PDF of a page for paper with WeasyPrint, in a child process with a time limit.

The child is `reportgen.pdf.weasyprint_process`; it frees its memory when it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event

from reportgen.errors import OutputError
from reportgen.scratch import scratch_folder

_SECONDS = 300  # six models take less than a minute, see test_outputs.py
_POLL_SECONDS = 0.2


def make_pdf(
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
    with scratch_folder() as scratch:
        source, target = scratch / "page.html", scratch / "report.pdf"
        source.write_text(page, encoding="utf-8", newline="\n")
        files = [scratch / f"{number}.pdf" for number in range(len(chapters))]
        for file, content in zip(files, chapters, strict=True):
            file.write_bytes(content)
        # -P: a `random.py` in the current folder would hide the standard library's
        command = [sys.executable, "-P", "-m", "reportgen.pdf.weasyprint_process"]
        command += [str(path) for path in (source, root, target, *files)]
        status, errors = _run(command, scratch, seconds, stopped or Event())
        if status == -signal.SIGKILL:  # Linux kills processes so when memory runs out
            raise OutputError(
                "the PDF layout was killed (SIGKILL), probably because memory ran out",
                hint="omit it with --format html,json,md, or build a report of fewer models",
            )
        if status != 0 or not target.exists():
            last = errors.decode(errors="replace").strip()[-4000:]
            raise RuntimeError(f"the PDF layout failed (status {status}):\n{last}")
        return target.read_bytes()


def _run(command: list[str], scratch: Path, seconds: float, stopped: Event) -> tuple[int, bytes]:
    """The exit status and the error output of `command`, which is killed on every exception."""
    end = time.monotonic() + seconds
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(scratch)},  # WeasyPrint's own files
    ) as process:
        try:
            while time.monotonic() < end and not stopped.is_set():
                with suppress(subprocess.TimeoutExpired):
                    _, errors = process.communicate(timeout=min(seconds, _POLL_SECONDS))
                    return process.returncode, errors
        finally:
            process.kill()  # does nothing to one that has ended
    raise OutputError(
        f"the PDF layout exceeded the time limit of {seconds:.0f} s",
        hint="omit it with --format html,json,md, or build a report of fewer models",
    )
