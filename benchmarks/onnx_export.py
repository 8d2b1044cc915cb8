"""What export and parity cost against a bare `torch.onnx.export` and one run.

    python benchmarks/onnx_export.py [--rounds 3] [--models resnet50 ...]

Bare: `torch.onnx.export(..., dynamo=True)` to a file with a dynamic batch, an onnxruntime
session, one run. Ours: `export_onnx` and `check_parity` as the report calls them, on the same
model with the same dynamic batch. Both alternate in one process after one round each that is not
counted; the medians are compared. What the report reads of the file besides (checker, inventory,
latency) is timed by itself and is not part of the ratio.

The processor time of the process stands beside the wall-clock. On a busy machine it is the one to
read, with OMP_NUM_THREADS=1: threads that wait for each other spin.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnxruntime
import torch
import torchvision
from torch import nn

from reportgen.context import ModelContext
from reportgen.manifest import ModelSpec, Source
from reportgen.model_state import preserve_model_state
from reportgen.onnx.export import export_onnx
from reportgen.onnx.runtime import Runtime
from reportgen.sections.onnx.inspection.analysis import check_file, inspect_file
from reportgen.sections.onnx.parity.analysis import check_parity

MODELS = ("resnet50", "mobilenet_v3_small", "convnext_tiny", "vit_b_16")
LIMIT = 1.1
STEPS = (
    "capture",
    "registry of operators",
    "decomposition",
    "type promotion",
    "translation",
    "opset conversion",
    "optimization",
    "naming",
    "writing",
)


class Clock:
    """Wall-clock and processor seconds of every round, by side (bare, ours) and stage."""

    def __init__(self) -> None:
        self.side = ""
        self.rounds: list[dict[tuple[str, str], list[float]]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            sums = self.rounds[-1][self.side, name]
            sums[0] += time.perf_counter() - wall
            sums[1] += time.process_time() - cpu

    def next_round(self) -> None:
        self.rounds.append(defaultdict(lambda: [0.0, 0.0]))

    def median(self, side: str, name: str, *, cpu: bool = False) -> float:
        counted = self.rounds[1:]  # the first round warms caches up
        return statistics.median(each[side, name][cpu] for each in counted)


def bare(model: nn.Module, x: torch.Tensor, folder: Path, clock: Clock) -> None:
    path, clock.side = folder / "bare.onnx", "bare"
    with clock.stage("all"):
        torch.onnx.export(
            model, (x,), path, dynamo=True, verbose=False, dynamic_shapes=({0: "batch"},)
        )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        session.run(None, {session.get_inputs()[0].name: x.numpy()})


def ours(context: ModelContext, clock: Clock) -> None:
    clock.side = "ours"
    with preserve_model_state(context.model):
        with clock.stage("all"):
            with clock.stage("export"):
                file = export_onnx(context.model, context.spec, context.folder)
            with clock.stage("session"):
                runtime = Runtime(file.path)
            with clock.stage("parity"):
                parity = check_parity(context, file, runtime)
        assert parity.passed, parity
        with clock.stage("onnx checker"):
            check_file(file.path)
        with clock.stage("file facts"):
            proto = context.onnx_proto(file.path)
            inspect_file(proto, file.path)


def watch(clock: Clock) -> None:
    """Time the exporter's own steps where it calls them."""
    from torch.onnx._internal.exporter import (
        _capture_strategies,
        _core,
        _fx_passes,
        _onnx_program,
        _registration,
    )

    import reportgen.onnx.export as ours_module

    def timed(owner: Any, name: str, stage: str) -> None:
        plain = vars(owner).get(name) or getattr(owner, name)
        function: Callable[..., Any] = getattr(plain, "__func__", plain)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with clock.stage(stage):
                return function(*args, **kwargs)

        setattr(owner, name, classmethod(run) if isinstance(plain, classmethod) else run)

    kinds = _capture_strategies.TorchExportNonStrictStrategy
    timed(kinds, "_capture", "capture")
    timed(_registration.ONNXRegistry, "from_torchlib", "registry of operators")
    timed(_fx_passes, "decompose_with_registry", "decomposition")
    timed(_fx_passes, "insert_type_promotion_nodes", "type promotion")
    timed(_core, "_exported_program_to_onnx_program", "translation")
    timed(_core.onnxscript_apis, "convert_version", "opset conversion")
    timed(_core.onnxscript_apis, "optimize", "optimization")
    timed(ours_module, "name_values", "naming")
    timed(ours_module, "write_model", "writing")
    timed(_onnx_program.ONNXProgram, "save", "writing")


def study_of(name: str, folder: Path) -> ModelContext:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name).eval()
    source = Source(kind="torchvision", target=name, factory="", text=f"torchvision:{name}")
    spec = ModelSpec.model_validate(
        {"name": name, "source": source, "inputs": ["batch,3,224,224"], "batch": 8}
    )
    return ModelContext(spec=spec, model=model, targets=(), folder=folder, timings=False)


def measure(name: str, rounds: int, clock: Clock) -> tuple[float, float]:
    """The ratio of wall-clock seconds, and that of processor seconds."""
    clock.rounds.clear()
    with tempfile.TemporaryDirectory() as folder:
        context = study_of(name, Path(folder))
        x = torch.randn(2, 3, 224, 224)
        for _ in range(rounds + 1):
            clock.next_round()
            bare(context.model, x, Path(folder), clock)
            ours(context, clock)
    show(name, clock)
    wall, cpu = (
        clock.median("ours", "all", cpu=cpu) / clock.median("bare", "all", cpu=cpu)
        for cpu in (False, True)
    )
    return wall, cpu


def show(name: str, clock: Clock) -> None:
    print(f"\n{name:<26}{'bare, s':>10}{'cpu':>8}{'ours, s':>10}{'cpu':>8}")
    rows = ("all", *STEPS, "session", "parity", "onnx checker", "file facts")
    for row in rows:
        cells = [clock.median(side, row, cpu=cpu) for side in ("bare", "ours") for cpu in (0, 1)]
        texts = [f"{seconds:.2f}" if seconds else "" for seconds in cells]
        print(f"  {row:<24}{texts[0]:>10}{texts[1]:>8}{texts[2]:>10}{texts[3]:>8}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    clock = Clock()
    watch(clock)
    print(f"torch {torch.__version__}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    ratios = {name: measure(name, options.rounds, clock) for name in options.models}
    print("\nexport and parity against a bare export and one run:")
    for name, (wall, cpu) in ratios.items():
        verdict = "within" if wall <= LIMIT else "above"
        print(f"  {name:<24}{wall:>6.2f} × ({cpu:.2f} × of processor time)   {verdict} {LIMIT}")
    return 0 if ratios[options.models[0]][0] <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
