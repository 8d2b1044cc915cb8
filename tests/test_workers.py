"""Whatever a model does to its process costs one section, never another model."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from factories import make_spec, make_study
from torch import nn

from reportgen.errors import ModelError
from reportgen.manifest import Source
from reportgen.outcome import Done, Failed, Skipped
from reportgen.workers import Job, ModelOutcomes, Step, analyze_all
from reportgen.workers.child import Reporter, with_lazy_layers_materialized
from reportgen.workers.job import Message
from reportgen.workers.limits import memory_of_machine

MODELS = """
import ctypes, os, signal, subprocess, sys, threading, time
import torch
from torch import nn

class Trouble(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.kind = kind
        if kind == "hang at birth":
            time.sleep(600)
        if kind == "die at birth":
            os._exit(3)
        if kind == "eat memory at birth":
            self.eat_memory()

    def forward(self, x):
        getattr(self, self.kind.replace(" ", "_"))()
        return self.linear(x)

    def behave(self): pass
    def segfault(self): ctypes.string_at(0)
    def abort(self): os.abort()
    def kill(self): os.kill(os.getpid(), signal.SIGKILL)
    def leave(self): os._exit(0)
    def hang(self): time.sleep(600)
    def spin(self):
        while True: pass
    def fork(self): os.fork()
    def leave_a_thread(self): threading.Thread(target=time.sleep, args=(600,)).start()
    def leave_a_child(self):
        child = subprocess.Popen(["sleep", "600"])
        print("sleeper", child.pid, flush=True)
        time.sleep(600)
    def eat_memory(self): self.food = [bytearray(2**30) for _ in range(100)]
    def call_exit(self): sys.exit("enough")
    def raise_an_error(self): raise ValueError("first line\\nsecond line")
    def recurse(self): self.recurse()
    def interrupt_itself(self): raise KeyboardInterrupt
"""


def job(folder: Path, kind: str, **fields: Any) -> Job:
    """A job of two sections, the second of which needs nothing of the model."""
    file = folder / "models.py"
    if not file.exists():
        file.write_text(textwrap.dedent(MODELS))
    source = Source(kind="python", target=str(file), factory="Trouble", text="models.py:Trouble")
    spec = make_spec("x=batch,4", name=kind.replace(" ", "_"), arguments={"kind": kind})
    defaults: dict[str, Any] = {
        "spec": spec.model_copy(update={"source": source}),
        "targets": (),
        "sections": ("layers", "training"),
        "folder": folder / kind,
        "seconds": 60.0,
        "memory_bytes": 8 * 2**30,
        "threads": 1,
        "timings": True,
    }
    return Job(**{**defaults, **fields})


def silent(model: str, section: str, step: Step, seconds: float) -> None:
    pass


def analyze(*jobs: Job) -> tuple[ModelOutcomes, ...]:
    return analyze_all(jobs, parallel=2, progress=silent)


def failure_of(examined: ModelOutcomes) -> Failed:
    """The failed first section, once it is sure that the second one was still examined."""
    first, second = examined.sections
    assert (first.name, second.name) == ("layers", "training")
    assert isinstance(second.outcome, Skipped)
    assert isinstance(first.outcome, Failed)
    assert "\n" not in first.outcome.error + first.outcome.hint
    assert "Traceback" not in first.outcome.error + first.outcome.hint
    return first.outcome


def alive(process: str) -> bool:
    """Whether the process runs; one that is dead and not yet reaped does not."""
    answer = subprocess.run(
        ["ps", "-o", "stat=", "-p", process], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()[:1] not in ("", "Z")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("segfault", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("kill", "killed"),
        ("leave", "ended by itself with status 0"),
        ("call exit", "SystemExit: enough"),
        ("raise an error", "ValueError: first line (models.py:"),
        ("recurse", "RecursionError"),
    ],
)
def test_a_model_that_ends_its_process_fails_one_section(
    tmp_path: Path, kind: str, words: str
) -> None:
    bad, good = analyze(job(tmp_path, kind), job(tmp_path, "behave"))
    assert words in failure_of(bad).error
    assert "runpy" not in failure_of(bad).hint
    assert isinstance(good.sections[0].outcome, Done)


@pytest.mark.slow
def test_a_hanging_model_is_stopped_at_its_time_limit(tmp_path: Path) -> None:
    start = time.monotonic()
    hang, spin = analyze(job(tmp_path, "hang", seconds=8.0), job(tmp_path, "spin", seconds=8.0))
    told = failure_of(hang).error
    assert told == "the section 'layers' took longer than its limit of 8.0 s and was stopped"
    assert "longer than its limit" in failure_of(spin).error
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_a_model_that_eats_all_memory_is_told_about_its_limit(tmp_path: Path) -> None:
    (hungry,) = analyze(job(tmp_path, "eat memory", memory_bytes=3 * 2**30))
    failed = failure_of(hungry)
    assert "memory" in failed.error
    assert "limits.memory" in failed.hint


@pytest.mark.slow
def test_children_of_a_stopped_child_die_with_it(tmp_path: Path) -> None:
    analyze(job(tmp_path, "leave a child", seconds=8.0))
    words = (tmp_path / "leave a child" / ".log").read_text().split()
    sleeper = int(words[words.index("sleeper") + 1])
    time.sleep(0.2)
    assert not alive(str(sleeper))


@pytest.mark.slow
def test_a_thread_that_a_model_leaves_behind_costs_no_time(tmp_path: Path) -> None:
    start = time.monotonic()
    (examined,) = analyze(job(tmp_path, "leave a thread", seconds=50.0))
    assert isinstance(examined.sections[0].outcome, Done)
    assert time.monotonic() - start < 40


@pytest.mark.slow
def test_a_model_that_forks_is_heard_once(tmp_path: Path) -> None:
    heard: list[tuple[str, Step]] = []
    analyze_all(
        [job(tmp_path, "fork")], parallel=1, progress=lambda _, *news: heard.append(news[:2])
    )
    assert heard == [
        ("layers", Step.STARTED),
        ("layers", Step.DONE),
        ("training", Step.STARTED),
        ("training", Step.SKIPPED),
    ]


def test_a_long_message_in_korean_reaches_the_parent_whole() -> None:
    read_end, write_end = os.pipe()
    message = Message(kind="model_error", message="한" * 1500, hint="\x1b" * 500)
    Reporter(write_end).tell(message)
    line = os.read(read_end, 65536)
    os.close(read_end)
    os.close(write_end)
    assert Message.model_validate_json(line) == message


@pytest.mark.slow
def test_a_model_that_never_finishes_loading_fails_every_section(tmp_path: Path) -> None:
    late, dead = analyze(job(tmp_path, "hang at birth", seconds=8.0), job(tmp_path, "die at birth"))
    for examined in (late, dead):
        assert [type(c.outcome) for c in examined.sections] == [Failed, Failed]
    assert dead.sections[0].outcome.error == (  # type: ignore[union-attr]
        "while the model was loaded, the process ended by itself with status 3 before it was done"
    )


@pytest.mark.slow
def test_a_model_that_eats_all_memory_while_it_is_loaded_is_told_about_its_limit(
    tmp_path: Path,
) -> None:
    with pytest.raises(ModelError, match="MemoryError") as caught:
        analyze(job(tmp_path, "eat memory at birth", memory_bytes=3 * 2**30))
    assert caught.value.hint.startswith("the limit was 3.0 GiB; raise limits.memory")


@pytest.mark.slow
def test_a_model_that_cannot_be_made_is_an_error_of_the_user(tmp_path: Path) -> None:
    spec = job(tmp_path, "behave").spec.model_copy(update={"arguments": {"knd": 1}})
    with pytest.raises(ModelError, match="knd"):
        analyze(job(tmp_path, "behave", spec=spec))


@pytest.mark.slow
def test_progress_is_told_in_order_and_jobs_come_back_in_order(tmp_path: Path) -> None:
    heard: list[tuple[str, str, Step]] = []
    jobs = [job(tmp_path, kind) for kind in ("call exit", "behave")]
    done = analyze_all(jobs, parallel=1, progress=lambda *news: heard.append(news[:3]))
    assert [examined.name for examined in done] == ["call_exit", "behave"]
    assert heard == [
        ("call_exit", "layers", Step.STARTED),
        ("call_exit", "layers", Step.FAILED),
        ("call_exit", "training", Step.STARTED),
        ("call_exit", "training", Step.SKIPPED),
        ("behave", "layers", Step.STARTED),
        ("behave", "layers", Step.DONE),
        ("behave", "training", Step.STARTED),
        ("behave", "training", Step.SKIPPED),
    ]


@pytest.mark.slow
def test_a_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = {[str(Path(__file__).parent)]!r}
        from pathlib import Path
        from test_workers import analyze, job
        analyze(job(Path({str(tmp_path)!r}), "hang"))
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    log = tmp_path / "hang" / ".log"
    children: list[str] = []
    deadline = time.monotonic() + 30
    while not children and time.monotonic() < deadline:
        time.sleep(0.2)
        listed = subprocess.run(
            ["pgrep", "-P", str(parent.pid)], capture_output=True, text=True, check=False
        )
        children = listed.stdout.split() if log.exists() else []
    assert children
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20  # one that is still starting looks for its parent then
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [child for child in children if alive(child)]


def test_the_machine_has_as_much_memory_as_the_system_says() -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory_of_machine() <= physical


def test_lazy_layers_are_woken_for_all_sections_and_a_failing_pass_leaves_them_asleep(
    tmp_path: Path,
) -> None:
    lazy = nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(10))
    context = make_study(lazy, "batch,3,8,8", batch=2, folder=tmp_path)
    materialize_lazy = with_lazy_layers_materialized(context)
    assert sum(p.numel() for p in materialize_lazy.model.parameters()) == 3_114
    assert "lazy layers" in materialize_lazy.source_notes[-1]
    wrong = make_study(nn.Sequential(nn.LazyConv2d(8, 9)), "batch,3,8,8", folder=tmp_path)
    assert with_lazy_layers_materialized(wrong) is wrong
