"""The search for the largest batch, and sizes as polynomials of the batch."""

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
    TraceCache,
    UntraceableModelError,
    estimate,
    find_gpu,
    measure_step,
)
from reportgen.cuda_memory.batch_search import find_boundary, find_solid_boundary
from reportgen.cuda_memory.extrapolation import (
    Coefficients,
    _interpolate,
    _value_at,
    fit_polynomial,
)

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@given(st.integers(0, 255), st.integers(1, 256), st.integers(1, 5000))
def test_a_boundary_up_to_256_is_exact(edge: int, limit: int, guess: int) -> None:
    found = find_boundary(lambda batch: batch <= edge, limit=limit, guess=guess)
    assert found.largest == min(edge, limit)
    assert found.first_failing == (None if edge >= limit else edge + 1)


@given(st.integers(256, 1 << 20), st.integers(1, 1 << 20))
def test_a_larger_boundary_is_found_within_a_step(edge: int, guess: int) -> None:
    found = find_boundary(lambda batch: batch <= edge, limit=1 << 20, guess=guess)
    assert edge * (1 - 1 / 128) <= found.largest <= edge
    if edge == 1 << 20:
        assert found.first_failing is None
        return
    assert found.first_failing is not None
    assert edge < found.first_failing <= edge * (1 + 1 / 128)
    step = found.first_failing - found.largest
    assert step.bit_count() == 1  # a power of two
    assert found.largest % step == found.first_failing % step == 0


@given(st.integers(1, 1 << 20), st.integers(1, 5000))
def test_a_search_does_not_go_beyond_its_limit(limit: int, guess: int) -> None:
    asked: list[int] = []

    def fits(batch: int) -> bool:
        asked.append(batch)
        return True

    found = find_boundary(fits, limit=limit, guess=guess)
    assert found.first_failing is None
    assert limit * (1 - 1 / 128) <= found.largest == max(asked) <= limit


@given(st.sets(st.integers(1, 300), max_size=200), st.integers(1, 300))
def test_the_boundary_is_correct_even_if_fitting_is_not_monotone(
    fitting: set[int], guess: int
) -> None:
    found = find_boundary(lambda batch: batch in fitting, limit=400, guess=guess)
    assert found.largest == 0 or found.largest in fitting
    assert found.first_failing == found.largest + (1 if found.largest < 256 else 2)
    assert found.first_failing not in fitting


@given(st.sets(st.integers(1, 200), max_size=100), st.integers(1, 250), st.integers(1, 250))
def test_near_a_solid_boundary_no_smaller_batch_fails(
    failing: set[int], edge: int, guess: int
) -> None:
    failing |= set(range(edge, 257))
    found = find_solid_boundary(lambda batch: batch in failing, limit=256, guess=guess)
    assert not failing.intersection({found, *(found - steps for steps in (1, 2, 4, 8))})
    assert found < edge


@pytest.mark.parametrize(
    ("failing", "expected"),
    [({60}, 100), ({100}, 99), ({99}, 98), ({92, 90}, 89), (set(range(50, 100, 2)), 49)],
)
def test_a_batch_that_fits_by_chance_is_not_the_solid_boundary(
    failing: set[int], expected: int
) -> None:
    failing |= set(range(101, 257))
    found = find_solid_boundary(lambda batch: batch in failing, limit=256, guess=100)
    assert found == expected


def test_batches_that_do_not_run_say_nothing_about_larger_ones() -> None:
    def exceeds(batch: int) -> bool | None:
        return batch > 100 if batch % 4 == 0 else None

    assert find_solid_boundary(exceeds, limit=128, guess=100) == 100


def test_a_good_guess_needs_few_calls() -> None:
    asked: list[int] = []

    def fits(batch: int) -> bool:
        asked.append(batch)
        return batch <= 1000

    assert find_boundary(fits, limit=1 << 20, guess=998).largest == 1000
    assert len(asked) <= 4


