"""Models that call their modules in threads of their own: nothing is lost, nothing races."""

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
    """Its branches wait for each other halfway: whoever lets one run at a time waits for ever."""

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
def test_a_fake_pass_in_threads_never_fails() -> None:
    model = Branches(BRANCHES)
    for _ in range(20):  # with torch's own mode, one of three hundred passed
        with fake_copy(model, inputs(2)) as (double, (args, kwargs)):
            assert double(*args, **kwargs).shape == (BRANCHES, 2, WIDTH)


@pytest.mark.usefixtures("busy_threads")
def test_what_threads_allocate_is_counted() -> None:
    alone, threaded = (estimated(Branches(n), "train") for n in (0, BRANCHES))
    assert threaded.peak_allocated_bytes == alone.peak_allocated_bytes
    assert any("threads" in note for note in threaded.notes)
    assert not any("threads" in note for note in alone.notes)


def test_a_new_thread_records_gradients_whatever_the_mode_outside() -> None:
    """`torch.no_grad` holds in one thread: what ReLU keeps stays until the output is gone."""
    alone, threaded = (estimated(Branches(n), "inference") for n in (0, 1))
    kept = threaded.peak_allocated_bytes - alone.peak_allocated_bytes
    assert kept == BRANCHES * SAMPLES * WIDTH * 4


def test_threads_that_wait_for_each_other_are_let_run() -> None:
    found = estimated(Meeting(BRANCHES), "inference")
    assert any("threads" in note for note in found.notes)
