"""An answer arrives as it was sent, or is refused before anything is written."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dispatch import SKIPPED, job

from reportgen.executors import answer as answers
from reportgen.executors.answer import Answer, DamagedAnswerError, File, outcomes_of, pack, unpack
from reportgen.executors.task import Remote, Task
from reportgen.outcome import Failed, SectionOutcome, Skipped
from reportgen.report import LeftOut
from reportgen.workers import ModelOutcomes


def task_in(folder: Path, shared: Path | None = None) -> Task:
    remote = Remote(software="", folder=folder, cpu="", started_ns=0, shared=shared)
    return Task(id="t1", job=job(folder, "m"), remote=remote)


def worker_folder(folder: Path) -> ModelOutcomes:
    """Outcomes of a worker that wrote into `folder`/m."""
    mine = job(folder, "m")
    mine.outcomes.mkdir(parents=True)
    mine.outcome_file("training").write_bytes(SKIPPED)
    section = SectionOutcome(name="training", title="Training", outcome=Skipped(reason="no logs"))
    return ModelOutcomes(
        name="m", sections=(section,), seconds={"training": 0.125}, inputs="x",
        analyzed={"training": "2026-11-27T03:15:00+00:00"},
    )  # fmt: skip


def packed(folder: Path, task: Task) -> bytes:
    return pack(task, job(folder / "worker", "m"), worker_folder(folder / "worker"))


def test_outcomes_arrive_as_they_were_sent(tmp_path: Path) -> None:
    task = task_in(tmp_path / "here")
    sent = worker_folder(tmp_path / "worker")
    answer = unpack(pack(task, job(tmp_path / "worker", "m"), sent), task)
    found = outcomes_of(answer, task.job)
    assert found.machine is not None
    assert replace(found, machine=None) == sent


def test_a_failure_needs_no_file(tmp_path: Path) -> None:
    task = task_in(tmp_path / "here")
    failed = Failed(error="the process crashed with SIGSEGV", hint="h", details=("d",))
    section = SectionOutcome(name="training", title="Training", outcome=failed)
    sent = ModelOutcomes(name="m", sections=(section,), seconds={}, load_error=failed)
    found = outcomes_of(unpack(pack(task, job(tmp_path / "worker", "m"), sent), task), task.job)
    assert (found.sections, found.load_error) == ((section,), failed)


@settings(deadline=None, max_examples=100)
@given(place=st.integers(0, 10_271), bit=st.integers(0, 7))
def test_a_flipped_bit_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("a")
    task = task_in(folder / "here")
    content = bytearray(packed(folder, task))
    content[place] ^= 1 << bit
    with pytest.raises(DamagedAnswerError, match="not what the worker sent"):
        unpack(bytes(content), task)
    assert not task.job.folder.exists()


def hostile(members: list[tarfile.TarInfo], files: list[File], task: str = "t1") -> bytes:
    """An answer with a right hash, as only a worker that is not ours would send it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        text = Answer(task=task, files=tuple(files)).model_dump_json().encode()
        header = tarfile.TarInfo("answer.json")
        header.size = len(text)
        tar.addfile(header, io.BytesIO(text))
        for member in members:
            tar.addfile(member)
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def empty(name: str) -> File:
    return File(name=name, bytes=0, sha256=hashlib.sha256().hexdigest())


def link(name: str, to: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, to
    return member


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (hostile([tarfile.TarInfo("../x")], [empty("../x")]), "is not a file in the model"),
        (hostile([tarfile.TarInfo("/x")], [empty("/x")]), "is not a file in the model"),
        (hostile([tarfile.TarInfo("x")], []), "other files than it lists"),
        (hostile([], [empty("x")]), "other files than it lists"),
        (hostile([link("x", "/etc")], [empty("x")]), "is not a file"),
        (hostile([tarfile.TarInfo("x")], [File(name="x", bytes=1, sha256="0")]), "is not what"),
        (hostile([], [File(name="x", bytes=1, sha256="0", shared="y")]), "which the build has not"),
        (hostile([], [], task="t2"), "the answer to task t2, not to t1"),
    ],
)  # fmt: skip
def test_nothing_is_written_outside_the_models_folder(
    tmp_path: Path, content: bytes, error: str
) -> None:
    task = task_in(tmp_path / "here")
    with pytest.raises(DamagedAnswerError, match=re.escape(error)):
        unpack(content, task)
    assert not (tmp_path / "here").exists()


LARGE_FILE = "model.onnx"


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelOutcomes:
    """Outcomes of a worker with a file of 1 MiB, when that is large."""
    monkeypatch.setattr(answers, "LARGE", 2**20 - 1)
    monkeypatch.setattr(answers, "files_of", lambda *_: (LARGE_FILE, "small.svg"))
    outcomes = worker_folder(tmp_path / "worker")
    folder = job(tmp_path / "worker", "m").folder
    (folder / LARGE_FILE).write_bytes(os.urandom(2**20))
    (folder / "small.svg").write_bytes(b"<svg/>")
    return outcomes


def test_a_large_file_goes_through_the_shared_folder(tmp_path: Path, large: ModelOutcomes) -> None:
    (tmp_path / "shared").mkdir()
    task, mine = task_in(tmp_path / "here", tmp_path / "shared"), job(tmp_path / "worker", "m")
    content = pack(task, mine, large)
    assert len(content) < 2**16
    outcomes = outcomes_of(unpack(content, task), task.job)
    assert outcomes.left_out == ()
    for name in (LARGE_FILE, "small.svg"):
        assert (task.job.folder / name).read_bytes() == (mine.folder / name).read_bytes()
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_file_that_changed_in_the_shared_folder_is_refused(
    tmp_path: Path, large: ModelOutcomes
) -> None:
    (tmp_path / "shared").mkdir()
    task = task_in(tmp_path / "here", tmp_path / "shared")
    content = pack(task, job(tmp_path / "worker", "m"), large)
    [file] = (tmp_path / "shared").iterdir()
    file.write_bytes(bytes(2**20))
    with pytest.raises(DamagedAnswerError, match="is not what the worker wrote"):
        unpack(content, task)
    file.unlink()
    with pytest.raises(DamagedAnswerError, match="is not in the shared folder"):
        unpack(content, task)


def test_a_large_file_without_a_shared_folder_is_left_out(
    tmp_path: Path, large: ModelOutcomes
) -> None:
    task = task_in(tmp_path / "here")
    outcomes = outcomes_of(unpack(pack(task, job(tmp_path / "worker", "m"), large), task), task.job)
    assert outcomes.left_out == (LeftOut(name=LARGE_FILE, bytes=2**20),)
    assert not (task.job.folder / LARGE_FILE).exists()
    assert (task.job.folder / "small.svg").exists()
