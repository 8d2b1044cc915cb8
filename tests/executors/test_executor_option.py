"""`build --executor` says in one line what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from reportgen import cli

MANIFEST = """
version: 1
title: t
models:
  - {name: m, source: torchvision:resnet18}
"""


def build(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *options: str
) -> tuple[object, str]:
    """The exit status, and what is printed on stderr."""
    (folder / "m.yaml").write_text(MANIFEST)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["reportgen", "build", "m.yaml", *options])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("spec", ["dask", "dask://scheduler.json", "dask://127.0.0.1:8786"])
def test_without_dask_there_is_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], spec: str
) -> None:
    monkeypatch.setitem(sys.modules, "dask", None)
    status, err = build(monkeypatch, capsys, tmp_path, "--executor", spec)
    assert status == 2
    assert err == (
        "reportgen: --executor dask requires dask.distributed (pip install 'reportgen[dask]')\n"
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--executor", "slurm"], "unknown executor 'slurm' (use dask, dask://"),
        (["--shared-folder", "x"], "--shared-folder requires --executor\n"),
    ],
)
def test_other_executors_are_unknown(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    line: str,
) -> None:
    status, err = build(monkeypatch, capsys, tmp_path, *options)
    assert status == 2
    assert err.startswith(f"reportgen: {line}")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("none.json", "no scheduler file none.json (start `dask scheduler --scheduler-file "),
        ("nowhere", "no dask scheduler answers at nowhere (name a scheduler file, or HOST:PORT"),
        ("tcp://127.0.0.1:1", "no dask scheduler answers at tcp://127.0.0.1:1 ("),
    ],
)
def test_a_scheduler_that_is_not_there_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
    line: str,
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("reportgen.executors.dask_cluster._CONNECT_SECONDS", 1)
    status, err = build(monkeypatch, capsys, tmp_path, "--executor", f"dask://{place}")
    assert status == 2
    assert err.startswith(f"reportgen: {line}")
    assert len(err.splitlines()) == 1
