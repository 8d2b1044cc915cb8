"""A fork of the child process that computes something beside the sections.

It only saves time: if it crashes or exceeds its time, the child computes the same itself, and
whatever goes wrong is reported as without it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Generic, TypeVar

from reportgen.workers.limits import exit_with_parent

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished(Generic[T]):
    """What a side process returned, and the seconds that it took."""

    result: T
    seconds: float


def can_fork() -> bool:
    """Whether a fork of this process can go on: no lock may be held by another thread."""
    return sys.platform == "linux" and threading.active_count() == 1


class SideProcess(Generic[T]):
    """Runs `work` in a fork of this process, in which torch has one thread.

    The fork shares the memory of the model and the process group: `model_run` kills both together.
    Its limit on private memory is that of this process. The result of `work` is pickled.
    """

    def __init__(self, work: Callable[[], T], *, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._receiver, sender = Pipe(duplex=False)
        self._finished: Finished[T] | None = None
        self._waited = False
        parent = os.getpid()
        self._process = os.fork()
        if self._process == 0:
            _run(work, sender, parent)
        sender.close()

    def wait(self) -> Finished[T] | None:
        """Wait for the end; None if the work failed.

        A process that exceeds its time is killed.
        """
        if not self._waited:
            self._waited = True
            if self._receiver.poll(max(0.0, self._end - time.monotonic())):
                with contextlib.suppress(EOFError, OSError):  # it ended before or while it sent
                    self._finished = self._receiver.recv()
            self._receiver.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        return self._finished


def _run(work: Callable[[], T], sender: Connection, parent: int) -> None:
    """Run `work`, send what it returns, and end this process."""
    try:
        exit_with_parent(parent)
        # The threads of OpenMP's pool do not exist in a fork: using them would hang.
        import torch

        torch.set_num_threads(1)
        start, process = time.monotonic(), os.getpid()
        result = work()
        if os.getpid() == process:  # and no fork that the model made
            sender.send(Finished(result=result, seconds=time.monotonic() - start))
    finally:
        os._exit(0)  # exit handlers and the caller's `finally` blocks belong to the parent
