"""Runs forward, backward and ONNX export of one model in plain PyTorch.

    python benchmarks/zoo_bare.py MANIFEST

Prints one JSON object with the seconds or the error of `forward`, `backward` and `export`. The
model and its inputs are the same as in the report.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main() -> None:
    """Run the operations in order; print the results so far after each, for a crash or timeout."""
    from reportgen.dummy_inputs import with_dummy_inputs
    from reportgen.errors import ReportgenError
    from reportgen.example_inputs import make_examples
    from reportgen.manifest import load_manifest
    from reportgen.sources import load_model

    spec = load_manifest(Path(sys.argv[1])).models[0]
    found: dict[str, float | str] = {}
    try:
        loaded = load_model(spec)
        spec, _ = with_dummy_inputs(spec, loaded)
    except ReportgenError as error:
        print(json.dumps({"loading": str(error)}), flush=True)
        return
    model, examples = loaded.model, make_examples(spec, spec.batch, spec.seed)
    print("{}", flush=True)
    for name, call in (("forward", _forward), ("backward", _backward), ("export", _export)):
        found[name] = _seconds_or_error(call, model, examples)
        print(json.dumps(found), flush=True)


def _seconds_or_error(call: Callable[[Any, Any], None], model: Any, examples: Any) -> float | str:
    start = time.monotonic()
    try:
        call(model, examples)
    except Exception as error:
        _, _, cause = str(error).rpartition(
            "## Exception summary"
        )  # heading in the exporter's message
        lines = [line.strip() for line in cause.splitlines() if line.strip()]
        return f"{type(error).__name__}: {' '.join(lines[:1])}"[:300]
    return round(time.monotonic() - start, 1)


def _forward(model: Any, examples: Any) -> None:
    import torch

    with torch.no_grad():
        model(*examples.args, **examples.kwargs)


def _backward(model: Any, examples: Any) -> None:
    import torch
    from torch.utils._pytree import tree_leaves

    model.zero_grad()
    output = model(*examples.args, **examples.kwargs)
    leaves = [
        leaf
        for leaf in tree_leaves(dict(output) if isinstance(output, dict) else output)
        if isinstance(leaf, torch.Tensor) and leaf.requires_grad
    ]
    if not leaves:
        raise RuntimeError("no output is differentiable with respect to a parameter")
    total: Any = torch.stack([leaf.real.sum() for leaf in leaves]).sum()
    total.backward()


def _export(model: Any, examples: Any) -> None:
    import torch

    torch.onnx.export(model, examples.args, kwargs=examples.kwargs, dynamo=True, verbose=False)


if __name__ == "__main__":
    main()
