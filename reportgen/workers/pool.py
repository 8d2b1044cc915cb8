"""The parent process: start and stop children, enforce time limits, collect outcomes."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reportgen.outcome import Done, Failed, SectionOutcome, Skipped
from reportgen.scratch import scratch_folder
from reportgen.sections import SECTIONS
from reportgen.sections.section import outcome_adapter
from reportgen.units import format_bytes, format_seconds
from reportgen.workers.job import Job, Message, ProgressCallback, SectionEvent

_POLL_SECONDS = 0.1
_LOADING = ""  # the section before the first "begin" message
# runpy warns that the package imports the child too; a crash would report this as its last output
# -P: a `random.py` or `copy.py` in the current folder would hide the standard library's from torch
_CHILD = (
    *(sys.executable, "-P", "-W", "ignore::RuntimeWarning:runpy"),
    *("-m", "reportgen.workers.child"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOutcomes:
    """The outcomes of one model in section order, and the seconds of each section.

    `load_error` says why the model could not be loaded; None if it was. `inputs` describes the
    example inputs, also those that the manifest left out; "" if nothing was loaded. `code` are the
    user's Python files that were imported for the model. `analyzed` is when each
    section ended, in UTC: `2026-11-27T03:15:00+00:00`. `cached` are those of an earlier build.
    """

    name: str
    sections: tuple[SectionOutcome, ...]
    seconds: dict[str, float]
    load_error: Failed | None = None
    inputs: str = ""
    code: tuple[Path, ...] = ()
    analyzed: dict[str, str] = field(default_factory=dict)
    cached: frozenset[str] = frozenset()


FinishedCallback = Callable[[Job, ModelOutcomes], None]


def analyze_all(
    jobs: Sequence[Job],
    *,
    parallel: int,
    progress: ProgressCallback,
    known: Mapping[str, ModelOutcomes] | None = None,
    finished: FinishedCallback | None = None,
) -> tuple[ModelOutcomes, ...]:
    """Analyze all jobs, at most `parallel` at once; the result is in the order of `jobs`.

    All children and their process groups are killed on return, on errors and on Ctrl-C.

    Args:
        jobs: one for each model.
        parallel: how many children may run at once.
        progress: called when a section starts or ends.
        known: outcomes of earlier builds by model; no child starts for them.
        finished: called when a model that needed a child is finished.
    """
    with scratch_folder() as scratch:
        return _analyze_all(
            jobs, parallel, progress, scratch, known or {}, finished or (lambda *_: None)
        )


def _analyze_all(
    jobs: Sequence[Job],
    parallel: int,
    progress: ProgressCallback,
    scratch: Path,
    known: Mapping[str, ModelOutcomes],
    finished: FinishedCallback,
) -> tuple[ModelOutcomes, ...]:
    start = time.monotonic()
    runs = tuple(
        _ModelRun(job=job, progress=progress, start=start, scratch=scratch) for job in jobs
    )
    for run in runs:
        if run.job.spec.name in known:
            run.start_from(known[run.job.spec.name])
    waiting, running = [run for run in runs if not run.finished], list[_ModelRun]()
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                running.append(waiting.pop(0))
                running[-1].launch()
            _wait_for_messages(running)
            for run in running:
                run.update()
                if run.finished:
                    finished(run.job, run.collected())
            running = [run for run in running if not run.finished]
    finally:  # also if one model cannot be loaded, and on Ctrl-C
        for run in runs:
            run.stop()
    return tuple(run.collected() for run in runs)


def _wait_for_messages(running: Iterable[_ModelRun]) -> None:
    with selectors.DefaultSelector() as selector:
        for run in running:
            run.register(selector)
        selector.select(_POLL_SECONDS)


@dataclass(kw_only=True, slots=True)
class _ModelRun:
    """The analysis of one model by one child, or by several if sections crash."""

    job: Job
    progress: ProgressCallback
    start: float
    scratch: Path  # for temporary files of the children, which may be killed
    outcomes: dict[str, Done[Any] | Skipped | Failed] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    section: str = _LOADING
    since: float = 0.0
    finished: bool = False
    load_error: Failed | None = None
    inputs: str = ""
    analyzed: dict[str, str] = field(default_factory=dict)
    cached: frozenset[str] = frozenset()
    code: tuple[Path, ...] = ()
    _child: subprocess.Popen[bytes] | None = None
    _events: int = -1
    _unread: bytes = b""

    @property
    def remaining(self) -> tuple[str, ...]:
        return tuple(name for name in self.job.sections if name not in self.outcomes)

    def start_from(self, known: ModelOutcomes) -> None:
        """Take over what an earlier build found; the run is finished if nothing remains."""
        self.seconds, self.inputs = dict(known.seconds), known.inputs
        self.analyzed, self.code = dict(known.analyzed), known.code
        self.cached = known.cached
        for section in known.sections:
            self._record(section.name, section.outcome)
        self.section = _LOADING
        self.finished = not self.remaining

    def launch(self) -> None:
        """Start a child for the remaining sections."""
        self.job.folder.mkdir(parents=True, exist_ok=True)
        self._events, write_end = os.pipe()
        os.set_blocking(self._events, False)  # `_read` takes what is there
        job = self.job.model_copy(update={"sections": self.remaining})
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                [*_CHILD, str(write_end), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                start_new_session=True,  # a group of its own, for `stop`; Ctrl-C is ours alone
                env=_environment(self.job, self.scratch),
            )
        os.close(write_end)
        self.section, self.since, self._unread = _LOADING, time.monotonic(), b""
        assert self._child.stdin is not None
        # A child that ended at once breaks the pipe; `update` reports it.
        with contextlib.suppress(BrokenPipeError), self._child.stdin as stdin:
            # what the manifest leaves out stays left out: an input without a dtype, say
            stdin.write(job.model_dump_json(exclude_unset=True).encode())

    @property
    def log_file(self) -> Path:
        """Receives stdout and stderr of the model."""
        return self.job.folder / ".log"

    def register(self, selector: selectors.BaseSelector) -> None:
        """Add the pipe of this child to `selector`."""
        selector.register(self._events, selectors.EVENT_READ)

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
        """Everything in section order, no matter which section ended first."""
        ended = [section for section in SECTIONS if section.name in self.outcomes]
        return ModelOutcomes(
            name=self.job.spec.name,
            sections=tuple(
                SectionOutcome(name=each.name, title=each.title, outcome=self.outcomes[each.name])
                for each in ended
            ),
            seconds={s.name: self.seconds[s.name] for s in ended if s.name in self.seconds},
            load_error=self.load_error,
            inputs=self.inputs,
            code=self._code(),
            analyzed={s.name: self.analyzed[s.name] for s in ended if s.name in self.analyzed},
            cached=self.cached,
        )

    def _code(self) -> tuple[Path, ...]:
        with contextlib.suppress(OSError, ValueError):
            found = tuple(map(Path, json.loads(self.job.code_file.read_bytes())))
            return found or self.code  # those of an earlier build, if no model was loaded now
        return self.code

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
            # A child for logs alone loads no model: what was known about its inputs stays.
            self.inputs = self.inputs or message.message
        elif message.kind == "model_error":
            self.load_error = Failed(error=message.message, hint=message.hint)
        elif message.kind == "begin":
            self.section, self.since = message.section, time.monotonic()
            self._notify(SectionEvent.STARTED)
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
        self._notify(SectionEvent(outcome.status))

    def _notify(self, event: SectionEvent) -> None:
        self.progress(self.job.spec.name, self.section, event, time.monotonic() - self.start)

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


def _environment(job: Job, scratch: Path) -> dict[str, str]:
    """The environment of the child: offline, weights-only loading, limited threads."""
    return os.environ | {
        "TMPDIR": str(scratch),
        "PYTHONUNBUFFERED": "1",  # keeps the last line before a crash, see `_last_output`
        "OMP_NUM_THREADS": str(job.threads),  # is read when torch is imported
        # Threads that spin while they wait take cores from threads that compute: on a busy machine
        # a forward pass takes ten times as long.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


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
