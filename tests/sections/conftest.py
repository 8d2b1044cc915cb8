"""What the tests of the sections share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from behaviour_models import ExamineBehaviour
from factories import make_study
from layer_models import Examine
from torch import nn

from reportgen.loan import undisturbed
from reportgen.sections import behaviour
from reportgen.sections.behaviour import Behaviour
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


@pytest.fixture(name="examine")
def examine_behaviour(tmp_path: Path) -> ExamineBehaviour:
    """Examine the behaviour of a model, with four numbers as input unless others are named."""

    def examine(model: nn.Module, *inputs: Any, **fields: Any) -> Behaviour:
        study = make_study(model, *(inputs or ("x=batch,4",)), folder=tmp_path, **fields)
        with undisturbed(study.model):
            result = behaviour.examine(study)
        assert isinstance(result, Behaviour)
        return result

    return examine
