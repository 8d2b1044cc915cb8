"""Measure real steps on a CUDA device beside their estimates, and write the measurements down.

    python benchmarks/gpu_truth.py [--output gpu_truth.json] [--only TEXT] [--calibrate]
    python benchmarks/gpu_truth.py --simulate        # no device: exercises everything else

Every configuration runs in a fresh process, so that contexts and caches start empty. The file
holds, for each: allocated, reserved and device bytes, measured and estimated, the context, and
for convolutions the workspace of each kind measured alone. `--calibrate` writes the context and
the convolution factors found here into `reportgen/cuda_memory/library.json`.
Needs torch, torchvision and PyYAML, nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from reportgen.cuda_memory import Gpu, MemoryEstimator, Step, find_gpu, measure_step, user_gpu
from reportgen.cuda_memory.cudnn import (
    FORWARD,
    INPUT_GRADIENT,
    WEIGHT_GRADIENT,
    Convolution,
    cudnn_workspace_bytes,
)

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "reportgen" / "cuda_memory" / "library.json"
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One model, batch and step to measure."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    batch: int
    step: Step


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What was measured and estimated for one configuration; `error` says why it was not."""

    name: str
    batch: int
    measured: dict[str, Any] = field(default_factory=dict)
    estimated: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def images(side: int) -> Callable[[int], Inputs]:
    return lambda batch: ((torch.rand(batch, 3, side, side),), {})


def tokens(length: int, vocabulary: int) -> Callable[[int], Inputs]:
    return lambda batch: ((torch.randint(vocabulary, (batch, length)),), {})


def sequences(length: int, width: int) -> Callable[[int], Inputs]:
    return lambda batch: ((torch.rand(batch, length, width),), {})


def vision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        return torchvision.models.get_model(name, weights=None)  # type: ignore[no-any-return]

    return build


class Recurrent(nn.Module):
    """Embedding, a stack of recurrent layers, a classifier over the last step."""

    def __init__(self, kind: str, vocabulary: int = 10000, width: int = 512) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.body = getattr(nn, kind)(width, width, num_layers=2, batch_first=True, dropout=0.1)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.table(ids))[0])


class Block(nn.Module):
    """A pre-norm transformer block with scaled dot-product attention."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads, self.dropout = heads, dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.one(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        p = self.dropout if self.training else 0.0
        found = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        x = x + self.out(found.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.two(x))))


class Gpt(nn.Module):
    """A small decoder with a tied head: logits of every position."""

    def __init__(self, layers: int = 6, width: int = 512, dropout: float = 0.0) -> None:
        super().__init__()
        self.table = nn.Embedding(32000, width)
        self.blocks = nn.ModuleList(Block(width, 8, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 32000, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Repeated(nn.Module):
    """torchinfo #144."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1024, 1024)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(100):
            x = self.linear(x)
        return x


def case(name: str, build: Any, inputs: Any, batch: int, **step: Any) -> Configuration:
    """A configuration that trains with Adam unless the step says otherwise."""
    made = Step(**{"mode": "train", "optimizer": "adam", **step})
    return Configuration(name=name, build=build, inputs=inputs, batch=batch, step=made)


def configurations() -> Iterator[Configuration]:
    """More than thirty: families, losses, optimizers, precisions, checkpointing, sizes."""
    yield from image_models()
    yield from image_steps()
    yield from sequence_models()


def image_models() -> Iterator[Configuration]:
    """Families of image models in fp32, and attention in two precisions."""
    for name, batch in (
        ("resnet18", 64), ("resnet50", 32), ("resnet50", 64), ("vgg11", 32), ("vgg16", 16),
        ("mobilenet_v2", 64), ("efficientnet_b0", 32), ("densenet121", 32), ("convnext_tiny", 32),
        ("mnasnet1_0", 64), ("regnet_y_400mf", 64), ("shufflenet_v2_x1_0", 64),
    ):  # fmt: skip
        yield case(f"{name}-fp32-b{batch}", vision(name), images(224), batch)
    for name in ("vit_b_16", "swin_t"):
        for precision in ("fp32", "amp-bf16"):
            yield case(f"{name}-{precision}", vision(name), images(224), 32, precision=precision)


def image_steps() -> Iterator[Configuration]:
    """Two image models in every precision, optimizer, form and mode."""
    resnet, vit, full = vision("resnet50"), vision("vit_b_16"), images(224)
    for precision in ("tf32", "amp-bf16", "amp-fp16", "bf16"):
        yield case(f"resnet50-{precision}", resnet, full, 32, precision=precision)
    yield case(
        "resnet50-nhwc-amp", resnet, full, 32, precision="amp-bf16", channels_last=True
    )  # fmt: skip
    for optimizer in ("sgd", "momentum", "adamw", "rmsprop", "adagrad", "adafactor"):
        yield case(f"vit_b_16-{optimizer}", vit, full, 4, optimizer=optimizer)
    for form in ("fused", "for-loop"):
        yield case(f"vit_b_16-{form}", vit, full, 4, implementation=form)
    for name, build in (("resnet50", resnet), ("vit_b_16", vit), ("vgg16", vision("vgg16"))):
        yield case(f"{name}-checkpointing", build, full, 32, checkpointing=True)
        yield case(f"{name}-inference", build, full, 64, mode="inference", optimizer="none")


