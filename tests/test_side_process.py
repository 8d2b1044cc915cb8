"""The process beside the child: what it gains is time only."""

from __future__ import annotations

import faulthandler
import os
import signal
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reportgen.executors import analyze_all
from reportgen.manifest import Source, Target
from reportgen.onnx.export import OnnxFile
from reportgen.outcome import Done, Failed, SectionOutcome
from reportgen.sections import SECTIONS
from reportgen.sections.section import outcome_adapter
from reportgen.workers import Job, SectionEvent
from reportgen.workers.beside import with_export_beside
from reportgen.workers.inputs_read import InputsRead, Recorder
from reportgen.workers.side_process import SideProcess
from tests.factories import make_spec, make_study

MODELS = """
import os, signal, threading
import torch
from torch import nn

class Picky(nn.Module):
    '''Does `deed` if it runs in another process than the one that created it.'''
    def __init__(self, deed, folder):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.deed, self.folder, self.home = deed, folder, os.getpid()

    def forward(self, x):
        if self.deed == "refuse":
            return torch.linalg.svd(x)[1]  # has no counterpart in ONNX
        if self.deed == "start a thread" and threading.active_count() == 1:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        if os.getpid() != self.home:
            open(os.path.join(self.folder, self.deed), "a").close()
            if self.deed == "die":
                os.kill(os.getpid(), signal.SIGKILL)
        return self.linear(x)
"""


def test_the_seconds_of_the_work_are_returned_each_time() -> None:
    side = SideProcess(lambda: time.sleep(0.05), seconds=60)
    first = side.wait()
    assert first is not None
    assert first.seconds >= 0.05
    assert side.wait() == first


def test_a_result_larger_than_a_pipe_is_returned() -> None:
    finished = SideProcess(lambda: "x" * 1_000_000, seconds=60).wait()
    assert finished is not None
    assert finished.result == "x" * 1_000_000


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_returns_none(signal_number: int) -> None:
    def crash() -> None:
        faulthandler.disable()  # pytest enables it: the log would look as if a test had crashed
        os.kill(os.getpid(), signal_number)

    assert SideProcess(crash, seconds=60).wait() is None


def test_a_process_beyond_its_time_is_killed() -> None:
    side = SideProcess(lambda: time.sleep(600), seconds=0.1)
    assert side.wait() is None
    with pytest.raises(ProcessLookupError):
        os.kill(side._process, 0)


def job(folder: Path, deed: str, **fields: Any) -> Job:
    (folder / "models.py").write_text(textwrap.dedent(MODELS))
    target = str(folder / "models.py")
    source = Source(kind="python", target=target, factory="Picky", text="models.py:Picky")
    spec = make_spec("x=batch,4", name="picky", arguments={"deed": deed, "folder": str(folder)})
    defaults: dict[str, Any] = {
        "spec": spec.model_copy(update={"source": source}),
        "targets": (Target(name="T4"),),
        "sections": ("layers", "memory"),
        "folder": folder / "work",
        "seconds": 60.0,
        "memory_bytes": 8 * 2**30,
        "threads": 2,
        "timings": True,
    }
    return Job(**{**defaults, **fields})


def as_json(section: SectionOutcome) -> bytes:
    """As it is written: NaN equals NaN there."""
    return outcome_adapter(next(s for s in SECTIONS if s.name == section.name)).dump_json(
        section.outcome
    )


@pytest.mark.slow
@pytest.mark.parametrize("sections", [("layers", "memory"), ("layers", "graphs")])
def test_the_outcome_is_that_of_one_process(tmp_path: Path, sections: tuple[str, ...]) -> None:
    events: list[tuple[str, SectionEvent]] = []
    found = [
        analyze_all(
            [job(tmp_path, "behave", threads=threads, sections=sections, timings=False)],
            parallel=1,
            progress=lambda _, *event: events.append(event[:2]),
        )[0]
        for threads in (2, 1)
    ]
    beside, alone = (outcomes.sections[1] for outcomes in found)
    assert as_json(beside) == as_json(alone)
    assert [type(section.outcome) for section in found[0].sections] == [Done, Done]
    assert events[:4] == events[4:]
    assert (tmp_path / "behave").exists()  # the model did run in another process


@pytest.mark.slow
@pytest.mark.parametrize("sections", [("layers", "memory"), ("layers", "graphs")])
def test_what_crashes_beside_is_analyzed_again(tmp_path: Path, sections: tuple[str, ...]) -> None:
    picky = job(tmp_path, "die", sections=sections)
    (found,) = analyze_all([picky], parallel=1, progress=lambda *_: None)
    assert [type(section.outcome) for section in found.sections] == [Done, Done]
    assert (tmp_path / "die").exists()


@pytest.mark.slow
def test_why_an_export_fails_is_told_as_without_a_process_beside(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"sections": ("layers", "onnx"), "timings": False}
    beside, alone = (
        analyze_all(
            [job(tmp_path, "refuse", threads=threads, **fields)],
            parallel=1,
            progress=lambda *_: None,
        )[0].sections[1]
        for threads in (2, 1)
    )
    assert isinstance(alone.outcome, Failed)
    assert "linalg_svd" in str(alone.outcome)
    assert as_json(beside) == as_json(alone)


@pytest.mark.slow
def test_after_a_model_has_started_a_thread_nothing_is_forked(tmp_path: Path) -> None:
    """A lock that the thread holds would stay locked in the fork."""
    started = job(tmp_path, "start a thread", sections=("layers", "behavior", "memory"))
    outcomes = analyze_all([started], parallel=1, progress=lambda *_: None)[0]
    assert [type(section.outcome) for section in outcomes.sections] == [Done, Done, Done]
    assert not (tmp_path / "start a thread").exists()


def test_what_the_export_reads_is_an_input_of_the_sections(tmp_path: Path) -> None:
    recorder = Recorder(ignored=())
    read = InputsRead(files=frozenset({"vocabulary.txt"}))

    def export(*_: object) -> OnnxFile:
        recorder.add(read)  # as the audit hook does; it could not be removed from this process
        return OnnxFile(path=tmp_path / "model.onnx", dynamic=(), strategy="", warnings=())

    context = replace(make_study(nn.Linear(4, 2), folder=tmp_path), export=export)
    beside = with_export_beside(job(tmp_path, ""), SECTIONS, context, recorder)
    assert beside.onnx_file().path == tmp_path / "model.onnx"
    assert recorder.take() == read


def test_sparse_buffers_have_a_size(tmp_path: Path) -> None:
    model = nn.Linear(4, 2)
    model.register_buffer("sparse", torch.eye(3).to_sparse())
    context = make_study(model, folder=tmp_path)
    tight = job(tmp_path, "", memory_bytes=1)
    assert with_export_beside(tight, SECTIONS, context, Recorder(ignored=())) is context


def test_a_model_that_fills_the_memory_is_not_exported_beside_its_passes(tmp_path: Path) -> None:
    context = make_study(nn.Linear(1024, 1024), folder=tmp_path)
    recorder = Recorder(ignored=())
    tight = job(tmp_path, "", memory_bytes=32 * 2**20)
    assert with_export_beside(tight, SECTIONS, context, recorder) is context
