"""How fast a report is built.

    python benchmarks/build_speed.py --profile [MODEL]      each section of one model
    python benchmarks/build_speed.py --by-hand [MODEL ...]  the report over `by_hand.py`
    python benchmarks/build_speed.py --by-hand --whole      all sample models over six scripts

`--rounds N` alternates the two commands N times; the medians are compared. `--hand-python FILE`
is a Python with torchviz and torchview. The processor time stands beside the wall-clock: on a busy
machine it is the one to read.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.by_hand import MODELS

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = ROOT / "sample_models" / "manifest.yaml"
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Wall-clock and processor seconds of one command."""

    wall: float
    processor: float


def processor_seconds(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def own_seconds() -> float:
    return processor_seconds(resource.RUSAGE_SELF) + processor_seconds(resource.RUSAGE_CHILDREN)


def run_command(command: Sequence[str], *, accepted: Sequence[int] = (0,)) -> Cost:
    """Run a command without its output; raises unless its exit status is `accepted`."""
    before, start = processor_seconds(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | OFFLINE | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    wall = time.perf_counter() - start
    if done.returncode not in accepted:
        raise RuntimeError(f"{command}: {done.stderr.decode(errors='replace')[-2000:]}")
    return Cost(wall=wall, processor=processor_seconds(resource.RUSAGE_CHILDREN) - before)


def run_build(models: Sequence[str]) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        chosen = [part for model in models for part in ("--model", model)]
        command = [sys.executable, "-P", "-m", "reportgen", "build", str(MANIFEST), "--quiet"]
        command.append("--no-cache")
        # 1: the report is there, and a section failed or a budget is exceeded
        return run_command([*command, "--output", folder, *chosen], accepted=(0, 1))


def run_by_hand(models: Sequence[str], python: str) -> Cost:
    script = str(Path(__file__).with_name("by_hand.py"))
    costs = [run_command([python, script, model]) for model in models]
    return Cost(wall=sum(c.wall for c in costs), processor=sum(c.processor for c in costs))


def compare(models: Sequence[str], rounds: int, python: str) -> None:
    """Print both costs and their ratios."""
    pairs = [(run_build(models), run_by_hand(models, python)) for _ in range(rounds)]
    for kind in ("wall", "processor"):
        ours, theirs = (
            statistics.median(getattr(pair[side], kind) for pair in pairs) for side in (0, 1)
        )
        name = ", ".join(models)
        print(f"{name}: {kind} {ours:.1f} s over {theirs:.1f} s by hand: {ours / theirs:.2f}")


class Profiler:
    """Stands in for the child's `Reporter`: the cost of each section instead of messages."""

    def __init__(self) -> None:
        self.passes: Counter[str] = Counter()
        self._start()

    def _start(self) -> None:
        self.passes.clear()
        with suppress(OSError):  # Linux: resets the peak of the resident memory
            Path("/proc/self/clear_refs").write_text("5")
        self._wall, self._processor = time.perf_counter(), own_seconds()

    def _print(self, name: str) -> None:
        passes = " + ".join(f"{count} {kind}" for kind, count in sorted(self.passes.items()))
        print(
            f"{name:<10} {time.perf_counter() - self._wall:>7.2f} "
            f"{own_seconds() - self._processor:>7.2f} {peak_bytes() / 2**20:>9,.0f}  {passes}",
            flush=True,
        )

    def send(self, _message: Any) -> None:
        self._print("loading")

    def exit_if_forked(self) -> None:
        """The models of this benchmark do not fork."""

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        self._start()
        yield
        self._print(name)


def peak_bytes() -> int:
    """The peak of the resident memory since the last reset; since the start except on Linux."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def count_passes(model: Any, passes: Counter[str]) -> None:
    """Count forward passes of the model and its copies, real and without values."""
    import torch
    from torch.utils import _pytree as pytree

    forward = type(model).forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        real = all(type(t) is torch.Tensor and not t.is_meta for t in tensors)
        passes["real" if real else "fake"] += 1
        return forward(self, *args, **kwargs)

    type(model).forward = counted


def profile(name: str) -> None:
    """Print wall-clock, processor time, peak memory and passes of each section of one model."""
    os.environ.update(OFFLINE | {"OMP_WAIT_POLICY": "passive"})  # as in a child process
    profiler = Profiler()
    from reportgen.manifest import load_manifest
    from reportgen.pipeline import choose_models, make_job, share_of
    from reportgen.workers import beside, child
    from reportgen.workers.inputs_read import Recorder, ignored_folders

    print(f"{name:<10} {'wall s':>7} {'CPU s':>7} {'peak MiB':>9}  passes")
    manifest = load_manifest(MANIFEST)
    (spec,) = choose_models(manifest, (name,))
    load_context = child.load_context

    def load_and_count(job: Any) -> Any:
        context = load_context(job)
        if hasattr(context, "model"):
            count_passes(context.model, profiler.passes)
        return context

    child.load_context = load_and_count
    beside.can_fork = lambda: False  # one after the other, so that each is measured alone
    start, processor = time.perf_counter(), own_seconds()
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(manifest, spec, Path(folder), share_of(1), timings=True)
        recorder = Recorder(ignored=ignored_folders(job.folder))
        recorder.start()
        child.analyze(job, profiler, recorder)  # type: ignore[arg-type]
    wall = time.perf_counter() - start
    print(f"{'all':<10} {wall:>7.2f} {own_seconds() - processor:>7.2f}  without pages and PDF")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--by-hand", action="store_true")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--hand-python", default=sys.executable)
    options = parser.parse_args()
    models = options.models or ["resnet50"]
    if options.profile:
        profile(models[0])
    if options.by_hand and options.whole:
        compare(list(MODELS), options.rounds, options.hand_python)
    elif options.by_hand:
        for model in models:
            compare([model], options.rounds, options.hand_python)


if __name__ == "__main__":
    main()
