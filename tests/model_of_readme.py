"""The model that README and docs/ name as `model.py:MyModel`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

MODEL = Path(__file__).read_text(encoding="utf-8")


class MyModel(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Any) -> Any:
        return self.head(self.conv(x).relu().mean(dim=(2, 3)))