def sequence_models() -> Iterator[Configuration]:
    """Recurrent layers, a decoder, and torchinfo #144."""

    def rows(batch: int) -> Inputs:
        return (torch.rand(10240 * batch, 1024),), {}

    yield case("issue-144", Repeated, rows, 1, optimizer="none", loss="sum")
    for kind in ("LSTM", "GRU"):
        yield case(f"{kind.lower()}-train", partial(Recurrent, kind), tokens(128, 10000), 32)
    ids = tokens(512, 32000)
    for precision in ("fp32", "amp-bf16", "bf16"):
        yield case(f"gpt-{precision}", Gpt, ids, 8, precision=precision)
    yield case("gpt-dropout", partial(Gpt, dropout=0.1), ids, 8)
    yield case("gpt-checkpointing", Gpt, ids, 8, checkpointing=True)
    yield case("gpt-accumulation", Gpt, ids, 4, accumulation=4)
    yield case("gpt-sum-loss", Gpt, ids, 8, loss="sum")


def this_gpu(simulate: bool) -> Gpu:
    """The device here, with the catalog's facts where it knows the card."""
    if simulate:
        return find_gpu("A100-80GB")
    properties = torch.cuda.get_device_properties(0)
    return user_gpu(
        properties.name,
        properties.total_memory,
        compute_capability=(properties.major, properties.minor),
        multiprocessors=properties.multi_processor_count,
    )


def run_one(name: str, simulate: bool) -> Outcome:
    """Estimate and measure one configuration in this process."""
    chosen = next(c for c in configurations() if c.name == name)
    outcome = Outcome(name=name, batch=chosen.batch)
    model, gpu = chosen.build(), this_gpu(simulate)
    plan = MemoryEstimator(model, chosen.inputs, chosen.step, gpu)
    found = plan.estimate(chosen.batch)
    keep = (
        "peak_allocated_bytes", "peak_reserved_bytes", "peak_device_bytes", "band_low_bytes",
        "band_high_bytes", "context_bytes", "method",
    )  # fmt: skip
    outcome.estimated = {key: getattr(found, key) for key in keep}
    if simulate:
        plan.trace(chosen.batch)
        again = plan.estimate(chosen.batch)
        outcome.measured = {"gpu": gpu.name, **{key: getattr(again, key) for key in keep[:3]}}
        outcome.measured["context_bytes"] = again.context_bytes
        return outcome
    outcome.measured = asdict(
        measure_step(model, chosen.inputs, batch=chosen.batch, step=chosen.step)
    )
    return outcome


def convolution_workspaces(simulate: bool) -> list[dict[str, Any]]:
    """The scratch memory of single convolutions, measured and asked of cuDNN."""
    found = []
    for x, weight, stride, padding in (
        ((32, 64, 224, 224), (64, 64, 3, 3), 1, 1),
        ((32, 3, 224, 224), (64, 3, 7, 7), 2, 3),
        ((32, 64, 56, 56), (256, 64, 1, 1), 1, 0),
        ((32, 256, 56, 56), (512, 256, 1, 1), 2, 0),
        ((32, 256, 14, 14), (256, 256, 3, 3), 1, 1),
    ):
        for low in (False, True):
            for kind in (FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT):
                side = (x[2] + 2 * padding - weight[2]) // stride + 1
                asked = Convolution(
                    kind=kind, x=x, weight=weight, y=(x[0], weight[0], side, side),
                    stride=(stride, stride), padding=(padding, padding), dilation=(1, 1),
                    element_bytes=2 if low else 4, bfloat16=low, channels_last=False, tf32=True,
                )  # fmt: skip
                known = cudnn_workspace_bytes(asked, this_gpu(simulate))
                measured = known if simulate else _measured_workspace(asked)
                found.append({**asdict(asked), "asked_bytes": known, "measured_bytes": measured})
    return found


