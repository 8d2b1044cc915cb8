"""Measure real steps on a CUDA device beside their estimates, and write the measurements down.

    python benchmarks/gpu_truth.py [--output benchmarks/gpu_truth.json] [--only TEXT] [--jobs 4]
    python benchmarks/gpu_truth.py --simulate        # no device: exercises everything else
    python benchmarks/gpu_truth.py --estimate        # anywhere: estimate again what was measured
    python benchmarks/gpu_truth.py --report          # the tables of gpu_truth.md from the file

Every configuration runs in a fresh process, so that contexts and caches start empty; several are
prepared at once, but one process at a time holds the device. The file holds, for each: allocated,
reserved and device bytes, measured and estimated, the context, seconds of forward and backward
where they are timed, the largest batch where memory is limited, and for convolutions the workspace
of each kind measured alone. The figures of `reportgen/cuda_memory/library.json` name this file as
their source. Needs torch, torchvision and PyYAML, and transformers for its models.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from gpu_models import Configuration, configurations
from torch import nn

from reportgen.cuda_memory import Gpu, MemoryEstimator, find_gpu, measure_step, user_gpu
from reportgen.cuda_memory.cudnn import (
    FORWARD,
    INPUT_GRADIENT,
    WEIGHT_GRADIENT,
    Convolution,
    cudnn_workspace_bytes,
)

MIB = 1 << 20
ROOT = Path(__file__).resolve().parents[1]
WRITTEN = ROOT / "benchmarks" / "gpu_truth.json"
PEAKS = ("peak_allocated_bytes", "peak_reserved_bytes", "peak_device_bytes")
LIMIT_SECONDS = 400  # of one configuration, waiting for the device included


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What was measured and estimated for one configuration; `error` says why it was not."""

    name: str
    batch: int
    measured: dict[str, Any] = field(default_factory=dict)
    estimated: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    error: str = ""


