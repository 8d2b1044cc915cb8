"""The parent's side: children are started, watched, stopped, and their sections collected."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reportgen.errors import ModelError
from reportgen.outcome import Done, Failed, SectionOutcome, Skipped
from reportgen.sections import SECTIONS
from reportgen.sections.section import outcome_adapter
from reportgen.units import format_bytes, format_seconds
from reportgen.workers.job import Job, Message, Progress, Step

_POLL_SECONDS = 0.1
_LOADING = ""
# runpy warns that our package imports the child too; that would be its last words in a crash
_CHILD = (sys.executable, "-W", "ignore::RuntimeWarning:runpy", "-m", "reportgen.workers.child")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOutcomes:
    """One model's sections in reading order, and how many seconds each took."""

    name: str
    sections: tuple[SectionOutcome, ...]
    seconds: dict[str, float]


def analyze_all(
    jobs: Sequence[Job], *, parallel: int, progress: Progress
) -> tuple[ModelOutcomes, ...]:
    """Examine every job, at most `parallel` at once; the result is in the order of `jobs`.

    Whatever ends this function, also an interrupt, ends every child and its whole process group.

    Raises:
        ModelError: a model cannot be loaded; the others are stopped.
    """
    start = time.monotonic()
    waiting = [_Study(job=job, progress=progress, start=start) for job in jobs]
    everyone, running = tuple(waiting), list[_Study]()
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                running.append(waiting.pop(0))
                running[-1].launch()
            _wait_for_news(running)
            for context in running:
                context.look_after()
            running = [context for context in running if not context.finished]
    finally:
        for context in everyone:
            context.stop()
    return tuple(context.examined() for context in everyone)


def _wait_for_news(running: Iterable[_Study]) -> None:
    with selectors.DefaultSelector() as selector:
        for context in running:
            context.register(selector)
        selector.select(_POLL_SECONDS)


@dataclass(kw_only=True, slots=True)
class _Study:
    """One model on its way through one child, or through several when sections fail hard."""

    job: Job
    progress: Progress
    start: float
    outcomes: dict[str, Done[Any] | Skipped | Failed] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    section: str = _LOADING
    since: float = 0.0
    finished: bool = False
    _child: subprocess.Popen[bytes] | None = None
    _events: int = -1
    _unread: bytes = b""

    @property
    def remaining(self) -> tuple[str, ...]:
        return tuple(name for name in self.job.sections if name not in self.outcomes)

    def launch(self) -> None:
        """Start a child with the sections that are still to be examined."""
        self.job.folder.mkdir(parents=True, exist_ok=True)
        self._events, write_end = os.pipe()
        os.set_blocking(self._events, False)
        job = self.job.model_copy(update={"sections": self.remaining})
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                [*_CHILD, str(write_end), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                start_new_session=True,
                env=_environment(self.job),
            )
        os.close(write_end)
        self.section, self.since, self._unread = _LOADING, time.monotonic(), b""
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._child.stdin as stdin:
            stdin.write(job.model_dump_json().encode())

    @property
    def log_file(self) -> Path:
        """What the model prints goes here, not to the user's terminal."""
        return self.job.folder / ".log"

    def register(self, selector: selectors.BaseSelector) -> None:
        """Wake the parent when this child says something."""
        selector.register(self._events, selectors.EVENT_READ)

    def look_after(self) -> None:
        """Read what the child said; deal with its end and with its time limit."""
        assert self._child is not None
        ended = self._child.poll() is not None  # before reading, so that last words are heard
        self._read()
        if not self.remaining:  # at once: a thread that the model left would keep its process alive
            self.stop()
            self.finished = True
        elif ended:
            self._bury(_how_it_ended(self._child.returncode, self.job, self.section))
        elif time.monotonic() - self.since > self.job.seconds:
            self._bury(_took_too_long(self.job, self.section))

    def stop(self) -> None:
        """Kill the child and everything it started."""
        if self._child is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        os.close(self._events)
        self._child = None

    def examined(self) -> ModelOutcomes:
        """The sections in reading order."""
        sections = [
            SectionOutcome(
                name=section.name, title=section.title, outcome=self.outcomes[section.name]
            )
            for section in SECTIONS
            if section.name in self.outcomes
        ]
        return ModelOutcomes(
            name=self.job.spec.name, sections=tuple(sections), seconds=self.seconds
        )

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while block := os.read(self._events, 65536):
                self._unread += block
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            self._hear(Message.model_validate_json(line))

    def _hear(self, message: Message) -> None:
        if message.kind == "model_error":
            raise ModelError(f"model {self.job.spec.name!r}: {message.message}", hint=message.hint)
        if message.kind == "begin":
            self.section, self.since = message.section, time.monotonic()
            self._tell(Step.STARTED)
        else:
            self.seconds[message.section] = message.seconds
            self._settle(message.section, self._collect(message.section))

    def _collect(self, section: str) -> Done[Any] | Skipped | Failed:
        """The outcome a child left, accepted only when it is whole and of the right form."""
        adapter = outcome_adapter(next(s for s in SECTIONS if s.name == section))
        try:
            return adapter.validate_json((self.job.outcomes / f"{section}.json").read_bytes())
        except (OSError, ValidationError):
            return Failed(error="the section left no readable result", hint=self._last_words())

    def _bury(self, failed: Failed) -> None:
        """The child is gone or must go: its section failed; go on with the ones after it."""
        self.stop()
        if self.remaining:
            words = self._last_words()
            failed = Failed(error=failed.error, hint=failed.hint or words)
            lost = self.remaining if self.section == _LOADING else (self.section,)
            for section in lost:
                if section in self.remaining:
                    self.seconds[section] = time.monotonic() - self.since
                    self._settle(section, failed)
        if self.remaining:
            self.launch()
        else:
            self.finished = True

    def _settle(self, section: str, outcome: Done[Any] | Skipped | Failed) -> None:
        self.outcomes[section] = outcome
        self.section = section
        self._tell(Step(outcome.status))

    def _tell(self, step: Step) -> None:
        self.progress(self.job.spec.name, self.section, step, time.monotonic() - self.start)

    def _last_words(self) -> str:
        """The last line the child printed, if it printed any."""
        with contextlib.suppress(OSError):
            lines = self.log_file.read_text(errors="replace").strip().splitlines()
            if lines:
                return f"the last line it printed was: {lines[-1].strip()[:200]}"
        return ""


def _environment(job: Job) -> dict[str, str]:
    """The child's environment: no hub, no code from files, as many threads as it may use."""
    return os.environ | {
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": str(job.threads),
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }


def _took_too_long(job: Job, section: str) -> Failed:
    what = f"the section {section!r}" if section != _LOADING else "loading the model"
    limit = format_seconds(job.seconds)
    return Failed(
        error=f"{what} took longer than its limit of {limit} and was stopped",
        hint="raise limits.seconds in the manifest if the model needs more time",
    )


def _how_it_ended(status: int, job: Job, section: str) -> Failed:
    when = "" if section != _LOADING else "while the model was loaded, "
    if status >= 0:
        return Failed(
            error=f"{when}the process ended by itself with status {status} before it was done"
        )
    name = signal.Signals(-status).name
    if name == "SIGKILL":
        return Failed(
            error=f"{when}the process was killed (SIGKILL), as the system does when memory "
            "runs out",
            hint=f"the limit was {format_bytes(job.memory_bytes)}; lower the model's batch, "
            "analyze fewer models at once with --jobs 1, or use a larger machine",
        )
    return Failed(error=f"{when}the process crashed with {name}")
