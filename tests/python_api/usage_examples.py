"""Typed use of the package: `make check` checks the types, `test_usage.py` runs it."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import torch
from torch import nn

import reportgen
from reportgen.findings import Finding
from reportgen.python_api.report import ReportComparison
from reportgen.sections.graphs import Graphs
from reportgen.sections.layers import Layers
from reportgen.sections.memory import Memory
from reportgen.sections.memory.result import Fit
from reportgen.sections.onnx import OnnxResult
from reportgen.testing import assert_budget, assert_onnx_parity, assert_same_structure


def analyze(model: nn.Module, folder: Path) -> reportgen.Report:
    """A report, its figures, and a second one to compare with."""
    report = reportgen.analyze(model, torch.randn(8, 4), targets=("T4", "A100-80GB"))
    assert_type(report, reportgen.Report)
    assert_type(report.metrics["layers.parameters"], int | float | None)
    assert_type(report["layers"], Layers)
    assert_type(report["graphs"], Graphs)
    assert_type(report["onnx"], OnnxResult)
    assert_type(report["memory"], Memory)
    assert_type(report["memory"].fits, tuple[Fit, ...])
    assert_type(report.findings, tuple[Finding, ...])
    assert_type(report.save(folder, formats=("json", "html")), tuple[Path, ...])
    loaded = reportgen.Report.load(folder / "report.json")
    assert_type(loaded.compare(report), ReportComparison)
    assert_type(report.to_json(), str)
    return loaded


def ask(model: nn.Module) -> None:
    """One function for each question, and every form of inputs."""
    assert_type(reportgen.summary(model, input_size=(1, 4), verbose=False).parameters, int)
    assert_type(reportgen.draw(model, (1, 4), kind="modules").svg, str)
    assert_type(reportgen.estimate_memory(model, "batch,4", gpu="T4").fits_everywhere, bool)
    answer = reportgen.estimate_memory(model, (1, 4), loss=lambda output: output.sum(), ema=True)
    assert_type(answer.gpus[0].fit, Fit)
    assert_type(reportgen.check_onnx(model, {"input": torch.ones(1, 4)}).passed, bool)


def check(model: nn.Module, baseline: Path) -> None:
    """As in the tests of another project."""
    assert_budget(model, (1, 4), parameters="1k", peak_memory={"T4": 32})
    assert_onnx_parity(model, (1, 4))
    assert_same_structure(model, baseline)
