"""The two places where tasks run: threads of this process, and the workers of an executor."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reportgen.cache.digests import Digests
from reportgen.cache.fingerprint import comparable_software, describe_machine, software_digest
from reportgen.errors import OutputError
from reportgen.executors.cluster import ClusterExecutor, Size
from reportgen.executors.examine import examine
from reportgen.executors.task import Remote, Task
from reportgen.executors.warm_children import warm_children
from reportgen.workers import Job, SectionEvent

Notify = Callable[[str, str, SectionEvent], None]
"""Called with a model, a section and what happened to it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where tasks run.

    Attributes:
        submit: starts a task, or queues it.
        slots: how many tasks may be submitted at once, at the moment.
        lost: exceptions that mean that the worker was lost.
        remote: for tasks of workers outside this process; None for threads.
        largest: worker, if it is known.
    """

    submit: Callable[[Task], Future[bytes]]
    slots: Callable[[], int]
    lost: tuple[type[BaseException], ...]
    remote: Remote | None = None
    largest: Size | None = None


@contextmanager
def threads(parallel: int, jobs: Sequence[Job], notify: Notify) -> Iterator[Place]:
    """Threads of this process, each with a child process at a time."""
    cancelled = threading.Event()
    with warm_children(jobs) as start, ThreadPoolExecutor(max(1, parallel)) as pool:

        def submit(task: Task) -> Future[bytes]:
            name = task.job.spec.name
            return pool.submit(
                examine,
                task.to_json(),
                lambda *event: notify(name, *event),
                cancelled.is_set,
                start,
            )

        try:
            yield Place(submit=submit, slots=lambda: len(jobs), lost=())
        finally:
            cancelled.set()


@contextmanager
def workers(
    executor: Executor, parallel: int, shared: Path | None, manifest: Path | None
) -> Iterator[Place]:
    """The workers of `executor`."""
    cluster = executor if isinstance(executor, ClusterExecutor) else None
    with _folder_in(shared) as folder:
        yield Place(
            submit=lambda task: executor.submit(examine, task.to_json()),
            slots=cluster.slots if cluster else lambda: parallel,
            lost=(
                *(BrokenExecutor, CancelledError, OSError),
                *(cluster.lost if cluster else ()),
            ),
            remote=Remote(
                software=software_digest(comparable_software()),
                files=digests_of([manifest] if manifest else []),
                folder=Path.cwd(),
                cpu=json.dumps(describe_machine()),
                started_ns=time.time_ns(),
                shared=folder,
            ),
            largest=cluster.largest() if cluster else None,
        )


@contextmanager
def _folder_in(shared: Path | None) -> Iterator[Path | None]:
    """A folder for this build in `shared`, deleted at the end."""
    if shared is None:
        yield None
        return
    folder = shared.absolute() / f"reportgen-{os.getpid()}-{secrets.token_hex(4)}"
    try:
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise OutputError(
            f"cannot write to the shared folder {shared}: {(error.strerror or '').lower()}",
            hint="choose another one with --shared-folder",
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def digests_of(paths: Iterable[Path]) -> dict[str, str]:
    """The SHA-256 of each file."""
    digests = Digests(Path(os.devnull))
    return {str(path): digests.of_file(path) for path in paths}
