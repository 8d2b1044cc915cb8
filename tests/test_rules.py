"""Every rule that has an example: the bad one gives exactly its finding, the good one does not."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import report_values
import torch
from factories import make_study
from torch import Tensor, nn
from torch.nn import functional

from reportgen.findings import Finding, Rule, fingerprint, source_of
from reportgen.manifest import Loss
from reportgen.model_state import preserve_model_state
from reportgen.outcome import Skipped
from reportgen.rule_docs import all_rules, rule_text, rules_markdown
from reportgen.sections import SECTIONS
from reportgen.sections.onnx.inspection.analysis import inspect_file
from reportgen.sections.onnx.result import OnnxResult
from reportgen.sections.section import AnySection

RULES = [(section, rule) for section in SECTIONS for rule in section.rules if rule.example]
NAMES = {"torch": torch, "nn": nn, "F": functional, "Tensor": Tensor, "onnx": onnx, "np": np}


def findings(section: AnySection, code: str, folder: Path) -> list[Finding]:
    """All findings of `section` in the model that the example `code` makes."""
    values: dict[str, Any] = NAMES | {"folder": folder}
    torch.manual_seed(0)
    exec(code, values)
    result = (
        analyzed_file(values["model"], folder)
        if isinstance(values["model"], onnx.ModelProto)
        else analyzed_module(section, values, folder)
    )
    return [found for rule in section.rules for found in rule.findings(result)]


def analyzed_file(model: onnx.ModelProto, folder: Path) -> OnnxResult:
    """A faultless result, but for the contents of the file `model`."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    clean = report_values.onnx()
    file = inspect_file(model, path).result
    return replace(clean, file=file, export=replace(clean.export, requested_opset=file.opset))


def analyzed_module(section: AnySection, values: dict[str, Any], folder: Path) -> Any:
    """The result of `section` for `values["model"]`."""
    options = {"batch": 4} | values.get("options", {})
    if "loss" in options:
        options["loss"] = Loss(kind=options["loss"], text=options["loss"])
    context = make_study(values["model"], *values["inputs"], folder=folder, **options)
    with preserve_model_state(context.model):
        result = section.analyze(context)
    assert not isinstance(result, Skipped), result
    return result


@pytest.mark.parametrize(
    ("section", "rule"), RULES, ids=lambda each: each.code if isinstance(each, Rule) else ""
)
def test_the_bad_example_gives_exactly_this_finding_and_the_good_one_none(
    section: AnySection, rule: Rule[Any], tmp_path: Path
) -> None:
    bad = findings(section, textwrap.dedent(rule.example.bad), tmp_path)
    assert [found.code for found in bad] == [rule.code]
    assert findings(section, textwrap.dedent(rule.example.good), tmp_path) == []


def test_a_fingerprint_depends_on_rule_and_place_only() -> None:
    one = fingerprint("LAY001", "head")
    assert len(one) == 16
    assert fingerprint("LAY001", "head") == one
    assert len({one, fingerprint("LAY002", "head"), fingerprint("LAY001", "body"),
                fingerprint("LAY001", "head", 2)}) == 4  # fmt: skip


def test_the_source_is_that_of_the_module_or_of_the_parameters_module() -> None:
    sources = {"": "net.py:3", "head": "net.py:9", "blocks.0": "net.py:11"}
    assert source_of("head", sources) == "net.py:9"
    assert source_of("blocks.0.weight", sources) == "net.py:11"
    assert source_of("", sources) == "net.py:3"
    assert source_of("T4", sources) == ""
    assert source_of("blocks.1.weight", sources) == ""


def test_the_page_of_all_rules_is_up_to_date() -> None:
    page = Path(__file__).parents[1] / "docs" / "rules.md"
    text = "run: reportgen rules --markdown > docs/rules.md"
    assert page.read_text(encoding="utf-8") == rules_markdown(), text


def test_every_rule_has_its_parts_in_text_and_page() -> None:
    page = rules_markdown()
    for code, rule in all_rules().items():
        assert f'<a id="{code}"></a>' in page
        assert rule.what.endswith("."), code
        assert not rule.advice.endswith("."), code
        text = rule_text(rule)
        assert rule.advice in text
        assert ("Bad:" in text) == (rule.example is not None)
