"""Models that read values: recorded in a CPU run and replayed in the fake one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reportgen.cuda_memory import (
    MemoryEstimator,
    MemoryTrace,
    Step,
    TraceCache,
    UntraceableModelError,
)
from reportgen.cuda_memory.tracing.data_dependent import CpuValues

ROWS, WIDTH = 32, 64
KEPT = ROWS // 2  # of a sample
INFERENCE = Step(iterations=1)


class Reader(nn.Module):
    """Every second row is positive; `body` selects the operators that depend on it."""

    def __init__(self, body: Callable[[nn.Linear, Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.body = body
        self.passes = 0

    def forward(self, x: Tensor) -> Any:
        self.passes += 1
        return self.body(self.linear, x)


def rows(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    x = torch.ones(batch * ROWS, WIDTH)
    x[::2] = -1
    return (x,), {}


def traced(body: Callable[[nn.Linear, Tensor], Any], step: Step = INFERENCE) -> MemoryTrace:
    torch.manual_seed(0)
    return MemoryEstimator(Reader(body), rows, step).trace(1)


def sizes(trace: MemoryTrace, operator: str) -> list[int]:
    return [
        each.size_bytes
        for each in trace.allocations
        if each.op == operator and each.request is None
    ]


def blocks_of(trace: MemoryTrace) -> list[Any]:
    return [(each.size_bytes, each.category, each.path) for each in trace.allocations]


def picked(linear: nn.Linear, x: Tensor) -> Tensor:
    return linear(x[x[:, 0] > 0])  # type: ignore[no-any-return]


def test_the_number_of_masked_rows_comes_from_the_values() -> None:
    found = traced(picked)
    assert found.method == "cpu values"
    assert sizes(found, "index.Tensor") == [KEPT * WIDTH * 4]
    assert sizes(found, "addmm.default") == [KEPT * WIDTH * 4]


def test_recorded_tensors_take_the_precision_of_the_step() -> None:
    found = traced(picked, Step(iterations=1, precision="bf16"))
    assert sizes(found, "index.Tensor") == [KEPT * WIDTH * 2]


def test_every_iteration_replays_the_same_values() -> None:
    found = traced(picked, Step(mode="train", loss="sum", optimizer="sgd", iterations=3))
    assert sizes(found, "index.Tensor") == [KEPT * WIDTH * 4] * 3


@pytest.mark.parametrize(
    "body",
    [
        lambda linear, x: [linear(x) for _ in range(int((x > 0).sum()) // WIDTH)],
        lambda linear, x: [linear(x) for y in (x[:, 0] > 0).tolist() if y],
        lambda linear, x: [linear(x) for _ in torch.nonzero(x[:, 0] > 0)],
        lambda linear, x: [linear(x) for y in x if y[0] > 0],
    ],
    ids=["a number", "a list", "places", "truths"],
)
def test_the_number_of_iterations_of_a_loop_comes_from_the_values(
    body: Callable[[nn.Linear, Tensor], Any],
) -> None:
    found = traced(body)
    assert found.method == "cpu values"
    assert len(sizes(found, "addmm.default")) == KEPT


def test_replayed_values_give_the_allocations_of_a_cpu_run(monkeypatch: Any) -> None:
    """The oracle is the recorder over real tensors."""

    def body(linear: nn.Linear, x: Tensor) -> Tensor:
        kept = linear(x).relu()[x[:, 0] > 0]
        groups, count = torch.unique(kept.detach().round(), return_counts=True)
        repeated = kept.repeat_interleave((kept[:, 0] > -1).long() + 1, dim=0)
        return repeated.sum() * groups.sum() * count.max() if len(count) else repeated.sum()

    step = Step(mode="train", loss="sum", optimizer="sgd", iterations=1)
    replayed = traced(body, step)
    monkeypatch.setattr(CpuValues, "at", lambda *_: None)
    real = traced(body, step)
    assert (replayed.method, real.method) == ("cpu values", "cpu run")
    assert blocks_of(replayed) == blocks_of(real)
    assert replayed.events == real.events


def test_values_read_only_in_the_first_iteration_are_replayed_only_there() -> None:
    """A detector measures its scales once and keeps them; later passes skip that line."""

    def body(linear: nn.Linear, x: Tensor) -> Any:
        if not hasattr(linear, "scale"):
            linear.scale = int((x > 0).sum())  # type: ignore[assignment]
        return [linear(x) for _ in range(int((x[:, 0] > 0).sum()) // KEPT)]

    found = traced(body, Step(iterations=3))
    assert found.method == "cpu values"
    assert len(sizes(found, "addmm.default")) == 3


def test_estimators_that_share_a_cache_run_the_model_on_the_cpu_once() -> None:
    ran: list[bool] = []

    def body(linear: nn.Linear, x: Tensor) -> Any:
        ran.append(type(x) is Tensor)
        return picked(linear, x)

    model, cache = Reader(body), TraceCache()
    for precision in ("fp32", "amp-bf16", "bf16"):
        step = Step(iterations=1, precision=precision)
        assert MemoryEstimator(model, rows, step, cache=cache).trace(1).method == "cpu values"
    assert ran.count(True) == 1


def test_a_data_dependent_model_on_meta_raises() -> None:
    with torch.device("meta"):
        model = Reader(picked)
    with pytest.raises(UntraceableModelError, match="no weights for a CPU run"):
        MemoryEstimator(model, rows, INFERENCE).trace(1)


def test_values_that_were_not_recorded_make_the_step_run_on_the_cpu() -> None:
    def body(linear: nn.Linear, x: Tensor) -> Tensor:
        def block(x: Tensor) -> Tensor:
            return picked(linear, x).sum()

        made: Tensor = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=False)
        return made * linear(x).sum()

    found = traced(body, Step(mode="train", loss="sum", optimizer="sgd"))
    assert found.method == "cpu run"
    assert any("CPU run" in note for note in found.notes)


def test_an_attribute_named_buffers_does_not_hide_the_buffers() -> None:
    model = Reader(picked)
    model.buffers = ["a ring of them"]  # type: ignore[assignment]
    assert MemoryEstimator(model, rows, INFERENCE).trace(1).method == "cpu values"


def test_an_interrupted_step_does_not_affect_the_next_one() -> None:
    cache = TraceCache()
    broken: list[bool] = []

    def body(linear: nn.Linear, x: Tensor) -> Any:
        for row in x:
            x = linear(x) if row[0] > 0 else x
            if broken and type(x) is not Tensor:
                raise RuntimeError("halfway")
        return x

    model, step = Reader(body), Step(iterations=1)
    broken.append(True)
    assert MemoryEstimator(model, rows, step, cache=cache).trace(1).method == "cpu run"
    broken.clear()
    assert MemoryEstimator(model, rows, step, cache=cache).trace(1).method == "cpu values"


def test_the_model_and_the_random_state_stay_unchanged() -> None:
    model = Reader(lambda linear, x: linear(x)[torch.rand(len(x)) > 0.5])
    before, weight = torch.get_rng_state(), model.linear.weight.clone()
    MemoryEstimator(model, rows, Step(mode="train", loss="sum", optimizer="sgd")).trace(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(model.linear.weight, weight)
    assert (model.passes, model.linear.weight.grad) == (0, None)
