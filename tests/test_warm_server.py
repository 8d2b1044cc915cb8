"""Children forked by a process that has imported torch fail as alone as those started afresh."""

from __future__ import annotations

import json
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

from reportgen.executors.places import modules_of
from reportgen.outcome import Done, Failed
from reportgen.workers import Job, ModelOutcomes, SectionEvent, analyze_model
from reportgen.workers.model_run import child_environment
from reportgen.workers.warm_server import Launch, WarmServer

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks children")


@contextmanager
def server_for(jobs: list[Job]) -> Iterator[WarmServer]:
    server = WarmServer(modules_of(jobs), child_environment(jobs[0]))
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
        forked = {kind: analyze_model(each, server=server) for kind, each in jobs.items()}
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
    assert all(not isinstance(o, Failed) for o in outcomes(analyze_model(each, server=server)))


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
            server=server,
        )
    (failed,) = outcomes(found)
    assert isinstance(failed, Failed)
    assert "SIGKILL" in failed.error
    assert time.monotonic() - began[0] < 20


def test_the_environment_the_folder_and_the_log_are_those_of_the_launch(tmp_path: Path) -> None:
    """A job that is no job: pydantic's complaint is in the log, and the status says so."""
    (tmp_path / "job.json").write_text(json.dumps({"not": "a job"}))
    launch = Launch(
        job=Path("job.json"),  # relative to the folder
        log=tmp_path / "log",
        environment={**os.environ, "TMPDIR": str(tmp_path)},
        folder=tmp_path,
    )
    read_end, events = os.pipe()
    server = WarmServer((), dict(os.environ))
    try:
        child = server.fork(launch, events)
        assert child is not None
        assert os.getpgid(child.pid) in (child.pid, os.getpgid(server._process.pid))
        assert child.wait() == 1
        assert child.poll() == 1
        os.kill(child.pid, 0)  # its id is not reused while somebody may kill it
        child.close()
    finally:
        server.stop()
        os.close(events)
        os.close(read_end)
    assert "validation errors for Job" in (tmp_path / "log").read_text()


def test_a_job_without_a_model_needs_no_imports(tmp_path: Path) -> None:
    logs_only = job(tmp_path, "behave").model_copy(update={"sections": ("training",)})
    assert modules_of([logs_only]) == ()
    assert "torch" in modules_of([logs_only, job(tmp_path, "behave")])


def test_a_signal_is_a_negative_status(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "job")
    launch = Launch(job=tmp_path / "job", log=tmp_path / "log", environment=dict(os.environ))
    read_end, events = os.pipe()
    server = WarmServer((), dict(os.environ))
    try:
        child = server.fork(launch, events)  # it waits for somebody to write to the pipe
        assert child is not None
        assert child.poll() is None
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
        child.close()
    finally:
        server.stop()
        os.close(events)
        os.close(read_end)