class Pairs(nn.Module):
    """Multiplies all pairs of samples: memory grows with the square of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.linear(x)
        return x @ x.t()


def estimate_and_batches(model: nn.Module, batch: int) -> tuple[Estimate, list[int]]:
    """An estimate and the batches that were traced for it; equal to one traced at `batch`."""
    traced: list[int] = []

    def inputs(batch: int) -> Inputs:
        traced.append(batch)
        return (torch.empty(batch, 64),), {}

    step = Step(mode="train", loss="sum", iterations=1)
    found = MemoryEstimator(model, inputs, step).estimate(batch)
    batches = sorted(set(traced))
    assert found == estimate(model, inputs, batch=batch, step=step)
    return found, batches


def test_pairwise_products_grow_with_the_square_of_the_batch() -> None:
    found, traced = estimate_and_batches(Pairs(), 1024)
    assert found.peak_allocated_bytes > 1024 * 1024 * 4
    assert traced == [2, 3, 7, 11]


class Plain(Pairs):
    """Grows with the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).cos()


@pytest.mark.parametrize(
    ("model", "verified"), [(Plain(), [[2, 3, 7], [2, 3]]), (Pairs(), [[2, 3, 7, 11]] * 2)]
)
def test_passes_that_are_known_to_be_linear_are_not_verified_again(
    model: nn.Module, verified: list[list[int]]
) -> None:
    cache, traced = TraceCache(), list[int]()

    def inputs(batch: int) -> Inputs:
        traced.append(batch)
        return (torch.empty(batch, 64),), {}

    for optimizer, batches in zip(("sgd", "adam"), verified, strict=True):
        traced.clear()
        step = Step(mode="train", loss="sum", optimizer=optimizer)
        found = MemoryEstimator(model, inputs, step, cache=cache).estimate(1024)
        assert sorted(set(traced)) == batches
        assert found == estimate(model, inputs, batch=1024, step=step)
    traced.clear()
    other = Step(mode="train", loss="sum", precision="amp-bf16")
    MemoryEstimator(model, inputs, other, cache=cache).estimate(1024)
    assert sorted(set(traced)) == verified[0]  # other kernels


class LargerAtTwo(Plain):
    """Takes another size at a batch of two, with the same operators."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padding = x.new_zeros(len(x), 96 if len(x) == 2 else 64)
        return super().forward(x + padding[:, :64])


def test_lines_that_hold_from_a_larger_batch_on_are_not_assumed_at_a_smaller_one() -> None:
    cache = TraceCache()

    def inputs(batch: int) -> Inputs:
        return (torch.empty(batch, 64),), {}

    for optimizer in ("sgd", "adam"):
        step = Step(mode="train", loss="sum", optimizer=optimizer)
        found = MemoryEstimator(LargerAtTwo(), inputs, step, cache=cache).estimate(1 << 16)
        assert found == estimate(LargerAtTwo(), inputs, batch=1 << 16, step=step)


class DifferentAtTwo(nn.Module):
    """Saves one more tensor at a batch of two, as some backward formulas of torch do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.sin() if len(x) == 2 else x).cos()


def test_a_different_kernel_at_batch_two_does_not_prevent_a_polynomial() -> None:
    _, traced = estimate_and_batches(DifferentAtTwo(), 1024)
    assert max(traced) < 1024
    assert estimate_and_batches(DifferentAtTwo(), 2)[0].batch == 2


class Thirds(Pairs):
    """Rounds the batch, as no polynomial does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x[: len(x) // 3 + 1])


def test_a_step_without_polynomial_is_traced_at_each_batch() -> None:
    _, traced = estimate_and_batches(Thirds(), 1000)
    assert traced[-1] == 1000


@given(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), st.integers(1, 10**6))
def test_three_points_determine_their_parabola(curve: Coefficients, batch: int) -> None:
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


def test_a_data_dependent_model_is_extrapolated_from_small_batches() -> None:
    batches: list[int] = []

    def inputs(batch: int) -> Inputs:
        batches.append(batch)
        return (torch.ones(batch, 3, 64, 64),), {}

    estimator = MemoryEstimator(
        CountsBoxes(), inputs, Step(mode="train", optimizer="sgd", loss="sum")
    )
    one, many = estimator.estimate(2), estimator.estimate(200)
    assert many.method == "cpu values"
    assert max(batches) <= 3
    assert many.at_peak["saved_activation"] > 50 * one.at_peak["saved_activation"]
    assert estimator.largest_batch(find_gpu("T4")).largest_batch > 200
    assert any("extrapolated" in note for note in many.notes)


class AtFour(nn.Module):
    """Runs at one batch only, like a model with tables of a fixed length."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, 64))
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(torch.stack([x, self.table]))


