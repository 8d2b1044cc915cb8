"""How fast estimates come, against the goals of issue 3. Torch is imported before the clock starts.

    python benchmarks/memory_speed.py [--skip-llm]

Wall time is what the goals are about; CPU time is printed beside it, because it holds on a busy
machine too.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torchvision
from torch import nn

from reportgen.cuda_memory import MemoryEstimator, Step, estimate, find_gpu

CARDS = ("T4", "RTX 3090", "A100-80GB", "H100")
GIB = 1 << 30


def images(batch: int) -> Any:
    return (torch.empty(batch, 3, 224, 224),), {}


def vision(name: str) -> nn.Module:
    with torch.device("meta"):
        return torchvision.models.get_model(name, weights=None)


def train(**step: Any) -> Step:
    return Step(**{"mode": "train", "optimizer": "adam", **step})


class LlamaBlock(nn.Module):
    """One layer of the Llama-2 architecture without position rotation, which keeps no memory."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention_norm, self.feed_norm = nn.RMSNorm(width), nn.RMSNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        normed = self.attention_norm(x)
        q, k, v = (
            part(normed).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        found = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(found.transpose(1, 2).reshape(batch, length, width))
        normed = self.feed_norm(x)
        return x + self.down(nn.functional.silu(self.gate(normed)) * self.up(normed))


class Llama(nn.Module):
    """Llama-2-7B by shape: 32 layers of 4,096, 6.7 billion parameters."""

    def __init__(self, layers: int = 32, width: int = 4096, hidden: int = 11008) -> None:
        super().__init__()
        self.table = nn.Embedding(32000, width)
        self.layers = nn.ModuleList(LlamaBlock(width, width // 128, hidden) for _ in range(layers))
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, 32000, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def ids(batch: int) -> Any:
    return (torch.zeros(batch, 2048, dtype=torch.int64),), {}


def timed(name: str, goal_seconds: float, run: Callable[[], object]) -> None:
    """Run once and print wall time, CPU time and the goal."""
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    verdict = "ok" if wall <= goal_seconds else "MISSED"
    print(f"{name:46} {wall:8.3f} s wall {cpu:8.3f} s cpu  goal {goal_seconds:6.2f} s  {verdict}")


def one_shot(name: str) -> None:
    estimate(vision(name), images, batch=32, step=train())


def matrix() -> None:
    """4 cards x 2 modes x 3 precisions x 2 checkpointing."""
    model = vision("resnet50")
    for mode, optimizer in (("inference", "none"), ("train", "adam")):
        for precision in ("fp32", "amp-bf16", "amp-fp16"):
            for checkpointing in (False, True):
                step = Step(
                    mode=mode,
                    optimizer=optimizer,
                    precision=precision,
                    checkpointing=checkpointing,
                )
                plan = MemoryEstimator(model, images, step)
                for card in CARDS:
                    plan.largest_batch(find_gpu(card))


def llm() -> None:
    """Inference and training of a 7B model from `meta`, with the largest batch on one card."""
    with torch.device("meta"):
        model = Llama()
    for step in (
        Step(precision="bf16"),
        Step(mode="train", optimizer="adamw", precision="bf16", checkpointing=True),
    ):
        plan = MemoryEstimator(model, ids, step)
        found = plan.estimate(1)
        fit = plan.largest_batch(find_gpu("A100-80GB"))
        print(
            f"    {step.mode}: {found.peak_reserved_bytes / GIB:.1f} GiB reserved at batch 1, "
            f"{fit.largest_batch} fit an A100-80GB"
        )


def next_batch(plan: MemoryEstimator) -> None:
    plan.estimate(77)


def main() -> None:
    """Time every goal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-llm", action="store_true")
    options = parser.parse_args()
    timed("first trace and replay (resnet18, cold)", 4, lambda: one_shot("resnet18"))
    timed("trace and replay resnet50", 2, lambda: one_shot("resnet50"))
    timed("trace and replay vit_b_16", 3, lambda: one_shot("vit_b_16"))
    timed("trace and replay densenet201", 6, lambda: one_shot("densenet201"))
    plan = MemoryEstimator(vision("resnet50"), images, train())
    plan.estimate(32)
    timed("one further batch size, resnet50", 0.05, lambda: next_batch(plan))
    timed("fits matrix, resnet50", 15, matrix)
    if not options.skip_llm:
        timed("Llama-7B, inference and training", 90, llm)
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak memory of this process {peak_bytes / GIB:.2f} GiB (goal 3 GB)")


if __name__ == "__main__":
    main()
