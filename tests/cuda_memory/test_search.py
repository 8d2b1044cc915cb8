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
    Estimate,
    MemoryEstimator,
    Step,
    UntraceableModelError,
    estimate,
    find_gpu,
    measure_step,
)
from reportgen.cuda_memory.estimator import find_boundary
from reportgen.cuda_memory.extrapolation import (
    Coefficients,
    _interpolate,
    _value_at,
    fit_polynomial,
)

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@given(st.integers(0, 5000), st.integers(1, 6000), st.integers(1, 5000))
def test_the_boundary_is_found_whatever_the_guess(edge: int, limit: int, guess: int) -> None:
    found = find_boundary(lambda batch: batch <= edge, limit=limit, guess=guess)
    assert found.largest == min(edge, limit)
    assert found.first_failing == (None if edge >= limit else edge + 1)


@given(st.sets(st.integers(1, 300), max_size=200), st.integers(1, 300))
def test_even_where_fitting_is_not_monotone_the_answer_is_a_true_boundary(
    fitting: set[int], guess: int
) -> None:
    found = find_boundary(lambda batch: batch in fitting, limit=400, guess=guess)
    assert found.largest == 0 or found.largest in fitting
    assert found.first_failing == found.largest + 1
    assert found.first_failing not in fitting


def test_a_good_guess_asks_little() -> None:
    asked: list[int] = []

    def fits(batch: int) -> bool:
        asked.append(batch)
        return batch <= 1000

    assert find_boundary(fits, limit=1 << 20, guess=998).largest == 1000
    assert len(asked) <= 8


class Pairs(nn.Module):
    """Every example meets every other: memory goes with the square of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        return x @ x.t()


def asked(model: nn.Module, batch: int) -> tuple[Estimate, list[int]]:
    """An estimate by a plan, and the batches that were traced for it; equal to a trace's own."""
    traced: list[int] = []

    def inputs(batch: int) -> Inputs:
        traced.append(batch)
        return (torch.empty(batch, 64),), {}

    step = Step(mode="train", loss="sum", iterations=1)
    by_plan = MemoryEstimator(model, inputs, step).estimate(batch)
    batches = sorted(set(traced))
    assert by_plan == estimate(model, inputs, batch=batch, step=step)
    return by_plan, batches


def test_a_step_in_which_examples_meet_in_pairs_grows_with_the_square_of_the_batch() -> None:
    found, traced = asked(Pairs(), 1024)
    assert found.peak_allocated_bytes > 1024 * 1024 * 4
    assert traced == [2, 3, 7, 11]


class OtherwiseAtTwo(nn.Module):
    """Keeps one tensor more at a batch of two, as some backward formulas of torch do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.sin() if len(x) == 2 else x).cos()


def test_a_batch_at_which_a_step_does_otherwise_does_not_hide_its_law() -> None:
    _, traced = asked(OtherwiseAtTwo(), 1024)
    assert max(traced) < 1024
    assert asked(OtherwiseAtTwo(), 2)[0].batch == 2


class Thirds(Pairs):
    """Rounds the batch, as no polynomial does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[: len(x) // 3 + 1])


def test_a_step_that_follows_no_law_of_the_batch_is_traced_at_each_batch() -> None:
    _, traced = asked(Thirds(), 1000)
    assert traced[-1] == 1000


@given(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), st.integers(1, 10**6))
def test_three_points_give_back_the_parabola_that_they_are_from(
    curve: Coefficients, batch: int
) -> None:
    def at(b: int) -> int:
        return curve[0] + curve[1] * b + curve[2] * b * b

    found = _interpolate([2, 3, 7], (at(2), at(3), at(7)))
    assert found == curve
    assert _value_at(curve, batch) == at(batch)


class CountsBoxes(nn.Module):
    """Reads values, as detectors do."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.convolution(x)
        return found[found.abs() > 0]


def test_a_model_that_reads_values_is_scaled_and_never_run_at_the_large_batch() -> None:
    batches: list[int] = []

    def inputs(batch: int) -> Inputs:
        batches.append(batch)
        return (torch.ones(batch, 3, 64, 64),), {}

    plan = MemoryEstimator(CountsBoxes(), inputs, Step(mode="train", optimizer="sgd", loss="sum"))
    one, many = plan.estimate(2), plan.estimate(200)
    assert many.method == "cpu values"
    assert max(batches) <= 3
    assert many.at_peak["saved_activation"] > 50 * one.at_peak["saved_activation"]
    assert plan.largest_batch(find_gpu("T4")).largest_batch > 200
    assert any("extrapolated" in note for note in many.notes)


class AtFour(nn.Module):
    """Runs at one batch alone, as a model with tables of a fixed length does."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, 64))
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.stack([x, self.table]))


class OneImage(AtFour):
    """Runs at one batch alone, and only on values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            raise ValueError("one image is taken")
        return self.linear(x[x.abs().sum(1) > 0])


@pytest.mark.parametrize(("model", "batch"), [(AtFour(), 4), (OneImage(), 1)])
def test_a_model_that_runs_at_one_batch_alone_is_estimated_there(
    model: nn.Module, batch: int
) -> None:
    def inputs(batch: int) -> Inputs:
        return (torch.ones(batch, 64),), {}

    plan = MemoryEstimator(model, inputs, Step(mode="train", loss="sum", optimizer="sgd"))
    assert plan.estimate(batch).batch == batch
    fit = plan.largest_batch(find_gpu("T4"))
    assert (fit.largest_batch, fit.first_batch_that_fails) == (batch, batch + 1)
    assert fit.limited_by == "model"
    with pytest.raises(UntraceableModelError, match=f"fails at batch {batch + 1}"):
        plan.estimate(batch + 1)


class UpToSix(nn.Module):
    """Refuses a large batch, as an exported program does beyond the range of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 6:
            raise RuntimeError("guard failed: x.size()[0] <= 6")
        return self.linear(x)


def test_a_batch_beyond_what_a_model_takes_is_no_question_of_values() -> None:
    plan = MemoryEstimator(UpToSix(), lambda batch: ((torch.ones(batch, 64),), {}), Step())
    fit = plan.largest_batch(find_gpu("T4"))
    assert (fit.largest_batch, fit.limited_by) == (6, "model")
    with pytest.raises(UntraceableModelError, match="fails at batch 9: guard failed"):
        plan.estimate(9)


def test_measuring_without_a_device_is_refused_with_a_hint() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device here")
    with pytest.raises(CudaMemoryError, match="no CUDA device") as caught:
        measure_step(nn.Linear(2, 2), lambda b: ((torch.ones(b, 2),), {}), batch=1, step=Step())
    assert caught.value.hint


def test_a_trace_that_was_made_at_another_batch_tells_no_law() -> None:
    def inputs(batch: int) -> Inputs:
        return (torch.ones(batch, 4),), {}

    trace = MemoryEstimator(nn.Linear(4, 4), inputs, Step(mode="inference")).trace(2)
    assert fit_polynomial(trace, lambda _: trace) is None
