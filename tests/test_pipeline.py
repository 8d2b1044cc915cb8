"""A build from manifest to report: verdicts, budgets, restored models."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_spec, make_study
from one_process import build_here
from test_model_state import snapshot
from torch import nn

from reportgen import load_manifest
from reportgen.findings import Finding, Severity
from reportgen.outcome import Done, Failed, SectionOutcome, Skipped
from reportgen.pipeline import judge_model, path_in_repository
from reportgen.report import Verdict, judge, worst
from reportgen.sections import SECTIONS
from reportgen.sections.section import AnySection, outcome_adapter
from reportgen.workers import ModelOutcomes
from reportgen.workers.child import outcome_of

MANIFEST = """
version: 1
title: 두 모델
targets: [T4]
models:
  - name: 작은_모델
    source: nets.py:Small
    comment: "<b>한국어</b> | comment"
    inputs: [{name: x, shape: [batch, 3, 8, 8]}]
    batch: 2
    budgets: {parameters: 1k, macs: 1}
  - name: words
    source: nets.py:Words
    inputs: [{name: ids, shape: [batch, 5], dtype: int64, high: 20, keyword: true}]
    batch: 3
"""
NETS = """
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 2)
    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean(dim=(2, 3)))

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 5, batch_first=True)
    def forward(self, ids):
        states, _ = self.lstm(self.embedding(ids))
        return {"states": states, "last": states[:, -1]}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "nets.py").write_text(NETS)
    path = tmp_path / "two.yaml"
    path.write_text(MANIFEST, encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_report_has_the_verdict_and_the_budgets_of_each_model(manifest: Path) -> None:
    built = build_here(
        load_manifest(manifest), output=manifest.parent / "out", sections=("layers",),
        formats=("json",), timings=False,
    )  # fmt: skip
    data = json.loads((built.output / "report.json").read_text(encoding="utf-8"))
    assert data["timings"] == {}
    assert [m["verdict"] for m in data["models"]] == ["fail", "pass"]
    budgets = data["models"][0]["budgets"]
    assert [(b["name"], b["limit"], b["value"], b["passed"], b["state"]) for b in budgets] == [
        ("parameters", 1000, 130, True, "within"),
        ("macs", 1, data["models"][0]["sections"]["layers"]["result"]["macs"], False, "exceeded"),
    ]


class Everything(nn.Module):
    """Dropout, batch norm in train mode, a hook, tied weights and an existing gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            OrderedDict(
                a=nn.Linear(6, 6), norm=nn.BatchNorm1d(6), drop=nn.Dropout(), b=nn.Linear(6, 6)
            )
        )
        self.body.b.weight = self.body.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def busy_model() -> nn.Module:
    model = Everything()
    model(torch.randn(3, 6)).sum().backward()
    model.body.a.register_forward_hook(lambda *_: None)
    model.eval()
    model.body.drop.train()
    return model


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.name)
def test_every_section_restores_the_model(section: AnySection, tmp_path: Path) -> None:
    model = busy_model()
    context = make_study(model, "x=batch,6", folder=tmp_path, targets=("T4",), batch=2)
    model.body.drop.train()
    before = snapshot(model)
    outcome_of(section, context)
    assert snapshot(model) == before


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.name)
def test_every_section_restores_a_model_that_raises(section: AnySection, tmp_path: Path) -> None:
    model = busy_model()
    context = make_study(model, "x=batch,7", folder=tmp_path, targets=("T4",), batch=2)
    before = snapshot(model)
    outcome = outcome_of(section, context)
    if section.name == "layers":  # the table ends at the failure
        assert isinstance(outcome, Done)
        assert outcome.result.failure is not None
    else:
        assert isinstance(outcome, Failed | Skipped)
    assert snapshot(model) == before


@pytest.mark.slow
def test_the_order_of_the_sections_does_not_matter(tmp_path: Path) -> None:
    def outcomes(sections: tuple[AnySection, ...], folder: Path) -> dict[str, Any]:
        torch.manual_seed(5)
        context = make_study(
            Everything(), "x=batch,6", folder=folder, targets=("T4",), timings=False, batch=2
        )
        return {s.name: outcome_of(s, context) for s in sections}

    assert outcomes(SECTIONS, tmp_path / "a") == outcomes(SECTIONS[::-1], tmp_path / "b")


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.name)
def test_every_outcome_survives_serialization(section: AnySection, tmp_path: Path) -> None:
    context = make_study(Everything(), "x=batch,6", folder=tmp_path, targets=("T4",), batch=2)
    outcome = outcome_of(section, context)
    adapter = outcome_adapter(section)
    assert adapter.validate_json(adapter.dump_json(outcome)) == outcome


FINDING = Finding(code="ABC001", severity=Severity.ERROR, where="x", message="m", advice="a")
DONE = SectionOutcome(name="training", title="Training", outcome=Skipped(reason="none"))
LOST = SectionOutcome(name="layers", title="Layers", outcome=Failed(error="lost"))


@pytest.mark.parametrize(
    ("sections", "findings", "verdict"),
    [
        ([DONE], [], Verdict.PASS),
        ([LOST], [], Verdict.FAIL),
        ([DONE], [FINDING], Verdict.FAIL),
    ],
)
def test_the_verdict_is_the_worst_of_all_sections_and_findings(
    sections: list[SectionOutcome], findings: list[Finding], verdict: Verdict
) -> None:
    assert judge(sections, findings, []) is verdict
    assert worst([Verdict.PASS, verdict]) is verdict


def test_an_ignored_finding_has_its_reason_and_does_not_count(tmp_path: Path) -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(100, 100)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    context = make_study(Unused(), "x=batch,4", folder=tmp_path)
    layers = SECTIONS[0]
    section = SectionOutcome(name="layers", title="Layers", outcome=outcome_of(layers, context))
    assert isinstance(section.outcome, Done)
    examined = ModelOutcomes(name="model", sections=(section,), seconds={})
    plain = judge_model(make_spec("x=batch,4"), examined)
    codes = {f.code for f in plain.findings if f.severity is not Severity.NOTE}
    assert plain.verdict is not Verdict.PASS
    reasons = dict.fromkeys(codes, "kept for later")
    excused = judge_model(make_spec("x=batch,4", ignore=reasons), examined)
    assert excused.verdict is Verdict.PASS
    assert {f.ignored for f in excused.findings if f.code in codes} == {"kept for later"}


def test_the_path_of_a_manifest_names_no_folder_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "project/models/m.yaml"
    file.parent.mkdir(parents=True)
    assert path_in_repository(file) == "project/models/m.yaml"
    (tmp_path / "project/.git").touch()  # of a worktree it is a file
    assert path_in_repository(file) == "models/m.yaml"
    assert path_in_repository(tmp_path.parent / "other.yaml") == "other.yaml"
