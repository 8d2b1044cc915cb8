"""What a batch's size, other samples and other generators of random numbers do to a result."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from behavior_models import AnalyzeBehavior, probe
from torch import Tensor, nn


class Scaled(nn.Module):
    def __init__(self, factor: Callable[[], float]) -> None:
        super().__init__()
        self.line, self.factor = nn.Linear(12, 12), factor

    def forward(self, x: Tensor) -> Any:
        return self.line(x) * self.factor()


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Any:
        return self.line(x).squeeze()


class Kept(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line, self.kept = nn.Linear(12, 7), None

    def forward(self, x: Tensor) -> Any:
        if self.kept is None:
            self.kept = self.line(x)
        return self.kept


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Any:
        if len(x) != 2:
            raise ValueError("two samples, please")
        return self.line(x)


@pytest.mark.parametrize("factor", [random.random, np.random.rand], ids=["python", "numpy"])
def test_random_numbers_of_other_generators_are_no_difference_between_the_modes(
    analyze: AnalyzeBehavior, factor: Callable[[], float]
) -> None:
    result = analyze(Scaled(factor), "x=batch,12")
    assert probe(result, "repeatable").verdict == "no"
    assert probe(result, "modes_agree").verdict == "yes"


def test_random_arguments_are_not_attributed_to_the_mode(
    analyze: AnalyzeBehavior,
) -> None:
    class Counting:
        value = 0

        def __call__(self) -> float:
            Counting.value += 1
            return 1.5 * Counting.value

    class Noisy(nn.Sequential):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) * factor()

    factor = Counting()
    result = analyze(Noisy(nn.Linear(12, 12), nn.Dropout()), "x=batch,12")
    assert "differ:" not in probe(result, "modes_agree").sentence


def test_a_lost_batch_axis_is_reported_with_shapes(
    analyze: AnalyzeBehavior,
) -> None:
    result = analyze(Squeezed(), "x=batch,12")
    alone = probe(result, "batch_of_one")
    assert alone.verdict == "no"
    assert alone.sentence == "A sample alone gives 7, without the batch axis of 2 × 7."
    assert probe(result, "independent").verdict == "yes"


def test_a_cached_output_is_reported(analyze: AnalyzeBehavior) -> None:
    alone = probe(analyze(Kept(), "x=batch,12"), "batch_of_one")
    assert alone.verdict == "no"
    assert alone.sentence.startswith("A sample alone gives the outputs of the previous batch")


def test_without_another_batch_size_the_batch_axis_is_unknown(analyze: AnalyzeBehavior) -> None:
    independent = probe(analyze(Halves(), "x=batch,12"), "independent")
    assert independent.verdict == "not run"
    assert independent.sentence == "No other batch size runs, so the batch axis is unknown."


def test_seeds_are_tried_until_the_samples_differ(analyze: AnalyzeBehavior) -> None:
    # seeds 0 and 1 draw the same second number below 50
    independent = probe(analyze(nn.Embedding(50, 8), "ids=batch:int64<50"), "independent")
    assert independent.verdict == "yes"


class Widened(nn.Module):
    """Computes in one precision, and gives what comes out in another."""

    def __init__(self, computed: torch.dtype, given: torch.dtype) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(257, 400), nn.Tanh(), nn.Linear(400, 257)).to(computed)
        self.computed, self.given = computed, given

    def forward(self, x: Tensor) -> Any:
        return self.body(x.to(self.computed)).to(self.given)


@pytest.mark.parametrize(
    ("computed", "given"),
    [(torch.float32, torch.float64), (torch.bfloat16, torch.float32)],
    ids=str,
)
def test_a_wider_output_is_no_more_exact_than_what_it_was_computed_in(
    analyze: AnalyzeBehavior, computed: torch.dtype, given: torch.dtype
) -> None:
    result = analyze(Widened(computed, given), "x=batch,257", batch=5)
    assert probe(result, "batch_of_one").verdict == "yes"
    assert probe(result, "independent").verdict == "yes"


class Mixing(Widened):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x + 0.01 * x.mean(0))


def test_samples_that_mix_a_little_are_found_in_a_wider_output(analyze: AnalyzeBehavior) -> None:
    result = analyze(Mixing(torch.float32, torch.float64), "x=batch,257")
    assert probe(result, "batch_of_one").verdict == "no"


class Found(nn.Module):
    """As many rows as there are positive numbers."""

    def forward(self, x: Tensor) -> Any:
        return torch.nonzero(x > 0)


def test_rows_whose_number_follows_the_values_are_not_compared(
    analyze: AnalyzeBehavior,
) -> None:
    for width in range(3, 12):  # of some, both samples have equally many rows by chance
        result = analyze(Found(), f"x=batch,{width}")
        assert probe(result, "batch_of_one").verdict == "not run", width
        assert probe(result, "independent").verdict in ("not run", "yes"), width
