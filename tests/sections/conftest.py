"""What the tests of the sections share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from behavior_models import AnalyzeBehavior
from factories import make_study
from layer_models import Examine
from torch import nn

from reportgen.model_state import preserve_model_state
from reportgen.sections import behavior
from reportgen.sections.behavior import Behavior
from reportgen.sections.layers import Layers, analyze


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
        context = make_study(
            model, *inputs, folder=tmp_path, batch=batch, targets=targets, **fields
        )
        return analyze(context)

    return look


@pytest.fixture(name="analyze")
def analyze_behavior(tmp_path: Path) -> AnalyzeBehavior:
    """Examine the behavior of a model, with four numbers as input unless others are named."""

    def analyze(model: nn.Module, *inputs: Any, **fields: Any) -> Behavior:
        context = make_study(model, *(inputs or ("x=batch,4",)), folder=tmp_path, **fields)
        with preserve_model_state(context.model):
            result = behavior.analyze(context)
        assert isinstance(result, Behavior)
        return result

    return analyze
