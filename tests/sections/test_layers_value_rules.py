"""Rules on stored values, dtypes and sizes: what they say, and what they let pass."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from layer_models import Examine
from torch import Tensor, nn

from reportgen.findings import Finding
from reportgen.sections.layers import SECTION
from reportgen.sections.layers.result import Layers


def findings(result: Layers, *codes: str) -> list[Finding]:
    rules = [rule for rule in SECTION.rules if rule.code in codes]
    return [found for rule in rules for found in rule.findings(result)]


class Rotary(nn.Module):
    """Keeps a second reference to a buffer, as transformers' rotary embeddings do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.arange(4.0), persistent=False)
        self.original = self.frequencies
        self.half = self.frequencies[:2]
        self.steps = torch.arange(4)
        self.scale = torch.tensor(0.5)
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * self.original)


def test_references_integers_and_single_numbers_are_no_unregistered_tensors(look: Examine) -> None:
    result = look(Rotary(), "x=batch,4")
    assert result.stored_values.plain_tensors == ()


def test_weights_that_are_constant_on_purpose_are_not_reported(look: Examine) -> None:
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 4)
    )
    nn.init.constant_(model[0].weight, 1 / 9).requires_grad_(False)  # a fixed blur
    nn.init.zeros_(model[3].weight)  # a head that begins at zero
    assert result_of(look, model) == ()
    nn.init.ones_(model[3].weight)
    assert result_of(look, model) == ("3.weight",)


def result_of(look: Examine, model: nn.Module) -> tuple[str, ...]:
    result = look(model, "x=batch,4,4,4")
    return tuple(weight.name for weight in result.stored_values.constant)


def test_tied_and_constant_weights_are_no_copies(look: Examine) -> None:
    tied = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
    tied[1].weight = tied[0].weight
    nn.init.zeros_(tied[2].weight)
    assert look(tied, "x=batch,8").stored_values.copies == ()
    tied[2].load_state_dict(copy.deepcopy(tied[0].state_dict()))
    assert look(tied, "x=batch,8").stored_values.copies == (("0.weight", "2.weight"),)


def test_the_layers_of_a_transformer_encoder_begin_equal(look: Examine) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    result = look(nn.TransformerEncoder(layer, 3), "x=batch,4,8")
    (found,) = findings(result, "LAY012")
    assert "3 weights have the same values" in found.message
    assert "; 3 more such groups" in found.message


class Scaled(nn.Module):
    def __init__(self, scale: object, cast: bool) -> None:
        super().__init__()
        self.scale, self.cast = scale, cast

    def forward(self, x: Tensor) -> Tensor:
        scaled = torch.as_tensor(self.scale) * x
        return scaled.to(x.dtype) if self.cast else scaled


@pytest.mark.parametrize(
    ("scale", "cast", "codes"),
    [
        (np.arange(8.0), False, ["LAY016"]),
        (np.arange(8.0), True, []),  # computed in double precision on purpose
        (np.float64(2.0), False, []),  # a number without dims does not change the dtype
        (np.arange(8, dtype=np.float32), False, []),
    ],
)
def test_one_double_precision_array_is_enough(
    look: Examine, scale: object, cast: bool, codes: list[str]
) -> None:
    model = nn.Sequential(nn.Linear(8, 8), Scaled(scale, cast))
    found = findings(look(model, "x=batch,8"), "LAY016")
    assert [each.code for each in found] == codes


def test_a_model_that_is_in_double_precision_by_itself_is_not_a_leak(look: Examine) -> None:
    result = look(nn.Sequential(nn.Linear(8, 8)).double(), "x=batch,8:float64")
    assert findings(result, "LAY016") == []


@pytest.mark.parametrize(
    ("features", "reported"),
    [((512, 511), True), ((1000, 1000), False), ((512, 10), False), ((3, 512), False)],
)
def test_sizes_are_misaligned_if_they_are_large(
    look: Examine, features: tuple[int, int], reported: bool
) -> None:
    result = look(nn.Linear(*features), f"x=batch,256,{features[0]}", batch=8)
    assert bool(findings(result, "LAY017")) is reported


@pytest.mark.parametrize(
    ("head", "text", "reported"),
    [
        ([nn.AdaptiveAvgPool2d(1), nn.Flatten()], "x=batch,3,40,40", True),
        ([], "x=batch,3,40,40", False),  # super-resolution: an image comes out
        ([nn.AdaptiveAvgPool2d(1), nn.Flatten()], "x=batch,3,16,16", False),  # small anyway
        ([nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()],
         "x=batch,3,40,40", False),
    ],
)  # fmt: skip
def test_a_classifier_should_reduce_its_image(
    look: Examine, head: list[nn.Module], text: str, reported: bool
) -> None:
    convolutions = [nn.Conv2d(size, 8, 3, padding=1) for size in (3, 8, 8)]
    found = findings(look(nn.Sequential(*convolutions, *head), text), "LAY018")
    assert bool(found) is reported
