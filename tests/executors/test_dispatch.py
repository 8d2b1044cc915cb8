"""Every model has one result, whatever an executor does with its tasks."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from pathlib import Path
from typing import Any

import pytest
from factories import make_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from reportgen.cache.fingerprint import CODE, comparable_software
from reportgen.errors import EnvironmentFault
from reportgen.executors import ClusterExecutor, Size, analyze_all
from reportgen.executors.answer import pack, refuse
from reportgen.executors.task import Task
from reportgen.outcome import Failed, SectionOutcome, Skipped
from reportgen.workers import Job, ModelOutcomes, SectionEvent

SKIPPED = b'{"reason":"no logs","status":"skipped"}'


def job(folder: Path, name: str, **fields: Any) -> Job:
    return Job(
        spec=make_spec("x=batch,4", name=name), targets=(), sections=("training",),
        folder=folder / name, seconds=1.0, memory_bytes=fields.pop("memory_bytes", 2**30),
        threads=fields.pop("threads", 1), timings=False,
    )  # fmt: skip


def answer_to(text: str, folder: Path) -> bytes:
    """The answer of a worker that found no logs."""
    task = Task.model_validate_json(text)
    mine = task.job.model_copy(update={"folder": folder / task.id})
    mine.outcomes.mkdir(parents=True)
    mine.outcome_file("training").write_bytes(SKIPPED)
    section = SectionOutcome(name="training", title="", outcome=Skipped(reason="no logs"))
    return pack(task, mine, ModelOutcomes(name=task.job.spec.name, sections=(section,), seconds={}))


class Unreliable(Executor):
    """Runs tasks in any order in another thread; each attempt has the fate that the test says."""

    def __init__(self, folder: Path, fates: Callable[[str], str], seed: int) -> None:
        self.folder, self.fates, self.random = folder, fates, random.Random(seed)
        self.waiting: list[tuple[Future[bytes], str]] = []
        self.most, self.last = 0, b""
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[bytes]:
        future = Future[bytes]()
        with self.changed:
            self.waiting.append((future, args[0]))
            self.most = max(self.most, len(self.waiting))
            self.changed.notify()
        return future

    def work(self) -> None:
        while True:
            with self.changed:
                while not self.waiting:
                    self.changed.wait()
                future, text = self.waiting.pop(self.random.randrange(len(self.waiting)))
            if text == "end":
                return
            self.finish(future, text)

    def finish(self, future: Future[bytes], text: str) -> None:
        fate = self.fates(Task.model_validate_json(text).job.spec.name)
        answer = answer_to(text, self.folder)
        if fate == "lost":
            future.set_exception(BrokenExecutor("the worker is gone"))
        elif fate == "full disk":
            future.set_exception(OSError(28, "No space left on device"))
        elif fate == "answer to another task":
            future.set_result(self.last)
        elif fate == "cut off":
            future.set_result(answer[: self.random.randrange(600)])
        elif fate == "changed":
            future.set_result(answer.replace(b"no logs", b"no l0gs"))
        else:
            future.set_result(answer)
        self.last = answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.submit(None, "end")
        self.thread.join()


FATES = ("done", "lost", "full disk", "answer to another task", "cut off", "changed")
LOST = {
    "lost": "lost: worker died 3 times",
    "full disk": "lost: workers failed 3 times; the last one: No space left on device",
    "answer to another task": "lost: the answer was damaged 3 times; the last one: ",
    "cut off": "lost: the answer was damaged 3 times; the last one: ",
    "changed": "lost: the answer was damaged 3 times; the last one: not what the worker sent",
}


@settings(deadline=None, max_examples=40)
@given(
    fates=st.lists(st.lists(st.sampled_from(FATES), min_size=3, max_size=3), max_size=6),
    parallel=st.integers(1, 4),
    seed=st.integers(0, 999),
)
def test_every_model_has_one_result_whatever_the_executor_does(
    tmp_path_factory: pytest.TempPathFactory, fates: list[list[str]], parallel: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("build")
    left = {f"m{i}": iter(each) for i, each in enumerate(fates)}
    finished: list[str] = []
    events: list[tuple[str, SectionEvent]] = []
    with Unreliable(folder, lambda name: next(left[name]), seed) as executor:
        found = analyze_all(
            [job(folder, name) for name in left],
            parallel=parallel,
            progress=lambda model, _, event, __: events.append((model, event)),
            finished=lambda job, _: finished.append(job.spec.name),
            executor=executor,
        )
        assert executor.most <= parallel
    assert [outcomes.name for outcomes in found] == list(left)
    assert sorted(finished) == sorted(left)
    for each, outcomes in zip(fates, found, strict=True):
        [section] = outcomes.sections
        if "done" in each:
            assert section.outcome == Skipped(reason="no logs")
            assert (folder / outcomes.name / ".outcomes/training.json").read_bytes() == SKIPPED
            assert len(list(left[outcomes.name])) == 2 - each.index("done")  # were not needed
        else:
            assert isinstance(section.outcome, Failed)
            assert section.outcome.error.startswith(LOST[each[-1]])
            assert outcomes.load_error == section.outcome
    assert sorted(events) == sorted(
        (outcomes.name, SectionEvent(outcomes.sections[0].outcome.status)) for outcomes in found
    )


class Small(ClusterExecutor):
    """Two workers of 4 GiB and 2 cores that die; remembers the memory of each attempt."""

    def __init__(self) -> None:
        self.memory: list[int] = []

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[bytes]:
        self.memory.append(Task.model_validate_json(args[0]).job.memory_bytes)
        raise BrokenExecutor("no worker")

    def slots(self) -> int:
        return 2

    def share(self) -> Size:
        return Size(memory=2**30, cores=1)

    def largest(self) -> Size:
        return Size(memory=4 * 2**30, cores=2)


def ignore(*_: Any) -> None:
    pass


@pytest.mark.parametrize(("first", "attempts"), [(1, [1, 2, 3]), (3, [3, 4, 4])])
def test_each_attempt_gets_more_memory_up_to_the_largest_worker(
    tmp_path: Path, first: int, attempts: list[int]
) -> None:
    cluster = Small()
    jobs = [job(tmp_path, "m", memory_bytes=first * 2**30)]
    analyze_all(jobs, parallel=1, progress=ignore, executor=cluster)
    assert cluster.memory == [each * 2**30 for each in attempts]


@pytest.mark.parametrize(
    ("limits", "error"),
    [
        ({"memory_bytes": 5 * 2**30}, "needs 5.0 GiB of memory, the largest worker has 4.0 GiB"),
        ({"threads": 3}, "needs 3 cores, the largest worker has 2"),
    ],
)
def test_a_model_that_fits_no_worker_fails_before_it_is_submitted(
    tmp_path: Path, limits: dict[str, int], error: str
) -> None:
    cluster = Small()
    [found] = analyze_all(
        [job(tmp_path, "m", **limits)], parallel=1, progress=ignore, executor=cluster
    )
    assert found.load_error is not None
    assert found.load_error.error == error
    assert cluster.memory == []


class Refusing(Executor):
    """Its workers have another software or other files."""

    def __init__(self, reason: str, software: dict[str, str] | None = None) -> None:
        self.reason, self.software = reason, software

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[bytes]:
        future = Future[bytes]()
        task = Task.model_validate_json(args[0])
        future.set_result(refuse(task, self.reason, self.software))
        return future


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"torch": "2.14.0"}, "worker w1 has torch 2.14.0, this machine has "),
        ({"torch": ""}, "worker w1 has no torch, this machine has "),
        ({CODE: "0"}, "worker w1 has other code of reportgen than this machine"),
        ({"dill": "0.4"}, "worker w1 has dill 0.4, this machine has none"),
    ],
)
def test_a_worker_with_another_software_ends_the_build(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    software = {n: v for n, v in (comparable_software() | change).items() if v}
    with pytest.raises(EnvironmentFault) as caught:
        analyze_all(
            [job(tmp_path, "m")], parallel=1, progress=ignore,
            executor=Refusing("worker w1", software),
        )  # fmt: skip
    assert caught.value.message.startswith(message)


def test_a_worker_with_other_files_ends_the_build(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"worker w1 has another m\.yaml"):
        analyze_all(
            [job(tmp_path, "m")], parallel=1, progress=ignore,
            executor=Refusing("worker w1 has another m.yaml"),
        )  # fmt: skip


def test_what_an_earlier_build_found_is_not_analyzed(tmp_path: Path) -> None:
    section = SectionOutcome(name="training", title="Training", outcome=Skipped(reason="none"))
    known = ModelOutcomes(name="m", sections=(section,), seconds={"training": 1.0})
    cluster = Small()
    [found] = analyze_all(
        [job(tmp_path, "m")], parallel=1, progress=ignore, known={"m": known}, executor=cluster
    )
    assert found == known
    assert cluster.memory == []
