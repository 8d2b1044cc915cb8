"""Commands without a new process: Python starts and torch is imported once for all of them."""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest.mock import patch

from reportgen import cli

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # those that the command line handles


def run_here(*arguments: Any, folder: Path) -> CompletedProcess[str]:
    """What `reportgen ARGUMENTS` prints in `folder`, and its exit status.

    An exception that the command line does not handle is raised here.
    """
    words = ["reportgen", *map(str, arguments)]
    handlers = [signal.getsignal(number) for number in _SIGNALS]
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            patch.object(sys, "argv", words),
        ):
            cli.main()
    except SystemExit as end:
        return CompletedProcess(words, int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        for number, handler in zip(_SIGNALS, handlers, strict=True):
            signal.signal(number, handler)
    raise AssertionError("the command line always exits")
