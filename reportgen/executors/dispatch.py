"""Sends tasks to an executor, retries those whose worker was lost, and collects the answers."""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

from reportgen.cache.fingerprint import CODE, comparable_software
from reportgen.errors import EnvironmentFault
from reportgen.executors.answer import Answer, DamagedAnswerError, outcomes_of, unpack
from reportgen.executors.cluster import Size
from reportgen.executors.places import Notify, Place, digests_of, threads, workers
from reportgen.executors.task import Task
from reportgen.outcome import Failed, SectionOutcome
from reportgen.provenance import named_files
from reportgen.sections import SECTIONS
from reportgen.units import format_bytes, format_seconds
from reportgen.workers import Job, ModelOutcomes, ProgressCallback, SectionEvent

_ATTEMPTS = 3
_POLL_SECONDS = 5.0
_PATIENCE_SECONDS = 300.0  # a worker of a cluster may wait for its machine

FinishedCallback = Callable[[Job, ModelOutcomes], None]


def analyze_all(
    jobs: Sequence[Job],
    *,
    parallel: int,
    progress: ProgressCallback,
    known: Mapping[str, ModelOutcomes] | None = None,
    finished: FinishedCallback | None = None,
    executor: Executor | None = None,
    shared: Path | None = None,
    manifest: Path | None = None,
) -> tuple[ModelOutcomes, ...]:
    """Analyze all jobs; the result is in the order of `jobs`.

    On errors and on Ctrl-C, tasks that have not started are cancelled, and children of this process
    are killed.

    Args:
        jobs: one for each model.
        parallel: how many models may be analyzed at once, unless `executor` knows it.
        progress: called when a section starts or ends.
        known: outcomes of earlier builds by model; these sections are not analyzed.
        finished: called when a model is finished: first for those of which all is known.
        executor: where to analyze them; None for threads of this process.
        shared: a folder that all workers of `executor` see, for files above 64 MiB.
        manifest: the file that all workers must have as well.

    Raises:
        EnvironmentFault: a worker has another software or other files than this machine.
        OutputError: `shared` is not writable.
    """
    known = known or {}
    notify = _notifier(progress)
    for outcomes in known.values():
        _notify_all(outcomes, notify)
    todo = [
        job.model_copy(update={"sections": remaining})
        for job in jobs
        if (remaining := remaining_sections(job, known.get(job.spec.name)))
    ]
    # the others have nothing to do
    shares = max(1, parallel // len(todo)) if todo and executor is None else 1
    todo = [job.model_copy(update={"shares": shares}) for job in todo]
    new = dict[Path, ModelOutcomes]()  # by the folder of the job
    to_analyze = {job.folder for job in todo}
    for job in jobs:
        if job.folder not in to_analyze:
            new[job.folder] = known.get(job.spec.name) or _nothing_to_do(job)
            if finished:
                finished(job, new[job.folder])
    with (
        (
            threads(parallel, todo, notify)
            if executor is None
            else workers(executor, parallel, shared, manifest)
        ) as place,
        closing(_run(todo, place)) as results,
    ):
        for job, found in results:
            if place.remote is not None:
                _notify_all(found, notify)  # threads have done it
            new[job.folder] = _joined(known.get(found.name), found)
            if finished:
                finished(job, new[job.folder])
    return tuple(new[job.folder] for job in jobs)


def _nothing_to_do(job: Job) -> ModelOutcomes:
    """The outcomes of a model to which none of the requested sections applies."""
    return ModelOutcomes(name=job.spec.name, sections=(), seconds={})


def _notifier(progress: ProgressCallback) -> Notify:
    """`progress` with the seconds since now, called by one thread at a time."""
    start, lock = time.monotonic(), threading.Lock()

    def notify(model: str, section: str, event: SectionEvent) -> None:
        with lock:
            progress(model, section, event, time.monotonic() - start)

    return notify


def _notify_all(outcomes: ModelOutcomes, notify: Notify) -> None:
    for section in outcomes.sections:
        notify(outcomes.name, section.name, SectionEvent(section.outcome.status))


def remaining_sections(job: Job, known: ModelOutcomes | None) -> tuple[str, ...]:
    """The sections of `job` that are not in `known`."""
    found = {section.name for section in known.sections} if known else ()
    return tuple(name for name in job.sections if name not in found)


def _joined(known: ModelOutcomes | None, new: ModelOutcomes) -> ModelOutcomes:
    """`new`, with the sections that an earlier build analyzed."""
    if known is None:
        return new
    sections = {section.name: section for section in (*known.sections, *new.sections)}
    return replace(
        new,
        sections=tuple(sections[s.name] for s in SECTIONS if s.name in sections),
        seconds=known.seconds | new.seconds,
        # for logs alone no model is loaded
        inputs=known.inputs or new.inputs,
        code=new.code or known.code,
        analyzed=known.analyzed | new.analyzed,
        cached=known.cached,
    )


def _run(jobs: Sequence[Job], place: Place) -> Generator[tuple[Job, ModelOutcomes], None, None]:
    """Each job with its outcomes, in the order in which they arrive."""
    waiting = deque((job, 1) for job in jobs)
    running: dict[Future[bytes], tuple[Job, Task, int]] = {}
    done: SimpleQueue[Future[bytes]] = SimpleQueue()
    try:
        while waiting or running:
            while waiting and len(running) < max(1, place.slots()):
                job, attempt = waiting.popleft()
                if (impossible := _too_large(job, place.largest)) is not None:
                    yield job, _failed(job, impossible)
                    continue
                task = _make_task(job, attempt, place)
                future = _submit(task, place)
                running[future] = job, task, attempt
                future.add_done_callback(done.put)
            if not running:
                continue
            future = _next(done, place)
            job, task, attempt = running.pop(future)
            try:
                yield job, _receive(future, task, place)
            except _LostError as error:
                if attempt < _ATTEMPTS:
                    waiting.appendleft((job, attempt + 1))
                else:
                    yield job, _failed(job, _lost(error))
    finally:
        for future in running:
            future.cancel()


class _LostError(Exception):
    """There is no answer; what happened in all attempts, as a clause."""


def _receive(future: Future[bytes], task: Task, place: Place) -> ModelOutcomes:
    """The outcomes in the answer of a worker.

    Raises:
        _LostError: the worker or its answer was lost.
        EnvironmentFault: the worker has another software or other files.
    """
    try:
        content = future.result()
    except place.lost as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise _LostError(
            f"workers failed {_ATTEMPTS} times; the last one: {reason}"
            if reason
            else f"worker died {_ATTEMPTS} times"
        ) from error
    try:
        answer = unpack(content, task)
        _require_same(answer, task)
        return outcomes_of(answer, task.job)
    except DamagedAnswerError as error:
        raise _LostError(
            f"the answer was damaged {_ATTEMPTS} times; the last one: {error}"
        ) from error


def _make_task(job: Job, attempt: int, place: Place) -> Task:
    remote = place.remote
    if remote is not None:
        named = digests_of(path for path in named_files(job.spec) if path.is_file())
        remote = remote.model_copy(update={"files": remote.files | named})
    if place.largest is not None:
        # the worker may have been killed because memory ran out
        memory = min(job.memory_bytes * attempt, place.largest.memory)
        job = job.model_copy(update={"memory_bytes": memory})
    return Task(id=secrets.token_hex(8), job=job, remote=remote)


def _submit(task: Task, place: Place) -> Future[bytes]:
    try:
        return place.submit(task)
    except place.lost as error:  # an executor without any worker left
        failed = Future[bytes]()
        failed.set_exception(error)
        return failed


def _next(done: SimpleQueue[Future[bytes]], place: Place) -> Future[bytes]:
    """The next future that is done.

    Raises:
        EnvironmentFault: there has been no worker for minutes.
    """
    idle = 0.0
    while True:
        try:
            return done.get(timeout=_POLL_SECONDS)
        except Empty:
            idle = 0.0 if place.slots() else idle + _POLL_SECONDS
            if idle >= _PATIENCE_SECONDS:
                raise EnvironmentFault(
                    f"no worker for {format_seconds(idle)}",
                    hint="start workers and build again; finished models are in the cache",
                ) from None


def _require_same(answer: Answer, task: Task) -> None:
    """Raise an `EnvironmentFault` if the worker has another software or other files."""
    if answer.software:
        raise EnvironmentFault(
            f"{answer.refused} has {_difference(answer.software)}",
            hint="install the same versions of all packages on all machines",
        )
    if answer.refused:
        raise EnvironmentFault(answer.refused, hint="use the same files on all machines")
    for path, digest in answer.code.items() if task.remote else ():
        if digests_of([Path(path)]) != {path: digest}:
            raise EnvironmentFault(
                f"model {task.job.spec.name!r}: its worker has another {path}",
                hint="use the same files on all machines",
            )


def _difference(theirs: Mapping[str, str]) -> str:
    """What is different on a worker: "torch 2.14.0, this machine has 2.15.0"."""
    own = comparable_software()
    # the versions first: they say more than a digest does
    names = sorted({*own, *theirs}, key=lambda name: (name == CODE, name))
    name = next((name for name in names if own.get(name) != theirs.get(name)), "")
    if name in (CODE, ""):
        return "other code of reportgen than this machine"
    version = f"{name} {theirs[name]}" if name in theirs else f"no {name}"
    return f"{version}, this machine has {own.get(name, 'none')}"


def _too_large(job: Job, largest: Size | None) -> Failed | None:
    if largest is None:
        return None
    if job.memory_bytes > largest.memory:
        return Failed(
            error=f"needs {format_bytes(job.memory_bytes)} of memory, "
            f"the largest worker has {format_bytes(largest.memory)}",
            hint="reduce limits.memory in the manifest, or start a larger worker",
        )
    if job.threads > largest.cores:
        return Failed(
            error=f"needs {job.threads} cores, the largest worker has {largest.cores}",
            hint="reduce limits.cores in the manifest, or start a larger worker",
        )
    return None


def _lost(error: _LostError) -> Failed:
    return Failed(
        error=f"lost: {error}",
        hint="see the logs of the workers; raise limits.memory in the manifest if memory ran out",
    )


def _failed(job: Job, failed: Failed) -> ModelOutcomes:
    titles = {section.name: section.title for section in SECTIONS}
    return ModelOutcomes(
        name=job.spec.name,
        sections=tuple(
            SectionOutcome(name=name, title=titles[name], outcome=failed) for name in job.sections
        ),
        seconds={},
        load_error=failed,
    )
