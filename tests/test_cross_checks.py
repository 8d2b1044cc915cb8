"""Independent counts of one figure: agreement, what lies between, and where they part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_values import full_report

from reportgen.cross_checks import cross_check
from reportgen.outcome import Done, Failed, SectionOutcome
from reportgen.report import CrossCheck
from reportgen.sections.layers import Layers
from reportgen.sections.onnx import OnnxResult
from reportgen.sections.onnx.file_result import NodeCost
from reportgen.sections.onnx.result import StoredParameters


@pytest.fixture
def layers() -> Layers:
    [model] = [model for model in full_report().models if model.name == "resnet50"]
    [found] = [c.outcome.result for c in model.sections if c.name == "layers"]  # type: ignore[union-attr]
    assert isinstance(found, Layers)
    return replace(found, parameters_of_rows=found.parameters, macs_of_rows=found.macs)


@pytest.fixture
def onnx() -> OnnxResult:
    [model] = [model for model in full_report().models if model.name == "resnet50"]
    [found] = [c.outcome.result for c in model.sections if c.name == "onnx"]  # type: ignore[union-attr]
    assert isinstance(found, OnnxResult)
    return found


def checks(layers: Layers, onnx: OnnxResult | None = None, **fields: Any) -> dict[str, CrossCheck]:
    sections = [SectionOutcome(name="layers", title="Layers", outcome=Done(result=layers))]
    if onnx is not None:
        stored, cost = fields.get("stored"), fields.get("cost")
        result = replace(
            onnx,
            file=replace(onnx.file, cost=cost),
            export=replace(onnx.export, stored_parameters=stored),
        )
        sections.append(SectionOutcome(name="onnx", title="ONNX", outcome=Done(result=result)))
    return {check.figure: check for check in cross_check(sections)}


def stored(layers: Layers, **fields: Any) -> StoredParameters:
    values = {"found": layers.parameters, "merged": 0, "zero": 0, "absent_elements": 0}
    return StoredParameters(**{"absent": (), **values, **fields})


def cost(layers: Layers, **fields: Any) -> NodeCost:
    values = {"batch": layers.batch, "macs": layers.macs, "uncounted": {}, "modules": {}}
    return NodeCost(**{**values, **fields})


def test_equal_counts_agree_and_need_no_words(layers: Layers, onnx: OnnxResult) -> None:
    found = checks(layers, onnx, stored=stored(layers), cost=cost(layers))
    assert {check.agree for check in found.values()} == {True}
    assert {check.note for check in found.values()} == {""}
    assert [len(check.counts) for check in found.values()] == [3, 3]


def test_merged_norms_account_for_what_the_file_lacks(layers: Layers, onnx: OnnxResult) -> None:
    there = stored(layers, found=layers.parameters - 53_120, merged=53_120)
    check = checks(layers, onnx, stored=there)["parameters"]
    assert check.agree is True
    assert check.note == "53,120 of batch norms are multiplied into the layer before"


def test_what_nothing_accounts_for_is_a_difference(layers: Layers, onnx: OnnxResult) -> None:
    check = checks(layers, onnx, stored=stored(layers, found=layers.parameters - 7))["parameters"]
    assert check.agree is False
    assert check.note == "7 are unaccounted for"


def test_rows_that_do_not_add_up_are_a_difference(layers: Layers) -> None:
    found = checks(replace(layers, macs_of_rows=layers.macs - 10, parameters_of_rows=0))
    assert {check.agree for check in found.values()} == {False}
    assert found["macs"].note == "the rows miss 10"


def test_the_module_where_counts_part_is_named(layers: Layers, onnx: OnnxResult) -> None:
    """All modules agree but one inside layer1.0, whose neighbors have swapped names."""
    modules = {layer.path: layer.macs for layer in layers.layers if layer.leaf and layer.macs}
    place = next(path for path in modules if path.startswith("layer1.0."))
    modules[place] += 5
    there = cost(layers, macs=layers.macs + 5, modules=modules)
    check = checks(layers, onnx, cost=there)["macs"]
    assert check.agree is False
    assert check.note == f"the file has 5 more, all of it in {place}"


def test_a_difference_spread_over_children_is_told_of_their_parent(
    layers: Layers, onnx: OnnxResult
) -> None:
    modules = {layer.path: layer.macs for layer in layers.layers if layer.leaf and layer.macs}
    first, second = [path for path in modules if path.startswith("layer1.0.")][:2]
    modules[first] -= 3
    modules[second] -= 2
    there = cost(layers, macs=layers.macs - 5, modules=modules)
    check = checks(layers, onnx, cost=there)["macs"]
    assert check.note == "the file has 5 fewer, all of it in layer1.0"


def test_a_file_of_another_batch_is_not_compared(layers: Layers, onnx: OnnxResult) -> None:
    check = checks(layers, onnx, cost=cost(layers, batch=layers.batch + 1, macs=1))["macs"]
    assert check.agree is True
    assert check.note == f"the ONNX file has its batch fixed at {layers.batch + 1}"


def test_nothing_is_checked_without_layers_or_of_a_file(layers: Layers) -> None:
    failed = SectionOutcome(name="layers", title="Layers", outcome=Failed(error="no"))
    assert cross_check([failed]) == ()
    file = replace(layers, method="file")
    assert (
        cross_check([SectionOutcome(name="layers", title="Layers", outcome=Done(result=file))])
        == ()
    )


def test_a_count_that_left_something_out_contradicts_nothing(
    layers: Layers, onnx: OnnxResult
) -> None:
    fewer = cost(layers, macs=layers.macs - 10, uncounted={"Det": "there is no formula for it"})
    assert checks(layers, onnx, stored=stored(layers), cost=fewer)["macs"].agree is None
    more = replace(fewer, macs=layers.macs + 10)
    found = checks(layers, onnx, stored=stored(layers), cost=more)["macs"]
    assert (found.agree, found.note.startswith("the file has 10 more")) == (False, True)
