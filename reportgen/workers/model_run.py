"""One model in child processes: start and stop them, enforce time limits, collect outcomes."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from pydantic import ValidationError

from reportgen.outcome import Done, Failed, SectionOutcome, Skipped
from reportgen.provenance import Machine
from reportgen.python_process import python_command
from reportgen.report import LeftOut
from reportgen.scratch import scratch_folder
from reportgen.sections import SECTIONS
from reportgen.sections.section import outcome_adapter
from reportgen.units import format_bytes, format_seconds
from reportgen.workers.job import Job, Message, SectionCallback, SectionEvent

_POLL_SECONDS = 0.1
_LOADING = ""  # the section before the first "begin" message


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOutcomes:
    """The outcomes of one model in section order, and the seconds of each section.

    `load_error` says why the model could not be loaded; None if it was. `inputs` describes the
    example inputs, also those that the manifest left out; "" if nothing was loaded. `code` are the
    user's Python files that were imported for the model. `analyzed` is when each
    section ended, in UTC: `2026-11-27T03:15:00+00:00`. `cached` are those of an earlier build.
    `machine` analyzed it; None for this process and for results of earlier builds. `left_out` are
    files that a worker did not send.
    """

    name: str
    sections: tuple[SectionOutcome, ...]
    seconds: dict[str, float]
    load_error: Failed | None = None
    inputs: str = ""
    code: tuple[Path, ...] = ()
    analyzed: dict[str, str] = field(default_factory=dict)
    cached: frozenset[str] = frozenset()
    machine: Machine | None = None
    left_out: tuple[LeftOut, ...] = ()


class ChildProcess(Protocol):
    """A child in a process group of its own; as `subprocess.Popen`."""

    @property
    def pid(self) -> int:
        """Its id, and that of its group."""

    @property
    def returncode(self) -> Any:
        """The exit status, negative for a signal."""

    def poll(self) -> int | None:
        """The exit status; None while the process runs."""

    def wait(self) -> int:
        """Wait for the end; returns the exit status."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildStart:
    """What a child is started with.

    Attributes:
        job: with the sections that remain.
        events: a descriptor, to which the child writes its messages.
        log: receives stdout and stderr of the model.
        scratch: for temporary files of the child, which may be killed.
        current_folder: of the child; None for that of this process.
    """

    job: Job
    events: int
    log: IO[bytes]
    scratch: Path
    current_folder: Path | None = None


StartChild = Callable[[ChildStart], ChildProcess]
"""Starts a child of this process."""


def start_python(start: ChildStart) -> ChildProcess:
    """Start `workers.child` in a new Python, which loads the model of the job."""
    child = subprocess.Popen(
        python_command("reportgen.workers.child", str(start.events), str(os.getpid())),
        stdin=subprocess.PIPE,
        stdout=start.log,
        cwd=start.current_folder,
        stderr=start.log,
        pass_fds=(start.events,),
        start_new_session=True,  # a group of its own, for `stop`; Ctrl-C is ours alone
        env=child_environment(start.job, start.scratch),
    )
    assert child.stdin is not None
    # A child that ended at once breaks the pipe; `update` reports it.
    with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
        # what the manifest leaves out stays left out: an input without a dtype, say
        stdin.write(start.job.model_dump_json(exclude_unset=True).encode())
    return child


def analyze_model(
    job: Job,
    notify: SectionCallback = lambda *_: None,
    is_cancelled: Callable[[], bool] = lambda: False,
    current_folder: Path | None = None,
    start_child: StartChild = start_python,
) -> ModelOutcomes:
    """Analyze one model; its child and the child's process group are killed on return.

    The calling thread must live until then: Linux kills a child when the thread that started it
    ends.

    Args:
        job: the model, its sections and its limits.
        notify: called when a section starts or ends.
        is_cancelled: whether to stop; called several times per second.
        current_folder: of the child; None for that of this process.
        start_child: starts a child, again for the remaining sections if one of them ended it.

    Raises:
        CancelledError: `is_cancelled` returned True.
    """
    if is_cancelled():
        raise CancelledError
    with scratch_folder() as scratch:
        run = _ModelRun(
            job=job,
            notify=notify,
            scratch=scratch,
            current_folder=current_folder,
            start_child=start_child,
        )
        try:
            run.launch()
            while not run.finished:
                if is_cancelled():
                    raise CancelledError
                run.wait_for_messages()
                run.update()
        finally:
            run.stop()
        return run.collected()


