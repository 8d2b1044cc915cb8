"""`reportgen.analyze` in a fork and in the process itself: limits, and the model afterwards.

A process in which autograd has started threads cannot be forked, and other tests start them. So
the analyses in a fork run in a process of their own.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import nn

import reportgen
from reportgen.python_api.analyze import _autograd_survives_fork

pytestmark = pytest.mark.slow
SECTIONS = ("layers", "behavior", "memory")
InNewProcess: TypeAlias = Callable[[Callable[[], Any]], Any]


@pytest.fixture(scope="module")
def in_new_process() -> Iterator[InNewProcess]:
    """Calls functions of this file in a process without threads, and returns their results."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield lambda function: pool.submit(function).result()


@pytest.fixture
def second_thread() -> Iterator[None]:
    """As in a notebook: this process cannot be forked."""
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    yield
    end.set()
    thread.join()


class Net(nn.Module):
    """Has whatever an analysis could leave behind: modes, hooks, gradients, a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 10)
        self.calls = 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


def trained_net() -> Net:
    net = Net()
    net(torch.randn(2, 3, 8, 8))
    for parameter in net.parameters():  # not by a backward pass, which would start threads
        parameter.grad = torch.randn_like(parameter)
    net.head.eval()
    net.conv.register_forward_hook(lambda *_: None)
    net.head.weight.requires_grad_(False)
    return net


def state(net: Net) -> dict[str, Any]:
    modules = dict(net.named_modules())
    return {
        **{name: tensor.clone() for name, tensor in net.state_dict().items()},
        **{f"{n}.grad": p.grad.clone() for n, p in net.named_parameters() if p.grad is not None},
        "modes": [module.training for module in modules.values()],
        "hooks": [list(module._forward_hooks) for module in modules.values()],
        "requires_grad": [p.requires_grad for p in net.parameters()],
        "ids": [id(p) for p in net.parameters()],
        "calls": net.calls,
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1],
        "python": random.getstate(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
    }


def analyze_trained_net() -> tuple[list[str], dict[str, str], str]:
    """What the analysis changed in the model or the process, its sections, and its text."""
    net, inputs = trained_net(), torch.randn(2, 3, 8, 8)
    before = state(net)
    report = reportgen.analyze(net, inputs, sections=SECTIONS)
    after = state(net)
    changed = [key for key, value in before.items() if not equal(value, after.pop(key))]
    return [*changed, *after], report.sections, str(report)


def equal(one: Any, other: Any) -> bool:
    arrays = isinstance(one, torch.Tensor | np.ndarray)
    return np.array_equal(one, other) if arrays else one == other


def test_a_fork_leaves_the_model_as_it_was(in_new_process: InNewProcess) -> None:
    changed, sections, text = in_new_process(analyze_trained_net)
    assert changed == []
    assert sections == dict.fromkeys(SECTIONS, "done")
    assert "without limits" not in text


def test_an_analysis_in_the_process_leaves_the_model_as_it_was(second_thread: None) -> None:
    with torch.inference_mode():
        changed, sections, text = analyze_trained_net()
    assert changed == []
    assert sections == dict.fromkeys(SECTIONS, "done")
    assert "without limits: other threads run" in text


def analyze_net() -> tuple[Any, ...]:
    torch.manual_seed(0)
    report = reportgen.analyze(Net(), (2, 3, 8, 8), timings=False)
    return report.notes, report.sections, report.metrics, report.findings


def test_both_ways_give_the_same_figures(in_new_process: InNewProcess, second_thread: None) -> None:
    notes, *forked = in_new_process(analyze_net)
    notes_here, *here = analyze_net()
    assert forked == here
    assert (len(notes), len(notes_here)) == (0, 1)


class Killed(nn.Module):
    """Kills every process but the one it was made in."""

    def __init__(self) -> None:
        super().__init__()
        self.home = os.getpid()

    def forward(self, x: Any) -> Any:
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return x


def analyze_killed() -> tuple[dict[str, str], str, str]:
    model = nn.Sequential(Killed())
    report = reportgen.analyze(model, (2, 3), sections=("layers", "graphs"), progress=False)
    return report.sections, report.verdict, str(report)


def test_a_section_that_crashes_is_a_failed_section(in_new_process: InNewProcess) -> None:
    sections, verdict, text = in_new_process(analyze_killed)
    assert sections == {"layers": "failed", "graphs": "failed"}
    assert verdict == "fail"
    assert "layers failed: " in text
    assert "SIGKILL" in text


class Slow(nn.Module):
    def forward(self, x: Any) -> Any:
        time.sleep(60)
        return x


def analyze_slow() -> str:
    limits = {"limits": {"seconds": 2}}
    return str(reportgen.analyze(Slow(), (2, 3), sections=("layers",), settings=limits))


def test_a_section_that_exceeds_its_time_is_a_failed_section(in_new_process: InNewProcess) -> None:
    text = in_new_process(analyze_slow)
    assert "layers failed: " in text
    assert "exceeded the time limit of 2.0 s" in text


def test_a_process_with_threads_of_autograd_is_not_forked() -> None:
    torch.ones(1, requires_grad=True).sum().backward()
    assert not _autograd_survives_fork()
