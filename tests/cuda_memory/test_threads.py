"""Models that call their modules in threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reportgen.cuda_memory import Estimate, Step, estimate, find_gpu
from reportgen.fake_model import fake_copy

BRANCHES = 3
SAMPLES, WIDTH = 64, 512


class Branches(nn.Module):
    def __init__(self, threads: int) -> None:
        super().__init__()
        self.threads = threads
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(BRANCHES)
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.threads:
            return torch.stack([branch(x) for branch in self.branches])
        with ThreadPoolExecutor(self.threads) as pool:
            return torch.stack(list(pool.map(lambda branch: branch(x), self.branches)))


class Meeting(Branches):
    """Its branches wait for each other halfway: running one at a time would deadlock."""

    def forward(self, x: Tensor) -> Tensor:
        barrier = Barrier(BRANCHES)

        class Wait(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                barrier.wait()
                return x

        for branch in self.branches:
            branch[1] = Wait()  # type: ignore[index]
        return super().forward(x)


def inputs(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (torch.ones(batch, WIDTH),), {}


def estimated(model: nn.Module, mode: str) -> Estimate:
    step = Step(mode=mode, loss="sum")
    return estimate(model, inputs, batch=SAMPLES, step=step, gpu=find_gpu("A100-80GB"))


@pytest.mark.usefixtures("busy_threads")
def test_a_fake_pass_in_threads_does_not_fail() -> None:
    model = Branches(BRANCHES)
    for _ in range(20):  # with torch's own mode, one of three hundred passed
        with fake_copy(model, inputs(2)) as (double, (args, kwargs)):
            assert double(*args, **kwargs).shape == (BRANCHES, 2, WIDTH)


@pytest.mark.usefixtures("busy_threads")
def test_allocations_in_threads_are_recorded() -> None:
    alone, threaded = (estimated(Branches(n), "train") for n in (0, BRANCHES))
    assert threaded.peak_allocated_bytes == alone.peak_allocated_bytes
    assert any("threads" in note for note in threaded.notes)
    assert not any("threads" in note for note in alone.notes)


def test_no_grad_does_not_apply_to_new_threads() -> None:
    """`torch.no_grad` holds in one thread: what ReLU keeps stays until the output is gone."""
    alone, threaded = (estimated(Branches(n), "inference") for n in (0, 1))
    kept = threaded.peak_allocated_bytes - alone.peak_allocated_bytes
    assert kept == BRANCHES * SAMPLES * WIDTH * 4


def test_threads_that_wait_for_each_other_do_not_deadlock() -> None:
    found = estimated(Meeting(BRANCHES), "inference")
    assert any("threads" in note for note in found.notes)
