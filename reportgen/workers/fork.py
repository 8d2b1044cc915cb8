"""A fork of this process as a child: analyzes a model that exists only in this process."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NoReturn

from reportgen.errors import ReportgenError
from reportgen.sections import SECTIONS
from reportgen.workers.child import Reporter, analyze_section
from reportgen.workers.job import Job, Message
from reportgen.workers.limits import exit_with_parent, limit_memory
from reportgen.workers.model_run import ChildStart

OpenContext = Callable[[Job], AbstractContextManager[Any]]
"""Opens the context of a job; runs in the fork."""


@dataclass(slots=True)
class ForkedProcess:
    """A fork, with the methods of `subprocess.Popen` that `model_run` uses."""

    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while the process runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        """Wait for the end; returns the exit status."""
        status = self._wait(0)
        assert status is not None
        return status

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            process, status = os.waitpid(self.pid, options)
            if process:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def start_fork(start: ChildStart, open_context: OpenContext) -> ForkedProcess:
    """Fork this process; the fork analyzes the sections of the job.

    It has the memory of this process, so the model is not copied; what it writes there is its own.
    torch has one thread in it. `side_process.can_fork` says whether a fork can go on.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a notebook's stream, or none
            stream.flush()
    parent = os.getpid()
    process = os.fork()
    if process == 0:
        _run(start, open_context, parent)
    with contextlib.suppress(OSError):  # here as well as there: whoever comes first
        os.setpgid(process, process)
    return ForkedProcess(process)


def _run(start: ChildStart, open_context: OpenContext, parent: int) -> NoReturn:
    """Analyze all sections, and end this process without the caller's exit handlers."""
    try:
        _prepare(start, parent)
        _analyze(start.job, Reporter(start.events), open_context)
    except BaseException:
        traceback.print_exc()  # into the log, whose last line is reported
    finally:
        os._exit(0)  # `finally` blocks of the caller belong to the parent as well


def _prepare(start: ChildStart, parent: int) -> None:
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # a group of its own: `model_run` kills it whole
    exit_with_parent(parent)
    limit_memory(start.job.memory_bytes)
    for descriptor in (1, 2):
        os.dup2(start.log.fileno(), descriptor)
    sys.stdout = sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    os.environ["TMPDIR"] = tempfile.tempdir = str(start.scratch)
    # The threads of OpenMP's pool do not exist in a fork: using them would hang.
    import torch

    torch.set_num_threads(1)


def _analyze(job: Job, reporter: Reporter, open_context: OpenContext) -> None:
    try:
        with open_context(job) as context:
            job.outcomes.mkdir(parents=True, exist_ok=True)
            for section in SECTIONS:
                if section.name in job.sections:
                    with reporter.section(section.name):
                        analyze_section(section, context, job, reporter)
    except ReportgenError as error:
        message, hint = error.message[:1500], error.hint[:500]
        reporter.send(Message(kind="model_error", message=message, hint=hint))
