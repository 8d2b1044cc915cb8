"""How children start: forked from a process that has imported torch, where that is possible."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from reportgen.sections import SECTIONS
from reportgen.workers import Job
from reportgen.workers.model_run import StartChild, child_environment, start_python
from reportgen.workers.warm_server import WarmServer

_LIBRARIES = ("torchvision", "timm", "transformers")  # sources that are named after a package

_server_of_worker: WarmServer | None = None
_starting = threading.Lock()


@contextmanager
def warm_children(jobs: Sequence[Job]) -> Iterator[StartChild]:
    """How the children of these jobs start: forked by one server, which ends with the block."""
    # A single child imports the rest itself, while another process analyzes memory.
    modules = modules_of(jobs, of_sections=len(jobs) > 1)
    if sys.platform != "linux" or not modules:
        yield start_python
        return
    server = WarmServer(modules, child_environment(max(jobs, key=lambda job: job.threads)))
    try:
        yield server.start
    finally:
        server.stop()


def child_of_worker(job: Job) -> StartChild:
    """How the child of a job starts on a worker, whose server is kept for its next jobs."""
    global _server_of_worker  # a worker has nothing else that lasts from task to task
    modules = modules_of([job], of_sections=True)
    if sys.platform != "linux" or not modules:
        return start_python
    with _starting:
        if _server_of_worker is None:
            _server_of_worker = _start_in_thread_that_lasts(modules, child_environment(job))
    return _server_of_worker.start


def _start_in_thread_that_lasts(modules: Sequence[str], environment: dict[str, str]) -> WarmServer:
    # Linux kills the server when the thread that started it ends, and a worker's threads do.
    started = Future[WarmServer]()

    def start() -> None:
        try:
            started.set_result(WarmServer(modules, environment))
        except OSError as error:
            started.set_exception(error)
        threading.Event().wait()

    threading.Thread(target=start, name="reportgen warm server", daemon=True).start()
    return started.result()


def modules_of(jobs: Sequence[Job], *, of_sections: bool) -> tuple[str, ...]:
    """What the children of these jobs import; nothing if no job has a model.

    `of_sections` adds what the sections import when they are analyzed.
    """
    names = {name for job in jobs for name in job.sections}
    sections = [s for s in SECTIONS if s.name in names and s.uses_model]
    if not sections:
        return ()
    libraries = {job.spec.source.kind for job in jobs}.intersection(_LIBRARIES)
    imported = [module for section in sections for module in section.imports]
    # fake tensors import dynamo at their first use
    always = ("reportgen.workers.child", "reportgen.context", "torch", "torch._dynamo")
    return tuple(dict.fromkeys((*always, *sorted(libraries), *(imported if of_sections else ()))))
