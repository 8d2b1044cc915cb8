"""The share of models with a memory estimate: all of torchvision, and of timm if installed.

    python benchmarks/zoo_memory.py [--mode train|inference] [--only PREFIX] [--timm]

Unsupported models are counted separately from failures; the goal is 98 % estimates.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
MIB = 1 << 20


def torchvision_inputs(name: str, kind: str, mode: str) -> Any:
    """Inputs for the model family, with targets if training requires them."""

    def make(batch: int) -> Inputs:
        if kind == "video":
            side = 112 if "s3d" not in name and "mvit" not in name and "swin" not in name else 224
            frames = 16
            return (torch.rand(batch, 3, frames, side, side),), {}
        if kind == "optical_flow":
            return (torch.rand(batch, 3, 128, 128), torch.rand(batch, 3, 128, 128)), {}
        if kind == "detection":
            images = [torch.rand(3, 320, 320) for _ in range(batch)]
            return ((images, [_target(name) for _ in images]) if mode == "train" else (images,)), {}
        if kind == "segmentation":
            return (torch.rand(batch, 3, 224, 224),), {}
        side = 299 if name == "inception_v3" else 224
        return (torch.rand(batch, 3, side, side),), {}

    return make


def _target(name: str) -> dict[str, torch.Tensor]:
    boxes = torch.tensor([[10.0, 10.0, 100.0, 100.0], [50.0, 60.0, 200.0, 210.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 1])}
    if "mask" in name:
        target["masks"] = torch.ones(2, 320, 320, dtype=torch.uint8)
    if "keypoint" in name:
        target["keypoints"] = torch.ones(2, 17, 3)
    return target


def torchvision_models() -> list[tuple[str, str]]:
    """(name, family) of every registered model without the quantized ones (no CUDA kernels)."""
    from torchvision import models

    families = ("classification", "segmentation", "detection", "video", "optical_flow")
    modules = {
        "classification": models,
        **{family: getattr(models, family) for family in families[1:]},
    }
    return [
        (name, family)
        for family, module in modules.items()
        for name in models.list_models(module=module)
    ]


def build(name: str, family: str) -> nn.Module:
    """The model without pretrained weights, on meta unless its constructor needs values."""
    if family == "timm":
        import timm

        with torch.device("meta"):
            made: nn.Module = timm.create_model(name)
        return made
    from torchvision import models

    arguments = {"weights": None}
    if family in ("segmentation", "detection"):
        arguments["weights_backbone"] = None
    if family == "detection":
        return models.get_model(name, **arguments)
    try:
        with torch.device("meta"):
            return models.get_model(name, **arguments)
    except NotImplementedError:  # a constructor that reads values
        return models.get_model(name, **arguments)


def flow_loss(output: Any) -> torch.Tensor:
    """The loss of RAFT, which returns a list of flows."""
    return sum(flow.abs().mean() for flow in output)  # type: ignore[return-value]


def try_one(task: tuple[str, str, str]) -> tuple[str, str, str, str, float]:
    """(name, family, outcome, message, seconds)."""
    from reportgen.cuda_memory import CudaMemoryError, Step, estimate

    name, family, mode = task
    torch.set_num_threads(1)
    start = time.perf_counter()
    try:
        model = build(name, family)
        inputs: Any
        if family == "timm":
            config = model.pretrained_cfg
            shape = config.get("input_size", (3, 224, 224))

            def inputs(batch: int) -> Inputs:
                return (torch.rand(batch, *shape),), {}

        else:
            inputs = torchvision_inputs(name, family, mode)
        loss: Any = flow_loss if family == "optical_flow" else "cross_entropy"
        step = Step(mode=mode, optimizer="adam" if mode == "train" else "none", loss=loss)
        found = estimate(model, inputs, batch=2, step=step)
        message = f"{found.peak_reserved_bytes / MIB:8.0f} MiB reserved"
        outcome = found.method
    except CudaMemoryError as err:
        outcome, message = "unsupported", str(err)[:160]
    except Exception as err:  # failures are what this benchmark counts
        outcome, message = "failed", f"{type(err).__name__}: {str(err).splitlines()[:1]}"[:160]
    return name, family, outcome, message, time.perf_counter() - start


def main() -> None:
    """Print one line per model and the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=("train", "inference"), default="train")
    parser.add_argument("--only", default="")
    parser.add_argument("--timm", action="store_true", help="every twentieth model of timm instead")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    if options.timm:
        import timm

        models = [(name, "timm") for name in timm.list_models()[::20]]
    else:
        models = torchvision_models()
    tasks = [(n, f, options.mode) for n, f in models if n.startswith(options.only)]
    counts: Counter[str] = Counter()
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.processes, maxtasksperchild=20) as pool:
        for name, family, outcome, message, seconds in pool.imap_unordered(try_one, tasks):
            counts[outcome] += 1
            print(f"{outcome:11} {seconds:6.1f} s  {family:15} {name:40} {message}", flush=True)
    total = sum(counts.values())
    given = counts["fake"] + counts["cpu run"]
    share = f"{100 * given / total:.1f} %"
    print(f"\n{given} of {total} models give an estimate ({share}): {dict(counts)}")


if __name__ == "__main__":
    main()
