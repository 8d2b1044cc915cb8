"""A model has the same report twice, also after another model failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reportgen import load_manifest
from reportgen.pipeline import build

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.conv(x)).relu().mean(dim=(2, 3))))


class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(123)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        torch.rand(7)
        raise RuntimeError("half-way through")
"""
MANIFEST = """
version: 1
title: Twice
targets: [T4]
models:
  - {name: first, source: "nets.py:Net", inputs: [{name: x, shape: [batch, 3, 8, 8]}], batch: 2}
  - {name: broken, source: "nets.py:Broken", inputs: [{name: x, shape: [batch, 3, 8, 8]}]}
  - {name: again, source: "nets.py:Net", inputs: [{name: x, shape: [batch, 3, 8, 8]}], batch: 2}
"""


@pytest.mark.slow
def test_a_model_has_the_same_report_twice_with_a_failed_model_in_between(
    tmp_path: Path,
) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "twice.yaml").write_text(MANIFEST)
    built = build(
        load_manifest(tmp_path / "twice.yaml"),
        output=tmp_path / "out",
        sections=("layers", "behavior"),  # what depends on seeds, dtypes and gradient mode
        formats=("html", "json"),
        jobs=1,
        timings=False,
    )
    report = json.loads((built.output / "report.json").read_text(encoding="utf-8"))
    first, broken, again = report["models"]
    assert broken["verdict"] == "fail"
    assert {section["status"] for section in first["sections"].values()} <= {"done", "skipped"}
    assert renamed(first, "first") == renamed(again, "again")
    assert files_of(built.output, "first") == files_of(built.output, "again")


def renamed(model: dict[str, Any], name: str) -> dict[str, Any]:
    """The report of a model with its name replaced, without its place in the manifest."""
    text = json.dumps(model).replace(f'"{name}"', '"NAME"').replace(f"models/{name}/", "models/N/")
    scrubbed: dict[str, Any] = json.loads(text.replace(f"--model {name} ", "--model NAME "))
    del scrubbed["line"]
    return scrubbed


def files_of(output: Path, name: str) -> dict[str, bytes]:
    """All files of one model except its page; graphs have its name in their title."""
    home = output / "models" / name
    return {
        str(path.relative_to(home)): path.read_bytes().replace(name.encode(), b"NAME")
        for path in sorted(home.rglob("*"))
        if path.is_file() and path.suffix != ".html"
    }
