"""Published measurements; the models are those of the benchmark."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from reportgen.cuda_memory import MemoryEstimator, Step, find_gpu

pytestmark = pytest.mark.slow  # they export, trace or load models, one after the other

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
MIB = 1 << 20


@pytest.fixture(scope="module")
def models():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import memory_models

        yield memory_models
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("name", "micro_batch", "gigabytes"),
    [("StableLM-3B", 1, 9.69), ("StableLM-3B", 4, 16.92), ("Llama-2-7B", 2, 29.07)],
)
def test_lora_finetuning_matches_the_measurements_of_litgpt(models, name, micro_batch, gigabytes):
    with torch.device("meta"):
        model = models.LitGpt(models.LITGPT[name])

    def inputs(batch):
        return (torch.zeros(batch, models.LITGPT[name].longest, dtype=torch.int64),), {}

    step = Step(
        mode="train",
        optimizer="adamw",
        loss=models.litgpt_loss,
        iterations=1,
        zero_grad="after_step",
        torch_version="2.1",
    )
    estimator = MemoryEstimator(model, inputs, step, find_gpu("A100-40GB"))
    estimator.trace(micro_batch)
    found = estimator.estimate(micro_batch).peak_allocated_bytes
    assert found == pytest.approx(gigabytes * 1e9, rel=0.002)


def test_softmax_before_1_11_saves_its_input(models):
    class Attention(torch.nn.Module):
        def __init__(self, old):
            super().__init__()
            self.linear = torch.nn.Linear(1024, 1024)
            self.old = old

        def forward(self, x):
            x = self.linear(x) * 2
            return models.OldSoftmax.apply(x, -1) if self.old else x.softmax(-1)

    held = {
        old: MemoryEstimator(
            Attention(old), lambda batch: ((torch.empty(batch, 1024),), {}), Step(mode="train")
        )
        .estimate(1024)
        .after_forward_bytes
        for old in (False, True)
    }
    assert held[True] - held[False] == 4 * MIB
