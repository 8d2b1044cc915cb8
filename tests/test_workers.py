"""A model that crashes, hangs or exhausts memory fails one section, never another model."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import dataclass
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
    arguments = {"knd": 1} if kind == "misspelled" else {"kind": kind}
    spec = make_spec("x=batch,4", name=kind.replace(" ", "_"), arguments=arguments)
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


@dataclass(frozen=True)
class Analysis:
    """All models in trouble at once: what became of each, and what was left behind.

    Attributes:
        events: of each model, as (section, event).
        scratch: the names in the folder for temporary files, afterwards.
    """

    folder: Path
    outcomes: dict[str, ModelOutcomes]
    events: dict[str, list[tuple[str, SectionEvent]]]
    scratch: list[str]


SLEEPING = ("hang", "hang at birth", "leave a child", "spin")
HUNGRY = ("eat memory", "eat memory at birth")
OTHERS = (
    "segfault", "abort", "kill", "leave", "call exit", "raise an error", "recurse", "fork",
    "leave a thread", "leave a temporary file", "die at birth", "misspelled",
    "write to every descriptor", "behave",
)  # fmt: skip
LIMIT = 12.0  # seconds; what sleeps does so while the others run


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    """One analysis of every model, in a folder with a file named like a standard module."""
    folder = tmp_path_factory.mktemp("trouble")
    (folder / "random.py").write_text("raise RuntimeError('the wrong random')")
    scratch = folder / "tmp"
    (scratch / "reportgen-999999999-abc").mkdir(parents=True)  # of a build that was killed
    jobs = [
        *(job(folder, kind, seconds=LIMIT) for kind in SLEEPING),
        *(job(folder, kind, memory_bytes=3 * 2**30) for kind in HUNGRY),
        *(job(folder, kind) for kind in OTHERS),
    ]
    events: dict[str, list[tuple[str, SectionEvent]]] = {each.spec.name: [] for each in jobs}
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setattr(tempfile, "tempdir", str(scratch))
        done = analyze_all(
            jobs, parallel=4, progress=lambda model, *event: events[model].append(event[:2])
        )
    assert [each.name for each in done] == [each.spec.name for each in jobs]
    return Analysis(
        folder=folder,
        outcomes={each.name.replace("_", " "): each for each in done},
        events=events,
        scratch=[path.name for path in scratch.iterdir()],
    )


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
    analysis: Analysis, kind: str, words: str
) -> None:
    failure = failure_of(analysis.outcomes[kind])
    assert words in failure.error
    assert "runpy" not in failure.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"), [("raise an error", "first line"), ("recurse", "recursion depth")]
)
def test_a_forward_that_raises_keeps_the_parameters(
    analysis: Analysis, kind: str, words: str
) -> None:
    outcome = analysis.outcomes[kind].sections[0].outcome
    assert isinstance(outcome, Done)
    assert outcome.result.parameters == 10
    assert words in outcome.result.failure.message
    assert "models.py:" in outcome.result.failure.message


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hang", "spin", "leave a child"])
def test_a_hanging_model_is_stopped_at_its_time_limit(analysis: Analysis, kind: str) -> None:
    error = "section 'layers' exceeded the time limit of 12.0 s and was stopped"
    assert failure_of(analysis.outcomes[kind]).error == error
    assert LIMIT <= analysis.outcomes[kind].seconds["layers"] < LIMIT + 10


@pytest.mark.slow
def test_a_model_that_exhausts_memory_fails_with_a_hint(analysis: Analysis) -> None:
    failed = failure_of(analysis.outcomes["eat memory"])
    assert "memory" in failed.error
    assert "limits.memory" in failed.hint


@pytest.mark.slow
def test_processes_of_a_stopped_child_are_killed(analysis: Analysis) -> None:
    words = (analysis.folder / "leave a child" / ".log").read_text().split()
    assert not alive(words[words.index("sleeper") + 1])


@pytest.mark.slow
def test_a_running_thread_of_a_model_does_not_delay_the_result(analysis: Analysis) -> None:
    examined = analysis.outcomes["leave a thread"]
    assert isinstance(examined.sections[0].outcome, Done)
    assert examined.seconds["layers"] < 40  # the thread sleeps for ten minutes


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
    analysis: Analysis,
) -> None:
    late, dead = (analysis.outcomes[kind] for kind in ("hang at birth", "die at birth"))
    for examined in (late, dead):
        assert [type(c.outcome) for c in examined.sections] == [Failed, Skipped]
        assert examined.load_error == examined.sections[0].outcome
    assert dead.sections[0].outcome.error == (  # type: ignore[union-attr]
        "while loading the model, the process exited early with status 3"
    )


@pytest.mark.slow
def test_a_model_that_exhausts_memory_while_loading_fails_with_a_hint(analysis: Analysis) -> None:
    examined = analysis.outcomes["eat memory at birth"]
    assert examined.load_error is not None
    assert "MemoryError" in examined.load_error.error
    assert examined.load_error.hint.startswith("the limit was 3.0 GiB; raise limits.memory")


@pytest.mark.slow
def test_a_model_that_cannot_be_created_fails_its_own_sections_only(analysis: Analysis) -> None:
    bad = analysis.outcomes["misspelled"]
    assert bad.load_error is not None
    assert "knd" in bad.load_error.error
    assert [c.outcome.status for c in bad.sections] == ["failed", "skipped"]
    assert bad.sections[0].outcome == bad.load_error


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["behave", "write to every descriptor"])
def test_a_model_beside_all_of_these_has_its_results(analysis: Analysis, kind: str) -> None:
    """Also in a folder with `random.py`, and if it writes to descriptors that it inherited."""
    assert analysis.outcomes[kind].load_error is None
    assert [c.outcome.status for c in analysis.outcomes[kind].sections] == ["done", "skipped"]


@pytest.mark.slow
def test_a_killed_child_leaves_no_temporary_files(analysis: Analysis) -> None:
    assert "SIGKILL" in failure_of(analysis.outcomes["leave a temporary file"]).error
    assert analysis.scratch == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("fork", SectionEvent.DONE),  # once, although two processes end the section
        ("behave", SectionEvent.DONE),
        ("call_exit", SectionEvent.FAILED),
    ],
)
def test_events_are_in_order(analysis: Analysis, kind: str, first: SectionEvent) -> None:
    assert analysis.events[kind] == [
        ("layers", SectionEvent.STARTED),
        ("layers", first),
        ("training", SectionEvent.STARTED),
        ("training", SectionEvent.SKIPPED),
    ]


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
def test_one_model_after_the_other(tmp_path: Path) -> None:
    events: list[tuple[str, SectionEvent]] = []
    jobs = [job(tmp_path, kind, sections=("training",)) for kind in ("behave", "fork")]
    analyze_all(
        jobs, parallel=1, progress=lambda model, _, event, __: events.append((model, event))
    )
    assert events == [
        (model, event)
        for model in ("behave", "fork")
        for event in (SectionEvent.STARTED, SectionEvent.SKIPPED)
    ]


@pytest.mark.slow
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = textwrap.dedent(
        f"""
        import sys
        sys.path[:0] = {[str(Path(__file__).parent)]!r}
        from pathlib import Path
        from reportgen.executors import analyze_all
        from test_workers import job
        job = job(Path({str(tmp_path)!r}), "hang")
        analyze_all([job], parallel=1, progress=lambda *_: None)
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