def this_gpu(simulate: bool) -> Gpu:
    """The device here; creates a CUDA context in this process."""
    if simulate:
        return find_gpu("A100-80GB")
    properties = torch.cuda.get_device_properties(0)
    return user_gpu(
        properties.name,
        properties.total_memory,
        compute_capability=(properties.major, properties.minor),
        multiprocessors=properties.multi_processor_count,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What the processes share: the GPU's facts, and whether there is one to measure on."""

    gpu: Gpu
    simulate: bool
    torch_version: str = ""
    """Whose kernels are estimated; empty is the installed one."""


def chosen_one(name: str) -> Configuration:
    return next(c for c in configurations() if c.name == name)


def estimate_one(name: str, bench: Bench) -> Outcome:
    """The estimates of one configuration; the process sees no device."""
    chosen = chosen_one(name)
    step = replace(chosen.step, torch_version=bench.torch_version)
    outcome = Outcome(name=name, batch=chosen.batch)
    if chosen.limit_bytes:
        small = replace(bench.gpu, name="limited", usable_bytes=chosen.limit_bytes)
        plan = MemoryEstimator(chosen.build(), chosen.inputs, step, small)
        largest = plan.largest_batch()
        outcome.estimated = asdict(largest)
        outcome.batch = largest.largest_batch
        return outcome
    found = MemoryEstimator(chosen.build(), chosen.inputs, step, bench.gpu).estimate(chosen.batch)
    keep = (
        *PEAKS, "band_low_bytes", "band_high_bytes", "context_bytes", "method", "peak_phase",
        "peak_op",
    )  # fmt: skip
    outcome.estimated = {key: getattr(found, key) for key in keep}
    return outcome


def measure_one(outcome: Outcome, bench: Bench) -> Outcome:
    """Complete an estimated outcome with what the device does, once the parent says that it may."""
    chosen = chosen_one(outcome.name)
    model = chosen.build()
    print("ready", flush=True)
    sys.stdin.readline()
    if bench.simulate:
        keys = (*PEAKS, "context_bytes", "largest_batch")
        found = {key: outcome.estimated[key] for key in keys if key in outcome.estimated}
        outcome.measured = {"gpu": bench.gpu.name, **found}
        return outcome
    if chosen.limit_bytes:
        outcome.measured = measure_limit(chosen, model, outcome.estimated)
        return outcome
    if chosen.step.ddp:
        outcome.measured = measure_ddp(model, chosen)
    else:
        outcome.measured = asdict(
            measure_step(model, chosen.inputs, batch=chosen.batch, step=chosen.step)
        )
    if chosen.timed:
        outcome.seconds = timed_passes(model, chosen)
    return outcome


def measure_ddp(model: nn.Module, chosen: Configuration) -> dict[str, Any]:
    """Peaks of three steps under DistributedDataParallel in a group of one process."""
    from torch import distributed

    with tempfile.NamedTemporaryFile() as meeting:
        distributed.init_process_group(
            "nccl", init_method=f"file://{meeting.name}", world_size=1, rank=0
        )
        wrapped = nn.parallel.DistributedDataParallel(model.to("cuda"), device_ids=[0])
        optimizer = torch.optim.AdamW(wrapped.parameters())
        torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            (x,), _named = chosen.inputs(chosen.batch)
            optimizer.zero_grad()
            out = wrapped(x.to("cuda"))
            labels = torch.zeros(chosen.batch, dtype=torch.long, device="cuda")
            nn.functional.cross_entropy(out, labels).backward()
            optimizer.step()
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        context = total - free - torch.cuda.memory_reserved()  # NCCL's buffers are in it
        peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        distributed.destroy_process_group()
    return {
        "gpu": torch.cuda.get_device_name(), "context_bytes": context,
        **dict(zip(PEAKS, (*peaks, peaks[1] + context), strict=True)),
    }  # fmt: skip


def timed_passes(model: nn.Module, chosen: Configuration) -> dict[str, float]:
    """Median seconds of forward, and of forward and backward, in fp32 with and without TF32."""
    args, named = chosen.inputs(chosen.batch)
    args = tuple(x.to("cuda") for x in args)
    model = model.to("cuda")
    found = {}
    for tf32 in (False, True):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        how = "tf32" if tf32 else "fp32"

        def forward() -> None:
            with torch.no_grad():
                model(*args, **named)

        def both() -> None:
            model(*args, **named).sum().backward()

        found[f"forward_{how}"] = median_seconds(forward)
        found[f"forward_backward_{how}"] = median_seconds(both)
    return found


def median_seconds(run: Callable[[], None]) -> float:
    """Of up to ten runs in at most two seconds, after three that warm up."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    taken: list[float] = []
    while len(taken) < 10 and (not taken or sum(taken) < 2):
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure_limit(
    chosen: Configuration, model: nn.Module, estimated: dict[str, Any]
) -> dict[str, Any]:
    """The largest batch that runs on a card of `limit_bytes`: allocator and context share it."""
    context = measure_step(model, chosen.inputs, batch=8, step=chosen.step).context_bytes
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((chosen.limit_bytes - context) / total)
    runs: dict[int, bool] = {}
    fits = partial(runs_at, model, chosen, runs)
    largest = real_boundary(fits, estimated["safe_batch"], estimated["largest_batch"])
    return {"largest_batch": largest, "context_bytes": context, "runs": runs}


def runs_at(model: nn.Module, chosen: Configuration, runs: dict[int, bool], batch: int) -> bool:
    """Whether the step runs at this batch in the memory that the process may take."""
    if batch not in runs:
        torch._C._cuda_clearCublasWorkspaces()
        gc.collect()
        torch.cuda.empty_cache()
        try:
            measure_step(model, chosen.inputs, batch=batch, step=chosen.step)
            runs[batch] = True
        except Exception as err:
            if "out of memory" not in str(err):
                raise
            runs[batch] = False
    return runs[batch]


def real_boundary(fits: Callable[[int], bool], safe: int, estimated: int) -> int:
    """The largest batch that runs, by bisection around the estimate to 1 %."""
    low, high = safe, max(estimated + 1, int(estimated * 1.02))
    while low > 1 and not fits(low):
        low, high = int(low * 0.9), low
    while fits(high):
        low, high = high, int(high * 1.08) + 1
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def convolution_workspaces(simulate: bool) -> list[dict[str, Any]]:
    """The scratch memory of single convolutions, measured and asked of cuDNN."""
    found = []
    gpu = this_gpu(simulate)
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
                known = cudnn_workspace_bytes(asked, gpu)
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


def measure_all(only: str, bench: Bench, jobs: int) -> Iterator[Outcome]:
    """Every configuration in a process of its own; `jobs` of them estimate at once."""
    chosen = [c for c in configurations() if re.search(only, c.name)]
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(partial(measured_in_process, bench=bench), chosen)


_device = threading.Lock()


def measured_in_process(chosen: Configuration, bench: Bench) -> Outcome:
    outcome = estimated_in_process(Outcome(name=chosen.name, batch=chosen.batch), bench)
    if not outcome.error:
        outcome = answer_of("measure", outcome, bench)
    print(line_of(outcome), flush=True)
    return outcome


def estimated_in_process(outcome: Outcome, bench: Bench) -> Outcome:
    return answer_of("estimate", outcome, bench)


def answer_of(verb: str, outcome: Outcome, bench: Bench) -> Outcome:
    """Ask another process; until it has ended, what it left on the device would be measured too."""
    asked = {"verb": verb, "bench": asdict(bench)}
    command = [sys.executable, __file__, "--asked"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({**asked, "outcome": asdict(outcome)}) + "\n")
        process.stdin.flush()
        try:
            if verb == "measure" and process.stdout.readline():  # "ready"
                with _device:
                    said, errors = process.communicate("go\n", timeout=LIMIT_SECONDS)
            else:
                said, errors = process.communicate(timeout=LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return replace(outcome, error="took too long")
    lines = said.strip().splitlines()
    if process.returncode == 0 and lines:
        return Outcome(**json.loads(lines[-1]))
    return replace(outcome, error=(errors.strip().splitlines() or ["no output"])[-1])


def answer() -> Outcome:
    """The other end of `answer_of`."""
    asked = json.loads(sys.stdin.readline())
    bench = Bench(**{**asked["bench"], "gpu": gpu_of(asked["bench"]["gpu"])})
    outcome = Outcome(**asked["outcome"])
    if asked["verb"] == "estimate":
        return estimate_one(outcome.name, bench)
    return measure_one(outcome, bench)


def line_of(outcome: Outcome) -> str:
    if outcome.error:
        return f"{outcome.name:32} {outcome.error}"
    if "largest_batch" in outcome.estimated:
        safe, likely = (outcome.estimated[key] for key in ("safe_batch", "largest_batch"))
        real = outcome.measured["largest_batch"]
        return (
            f"{outcome.name:32} largest batch {likely}/{real} {100 * (likely / real - 1):+5.1f} %"
            f"  safe {safe} {'runs' if safe <= real else 'FAILS'}"
        )
    parts = []
    for key in PEAKS:
        if key not in outcome.measured:
            continue
        measured, estimated = outcome.measured[key], outcome.estimated[key]
        share = 100 * (estimated / measured - 1)
        parts.append(f"{key[5:-6]} {estimated / MIB:7.0f}/{measured / MIB:7.0f} {share:+5.1f} %")
    return f"{outcome.name:32} " + "  ".join(parts)


def summary(outcomes: list[Outcome]) -> str:
    done = [o for o in outcomes if not o.error and PEAKS[0] in o.measured]
    if not done:
        return "nothing was measured"
    lines = []
    for key in PEAKS:
        known = [o for o in done if key in o.measured]
        errors = sorted(abs(o.estimated[key] / o.measured[key] - 1) * 100 for o in known)
        ninety = errors[min(int(0.9 * len(errors)), len(errors) - 1)]
        median = statistics.median(errors)
        lines.append(f"{key}: median error {median:.2f} %, nine tenths within {ninety:.2f} %")
    inside = [
        o.estimated["band_low_bytes"]
        <= o.measured["peak_device_bytes"]
        <= o.estimated["band_high_bytes"]
        for o in done
        if "peak_device_bytes" in o.measured
    ]
    lines.append(f"device bytes inside the band: {sum(inside)} of {len(inside)}")
    limits = [o for o in outcomes if not o.error and "largest_batch" in o.estimated]
    if limits:
        runs = sum(o.estimated["safe_batch"] <= o.measured["largest_batch"] for o in limits)
        lines.append(f"safe batches that ran: {runs} of {len(limits)}")
    return "\n".join(lines)


def estimate_again(options: argparse.Namespace) -> None:
    """Replace the estimates in the file by those of this code, for the torch that was measured."""
    read = json.loads(options.output.read_text(encoding="utf-8"))
    outcomes = [Outcome(**each) for each in read["outcomes"]]
    version = read["torch"].split("+")[0]
    bench = Bench(gpu=gpu_of(read["facts"]), simulate=False, torch_version=version)
    chosen = [o for o in outcomes if re.search(options.only, o.name)]
    with ThreadPoolExecutor(options.jobs) as pool:
        for outcome, again in zip(
            chosen, pool.map(partial(estimated_in_process, bench=bench), chosen), strict=True
        ):
            outcome.estimated, outcome.error = again.estimated, again.error
            print(line_of(outcome), flush=True)
    read["outcomes"] = [asdict(outcome) for outcome in outcomes]
    read["estimated_by"] = {"torch": torch.__version__, "cudnn": cudnn_version()}
    options.output.write_text(json.dumps(read, indent=1) + "\n", encoding="utf-8")


def cudnn_version() -> str:
    """Of the library that the estimates ask, without a device."""
    return next(
        (d.version for d in metadata.distributions() if d.name.startswith("nvidia-cudnn")), ""
    )


def measure(options: argparse.Namespace) -> None:
    """Measure everything; the file is written after each outcome, so that a stop loses little."""
    gpu = gpu_facts(options.simulate)
    written: dict[str, Any] = {
        "format": 1,
        "gpu": gpu.name,
        "facts": asdict(gpu),
        "simulated": options.simulate,
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "outcomes": [],
        "convolutions": [],
    }

    def write() -> None:
        options.output.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")

    outcomes = []
    bench = Bench(gpu=gpu, simulate=options.simulate)
    for outcome in measure_all(options.only, bench, options.jobs):
        outcomes.append(outcome)
        written["outcomes"].append(asdict(outcome))
        write()
    written["convolutions"] = convolution_workspaces(options.simulate)
    write()
    print(summary(outcomes))


def gpu_facts(simulate: bool) -> Gpu:
    """Asked in another process, which ends: a context here would count in every measurement."""
    if simulate:
        return this_gpu(True)
    asked = subprocess.run(
        [sys.executable, __file__, "--facts"], capture_output=True, text=True, check=True
    )
    return gpu_of(json.loads(asked.stdout))


def gpu_of(facts: dict[str, Any]) -> Gpu:
    """From its JSON, in which tuples are lists."""
    return Gpu(**{k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()})


def main() -> None:
    """Measure, or work on the file of an earlier measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=WRITTEN)
    parser.add_argument("--only", default="", help="a regular expression")
    parser.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1))
    parser.add_argument("--asked", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--facts", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--estimate", action="store_true")
    options = parser.parse_args()
    if options.asked:
        print(json.dumps(asdict(answer())))
        return
    if options.estimate:
        estimate_again(options)
    if options.report or options.estimate:
        read = json.loads(options.output.read_text(encoding="utf-8"))
        outcomes = [Outcome(**each) for each in read["outcomes"]]
        print("\n".join(map(line_of, outcomes)), summary(outcomes), sep="\n")
        return
    if not options.simulate and not torch.cuda.is_available():
        sys.exit("no CUDA device here; --simulate exercises everything but the measuring")
    if options.facts:
        print(json.dumps(asdict(this_gpu(False))))
        return
    measure(options)


if __name__ == "__main__":
    main()
