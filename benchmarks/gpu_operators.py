"""The scratch memory of single operators on a CUDA device, against what the estimates assume.

    python benchmarks/gpu_operators.py --output operators.json [NAME ...]

Runs configurations of `gpu_models.py` and writes down, for every operator with its shapes, how far
memory rose during the call above what is there before and after it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from gpu_models import configurations
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from reportgen.cuda_memory import measure_step

SMALLEST = 64 << 10


class ScratchRecorder(TorchDispatchMode):
    """Notes operators whose memory rises for the time of their call, and what they keep."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, dict[str, Any]] = {}
        self.model = ""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = func(*args, **(kwargs or {}))
        after = torch.cuda.memory_allocated()
        scratch = torch.cuda.max_memory_allocated() - max(before, after)
        if scratch >= SMALLEST or "rnn" in str(func):
            call = {
                "op": str(func),
                "args": tree_map(described, args),
                "result": described_all(result),
            }
            key = json.dumps(call)
            entry = self.found.setdefault(
                key, {**call, "model": self.model, "scratch": scratch, "kept": 0, "calls": 0}
            )
            entry["calls"] += 1
            entry["scratch"] = max(entry["scratch"], scratch)
            entry["kept"] = after - before
        return result


def described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return {"shape": list(value.shape), "strides": list(value.stride()),
                "dtype": str(value.dtype).removeprefix("torch.")}  # fmt: skip
    return value if isinstance(value, (int, float, bool, str, type(None))) else str(value)


def described_all(result: Any) -> Any:
    return tree_map(described, result if isinstance(result, (tuple, list)) else [result])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    recorder = ScratchRecorder()
    for chosen in configurations():
        if chosen.name not in options.names:
            continue
        recorder.model = chosen.name
        try:
            with recorder:
                measure_step(chosen.build(), chosen.inputs, batch=chosen.batch, step=chosen.step)
        except Exception as err:
            print(chosen.name, err)
        options.output.write_text(json.dumps(list(recorder.found.values())), encoding="utf-8")
        print(chosen.name, len(recorder.found), flush=True)


if __name__ == "__main__":
    main()
