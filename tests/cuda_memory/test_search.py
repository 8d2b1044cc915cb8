"""The search for the largest batch, and laws of the batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reportgen.cuda_memory import (
    CudaMemoryError,
    Step,
    estimate,
    find_gpu,
    measure_step,
    trace_step,
)
from reportgen.cuda_memory.search import largest

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@given(st.integers(0, 5000), st.integers(1, 6000), st.integers(1, 5000))
def test_the_boundary_is_found_whatever_the_guess(edge: int, limit: int, guess: int) -> None:
    found = largest(lambda batch: batch <= edge, limit=limit, guess=guess)
    assert found.largest == min(edge, limit)
    assert found.first_failing == (None if edge >= limit else edge + 1)


@given(st.sets(st.integers(1, 300), max_size=200), st.integers(1, 300))
def test_even_where_fitting_is_not_monotone_the_answer_is_a_true_boundary(
    fitting: set[int], guess: int
) -> None:
    found = largest(lambda batch: batch in fitting, limit=400, guess=guess)
    assert found.largest == 0 or found.largest in fitting
    assert found.first_failing == found.largest + 1
    assert found.first_failing not in fitting


def test_a_good_guess_asks_little() -> None:
    asked: list[int] = []

    def fits(batch: int) -> bool:
        asked.append(batch)
        return batch <= 1000

    assert largest(fits, limit=1 << 20, guess=998).largest == 1000
    assert len(asked) <= 8


class Halves(nn.Module):
    """Not affine: memory goes with the square of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        return x @ x.t()


def test_a_step_that_is_not_affine_in_the_batch_is_traced_at_each_batch() -> None:
    def inputs(batch: int) -> Inputs:
        return (torch.empty(batch, 64),), {}

    plan = trace_step(Halves(), inputs, Step(mode="train", loss="sum", iterations=1))
    by_plan = plan.estimate(1024)
    assert by_plan == estimate(
        Halves(), inputs, batch=1024, step=Step(mode="train", loss="sum", iterations=1)
    )
    square = 1024 * 1024 * 4
    assert by_plan.peak_allocated_bytes > square


class CountsBoxes(nn.Module):
    """Reads values, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.convolution(x)
        return found[found.abs() > 0]


def test_a_model_run_for_real_is_scaled_and_never_run_at_the_large_batch() -> None:
    batches: list[int] = []

    def inputs(batch: int) -> Inputs:
        batches.append(batch)
        return (torch.ones(batch, 3, 64, 64),), {}

    plan = trace_step(CountsBoxes(), inputs, Step(mode="train", optimizer="sgd", loss="sum"))
    one, many = plan.estimate(2), plan.estimate(200)
    assert many.method == "cpu run"
    assert many.at_peak["saved_activation"] > 50 * one.at_peak["saved_activation"]
    assert plan.largest_batch(find_gpu("T4")).largest_batch > 200
    assert any("scaled" in note for note in many.notes)


def test_measuring_without_a_device_is_refused_with_a_hint() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device here")
    with pytest.raises(CudaMemoryError, match="no CUDA device") as caught:
        measure_step(nn.Linear(2, 2), lambda b: ((torch.ones(b, 2),), {}), batch=1, step=Step())
    assert caught.value.hint
