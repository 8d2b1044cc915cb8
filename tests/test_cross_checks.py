"""Independent counts of one figure: agreement, what accounts for a difference, and where it is."""

from __future__ import annotations

from typing import Any

import pytest
from report_values import full_report

from reportgen.cross_checks import cross_check
from reportgen.metrics import FigureCount
from reportgen.outcome import Done
from reportgen.report import CrossCheck
from reportgen.sections import SECTIONS

MODULES = {"": 100, "a": 60, "a.x": 40, "a.y": 20, "b": 40}


def check(*others: FigureCount, **stated: Any) -> CrossCheck:
    """The check of a stated count of 100, of which `MODULES` says where."""
    fields = {"figure": "macs", "by": "operators", "value": 100, "batch": 1, "by_module": MODULES}
    [found] = cross_check([FigureCount(**{**fields, **stated}), *others])
    return found


def count(value: int, **fields: Any) -> FigureCount:
    return FigureCount(**{"figure": "macs", "by": "nodes", "value": value, "batch": 1, **fields})


def test_equal_counts_agree_without_a_note() -> None:
    found = check(count(100), count(100, batch=None, by="rows"))
    assert (found.agree, found.note) == (True, "")
    assert [(each.by, each.value) for each in found.counts] == [
        ("operators", 100), ("nodes", 100), ("rows", 100),
    ]  # fmt: skip


def test_what_is_accounted_for_is_no_difference() -> None:
    found = check(count(90, accounted=10, notes=("10 are merged",)))
    assert (found.agree, found.note) == (True, "10 are merged")


def test_an_unexplained_difference_disagrees() -> None:
    found = check(count(93))
    assert (found.agree, found.note) == (False, "nodes: 7 fewer, unexplained")


def test_the_deepest_module_that_holds_the_difference_is_named() -> None:
    one = check(count(105, by_module={"a.x": 45, "a.y": 20, "b": 40}))
    assert one.note == "nodes: 5 more, all of it in a.x"
    spread = check(count(95, by_module={"a.x": 37, "a.y": 18, "b": 40}))
    assert spread.note == "nodes: 5 fewer, all of it in a"
    everywhere = check(count(90, by_module={"a.x": 35, "a.y": 20, "b": 35}))
    assert everywhere.note == "nodes: 10 fewer, unexplained"


def test_a_count_at_another_batch_is_not_compared() -> None:
    found = check(count(400, batch=4))
    assert (found.agree, found.note) == (True, "nodes: fixed at batch 4, not compared")
    assert len(found.counts) == 1


def test_a_lower_bound_does_not_contradict_a_larger_count() -> None:
    uncounted = {"Det": "no formula"}
    assert check(count(90, uncounted=uncounted)).agree is None
    assert check(count(110, uncounted=uncounted)).agree is False
    assert check(count(110), uncounted=uncounted).agree is None


def test_absent_parameters_are_unused_or_folded() -> None:
    found = check(
        count(94, batch=None, accounted=6, absent=("u", "v", "w", "x", "y")), unused=("u",)
    )
    assert found.agree is True
    assert found.note == (
        "1 parameter tensors are never used by the forward pass; "
        "the exporter folded v, w, x and 1 more into constants"
    )


def test_one_count_alone_is_not_checked() -> None:
    assert cross_check([count(5)]) == ()
    assert cross_check([]) == ()


@pytest.mark.parametrize("name", ["layers", "onnx"])
def test_sections_count_parameters_and_macs(name: str) -> None:
    [section] = [section for section in SECTIONS if section.name == name]
    [model] = [model for model in full_report().models if model.name == "resnet50"]
    [outcome] = [each.outcome for each in model.sections if each.name == name]
    assert isinstance(outcome, Done)
    counts = section.counts(outcome.result)
    assert {each.figure for each in counts} <= {"parameters", "macs"}
    if name == "layers":
        assert [each.value for each in counts[:1]] == [outcome.result.parameters]


def test_what_an_exporter_computes_beforehand_does_not_contradict() -> None:
    modules = {"": 100, "a": 60, "a.parametrizations": 52, "a.parametrizations.weight.0": 52}
    found = check(count(48, by_module={"a": 8, "b": 40}), by_module=modules)
    assert (found.agree, found.note) == (True, "nodes: 52 fewer, in weights computed beforehand")
    assert check(count(40, by_module={"b": 40}), by_module=modules).agree is False
