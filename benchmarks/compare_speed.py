"""How long `reportgen compare` takes on two reports of a model with 2,000 modules.

    python benchmarks/compare_speed.py

Builds both reports (minutes), then prints the best of three runs, process start included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

_MODEL = """
from torch import nn


class Block(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8, bias=bias), nn.ReLU(), nn.LayerNorm(8)

    def forward(self, x):
        return self.c(self.b(self.a(x)))


def make(without_bias=-1):
    return nn.Sequential(*(Block(bias=number != without_bias) for number in range(500)))
"""
_MANIFEST = """
version: 1
title: Two thousand modules
models:
  - {name: big, source: "net.py:make", arguments: {without_bias: %d}, inputs: [{shape: [batch, 8]}]}
"""


def main() -> None:
    """Build two reports in a temporary folder, compare them, print the seconds."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.py").write_text(_MODEL)
        for side, without_bias in (("old", -1), ("new", 250)):
            (folder / f"{side}.yaml").write_text(_MANIFEST % without_bias)
            _run(folder, "build", f"{side}.yaml", "--quiet", "--format", "json", "--output", side,
                 "--section", "layers", "--section", "graphs", "--section", "onnx")  # fmt: skip
        seconds = min(_run(folder, "compare", "old", "new") for _ in range(3))
    print(f"compare of two reports with 2,000 modules: {seconds:.2f} s")


def _run(folder: Path, *arguments: str) -> float:
    start = time.monotonic()
    command = [sys.executable, "-P", "-m", "reportgen", *arguments]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


if __name__ == "__main__":
    main()
