"""Make a PDF of the print page with WeasyPrint, in a child process with a time limit.

The child is `reportgen.outputs.weasyprint_process`; it frees its memory when it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from reportgen.errors import OutputError
from reportgen.scratch import scratch_folder

_SECONDS = 300  # six models take less than a minute, see test_outputs.py


def make_pdf(page: str, root: Path, *, seconds: float = _SECONDS) -> bytes:
    """The PDF of the HTML `page`, with the graph tiles (PDF files in `root`) placed on it.

    Raises:
        OutputError: the layout exceeded `seconds`, or was killed.
        RuntimeError: the layout failed or warned, which is a bug in reportgen.
    """
    with scratch_folder() as scratch:
        source, target = scratch / "page.html", scratch / "report.pdf"
        source.write_text(page, encoding="utf-8", newline="\n")
        # -P: a `random.py` in the current folder would hide the standard library's
        command = [sys.executable, "-P", "-m", "reportgen.outputs.weasyprint_process"]
        command += [str(path) for path in (source, root, target)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                timeout=seconds,
                check=False,
                env=os.environ | {"TMPDIR": str(scratch)},  # WeasyPrint's own files
            )
        except subprocess.TimeoutExpired as error:
            raise OutputError(
                f"the PDF layout exceeded the time limit of {seconds:.0f} s",
                hint="omit it with --format html,json,md, or build a report of fewer models",
            ) from error
        if done.returncode == -signal.SIGKILL:  # Linux kills processes so when memory runs out
            raise OutputError(
                "the PDF layout was killed (SIGKILL), probably because memory ran out",
                hint="omit it with --format html,json,md, or build a report of fewer models",
            )
        if done.returncode != 0 or not target.exists():
            last = done.stderr.decode(errors="replace").strip()[-4000:]
            raise RuntimeError(f"the PDF layout failed (status {done.returncode}):\n{last}")
        return target.read_bytes()