class OneImage(AtFour):
    """Runs at one batch only, and reads values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            raise ValueError("expected one image")
        return self.linear(x[x.abs().sum(1) > 0])


@pytest.mark.parametrize(("model", "batch"), [(AtFour(), 4), (OneImage(), 1)])
def test_a_model_that_runs_at_one_batch_only_is_estimated_there(
    model: nn.Module, batch: int
) -> None:
    def inputs(batch: int) -> Inputs:
        return (torch.ones(batch, 64),), {}

    estimator = MemoryEstimator(model, inputs, Step(mode="train", loss="sum", optimizer="sgd"))
    assert estimator.estimate(batch).batch == batch
    fit = estimator.largest_batch(find_gpu("T4"))
    assert (fit.largest_batch, fit.first_batch_that_fails) == (batch, batch + 1)
    assert fit.limited_by == "model"
    with pytest.raises(UntraceableModelError, match=f"fails at batch {batch + 1}"):
        estimator.estimate(batch + 1)


class UpToSix(nn.Module):
    """Rejects a large batch, like an exported program beyond the range of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 6:
            raise RuntimeError("guard failed: x.size()[0] <= 6")
        return self.linear(x)


def test_a_batch_that_the_model_rejects_does_not_make_it_data_dependent() -> None:
    estimator = MemoryEstimator(UpToSix(), lambda batch: ((torch.ones(batch, 64),), {}), Step())
    fit = estimator.largest_batch(find_gpu("T4"))
    assert (fit.largest_batch, fit.limited_by) == (6, "model")
    with pytest.raises(UntraceableModelError, match="fails at batch 9: guard failed"):
        estimator.estimate(9)


def test_measuring_without_a_device_raises_with_a_hint() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a device here")
    with pytest.raises(CudaMemoryError, match="no CUDA device") as caught:
        measure_step(nn.Linear(2, 2), lambda b: ((torch.ones(b, 2),), {}), batch=1, step=Step())
    assert caught.value.hint


def test_a_trace_at_another_batch_gives_no_polynomial() -> None:
    def inputs(batch: int) -> Inputs:
        return (torch.ones(batch, 4),), {}

    trace = MemoryEstimator(nn.Linear(4, 4), inputs, Step(mode="inference")).trace(2)
    assert fit_polynomial(trace, lambda _: trace) is None


class Norm(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))


def images(batch: int) -> Inputs:
    return (torch.empty(batch, 3, 32, 32),), {}


@pytest.mark.parametrize("mode", ["inference", "train"])
@pytest.mark.parametrize("precision", ["fp32", "amp-bf16", "amp-fp16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_two_iterations_at_two_batches_give_the_estimate_of_a_traced_batch(
    mode: str, precision: str, checkpointing: bool
) -> None:
    optimizer = "adamw" if mode == "train" else "none"
    step = Step(mode=mode, precision=precision, optimizer=optimizer, checkpointing=checkpointing)
    for batch in (2, 7, 100):
        found = MemoryEstimator(Norm(), images, step).estimate(batch)
        assert found == estimate(Norm(), images, batch=batch, step=step)


class CountsPasses(Norm):
    passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CountsPasses.passes += 1
        return super().forward(x)


def test_a_linear_step_takes_two_passes_and_one_for_verification(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CountsPasses, "passes", 0)
    estimator = MemoryEstimator(CountsPasses(), images, Step(mode="train", optimizer="adamw"))
    estimator.estimate(64)
    estimator.largest_batch(find_gpu("T4"))
    assert CountsPasses.passes == 3


class KeepsFirstBatch(nn.Module):
    """Allocates only in its first pass, so two iterations of a step differ."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.kept: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kept is None:
            self.kept = x.detach() * 2
        return self.linear(x)


def test_iterations_that_differ_are_traced_at_one_batch_each() -> None:
    def inputs(batch: int) -> Inputs:
        return (torch.empty(batch, 64),), {}

    step = Step(mode="train", loss="sum", optimizer="sgd")
    found = MemoryEstimator(KeepsFirstBatch(), inputs, step).estimate(2)
    assert found == estimate(KeepsFirstBatch(), inputs, batch=2, step=step)
