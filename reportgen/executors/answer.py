"""The answer of a worker: a SHA-256, then a tar of `answer.json` and the model's files."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from reportgen.cache.digests import digest_of
from reportgen.executors.task import Task
from reportgen.outcome import Done, Failed, SectionOutcome, Skipped
from reportgen.outputs import IN_PAGES
from reportgen.provenance import Machine, describe_machine
from reportgen.report import LeftOut
from reportgen.sections import SECTIONS
from reportgen.sections.section import files_of, outcome_adapter
from reportgen.workers import Job, ModelOutcomes
from reportgen.workers.limits import machine_memory

LARGE = 64 * 2**20
"""Bytes; a larger file goes through the shared folder instead of the scheduler."""

_ANSWER = "answer.json"
_HASH_BYTES = 32


class DamagedAnswerError(Exception):
    """An answer is not what a worker sent, or belongs to another task."""


class File(BaseModel):
    """A file of the model.

    Attributes:
        name: relative to the model's folder.
        bytes: its size.
        sha256: of its content; "" if it was left out.
        shared: its name in the shared folder; "" if it is in the tar or was left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int
    sha256: str = ""
    shared: str = ""


class Answer(BaseModel):
    """What a worker found.

    Attributes:
        task: id of the task.
        refused: why the worker did not analyze the model; "" if it did.
        software: of a worker that has another one; `refused` is then its name.
        failed: the sections that failed; the outcomes of the others are files.
        code: path -> SHA-256 of the user's Python files that were imported for the model.
        machine: of the worker; None in this process.
        files: of the model; none if they are where this process reads them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    refused: str = ""
    software: dict[str, str] = {}
    failed: dict[str, Failed] = {}
    seconds: dict[str, float] = {}
    load_error: Failed | None = None
    inputs: str = ""
    analyzed: dict[str, str] = {}
    code: dict[str, str] = {}
    machine: Machine | None = None
    files: tuple[File, ...] = ()


def pack(task: Task, job: Job, outcomes: ModelOutcomes) -> bytes:
    """The answer to `task`; the files are in the folder of `job`."""
    names = tuple(dict.fromkeys(_names(job, outcomes))) if task.remote else ()
    answer = Answer(
        task=task.id,
        failed={
            section.name: section.outcome
            for section in outcomes.sections
            if isinstance(section.outcome, Failed)
        },
        seconds=outcomes.seconds,
        load_error=outcomes.load_error,
        inputs=outcomes.inputs,
        analyzed=outcomes.analyzed,
        # torch's own modules name sources that do not exist
        code={str(path): _hash(path) for path in outcomes.code if path.is_file()},
        machine=describe_machine(machine_memory()) if task.remote else None,
        files=tuple(_describe(job.folder / name, name, task) for name in names),
    )
    return _tar(answer, {each.name: job.folder / each.name for each in _inside(answer)})


def refuse(task: Task, reason: str, software: Mapping[str, str] | None = None) -> bytes:
    """The answer of a worker that does not analyze the model; see `Answer`."""
    return _tar(Answer(task=task.id, refused=reason, software=dict(software or {})), {})


def unpack(content: bytes, task: Task) -> Answer:
    """Check an answer to `task`, then write its files to the folder of the job.

    Raises:
        DamagedAnswerError: nothing was written.
    """
    sha256, tar_bytes = content[:_HASH_BYTES], content[_HASH_BYTES:]
    if hashlib.sha256(tar_bytes).digest() != sha256:
        raise DamagedAnswerError("not what the worker sent")
    try:
        with tarfile.open(fileobj=io.BytesIO(tar_bytes)) as tar:
            contents = {member.name: _read(tar, member) for member in tar}
        answer = Answer.model_validate_json(contents.pop(_ANSWER))
    except (tarfile.TarError, KeyError, ValidationError) as error:
        raise DamagedAnswerError("not an answer of a worker") from error
    if answer.task != task.id:
        raise DamagedAnswerError(f"the answer to task {answer.task}, not to {task.id}")
    if sorted(contents) != sorted(each.name for each in _inside(answer)):
        raise DamagedAnswerError("other files than it lists")
    for file in answer.files:
        _check(file, contents.get(file.name), task)
    for file in answer.files:
        if file.sha256:
            _place(file, contents.get(file.name), task)
    return answer


def outcomes_of(answer: Answer, job: Job) -> ModelOutcomes:
    """The outcomes in an unpacked answer.

    Raises:
        DamagedAnswerError: the outcome of a section is missing or invalid.
    """
    return ModelOutcomes(
        name=job.spec.name,
        sections=tuple(
            SectionOutcome(
                name=section.name,
                title=section.title,
                outcome=answer.failed.get(section.name) or _read_outcome(section, job),
            )
            for section in SECTIONS
            if section.name in job.sections
        ),
        seconds=answer.seconds,
        load_error=answer.load_error,
        inputs=answer.inputs,
        code=tuple(map(Path, answer.code)),
        analyzed=answer.analyzed,
        machine=answer.machine,
        left_out=tuple(
            LeftOut(name=each.name, bytes=each.bytes) for each in answer.files if not each.sha256
        ),
    )


def _read_outcome(section: Any, job: Job) -> Done[Any] | Skipped | Failed:
    try:
        return outcome_adapter(section).validate_json(job.outcome_file(section.name).read_bytes())
    except (OSError, ValidationError) as error:
        raise DamagedAnswerError(f"no valid outcome of section {section.name!r}") from error


def _names(job: Job, outcomes: ModelOutcomes) -> Iterator[str]:
    for path in sorted(job.outcomes.glob("*.json")):
        yield path.relative_to(job.folder).as_posix()
    sections = {section.name: section for section in SECTIONS}
    for outcome in outcomes.sections:
        yield from files_of(sections[outcome.name], outcome)


def _inside(answer: Answer) -> Iterator[File]:
    return (each for each in answer.files if each.sha256 and not each.shared)


def _describe(path: Path, name: str, task: Task) -> File:
    """The file at `path`, copied to the shared folder if it is large."""
    size, shared = path.stat().st_size, ""
    if size > LARGE:
        folder = task.remote.shared if task.remote else None
        if folder is None and path.suffix not in IN_PAGES:
            return File(name=name, bytes=size)
        if folder is not None:
            # a task may run twice at once, if a worker only seemed to be lost
            shared = f"{task.id}-{os.urandom(4).hex()}"
            shutil.copyfile(path, folder / shared)
    return File(name=name, bytes=size, sha256=_hash(path), shared=shared)


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _tar(answer: Answer, files: Mapping[str, Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        text = answer.model_dump_json().encode()
        header = tarfile.TarInfo(_ANSWER)
        header.size = len(text)
        tar.addfile(header, io.BytesIO(text))
        for name, path in files.items():
            header = tarfile.TarInfo(name)
            header.size = path.stat().st_size
            with path.open("rb") as stream:
                tar.addfile(header, stream)
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def _read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member) if member.isreg() else None  # no links, no devices
    if stream is None:
        raise DamagedAnswerError(f"{member.name!r} is not a file")
    return stream.read()


def _check(file: File, content: bytes | None, task: Task) -> None:
    for name in filter(None, (file.name, file.shared)):
        path = PurePosixPath(name)
        if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name:
            raise DamagedAnswerError(f"{name!r} is not a file in the model's folder")
    if content is not None:
        found = len(content), digest_of(content)
    elif file.sha256:
        found = _describe_shared(file, task)
    else:
        return
    if found != (file.bytes, file.sha256):
        raise DamagedAnswerError(f"{file.name!r} is not what the worker wrote")


def _describe_shared(file: File, task: Task) -> tuple[int, str]:
    try:
        path = _shared_path(file, task)
        return path.stat().st_size, _hash(path)
    except OSError as error:
        raise DamagedAnswerError(f"{file.name!r} is not in the shared folder") from error


def _shared_path(file: File, task: Task) -> Path:
    folder = task.remote.shared if task.remote else None
    if folder is None:
        raise DamagedAnswerError(f"{file.name!r} is in a shared folder, which the build has not")
    return folder / file.shared


def _place(file: File, content: bytes | None, task: Task) -> None:
    target = task.job.folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if content is not None:
        target.write_bytes(content)
    else:
        shutil.move(_shared_path(file, task), target)  # within a disk this is a rename