@dataclass(kw_only=True, slots=True)
class _ModelRun:
    """The analysis of one model by one child, or by several if sections crash."""

    job: Job
    notify: SectionCallback
    scratch: Path  # for temporary files of the children, which may be killed
    current_folder: Path | None = None
    start_child: StartChild = start_python
    outcomes: dict[str, Done[Any] | Skipped | Failed] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    section: str = _LOADING
    since: float = 0.0
    finished: bool = False
    load_error: Failed | None = None
    inputs: str = ""
    analyzed: dict[str, str] = field(default_factory=dict)
    _child: ChildProcess | None = None
    _events: int = -1
    _unread: bytes = b""

    @property
    def remaining(self) -> tuple[str, ...]:
        return tuple(name for name in self.job.sections if name not in self.outcomes)

    def launch(self) -> None:
        """Start a child for the remaining sections."""
        self.job.folder.mkdir(parents=True, exist_ok=True)
        self._events, write_end = os.pipe()
        os.set_blocking(self._events, False)  # `_read` takes what is there
        job = self.job.model_copy(update={"sections": self.remaining})
        with self.log_file.open("ab") as log:
            self._child = self.start_child(
                ChildStart(
                    job=job,
                    events=write_end,
                    log=log,
                    scratch=self.scratch,
                    current_folder=self.current_folder,
                )
            )
        os.close(write_end)
        self.section, self.since, self._unread = _LOADING, time.monotonic(), b""

    @property
    def log_file(self) -> Path:
        """Receives stdout and stderr of the model."""
        return self.job.folder / ".log"

    def wait_for_messages(self) -> None:
        """Wait until the child sends a message, or for a tenth of a second."""
        poll = select.poll()  # select.select takes no descriptor above 1023
        poll.register(self._events, select.POLLIN)
        poll.poll(_POLL_SECONDS * 1000)

    def update(self) -> None:
        """Read messages; record a failure if the child ended early or exceeded its time."""
        assert self._child is not None
        ended = self._child.poll() is not None  # before reading, so that no message is missed
        self._read()
        if not self.remaining:  # a thread of the model may keep its process alive
            self.stop()
            self.finished = True
        elif ended and self.load_error is not None:
            self._fail_sections(_sections_of_model(self.remaining), self.load_error)
        elif ended:
            self._fail_section(_exit_failure(self._child.returncode, self.job, self.section))
        elif time.monotonic() - self.since > self.job.seconds:
            self._fail_section(_timeout_failure(self.job, self.section))

    def stop(self) -> None:
        """Kill the child and its process group."""
        if self._child is None:
            return
        # macOS raises PermissionError if all processes of the group have ended and none is reaped.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()  # or it stays a zombie
        os.close(self._events)
        self._child = None

    def collected(self) -> ModelOutcomes:
        """All outcomes, in section order."""
        sections = [
            SectionOutcome(
                name=section.name, title=section.title, outcome=self.outcomes[section.name]
            )
            for section in SECTIONS
            if section.name in self.outcomes
        ]
        return ModelOutcomes(
            name=self.job.spec.name,
            sections=tuple(sections),
            seconds=self.seconds,
            load_error=self.load_error,
            inputs=self.inputs,
            code=self._code(),
            analyzed=self.analyzed,
        )

    def _code(self) -> tuple[Path, ...]:
        with contextlib.suppress(OSError, ValueError):
            return tuple(map(Path, json.loads(self.job.code_file.read_bytes())))
        return ()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while block := os.read(self._events, 65536):
                self._unread += block
        *lines, self._unread = self._unread.split(b"\n")  # the last may be incomplete
        for line in lines:
            # what else is in the line was written by the model, to a descriptor that it inherits
            start = max(line.rfind(Message.START), 0)
            with contextlib.suppress(ValidationError):
                self._handle(Message.model_validate_json(line[start:]))

    def _handle(self, message: Message) -> None:
        if message.section not in (_LOADING, *self.job.sections):
            return
        if message.kind == "loaded":
            self.inputs = self.inputs or message.message  # of the first child
        elif message.kind == "model_error":
            self.load_error = Failed(error=message.message, hint=message.hint)
        elif message.kind == "begin":
            self.section, self.since = message.section, time.monotonic()
            self.notify(self.section, SectionEvent.STARTED)
        else:
            self.seconds[message.section] = message.seconds
            self.analyzed[message.section] = datetime.now(UTC).isoformat(timespec="seconds")
            self._record(message.section, self._load_outcome(message.section))

    def _load_outcome(self, section: str) -> Done[Any] | Skipped | Failed:
        """The outcome that the child wrote; `Failed` if the file is missing or invalid."""
        adapter = outcome_adapter(next(s for s in SECTIONS if s.name == section))
        try:
            return adapter.validate_json(self.job.outcome_file(section).read_bytes())
        except (OSError, ValidationError):
            return Failed(error="the section wrote no valid result", hint=self._last_output())

    def _fail_section(self, failed: Failed) -> None:
        """Stop the child, record its section as failed and continue with the next one."""
        failed = Failed(error=failed.error, hint=failed.hint or self._last_output())
        if self.section == _LOADING:
            self.load_error = failed
            self._fail_sections(_sections_of_model(self.remaining), failed)
        else:
            self._fail_sections((self.section,), failed)

    def _fail_sections(self, sections: Iterable[str], failed: Failed) -> None:
        """Stop the child, record these sections as failed and continue with the others."""
        self.stop()
        if self.section != _LOADING:
            self.seconds[self.section] = time.monotonic() - self.since
        for section in sections:  # a model that cannot be loaded fails each for the same reason
            if section in self.remaining:
                self._record(section, failed)
        if self.remaining:
            self.launch()
        else:
            self.finished = True

    def _record(self, section: str, outcome: Done[Any] | Skipped | Failed) -> None:
        self.outcomes[section] = outcome
        self.section = section
        self.notify(section, SectionEvent(outcome.status))

    def _last_output(self) -> str:
        """The last line that the child printed; "" if there is none."""
        with contextlib.suppress(OSError):
            lines = self.log_file.read_text(errors="replace").strip().splitlines()
            if lines:
                return f"last line of its output: {lines[-1].strip()[:200]}"
        return ""


