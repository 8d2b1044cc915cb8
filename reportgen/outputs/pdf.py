"""A page for paper as a PDF: laid out by WeasyPrint in a process of its own.

The child keeps the parent small, and a layout that never ends is stopped.
The child is `reportgen.outputs.weasyprint_process`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from reportgen.errors import OutputError

_SECONDS = 300


def make_pdf(page: str, root: Path, *, seconds: float = _SECONDS) -> bytes:
    """The PDF of `page`, with the tiles below `root` in the places that it leaves for them.

    Raises:
        OutputError: the layout took longer than `seconds`, or the system killed it.
        RuntimeError: the layout failed or warned; that is a bug of ours.
    """
    with tempfile.TemporaryDirectory(prefix="reportgen-pdf-") as scratch:
        source, target = Path(scratch) / "page.html", Path(scratch) / "report.pdf"
        source.write_text(page, encoding="utf-8", newline="\n")
        command = [sys.executable, "-m", "reportgen.outputs.weasyprint_process"]
        command += [str(path) for path in (source, root, target)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            raise OutputError(
                f"the PDF was not laid out within {seconds:.0f} s",
                hint="leave it out with --format html,json,md, or report on fewer models at once",
            ) from error
        if done.returncode == -signal.SIGKILL:
            raise OutputError(
                "the PDF layout was killed (SIGKILL), as the system does when memory runs out",
                hint="leave it out with --format html,json,md, or report on fewer models at once",
            )
        if done.returncode != 0 or not target.exists():
            last = done.stderr.decode(errors="replace").strip()[-4000:]
            raise RuntimeError(f"the PDF could not be laid out (status {done.returncode}):\n{last}")
        return target.read_bytes()
