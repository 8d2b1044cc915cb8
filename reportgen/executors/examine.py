"""What runs on a worker: a task in, an answer out."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from reportgen.cache.digests import Digests
from reportgen.cache.fingerprint import (
    code_digest,
    comparable_software,
    describe_machine,
    software_digest,
)
from reportgen.cache.inputs import NotCacheableError, inputs_of
from reportgen.executors.answer import pack, refuse
from reportgen.executors.task import Remote, Task
from reportgen.executors.warm_children import child_of_worker
from reportgen.scratch import scratch_folder
from reportgen.sections import SECTIONS
from reportgen.workers import Job, SectionCallback, analyze_model
from reportgen.workers.inputs_read import InputsRead
from reportgen.workers.model_run import StartChild, start_python


def examine(
    text: str,
    notify: SectionCallback = lambda *_: None,
    is_cancelled: Callable[[], bool] = lambda: False,
    start_child: StartChild = start_python,
) -> bytes:
    """Analyze the model of a task.

    A model that fails, crashes, hangs or exhausts its memory is a result, and not an exception.

    Args:
        text: a `Task` in JSON.
        notify: called when a section starts or ends.
        is_cancelled: whether to stop; called several times per second.
        start_child: starts the children of this machine.

    Returns:
        The answer, for `answer.unpack`.

    Raises:
        OSError: the worker's disk is full, or another fault of the worker.
        CancelledError: `is_cancelled` returned True.
    """
    task = Task.model_validate_json(text)
    if task.remote is None:
        return pack(
            task, task.job, analyze_model(task.job, notify, is_cancelled, start_child=start_child)
        )
    worker = f"worker {socket.gethostname()}:{os.getpid()}"
    fault = _find_fault(task.remote)
    if fault:
        return refuse(task, f"{worker} {fault}")
    own = comparable_software()
    if software_digest(own) != task.remote.software:
        return refuse(task, worker, own)
    with scratch_folder() as folder:
        job = task.job.model_copy(update={"folder": folder / "models" / task.job.spec.name})
        outcomes = analyze_model(
            job, notify, is_cancelled, task.remote.folder, start_child=child_of_worker(job)
        )
        _write_digests(job, task.remote)
        return pack(task, job, outcomes)


def _find_fault(remote: Remote) -> str:
    """What this worker lacks, as a clause; "" if nothing."""
    if _code_when_started() != code_digest():
        return "was started before reportgen's code changed; restart it"
    digests = Digests(Path(os.devnull))
    for path, digest in remote.files.items():
        try:
            if digests.of_file(Path(path)) != digest:
                return f"has another {path}"
        except OSError as error:
            return f"cannot read {path}: {error.strerror}"
    if not remote.folder.is_dir():
        return f"has no folder {remote.folder}"
    if remote.shared is not None and not remote.shared.is_dir():
        return f"cannot see the shared folder {remote.shared.parent}"
    return ""


@cache
def _code_when_started() -> str:
    return code_digest()


def _write_digests(job: Job, remote: Remote) -> None:
    """Write what each section was made of, as this worker has it, for `ResultCache.save`."""
    digests = Digests(Path(os.devnull))
    same_cpu = json.dumps(describe_machine()) == remote.cpu
    for section in SECTIONS:
        if "timings" in section.reads and job.timings and not same_cpu:
            continue
        with suppress(OSError, NotCacheableError):  # then there is nothing to compare
            read = InputsRead.model_validate_json(job.inputs_file(section.name).read_bytes())
            inputs = inputs_of(
                read, job.spec, remote.started_ns, digests, uses_model=section.uses_model
            )
            job.digests_file(section.name).write_text(inputs.model_dump_json())
