"""A small project on disk whose model depends on every kind of input."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from reportgen.cache import ResultCache, Store
from reportgen.manifest import load_manifest
from reportgen.pipeline import build, make_job, share_of
from reportgen.workers import Job

MANIFEST = """
version: 1
title: 두 모델
targets: [T4]
models:
  - name: net
    source: net.py:make
    weights: weights.safetensors
    inputs: [{name: x, shape: [batch, 4]}]
    batch: 2
    onnx: {opset: 20, tolerance: {absolute: 1.0e-3}}
    logs: [runs]
  - name: other
    source: other.py:Words
    comment: "<b>한국어</b> | comment"
    inputs: [{name: ids, shape: [batch, 5], dtype: int64, high: 20, keyword: true}]
"""
NET = """
import json
import os
from pathlib import Path

from torch import nn

from parts.blocks import block


def make():
    config = json.loads((Path(__file__).parent / "config.json").read_text())
    if os.environ.get("NET_BIAS") and Path("absent.txt").is_file():
        raise ValueError
    return nn.Sequential(block(4, config["width"]), nn.Linear(config["width"], 2))
"""
BLOCKS = """
from torch import nn

from parts.deep import SLOPE


def block(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LeakyReLU(SLOPE))
"""
OTHER = """
from torch import nn


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)

    def forward(self, ids):
        states, _ = self.lstm(self.embedding(ids))
        return {"states": states, "last": states[:, -1]}
"""


def write_project(folder: Path) -> Path:
    """The project in `folder`; returns its manifest."""
    import torch
    from safetensors.torch import save_file

    (folder / "parts").mkdir(parents=True)
    (folder / "runs").mkdir()
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "parts" / "blocks.py").write_text(BLOCKS)
    (folder / "parts" / "deep.py").write_text("SLOPE = 0.1\n")
    (folder / "net.py").write_text(NET)
    (folder / "other.py").write_text(OTHER)
    (folder / "config.json").write_text('{"width": 5}')
    (folder / "runs" / "log.csv").write_text(
        "step,loss\n" + "".join(f"{step},{1 / step}\n" for step in range(1, 30))
    )
    generator = torch.Generator().manual_seed(1)
    shapes = {"0.0.weight": (5, 4), "0.0.bias": (5,), "1.weight": (2, 5), "1.bias": (2,)}
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(weights, folder / "weights.safetensors")
    (folder / "m.yaml").write_text(MANIFEST, encoding="utf-8")
    return folder / "m.yaml"


def cache_in(folder: Path, limit: int = 2**30) -> ResultCache:
    """The cache in `folder`, for a build that begins now."""
    return ResultCache(store=Store(folder, limit), started_ns=time.time_ns())


def job_of(manifest: Path, work: Path, model: str = "net", **options: Any) -> Job:
    """The job of `model`, as a build makes it."""
    loaded = load_manifest(manifest)
    spec = next(spec for spec in loaded.models if spec.name == model)
    return make_job(
        loaded, spec, work, share_of(options.pop("parallel", 2)), options.pop("timings", False)
    )


def build_in(manifest: Path, output: Path, cache: Path | None, **options: Any) -> list[str]:
    """Build a report; returns the notes."""
    built = build(
        load_manifest(manifest),
        output=output,
        timings=options.pop("timings", False),
        cache=cache_in(cache) if cache else None,
        **options,
    )
    return list(built.notes)


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
