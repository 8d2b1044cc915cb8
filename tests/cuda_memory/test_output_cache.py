"""Traces with remembered results of fake operators: equal to traces without."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from reportgen.cuda_memory import MemoryTrace, Step, TraceCache
from reportgen.cuda_memory.tracing.fake_copy import FakeMode
from reportgen.cuda_memory.tracing.output_cache import OutputCache
from reportgen.cuda_memory.tracing.step_tracer import StepTracer

pytestmark = pytest.mark.slow  # each case is traced three times


class Forgetful(OutputCache):
    """Runs every call."""

    def result(self, func: Any, args: Any, kwargs: Any, run: Callable[[], Any]) -> Any:
        return run()


class Views(nn.Module):
    """Views of views, several views of one tensor, and what looks like a view and is none."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 12)
        self.register_buffer("table", torch.arange(24.0).reshape(2, 12).t())

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        first, second, third = y.chunk(3, dim=-1)
        first = first.unsqueeze(0).expand(5, -1, -1).transpose(0, 1)[:, 2]
        pairs = second.float().reshape(-1, 2, 2)  # no complex numbers of bf16
        second = torch.view_as_real(torch.view_as_complex(pairs)).flatten(1)
        third = third.contiguous().view(-1, 2, 2).permute(0, 2, 1).reshape(-1, 4)
        parts = torch.cat([first, second.conj(), third], dim=-1)
        strided = parts.as_strided((parts.shape[0], 6), (12, 2), 1)
        rows = torch.roll(parts, 1, 0).unbind(-1)
        return (strided.sum(-1) + rows[3] * rows[5] + (parts @ self.table).diagonal()[0]).mean()


class InPlace(nn.Module):
    """Changes views in place: gradients and shapes follow the changed tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x).clone()
        y[:, :3].mul_(2.0)
        y.t()[0].add_(1.0)
        half = y.detach()[:, 3:]
        y.relu_()
        y.transpose_(0, 1)
        return (y.t() + half.repeat(1, 2)).sum()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 8, batch_first=True, num_layers=2, dropout=0.1)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.lstm(x.unsqueeze(1).expand(-1, 5, -1))[0]
        return output.sum()


def attention() -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(nn.Unflatten(1, (1, 8)), nn.TransformerEncoder(layer, 2))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
        nn.PixelShuffle(2), nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


class Moments(NamedTuple):
    mean: Tensor
    deviation: Tensor


def test_a_named_tuple_is_remembered_as_a_tuple() -> None:
    cache, operator = OutputCache(), torch.ops.aten.var_mean.correction
    with FakeMode():
        x = torch.empty(4, 3)

        def run() -> Moments:
            return Moments(*operator(x, [0]))

        first, second = (cache.result(operator, (x, [0]), {}, run) for _ in range(2))
    assert isinstance(first, Moments)
    assert type(second) is tuple
    assert [part.shape for part in second] == [part.shape for part in first] == [(3,), (3,)]


def test_what_fails_for_two_devices_is_not_answered_from_one() -> None:
    cache, operator = OutputCache(), torch.ops.aten.add.Tensor
    with FakeMode():
        here, there = torch.empty(3), torch.empty(3, device="cuda")
        assert cache.result(operator, (here, here), {}, lambda: here + here).shape == (3,)
        with pytest.raises(RuntimeError, match="same device"):
            cache.result(operator, (here, there), {}, lambda: here + there)


MODELS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "views": (Views, 8),
    "in place": (InPlace, 6),
    "recurrent": (Recurrent, 8),
    "attention": (attention, 8),
    "convolutions": (convolutions, 8),
}
STEPS = {
    "inference": Step(),
    "amp inference": Step(precision="amp-bf16"),
    "training": Step(mode="train", optimizer="adamw", loss="sum"),
    "amp training": Step(mode="train", precision="amp-fp16", optimizer="momentum", loss="sum"),
    "checkpointed": Step(mode="train", checkpointing=True, loss="sum"),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize(("make", "width"), MODELS.values(), ids=MODELS)
def test_a_trace_from_remembered_results_is_the_same(
    make: Callable[[], nn.Module], width: int, step: Step
) -> None:
    model = make()

    def trace(cache: TraceCache) -> MemoryTrace:
        tracer = StepTracer(
            model, lambda batch: ((torch.empty(batch, width),), {}), step, None, cache
        )
        return tracer.trace(6)

    forgetful = TraceCache()
    forgetful.outputs = Forgetful()
    try:
        expected = trace(forgetful)
    except Exception as error:  # a model that cannot be checkpointed
        with pytest.raises(type(error)):
            trace(TraceCache())
        return
    cache = TraceCache()
    assert [trace(cache), trace(cache)] == [expected, expected]
    assert expected.method == "fake"
