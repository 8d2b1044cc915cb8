"""No file of a report contains a path, the user's name or the host's name of this machine."""

from __future__ import annotations

import json
import re
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from reportgen import load_manifest
from reportgen.pipeline import Built, build

HOST = "build-machine-7"
USER = "zachary-uncommon"  # occurs nowhere by chance, unlike "root"
NETS = """
import warnings
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent


class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def extra_repr(self):
        return f"cache={HERE}/cache, data=file://{HERE}/data"

    def forward(self, x):
        warnings.warn(f"reading {HERE}/cache")
        return self.linear(x)


class Good(nn.Module):
    def __init__(self):
        super().__init__()
        self.stage, self.head = Stage(), nn.Linear(4, 2)
        self.head.note = str(HERE)

    def forward(self, x):
        return self.head(self.stage(x))


class Broken(Good):
    def forward(self, x):
        raise RuntimeError(f"no such file: {HERE}/data/{x.shape[0]}.npy")


class Hungry(Good):
    def forward(self, x):
        raise MemoryError(f"cannot allocate memory for {HERE}/cache.bin ({HERE})")


class TrainingOnly(Good):
    def forward(self, x):
        if torch.is_grad_enabled() and self.training:
            raise ValueError(f"{HERE}/train.py: 'only inference' (see {HERE})")
        return self.head(x)


def unloadable():
    raise OSError(2, "No such file or directory", f"{HERE}/missing.bin")


def loss(output):
    raise RuntimeError(f"the loss reads {HERE}/weights.npy")
"""
MANIFEST = """
version: 1
title: Paths
targets: [T4]
models:
  - name: good
    source: "nets.py:Good"
    weights: {folder}/weights.pth
    inputs: [{{name: x, file: {folder}/x.npy}}]
    batch: 2
    logs: [{folder}/runs]
  - {{name: broken, source: "{folder}/nets.py:Broken", inputs: [{{name: x, shape: [batch, 4]}}]}}
  - {{name: hungry, source: "nets.py:Hungry", inputs: [{{name: x, shape: [batch, 4]}}]}}
  - {{name: training, source: "nets.py:TrainingOnly", inputs: [{{name: x, shape: [batch, 4]}}],
      loss: "{folder}/nets.py:loss"}}
  - {{name: unloadable, source: "nets.py:unloadable", inputs: [{{name: x, shape: [batch, 4]}}]}}
  - {{name: file, source: {folder}/net.onnx}}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a manifest whose every part names an absolute path."""
    folder = tmp_path / "home" / USER / "project"
    (folder / "runs").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder.parent))
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, USER)
    (folder / "nets.py").write_text(NETS)
    write_logs(folder)
    write_onnx(folder)
    state = nn.ModuleDict(
        {"stage": nn.ModuleDict({"linear": nn.Linear(4, 4)}), "head": nn.Linear(4, 2)}
    ).state_dict()
    torch.save({"state_dict": state, "epoch": 3, "file": str(folder)}, folder / "weights.pth")
    import numpy as np

    np.save(folder / "x.npy", np.ones((2, 4), dtype=np.float32))
    (folder / "paths.yaml").write_text(MANIFEST.format(folder=folder))
    return folder


def write_logs(folder: Path) -> None:
    """A CSV log, a JSON-lines log with paths in its values, and one file of wrong content."""
    rows = "\n".join(f"{step},{1 / (step + 1)}" for step in range(20))
    (folder / "runs" / "train.csv").write_text(f"step,loss\n{rows}\n{folder},not a number\n")
    lines = [{"step": step, "loss": 0.5, "data_dir": f"{folder}/data"} for step in range(20)]
    with SummaryWriter(str(folder / "runs" / "events")) as writer:
        writer.add_text("arguments", f"--data {folder}/data")
        writer.add_hparams({"data": f"{folder}/data", "rate": 0.1}, {"score": 1.0}, run_name="same")
        writer.add_scalar("loss", 0.5, 1)
    text = "\n".join(map(json.dumps, lines))
    (folder / "runs" / "metrics.jsonl").write_text(f"{text}\n{{broken {folder}\n")
    events = folder / "runs" / f"events.out.tfevents.1700000000.{HOST}.12.0"
    events.write_bytes(b"no event file")


def write_onnx(folder: Path) -> None:
    """A file with paths wherever exporters write them."""
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in ("x", "y")]
    node = helper.make_node("Relu", ["x"], ["y"], doc_string=f"{folder}/net.py")
    graph = helper.make_graph([node], f"{folder}/g", [ports[0]], [ports[1]])
    model = helper.make_model(graph, doc_string=f"made by {folder}/export.py")
    helper.set_model_props(model, {"source": str(folder)})
    onnx.save(model, folder / "net.onnx")


@pytest.mark.slow
def test_no_written_file_names_this_machine(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "report"
    built = build(
        load_manifest(home / "paths.yaml"), output=output, formats=("html", "json", "md", "pdf")
    )
    needles = [str(tmp_path), str(home), USER, HOST, f".{socket.gethostname()}.", "/tmp/"]
    found = [
        f"{path.relative_to(output)}: {excerpt}"
        for path in sorted(output.rglob("*"))
        if path.is_file()
        for text in texts_of(path)
        for excerpt in excerpts(text, needles)
    ]
    assert found == [], "\n".join(found)
    assert_every_place_was_reached(built)


def assert_every_place_was_reached(built: Built) -> None:
    """The texts with paths are in the report, without the folders."""
    text = (built.output / "report.json").read_text(encoding="utf-8")
    for shown in (
        '"source": "nets.py:Broken"',
        "Stage(cache=cache, data=data)",
        "no such file: 1.npy",
        "cannot allocate memory for cache.bin (project)",
        "train.py: 'only inference' (see project)",
        "missing.bin",
        "--data data",
        '"data": "data"',
        "events.out.tfevents.1700000000.12.0",
    ):
        assert shown in text, shown


def texts_of(path: Path) -> Iterator[str]:
    """The content of a file, and of every compressed stream in it."""
    content = path.read_bytes()
    # pictures and fonts may contain any letters
    yield re.sub(r"base64,[\w+/=]+", "", content.decode("utf-8", "replace"))
    for start in re.finditer(rb"stream\r?\n", content):
        try:
            yield zlib.decompressobj().decompress(content[start.end() :]).decode("latin-1")
        except zlib.error:
            continue


def excerpts(text: str, needles: list[str]) -> list[str]:
    return [
        text[max(0, found.start() - 60) : found.end() + 60]
        for needle in needles
        for found in re.finditer(re.escape(needle), text)
    ][:5]
