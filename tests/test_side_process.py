"""The process beside the child: what it gains is time only."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from reportgen.executors import analyze_all
from reportgen.manifest import Source, Target
from reportgen.outcome import Done, SectionOutcome
from reportgen.sections import SECTIONS
from reportgen.sections.section import outcome_adapter
from reportgen.workers import Job, SectionEvent
from reportgen.workers.side_process import SideProcess
from tests.factories import make_spec

MODELS = """
import os, signal
import torch
from torch import nn

class Picky(nn.Module):
    '''Does `deed` if it runs in another process than the one that created it.'''
    def __init__(self, deed, folder):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.deed, self.folder, self.home = deed, folder, os.getpid()

    def forward(self, x):
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
    assert first >= 0.05
    assert side.wait() == first


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_returns_none(signal_number: int) -> None:
    assert SideProcess(lambda: os.kill(os.getpid(), signal_number), seconds=60).wait() is None


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
def test_the_outcome_is_that_of_one_process(tmp_path: Path) -> None:
    events: list[tuple[str, SectionEvent]] = []
    found = [
        analyze_all(
            [job(tmp_path, "behave", threads=threads)],
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
def test_a_section_that_crashes_beside_is_analyzed_again(tmp_path: Path) -> None:
    (found,) = analyze_all([job(tmp_path, "die")], parallel=1, progress=lambda *_: None)
    assert [type(section.outcome) for section in found.sections] == [Done, Done]
    assert (tmp_path / "die").exists()
