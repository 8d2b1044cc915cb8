"""`reportgen estimate` loads a model once, and a second time only when it requires weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from reportgen.cuda_memory.step import Step
from reportgen.manifest import ModelSpec, parse_shape_argument
from reportgen.sections.memory import estimation
from reportgen.sources import Loaded, load_model

CODE = """
import torch
from torch import nn

def plain():
    return nn.Linear(4, 2)

class ReadsValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.width = int(torch.full((), 4))
    def forward(self, x): return self.linear(x)
"""


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The default device of each call of `load_model`, in order."""
    calls: list[str] = []

    def counted(spec: ModelSpec) -> Loaded:
        calls.append(torch.get_default_device().type)
        return load_model(spec)

    (tmp_path / "nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(estimation, "load_model", counted)
    return calls


@pytest.mark.parametrize(
    ("source", "shape", "expected"),
    [
        ("nets.py:plain", "batch,4", ["meta"]),
        ("torchvision:squeezenet1_1", None, ["meta"]),
        ("nets.py:ReadsValues", "batch,4", ["meta", "cpu"]),
    ],
)
def test_the_real_model_is_loaded_only_if_meta_fails(
    devices: list[str], source: str, shape: str | None, expected: list[str]
) -> None:
    inputs: Any = () if shape is None else (parse_shape_argument(shape),)
    step = Step(mode="inference")
    answer = estimation.estimate_step(source, inputs, batch=2, step=step)
    assert devices == expected
    assert answer.estimate.peak_allocated_bytes > 0
