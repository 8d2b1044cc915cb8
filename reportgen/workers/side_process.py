"""A fork of the child process that analyzes one section beside the others.

It only saves time: if it crashes or exceeds its time, the child analyzes the section itself, and
whatever goes wrong is reported as without it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable

from reportgen.workers.limits import exit_with_parent


def can_fork() -> bool:
    """Whether a fork of this process can go on: no lock may be held by another thread."""
    return sys.platform == "linux" and threading.active_count() == 1


class SideProcess:
    """Runs `work` in a fork of this process, in which torch has one thread.

    The fork shares the memory of the model and the process group: `model_run` kills both together.
    Its limit on private memory is that of this process.
    """

    def __init__(self, work: Callable[[], None], *, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._finished, write_end = os.pipe()
        self._result: float | None = None
        self._waited = False
        parent = os.getpid()
        self._process = os.fork()
        if self._process == 0:
            _run(work, write_end, parent)
        os.close(write_end)

    def wait(self) -> float | None:
        """Wait for the end; returns the seconds that the work took, None if it failed.

        A process that exceeds its time is killed.
        """
        if not self._waited:
            self._waited = True
            left = max(0.0, self._end - time.monotonic())
            if select.select([self._finished], [], [], left)[0]:
                text = os.read(self._finished, 100).decode()
                self._result = float(text) if text else None
            os.close(self._finished)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        return self._result


def _run(work: Callable[[], None], write_end: int, parent: int) -> None:
    """Run `work`, write its seconds to the pipe, and end this process."""
    try:
        exit_with_parent(parent)
        # The threads of OpenMP's pool do not exist in a fork: using them would hang.
        import torch

        torch.set_num_threads(1)
        start, process = time.monotonic(), os.getpid()
        work()
        if os.getpid() == process:  # and no fork that the model made
            os.write(write_end, f"{time.monotonic() - start:.6f}".encode())
    finally:
        os._exit(0)  # exit handlers and the caller's `finally` blocks belong to the parent
