"""What the tests of the sections share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from factories import make_study
from layer_models import Examine
from torch import nn

from reportgen.sections.layers import Layers, examine


@pytest.fixture
def look(tmp_path: Path) -> Examine:
    """Examine the layers of a model with inputs as the manifest writes them."""

    def look(
        model: nn.Module,
        *inputs: Any,
        batch: int = 1,
        targets: tuple[str, ...] = (),
        **fields: Any,
    ) -> Layers:
        study = make_study(model, *inputs, folder=tmp_path, batch=batch, targets=targets, **fields)
        return examine(study)

    return look