def _sections_of_model(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the sections that need the model; all if none does, so that there is an end."""
    needing = tuple(s.name for s in SECTIONS if s.uses_model and s.name in names)
    return needing or tuple(names)


# What one pass frees the next one takes again. By default glibc returns blocks above 32 MiB to the
# system, and taking them again costs a page fault for every 4 KiB: a tenth of a report.
_MALLOC_THRESHOLDS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
_KEPT_BYTES = 2**30


def child_environment(job: Job, scratch: Path | None = None) -> dict[str, str]:
    """The environment of a child: offline, weights-only loading, limited threads."""
    temporary = {} if scratch is None else {"TMPDIR": str(scratch)}
    return (
        os.environ
        | temporary
        | {
            "PYTHONUNBUFFERED": "1",  # keeps the last line before a crash, see `_last_output`
            "OMP_NUM_THREADS": str(job.threads),  # is read when torch is imported
            # Threads that spin while they wait take cores from threads that compute: on a busy
            # machine a forward pass takes ten times as long.
            "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
            **{name: os.environ.get(name, str(_KEPT_BYTES)) for name in _MALLOC_THRESHOLDS},
            "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
        }
    )


def _timeout_failure(job: Job, section: str) -> Failed:
    what = f"section {section!r}" if section != _LOADING else "loading the model"
    return Failed(
        error=f"{what} exceeded the time limit of {format_seconds(job.seconds)} and was stopped",
        hint="raise limits.seconds in the manifest if the model needs more time",
    )


def _exit_failure(status: int, job: Job, section: str) -> Failed:
    when = "" if section != _LOADING else "while loading the model, "
    if status >= 0:
        return Failed(error=f"{when}the process exited early with status {status}")
    name = signal.Signals(-status).name  # Popen's status of a killed process is negative
    if name == "SIGKILL":
        return Failed(
            error=f"{when}the process was killed (SIGKILL), probably because memory ran out",
            hint=f"the limit was {format_bytes(job.memory_bytes)}; reduce the model's batch, "
            "analyze fewer models at once with --jobs 1, or use a larger machine",
        )
    return Failed(error=f"{when}the process crashed with {name}")
