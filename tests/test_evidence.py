"""How each figure was made: for every metric, with inputs as in a manifest, and really."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_spec
from one_process import analyzed_here, run_here
from report_values import full_report
from torch import nn

from reportgen.evidence import evidence_of
from reportgen.example_inputs import describe_inputs
from reportgen.metrics import Evidence, Method
from reportgen.outcome import Done
from reportgen.report import ModelReport
from reportgen.sections import SECTIONS

_MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 16)
        self.last = nn.Linear(16, 4)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)))
"""
_MANIFEST = """
version: 1
title: Small
targets: [T4]
models:
  - {name: net, source: net.py:Net, inputs: ["x=batch,8"], batch: 4, seed: 3, logs: [log.csv],
     budgets: {"peak_memory@9": 12 GiB}}
"""
_LOG = "epoch,train_loss,val_acc\n" + "".join(f"{n},{2 / n:.3f},{n / 50}\n" for n in range(1, 31))


def _evidence(method: Method, *, name: str = "net", timings: bool = True) -> Evidence:
    spec = make_spec("x=batch,4", name=name, seed=7)
    [made] = evidence_of(
        spec, [("layers", method)], manifest="my models.yaml", inputs="x=batch,4", timings=timings
    )
    return made


@pytest.mark.parametrize("model", full_report().models, ids=lambda m: m.name)
def test_each_metric_is_in_exactly_one_method(model: ModelReport) -> None:
    known = {section.name: section for section in SECTIONS}
    done = [section for section in model.sections if isinstance(section.outcome, Done)]
    keys = [
        key
        for section in done
        for method in known[section.name].methods(section.outcome.result)
        for key in method.keys
    ]
    assert Counter(keys) == Counter(metric.key for metric in model.metrics)


def test_a_figure_of_the_model_names_its_inputs_and_seed() -> None:
    made = _evidence(Method(keys=("a", "b"), text="a sum", tools=("torch", "no such"), batch=4))
    assert (made.keys, made.method, made.batch) == (("a", "b"), "a sum", 4)
    assert (made.inputs, made.seed) == ("x=batch,4", 7)
    assert made.tools[0].startswith("torch 2.")
    assert made.tools[1] == "no such not installed"


def test_a_figure_of_files_names_them_and_no_seed() -> None:
    made = _evidence(Method(keys=("a",), text="the best", tools=(), inputs="runs/one"))
    assert (made.inputs, made.batch, made.seed) == ("runs/one", None, None)


def test_the_command_builds_one_section_into_a_folder_of_its_own() -> None:
    made = _evidence(Method(keys=("a",), text="", tools=()), name="net.1", timings=False)
    assert shlex.split(made.command) == [
        *("reportgen", "build", "my models.yaml", "--model", "net.1", "--section", "layers"),
        *("--format", "json", "--output", "reproduced", "--no-timings"),
    ]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("batch,3,8:float16", "batch,3,8:float16"),
        ("ids=batch,9:int64<99", "ids=batch,9:int64<99"),
        ({"name": "m", "shape": [], "dtype": "int32", "low": 1, "high": 3}, "m=:1≤int32<3"),
        ({"name": "w", "shape": ["batch", 2], "values": [1, 2]}, "w=batch,2:float32 [1, 2]"),
        ({"name": "mode", "value": {"value": "fast"}}, "mode='fast'"),
        ({"name": "x", "file": "/somewhere/x.npy"}, "x=x.npy"),
        ({"items": ["3,batch", "2"], "tuple": True}, "[3,batch:float32, 2:float32]"),
        ({"name": "i", "items": ["3,4"], "per_sample": True}, "i=[3,4:float32] per sample"),
        ({"name": "o", "fields": {"k": "batch,2"}}, "o={k: batch,2:float32}"),
    ],
)
def test_inputs_are_described_as_a_manifest_has_them(given: Any, shown: str) -> None:
    assert describe_inputs(make_spec(given).inputs, {}) == shown


def test_named_dims_follow_with_their_sizes() -> None:
    spec = make_spec("x=batch,time", "y=time", dims={"time": 16})
    assert (
        describe_inputs(spec.inputs, spec.dims) == "x=batch,time:float32, y=time:float32, time=16"
    )


def _build(command: str, folder: Path) -> dict[str, Any]:
    """The only model of the report that `command` writes."""
    arguments = shlex.split(command)
    assert arguments[0] == "reportgen"
    with analyzed_here():
        done = run_here(*arguments[1:], folder=folder)
    assert done.returncode == 0, done.stderr
    output = arguments[arguments.index("--output") + 1]
    [model] = json.loads((folder / output / "report.json").read_text(encoding="utf-8"))["models"]
    assert isinstance(model, dict)
    return model


@pytest.mark.slow
def test_the_command_of_every_section_makes_its_figures_again(tmp_path: Path) -> None:
    for name, text in (("net.py", _MODULE), ("m.yaml", _MANIFEST), ("log.csv", _LOG)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    whole = "reportgen build m.yaml --format json --output whole --no-timings"
    model = _build(whole, tmp_path)
    values = {metric["key"]: metric["value"] for metric in model["metrics"]}
    evidence = model["evidence"]
    assert sorted(key for made in evidence for key in made["keys"]) == sorted(values)
    assert {made["inputs"] for made in evidence} == {"", "log.csv", "x=batch,8:float32"}
    assert {made["seed"] for made in evidence} == {None, 3}
    assert "memory.peak_memory@9" in values
    again: dict[str, float | None] = {}
    for command in {made["command"] for made in evidence}:
        again |= {m["key"]: m["value"] for m in _build(command, tmp_path)["metrics"]}
    assert {key.partition(".")[0] for key in again} == {"layers", "memory", "onnx", "training"}
    assert again == values


@pytest.mark.slow
def test_inputs_that_the_manifest_leaves_out_are_named(tmp_path: Path) -> None:
    program = torch.export.export(nn.Linear(8, 4), (torch.zeros(2, 8),))
    torch.export.save(program, tmp_path / "net.pt2")
    text = "version: 1\ntitle: Saved\nmodels: [{name: saved, source: net.pt2, batch: 2}]\n"
    (tmp_path / "m.yaml").write_text(text, encoding="utf-8")
    model = _build("reportgen build m.yaml --section layers --format json --output whole", tmp_path)
    [cost] = [made for made in model["evidence"] if "layers.macs" in made["keys"]]
    assert cost["inputs"] == "input=2,8:float32"
