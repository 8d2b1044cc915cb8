"""Children forked by a process that has imported torch fail as alone as those started afresh."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from test_workers import job

from reportgen.executors.warm_children import modules_of
from reportgen.outcome import Done, Failed
from reportgen.workers import Job, ModelOutcomes, SectionEvent, analyze_model
from reportgen.workers.model_run import ChildStart, child_environment
from reportgen.workers.warm_server import WarmChild, WarmServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks children")


@contextmanager
def server_for(jobs: list[Job]) -> Iterator[WarmServer]:
    server = WarmServer(modules_of(jobs, of_sections=True), child_environment(jobs[0]))
    try:
        yield server
    finally:
        server.stop()


def outcomes(found: ModelOutcomes) -> list[Any]:
    return [section.outcome for section in found.sections]


@pytest.mark.slow
def test_forked_and_started_children_give_the_same_results(tmp_path: Path) -> None:
    jobs = {kind: job(tmp_path, kind) for kind in ("behave", "segfault", "leave")}
    with server_for(list(jobs.values())) as server:
        forked = {
            kind: analyze_model(each, start_child=server.start) for kind, each in jobs.items()
        }
    started = {kind: analyze_model(each) for kind, each in jobs.items()}
    assert {kind: outcomes(each) for kind, each in forked.items()} == {
        kind: outcomes(each) for kind, each in started.items()
    }
    assert any(isinstance(outcome, Done) for outcome in outcomes(forked["behave"]))
    assert "SIGSEGV" in str(outcomes(forked["segfault"]))
    assert "exited early with status 0" in str(outcomes(forked["leave"]))


@pytest.mark.slow
def test_without_the_server_a_child_is_started_afresh(tmp_path: Path) -> None:
    each = job(tmp_path, "behave")
    server = WarmServer(("no.such.module",), child_environment(each))
    server.stop()
    assert all(
        not isinstance(o, Failed) for o in outcomes(analyze_model(each, start_child=server.start))
    )


@pytest.mark.slow
def test_children_end_with_the_server(tmp_path: Path) -> None:
    each = job(tmp_path, "hang")
    began: list[float] = []

    def notify(_section: str, event: SectionEvent) -> None:
        if event is SectionEvent.STARTED and not began:
            began.append(time.monotonic())
            server._process.kill()

    with server_for([each]) as server:
        found = analyze_model(
            each.model_copy(update={"seconds": 30.0, "sections": each.sections[:1]}),
            notify,
            start_child=server.start,
        )
    (failed,) = outcomes(found)
    assert isinstance(failed, Failed)
    assert "SIGKILL" in failed.error
    assert time.monotonic() - began[0] < 20


def started(server: WarmServer, each: Job, folder: Path) -> Any:
    """A child of the server, in `folder`."""
    read_end, events = os.pipe()
    with (folder / "log").open("ab") as log:
        child = server.start(
            ChildStart(job=each, events=events, log=log, scratch=folder, current_folder=folder)
        )
    os.close(events)
    os.close(read_end)
    return child


def test_a_signal_is_a_negative_status_and_the_id_stays_taken(tmp_path: Path) -> None:
    server = WarmServer((), dict(os.environ))
    try:
        child = started(server, job(tmp_path, "hang at birth"), tmp_path)
        assert isinstance(child, WarmChild)
        assert child.poll() is None
        os.kill(child.pid, signal.SIGTERM)
        while child.poll() is None:
            time.sleep(0.01)
        assert child.returncode == -signal.SIGTERM
        os.kill(child.pid, 0)  # not reused while somebody may kill its group
        assert child.wait() == -signal.SIGTERM
    finally:
        server.stop()


def test_a_job_without_a_model_needs_no_imports(tmp_path: Path) -> None:
    logs_only = job(tmp_path, "behave").model_copy(update={"sections": ("training",)})
    assert modules_of([logs_only], of_sections=True) == ()
    assert "torch" in modules_of([logs_only, job(tmp_path, "behave")], of_sections=False)
