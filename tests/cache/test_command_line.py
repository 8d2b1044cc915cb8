"""`--no-cache`, `doctor`, and the cache between two commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from one_process import run_here

from reportgen import environment

pytestmark = pytest.mark.slow

MANIFEST = "version: 1\ntitle: Logs\nmodels:\n  - {name: run, logs: [log.csv]}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of training logs alone, which need no torch."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    (tmp_path / "m.yaml").write_text(MANIFEST)
    rows = "".join(f"{step},{1 / step}\n" for step in range(1, 30))
    (tmp_path / "log.csv").write_text(f"step,loss\n{rows}")
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    done = run_here(*arguments, folder=folder)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout + done.stderr


def analyzed(folder: Path) -> str:
    """When the section was analyzed that the report shows."""
    timings = json.loads((folder / "reports/m/report.json").read_text())["timings"]
    return str(timings["analyzed"]["run"]["training"])


def test_the_cache_stays_between_builds_and_dates_what_it_returns(folder: Path) -> None:
    run(folder, "build", "m.yaml")
    first, page = analyzed(folder), (folder / "reports/m/index.html").read_bytes()
    run(folder, "build", "m.yaml")
    assert analyzed(folder) == first
    assert (folder / "reports/m/index.html").read_bytes() == page
    shown = f"{first[:10]} {first[11:16]} UTC"
    assert shown in (folder / "reports/m/models/run/index.html").read_text(encoding="utf-8")
    with (folder / "log.csv").open("a") as log:
        log.write("30,0.01\n")
    run(folder, "build", "m.yaml")
    assert analyzed(folder) > first


def test_no_cache_stores_nothing(folder: Path) -> None:
    run(folder, "build", "m.yaml", "--no-cache", "--format", "json")
    assert not (folder / "reports" / ".reportgen-cache").exists()


def test_doctor_prints_where_the_cache_is_and_its_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(folder, "build", "m.yaml", "--format", "json")
    cache = folder / "reports" / ".reportgen-cache"
    monkeypatch.setattr(environment, "check_environment", tuple)  # its imports take seconds
    line = run(folder, "doctor")
    assert line.startswith("ok    cache: ")
    assert line.endswith(f" KiB of 5.0 GiB in {cache}\n")
