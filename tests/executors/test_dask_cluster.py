"""A real cluster of three processes on this machine: the same report, whatever dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

MODELS = """
import ctypes, os, pathlib, time
from torch import nn

class Net(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.kind = kind

    def forward(self, x):
        if self.kind == "segfault":
            ctypes.string_at(0)
        if self.kind == "hang":
            time.sleep(600)
        marker = pathlib.Path(__file__).with_name(self.kind)
        if self.kind.startswith("slow") and not marker.exists():
            marker.write_text(str(os.getpid()))
            time.sleep(600)  # the first time; the test kills the worker
        return self.linear(x)
"""
KINDS = ("slow", "segfault", "hang", "slow2")
SECONDS = 12
OPTIONS = ("--section", "layers", "--no-timings", "--format", "html,json,md", "--quiet")


@dataclass
class Cluster:
    """Processes by name; the scheduler keeps its port, so that it can be started again."""

    folder: Path
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    def start(self, name: str, *arguments: str) -> None:
        kind = "scheduler" if name == "scheduler" else "worker"
        place = self.folder / name
        place.mkdir(exist_ok=True)
        log = (place / "log").open("ab")
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{kind}", "--no-dashboard",
             "--scheduler-file", str(self.file), *arguments],
            cwd=place, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {
                "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0",
                "DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "1.0",
            },
        )  # fmt: skip

    def start_scheduler(self) -> None:
        self.start("scheduler", "--host", "127.0.0.1", "--port", str(self.port))
        while not self.file.is_file():
            time.sleep(0.05)

    def start_worker(self, name: str) -> None:
        self.start(
            name, "--host", "127.0.0.1", "--nthreads", "1", "--name", name, "--local-directory",
            str(self.folder / name), "--resources", "MEM=4e9 CORES=1", "--death-timeout", "20",
        )  # fmt: skip

    def kill(self, name: str) -> None:
        """Like a node that is lost: nothing of it can say good-bye."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def node_of(self, process: int) -> str:
        """The worker that is an ancestor of `process`."""
        names = {each.pid: name for name, each in self.processes.items()}
        while process not in names:
            process = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        return names[process]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = Cluster(tmp_path_factory.mktemp("cluster"), port)
    try:
        cluster.start_scheduler()
        for name in ("w1", "w2"):
            cluster.start_worker(name)
        yield cluster
    finally:
        for name in list(cluster.processes):
            cluster.kill(name)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest, and the report of this machine without a cluster in `local`."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "nets.py").write_text(MODELS)
    models = [
        {"name": kind, "source": "nets.py:Net", "arguments": {"kind": kind},
         "inputs": [{"shape": ["batch", 4]}]}
        for kind in KINDS
    ]  # fmt: skip
    content = {"version": 1, "title": "t", "limits": {"seconds": SECONDS, "cores": 1}}
    (folder / "m.yaml").write_text(json.dumps(content | {"models": models}))
    for kind in KINDS:
        (folder / kind).touch()
    answer = build(folder, "local").wait()
    assert answer == 1
    return folder


def build(folder: Path, output: str, *options: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "reportgen", "build", "m.yaml", "--output", output, "--no-cache",
         *OPTIONS, *options],
        cwd=folder,
    )  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def wait_for_process(marker: Path) -> int:
    """The process that wrote `marker`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if marker.is_file() and (text := marker.read_text()):
            return int(text)
        time.sleep(0.05)
    raise AssertionError(f"no {marker}")


def test_a_lost_node_a_crash_and_a_hanging_model_change_no_byte(
    cluster: Cluster, project: Path
) -> None:
    (project / "slow").unlink()
    running = build(project, "out", "--executor", f"dask://{cluster.file}")
    lost = cluster.node_of(wait_for_process(project / "slow"))
    cluster.kill(lost)
    assert running.wait(timeout=120) == 1
    assert content(project / "out") == content(project / "local")
    sections = {
        model["name"]: model["sections"]["layers"]
        for model in json.loads((project / "out/report.json").read_bytes())["models"]
    }
    assert [sections[kind]["status"] for kind in KINDS] == [
        "done", "failed", "failed", "done",
    ]  # fmt: skip
    assert "SIGSEGV" in sections["segfault"]["error"]
    assert "time limit" in sections["hang"]["error"]
    cluster.start_worker(lost)


def test_a_scheduler_that_is_started_again_continues(cluster: Cluster, project: Path) -> None:
    (project / "slow2").unlink()
    running = build(
        project, "again", "--model", "slow", "--model", "slow2",
        "--executor", f"dask://127.0.0.1:{cluster.port}",
    )  # fmt: skip
    wait_for_process(project / "slow2")
    for name in list(cluster.processes):
        cluster.kill(name)
    cluster.file.unlink()
    cluster.start_scheduler()
    cluster.start_worker("w3")
    assert running.wait(timeout=120) == 0
    for name in ("slow", "slow2"):
        page = f"models/{name}/index.html"
        assert (project / "again" / page).read_bytes() == (project / "local" / page).read_bytes()
