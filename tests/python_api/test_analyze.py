"""`reportgen.analyze` on model objects: figures, limits, and a model that is as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import reportgen
from reportgen.errors import BaselineError, NoResultError, OutputError, ReportgenError
from reportgen.report import report_to_json

ROOT = Path(__file__).parents[2]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 10)

    def forward(self, x: Any) -> Any:
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def report() -> reportgen.Report:
    return reportgen.analyze(Net(), (2, 3, 8, 8), name="net", timings=False)


def test_the_figures_are_those_of_a_count_by_hand(report: reportgen.Report) -> None:
    convolution, linear = 4 * 3 * 3 * 3, 4 * 10
    assert report.metrics["layers.parameters"] == convolution + 8 + linear + 10
    assert report["layers"].macs == 2 * (convolution * 6 * 6 + linear)
    assert report["memory"].fits[0].gpu == "T4"
    assert report["onnx"].parity.passed
    assert report.sections == dict.fromkeys(
        ("layers", "behavior", "graphs", "onnx", "memory"), "done"
    )
    assert report.verdict == "pass"
    assert "Safe training batch, T4 (fp32, adamw)" in str(report)
    assert report.data.models[0].evidence[0].command.startswith("reportgen.analyze(model, inputs")


def test_a_model_in_train_mode_is_analyzed_in_evaluation_mode(report: reportgen.Report) -> None:
    assert Net().training
    assert report["onnx"].export.training_modules == ()


def test_a_model_on_meta_is_analyzed_without_values() -> None:
    with torch.device("meta"):
        net = Net()
    found = reportgen.analyze(net, (2, 3, 8, 8), sections=("layers", "memory"))
    assert found.metrics["layers.parameters"] == 166
    assert found.sections == {"layers": "done", "memory": "done"}
    assert {p.device.type for p in net.parameters()} == {"meta"}


def test_inputs_are_found_if_none_are_given() -> None:
    found = reportgen.analyze(nn.Sequential(nn.Linear(6, 2)), sections="layers", targets="T4")
    assert found["layers"].input_shapes == {"input": (1, 6)}


def test_what_has_no_result_is_an_error_with_the_reason(report: reportgen.Report) -> None:
    with pytest.raises(NoResultError) as error:
        report["layer"]
    assert error.value.hint == "did you mean 'layers'?"
    with pytest.raises(NoResultError, match="was not analyzed"):
        report["training"]
    with pytest.raises(NoResultError, match="unknown section"):
        reportgen.analyze(Net(), (2, 3, 8, 8), sections=("layer",))


@pytest.mark.parametrize(
    ("model", "options", "problem"),
    [
        (lambda x: x, {}, "expected a torch.nn.Module, got function"),
        (Net(), {"targets": ("T5",)}, "unknown GPU 'T5'"),
        (Net(), {"batch": 0}, "batch must be a positive whole number"),
        (Net(), {"loss": "mse"}, "unknown loss 'mse'"),
        (Net(), {"budgets": {"parameters": "30X"}}, "budgets.parameters: "),
        (Net(), {"budgets": {"params": 1}}, "budgets.params: unknown key; .*'parameters'"),
        (Net(), {"budgets": {"peak_memory@8": "x"}}, "budgets: expected a size such as"),
        (Net(), {"settings": {"onnx": {"opset": "x"}}}, "onnx.opset: must be a whole number"),
        (Net(), {"settings": {"opset": 18}}, "opset: unknown key"),
        (Net(), {"settings": {"batch": 2}}, "settings: 'batch' does not belong here"),
        (Net(), {"settings": {"source": "a:b"}}, "settings: 'source' does not belong here"),
    ],
)
def test_bad_arguments_are_named(model: Any, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ReportgenError, match=problem) as error:
        reportgen.analyze(model, (2, 3, 8, 8), sections=("layers",), **options)
    assert error.value.hint


def test_budgets_are_judged_and_may_refer_to_a_baseline(report: reportgen.Report) -> None:
    found = reportgen.analyze(
        nn.Linear(20, 10), (2, 20), sections=("layers",), baseline=report,
        budgets={"parameters": "+10%", "macs": "1k"},
    )  # fmt: skip
    checks = {check.name: check for check in found.data.models[0].budgets}
    assert (checks["parameters"].baseline, checks["parameters"].passed) == (166, False)
    assert checks["macs"].passed
    assert "budget exceeded: parameters" in str(found)


def test_a_report_is_saved_loaded_and_compared(tmp_path: Path, report: reportgen.Report) -> None:
    files = report.save(tmp_path / "report", formats=("html", "json", "md"))
    assert files[-1].name == "report.json"
    assert (tmp_path / "report/models/net/index.html").is_file()
    loaded = reportgen.Report.load(tmp_path / "report")
    assert loaded.to_json() == report.to_json() == files[-1].read_text()
    assert not loaded.compare(report).changed
    assert ".html" not in {file.suffix for file in loaded.save(tmp_path / "data", formats="json")}
    loaded.save(tmp_path / "again", formats=("html", "json"))
    page = "models/net/index.html"
    assert (tmp_path / "again" / page).read_bytes() == (tmp_path / "report" / page).read_bytes()
    with pytest.raises(OutputError, match=r"graphs/.*\.pdf"):
        loaded.save(tmp_path / "pdf", formats=("pdf",))
    with pytest.raises(OutputError, match="unknown format 'docx'"):
        loaded.save(tmp_path / "other", formats=("docx",))
    with pytest.raises(BaselineError):
        reportgen.Report.load(tmp_path / "nothing")


def test_a_comparison_says_what_changed(report: reportgen.Report) -> None:
    net = Net()
    net.head = nn.Linear(4, 20)
    changed = reportgen.analyze(net, (2, 3, 8, 8), name="net", sections=("layers",))
    found = changed.compare(report)
    assert found.changed
    assert "Δ head: out_features 10 → 20 (+50 parameters" in str(found)
    assert "Parameters: 166 → 216, +30.1 % (+50), worse" in str(found)
    assert json.loads(found.to_json())["models"][0]["status"] == "changed"


def test_files_are_deleted_with_the_report() -> None:
    found = reportgen.analyze(nn.Linear(2, 2), (1, 2), sections=("layers",))
    folder = found._folder
    assert (folder / "models/Linear/layers.csv").is_file()
    del found
    assert not folder.exists()


def test_a_report_of_several_models_asks_which(tmp_path: Path, report: reportgen.Report) -> None:
    [net] = report.data.models
    both = replace(report.data, models=(net, replace(net, name="other")))
    (tmp_path / "report.json").write_text(report_to_json(both))
    loaded = reportgen.Report.load(tmp_path)
    assert loaded.models == ("net", "other")
    with pytest.raises(NoResultError, match="has 2 models"):
        loaded.metrics  # noqa: B018
    one = loaded.model(loaded.models[0])
    assert one.models == loaded.models[:1]
    assert one.metrics
    with pytest.raises(NoResultError, match="no model 'x'"):
        loaded.model("x")


def test_the_notebook_page_is_static_and_self_contained(report: reportgen.Report) -> None:
    page = report._repr_html_()
    assert "<script" not in page
    assert "http" not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "light-dark(" in page
    assert "Safe training batch, T4" in page
    assert "Conv2d" in page
    assert "<svg" in page
    assert len(page) < 300_000


def test_importing_reportgen_imports_nothing_heavy() -> None:
    code = (
        "import sys, reportgen, reportgen.testing.plugin\n"
        "print(sorted({'torch', 'numpy', 'pydantic', 'rich', 'jinja2', 'onnx'} & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"
