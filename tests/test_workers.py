"""A model that crashes, hangs or exhausts memory fails one section, never another model."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from factories import make_spec, make_study
from torch import nn

from reportgen.executors import analyze_all
from reportgen.manifest import Source
from reportgen.outcome import Done, Failed, SectionOutcome, Skipped
from reportgen.workers import Job, ModelOutcomes, SectionEvent
from reportgen.workers.child import Reporter, with_lazy_layers_materialized
from reportgen.workers.job import Message
from reportgen.workers.limits import machine_memory

MODELS = """
import ctypes, os, signal, subprocess, sys, tempfile, threading, time
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
    def leave_a_temporary_file(self):
        tempfile.NamedTemporaryFile(delete=False).write(b"x")
        self.kill()
    def call_exit(self): sys.exit("enough")
    def raise_an_error(self): raise ValueError("first line\\nsecond line")
    def recurse(self): self.recurse()
    def write_to_every_descriptor(self):
        for descriptor in range(3, 512):
            try:
                os.write(descriptor, b"hello")
                os.write(descriptor, b'{"kind":"end","section":"nonsense"}\\n{}\\n')
            except OSError:
                pass
    def interrupt_itself(self): raise KeyboardInterrupt
"""


def job(folder: Path, kind: str, **fields: Any) -> Job:
    """A job of two sections; the second one does not use the model."""
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


def ignore_progress(model: str, section: str, event: SectionEvent, seconds: float) -> None:
    pass


def analyze(*jobs: Job) -> tuple[ModelOutcomes, ...]:
    return analyze_all(jobs, parallel=2, progress=ignore_progress)


def failure_of(examined: ModelOutcomes) -> Failed:
    """The failure of the first section; the second one must have been analyzed."""
    first, second = examined.sections
    assert (first.name, second.name) == ("layers", "training")
    assert isinstance(second.outcome, Skipped)
    assert isinstance(first.outcome, Failed)
    assert "\n" not in first.outcome.error + first.outcome.hint
    assert "Traceback" not in first.outcome.error + first.outcome.hint
    return first.outcome


def alive(process: str) -> bool:
    """Whether the process runs; zombies do not."""
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
        ("leave", "exited early with status 0"),
        ("call exit", "SystemExit: enough"),
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
@pytest.mark.parametrize(
    ("kind", "words"), [("raise an error", "first line"), ("recurse", "recursion depth")]
)
def test_a_forward_that_raises_keeps_the_parameters(tmp_path: Path, kind: str, words: str) -> None:
    (bad,) = analyze(job(tmp_path, kind))
    outcome = bad.sections[0].outcome
    assert isinstance(outcome, Done)
    assert outcome.result.parameters == 10
    assert words in outcome.result.failure.message
    assert "models.py:" in outcome.result.failure.message


@pytest.mark.slow
def test_a_hanging_model_is_stopped_at_its_time_limit(tmp_path: Path) -> None:
    start = time.monotonic()
    hang, spin = analyze(job(tmp_path, "hang", seconds=8.0), job(tmp_path, "spin", seconds=8.0))
    error = "section 'layers' exceeded the time limit of 8.0 s and was stopped"
    assert failure_of(hang).error == error
    assert failure_of(spin).error == error
    assert time.monotonic() - start < 60


@pytest.mark.slow
def test_a_model_that_exhausts_memory_fails_with_a_hint(tmp_path: Path) -> None:
    (hungry,) = analyze(job(tmp_path, "eat memory", memory_bytes=3 * 2**30))
    failed = failure_of(hungry)
    assert "memory" in failed.error
    assert "limits.memory" in failed.hint


@pytest.mark.slow
def test_processes_of_a_stopped_child_are_killed(tmp_path: Path) -> None:
    analyze(job(tmp_path, "leave a child", seconds=8.0))
    words = (tmp_path / "leave a child" / ".log").read_text().split()
    sleeper = int(words[words.index("sleeper") + 1])
    time.sleep(0.2)
    assert not alive(str(sleeper))


@pytest.mark.slow
def test_a_running_thread_of_a_model_does_not_delay_the_result(tmp_path: Path) -> None:
    start = time.monotonic()
    (examined,) = analyze(job(tmp_path, "leave a thread", seconds=50.0))
    assert isinstance(examined.sections[0].outcome, Done)
    assert time.monotonic() - start < 40


@pytest.mark.slow
def test_a_model_that_forks_reports_each_event_once(tmp_path: Path) -> None:
    events: list[tuple[str, SectionEvent]] = []
    analyze_all(
        [job(tmp_path, "fork")], parallel=1, progress=lambda _, *event: events.append(event[:2])
    )
    assert events == [
        ("layers", SectionEvent.STARTED),
        ("layers", SectionEvent.DONE),
        ("training", SectionEvent.STARTED),
        ("training", SectionEvent.SKIPPED),
    ]


def test_a_long_message_is_sent_completely() -> None:
    read_end, write_end = os.pipe()
    message = Message(kind="model_error", message="한" * 1500, hint="\x1b" * 500)
    reporter = Reporter(write_end)
    reporter.send(message)
    line = os.read(read_end, 65536)
    os.close(read_end)
    os.close(reporter._descriptor)
    assert Message.model_validate_json(line) == message


@pytest.mark.slow
def test_a_model_that_never_finishes_loading_keeps_its_training_section(
    tmp_path: Path,
) -> None:
    late, dead = analyze(job(tmp_path, "hang at birth", seconds=8.0), job(tmp_path, "die at birth"))
    for examined in (late, dead):
        assert [type(c.outcome) for c in examined.sections] == [Failed, Skipped]
        assert examined.load_error == examined.sections[0].outcome
    assert dead.sections[0].outcome.error == (  # type: ignore[union-attr]
        "while loading the model, the process exited early with status 3"
    )


@pytest.mark.slow
def test_a_model_that_exhausts_memory_while_loading_fails_with_a_hint(tmp_path: Path) -> None:
    (examined,) = analyze(job(tmp_path, "eat memory at birth", memory_bytes=3 * 2**30))
    assert examined.load_error is not None
    assert "MemoryError" in examined.load_error.error
    assert examined.load_error.hint.startswith("the limit was 3.0 GiB; raise limits.memory")


@pytest.mark.slow
def test_a_model_that_cannot_be_created_fails_its_own_sections_only(tmp_path: Path) -> None:
    good = job(tmp_path, "behave")
    spec = good.spec.model_copy(update={"arguments": {"knd": 1}})
    bad, good_outcomes = analyze(job(tmp_path, "misspelled", spec=spec), good)
    assert bad.load_error is not None
    assert "knd" in bad.load_error.error
    assert [c.outcome.status for c in bad.sections] == ["failed", "skipped"]
    assert bad.sections[0].outcome == bad.load_error
    assert good_outcomes.load_error is None
    assert [c.outcome.status for c in good_outcomes.sections] == ["done", "skipped"]


@pytest.mark.slow
def test_what_a_model_writes_to_inherited_descriptors_does_no_harm(tmp_path: Path) -> None:
    (examined,) = analyze(job(tmp_path, "write to every descriptor"))
    assert [c.outcome.status for c in examined.sections] == ["done", "skipped"]


@pytest.mark.slow
def test_a_file_named_like_a_module_in_the_current_folder_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise RuntimeError('the wrong random')")
    monkeypatch.chdir(tmp_path)
    (examined,) = analyze(job(tmp_path, "behave"))
    assert [c.outcome.status for c in examined.sections] == ["done", "skipped"]


@pytest.mark.slow
def test_a_killed_child_leaves_no_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    left = scratch / "reportgen-999999999-abc"  # of a build that was killed
    left.mkdir()
    (examined,) = analyze(job(tmp_path, "leave a temporary file"))
    assert "SIGKILL" in failure_of(examined).error
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_a_model_that_needs_no_child_is_finished_while_others_are_analyzed(tmp_path: Path) -> None:
    analyzed, known = job(tmp_path, "behave"), job(tmp_path, "known")
    order: list[tuple[str, set[str]]] = []
    analyze_all(
        [analyzed, known],
        parallel=1,
        progress=lambda name, section, event, _: order.append((name, {section, event})),
        known={
            "known": ModelOutcomes(
                name="known",
                sections=tuple(
                    SectionOutcome(name=name, title=name, outcome=Skipped(reason="earlier"))
                    for name in known.sections
                ),
                seconds={},
            )
        },
        finished=lambda job, outcomes: order.append(
            (outcomes.name, {section.name for section in outcomes.sections})
        ),
    )
    finished = [name for name, what in order if what == set(known.sections)]
    assert finished == ["known", "behave"]
    assert order[2] == ("known", set(known.sections))  # after its two events of an earlier build


@pytest.mark.slow
def test_events_and_results_are_in_order(tmp_path: Path) -> None:
    events: list[tuple[str, str, SectionEvent]] = []
    jobs = [job(tmp_path, kind) for kind in ("call exit", "behave")]
    done = analyze_all(jobs, parallel=1, progress=lambda *event: events.append(event[:3]))
    assert [examined.name for examined in done] == ["call_exit", "behave"]
    assert events == [
        ("call_exit", "layers", SectionEvent.STARTED),
        ("call_exit", "layers", SectionEvent.FAILED),
        ("call_exit", "training", SectionEvent.STARTED),
        ("call_exit", "training", SectionEvent.SKIPPED),
        ("behave", "layers", SectionEvent.STARTED),
        ("behave", "layers", SectionEvent.DONE),
        ("behave", "training", SectionEvent.STARTED),
        ("behave", "training", SectionEvent.SKIPPED),
    ]


@pytest.mark.slow
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
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
    deadline = time.monotonic() + 20  # a child that is still starting checks its parent later
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [child for child in children if alive(child)]


def test_machine_memory_is_at_most_the_physical_memory() -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < machine_memory() <= physical


def test_lazy_layers_are_materialized_unless_the_forward_pass_fails(
    tmp_path: Path,
) -> None:
    lazy = nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(10))
    context = make_study(lazy, "batch,3,8,8", batch=2, folder=tmp_path)
    materialized = with_lazy_layers_materialized(context)
    assert sum(p.numel() for p in materialized.model.parameters()) == 3_114
    assert "lazy layers" in materialized.source_notes[-1]
    wrong = make_study(nn.Sequential(nn.LazyConv2d(8, 9)), "batch,3,8,8", folder=tmp_path)
    assert with_lazy_layers_materialized(wrong) is wrong