def _measured_workspace(asked: Convolution) -> int:
    """Peak during the call less what is there before and after it."""
    dtype = torch.bfloat16 if asked.bfloat16 else torch.float32
    x = torch.rand(asked.x, device="cuda", dtype=dtype)
    weight = torch.rand(asked.weight, device="cuda", dtype=dtype)
    y = torch.rand(asked.y, device="cuda", dtype=dtype)
    mask = [asked.kind == INPUT_GRADIENT, asked.kind == WEIGHT_GRADIENT, False]
    settings = (asked.stride, asked.padding, asked.dilation)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    if asked.kind == FORWARD:
        result: Any = torch.ops.aten.convolution(x, weight, None, *settings, False, (0, 0), 1)
    else:
        result = torch.ops.aten.convolution_backward(
            y, x, weight, None, *settings, False, (0, 0), 1, mask
        )
    torch.cuda.synchronize()
    held = [x, weight, y, *(result if isinstance(result, tuple) else (result,))]
    known = sum(-(-t.untyped_storage().nbytes() // 512) * 512 for t in held if t is not None)
    return max(torch.cuda.max_memory_allocated() - known, 0)


def measure_all(only: str, simulate: bool) -> list[Outcome]:
    """Every configuration in a process of its own."""
    outcomes = []
    for chosen in configurations():
        if only not in chosen.name:
            continue
        command = [sys.executable, __file__, "--one", chosen.name]
        done = subprocess.run(
            [*command, *(["--simulate"] if simulate else [])], capture_output=True, text=True
        )
        lines = done.stdout.strip().splitlines()
        if done.returncode == 0 and lines:
            outcome = Outcome(**json.loads(lines[-1]))
        else:
            reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
            outcome = Outcome(name=chosen.name, batch=chosen.batch, error=reason)
        outcomes.append(outcome)
        print(line_of(outcome), flush=True)
    return outcomes


def line_of(outcome: Outcome) -> str:
    if outcome.error:
        return f"{outcome.name:32} {outcome.error}"
    parts = []
    for key in ("peak_allocated_bytes", "peak_reserved_bytes", "peak_device_bytes"):
        measured, estimated = outcome.measured[key], outcome.estimated[key]
        share = 100 * (estimated / measured - 1)
        parts.append(f"{key[5:-6]} {estimated / MIB:7.0f}/{measured / MIB:7.0f} {share:+5.1f} %")
    return f"{outcome.name:32} " + "  ".join(parts)


def summary(outcomes: list[Outcome]) -> str:
    done = [o for o in outcomes if not o.error]
    if not done:
        return "nothing was measured"
    lines = []
    for key in ("peak_allocated_bytes", "peak_reserved_bytes", "peak_device_bytes"):
        errors = sorted(abs(o.estimated[key] / o.measured[key] - 1) * 100 for o in done)
        ninety = errors[min(int(0.9 * len(errors)), len(errors) - 1)]
        median = statistics.median(errors)
        lines.append(f"{key}: median error {median:.2f} %, nine tenths within {ninety:.2f} %")
    inside = sum(
        o.estimated["band_low_bytes"] <= o.measured["peak_device_bytes"]
        <= o.estimated["band_high_bytes"]
        for o in done
    )  # fmt: skip
    lines.append(f"device bytes inside the band: {inside} of {len(done)}")
    return "\n".join(lines)


def calibrate(outcomes: list[Outcome], workspaces: list[dict[str, Any]], simulate: bool) -> None:
    """Put the context and the convolution factors measured here into the data file."""
    library = json.loads(LIBRARY.read_text(encoding="utf-8"))
    contexts = sorted(o.measured["context_bytes"] for o in outcomes if not o.error)
    how = "simulated, not measured, for" if simulate else "measured on"
    where = f"{how} {this_gpu(simulate).name}, torch {torch.__version__}"
    if contexts:
        figures = library["context_bytes"]
        rest = int(figures["cublas"]["nominal"]) + int(figures["cudnn"]["nominal"])
        for level, value in (
            ("nominal", statistics.median(contexts)), ("low", contexts[0]), ("high", contexts[-1])
        ):  # fmt: skip
            figures["base"][level] = max(int(value) - rest, 0)
        figures["base"]["provenance"] = where
    ratios = [w["measured_bytes"] / w["asked_bytes"] for w in workspaces if w["asked_bytes"]]
    if ratios:
        asked = library["convolution_workspace"]["asked"]
        asked["nominal"] = round(statistics.median(ratios), 3)
        asked["provenance"] = f"cuDNN's deviceless answer times the median ratio {where}"
    LIBRARY.write_text(json.dumps(library, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, compare, write, and calibrate if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("gpu_truth.json"))
    parser.add_argument("--only", default="")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--calibrate", action="store_true")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asdict(run_one(options.one, options.simulate))))
        return
    if not options.simulate and not torch.cuda.is_available():
        sys.exit("no CUDA device here; --simulate exercises everything but the measuring")
    outcomes = measure_all(options.only, options.simulate)
    workspaces = convolution_workspaces(options.simulate)
    written = {
        "format": 1,
        "gpu": this_gpu(options.simulate).name,
        "simulated": options.simulate,
        "torch": torch.__version__,
        "outcomes": [asdict(outcome) for outcome in outcomes],
        "convolutions": workspaces,
    }
    options.output.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    print(summary(outcomes))
    if options.calibrate:
        calibrate(outcomes, workspaces, options.simulate)


if __name__ == "__main__":
    main()
