"""`reportgen watch` as a user runs it: a real process over a log that grows, shrinks and goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from one_process import build_here
from tensorboardX import SummaryWriter

from reportgen import load_manifest
from reportgen.errors import ManifestError
from reportgen.watching import watch

_PATIENCE_SECONDS = 60.0

pytestmark = pytest.mark.slow


def write_steps(folder: Path, first: int, last: int, value: float = 1.0) -> None:
    writer = SummaryWriter(str(folder))
    for step in range(first, last):
        writer.add_scalar("train/loss", value / (1 + step), step, walltime=1.7e9 + step)
    writer.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m.yaml").write_text("version: 1\ntitle: t\nmodels: [{name: a, logs: [runs]}]\n")
    write_steps(tmp_path / "runs", 0, 30)
    return tmp_path


@contextmanager
def watching(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A running `reportgen watch`, stopped by Ctrl-C at the latest when the block ends."""
    with (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "reportgen", "watch", "m.yaml", "--output", "out"],
            cwd=folder, stderr=errors, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=_PATIENCE_SECONDS)


def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; fail after a minute."""
    end = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)


def training(folder: Path) -> dict[str, Any]:
    """The training section in report.json; empty while there is none."""
    try:
        (model,) = json.loads((folder / "out" / "report.json").read_text())["models"]
    except FileNotFoundError:
        return {}
    result: dict[str, Any] = model["sections"]["training"].get("result", {})
    return result


def points(folder: Path) -> int:
    return int(training(folder).get("points", 0))


def test_the_page_follows_the_log_and_ctrl_c_ends_it(folder: Path) -> None:
    page = folder / "out" / "models" / "a" / "index.html"
    with watching(folder) as process:
        until(lambda: points(folder) == 30)
        assert 'data-live="' in page.read_text()
        time.sleep(1.1)  # a writer names its file by the second
        write_steps(folder / "runs", 30, 50)
        until(lambda: points(folder) == 50)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=_PATIENCE_SECONDS) == 130
    assert 'data-live="' not in page.read_text()
    assert (folder / "out" / "models" / "a" / "live.js").read_text() == 'reportgenLive("");\n'
    assert sorted(p.name for p in folder.iterdir()) == ["m.yaml", "out", "runs", "stderr"]
    assert "stopped; wrote out" in (folder / "stderr").read_text()


def test_new_findings_are_printed_once(folder: Path) -> None:
    with watching(folder):
        until(lambda: points(folder) == 30)
        time.sleep(1.1)
        write_steps(folder / "runs", 30, 32, value=float("nan"))
        until(lambda: points(folder) == 32)
        time.sleep(1.1)
        write_steps(folder / "runs", 32, 34, value=float("nan"))
        until(lambda: points(folder) == 34)
    assert (folder / "stderr").read_text().count("error TRN001") == 1


def test_a_log_that_is_truncated_or_deleted_is_followed(folder: Path) -> None:
    (event_file,) = (folder / "runs").iterdir()
    with watching(folder):
        until(lambda: points(folder) == 30)
        content = event_file.read_bytes()
        event_file.write_bytes(content[: len(content) // 2])
        until(lambda: 0 < points(folder) < 30)
        event_file.unlink()
        time.sleep(1.1)
        write_steps(folder / "runs" / "second", 0, 7)
        until(lambda: len(training(folder)["runs"]) == 2)


def test_other_chapters_of_the_last_build_stay(folder: Path) -> None:
    (folder / "net.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Linear(2, 2)\n"
    )
    (folder / "m.yaml").write_text(
        "version: 1\ntitle: t\nmodels:\n"
        "- {name: a, source: net.py:make, inputs: ['batch,2'], logs: runs}\n"
    )
    build_here(
        load_manifest(folder / "m.yaml"), output=folder / "out", sections=("layers", "training"),
        formats=("html", "json", "pdf"),
    )  # fmt: skip
    layers = (folder / "out" / "models" / "a" / "layers.csv").read_bytes()
    with watching(folder):
        time.sleep(1.1)
        write_steps(folder / "runs", 30, 40)
        until(lambda: points(folder) == 40)
        (model,) = json.loads((folder / "out" / "report.json").read_text())["models"]
        assert model["sections"]["layers"]["result"]["parameters"] == 6
    assert (folder / "out" / "models" / "a" / "layers.csv").read_bytes() == layers
    assert (folder / "out" / "report.pdf").exists()
    assert "report.pdf is from the last build" in (folder / "stderr").read_text()


def test_without_logs_there_is_nothing_to_watch(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(
        "version: 1\ntitle: t\nmodels: [{name: a, source: 'torchvision:vgg11'}]\n"
    )
    with pytest.raises(ManifestError, match="no model has logs"):
        watch(load_manifest(tmp_path / "m.yaml"), print_line=lambda _: None)
    assert os.listdir(tmp_path) == ["m.yaml"]
