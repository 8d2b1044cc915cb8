"""The rules on an ONNX file by itself: what they say, and what they let pass."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_values import onnx
from report_values.onnx_file import BAD_FILES, clean_file

from reportgen.findings import Finding
from reportgen.sections.onnx.file_result import (
    Duplicate,
    FileResult,
    Fp16Tensor,
    MissingKernel,
    StoredTensor,
)
from reportgen.sections.onnx.rules_file import FILE_RULES

CLEAN = clean_file()


def judge(file: FileResult, **changes: Any) -> list[Finding]:
    result = replace(onnx(), file=replace(file, **{"initializer_bytes": 1000, **changes}))
    return [finding for rule in FILE_RULES for finding in rule.findings(result)]


def test_a_clean_file_has_no_finding() -> None:
    assert judge(CLEAN) == []


@pytest.mark.parametrize("code", BAD_FILES)
def test_a_bad_file_is_found_by_its_rule_alone(code: str) -> None:
    assert [finding.code for finding in judge(BAD_FILES[code])] == [code]


def test_every_rule_on_the_file_has_its_bad_file() -> None:
    assert [rule.code for rule in FILE_RULES] == list(BAD_FILES)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("ONX014", "20 B (2.0 %) are never used: leftover"),
        ("ONX015", "20 B (2.0 %) are duplicates, first of a, b"),
        ("ONX016", "no CPU kernel for 2 nodes of Conv (opset 11) in bfloat16, first in stem"),
        ("ONX017", "3 of 5 values would become infinite in float16"),
        (
            "ONX018",
            "no CUDA kernel for 2 nodes of Conv (opset 11) in bfloat16, first in stem: "
            "they are run on the CPU, with copies between the devices",
        ),
    ],
)
def test_a_finding_says_how_much_and_where(code: str, message: str) -> None:
    assert judge(BAD_FILES[code])[0].message == message


def test_a_little_waste_is_let_pass() -> None:
    for code in ("ONX014", "ONX015"):
        assert judge(BAD_FILES[code], initializer_bytes=2001) == []  # 20 B are less than 1 % of it


def test_copies_of_one_repeated_value_are_let_pass() -> None:
    fresh = Duplicate(names=("a", "b"), dtype="float32", shape=(9,), wasted_bytes=500, uniform=True)
    assert judge(replace(CLEAN, inventory=replace(CLEAN.inventory, duplicates=(fresh,)))) == []


def test_weights_that_were_not_read_are_no_finding() -> None:
    unread = replace(CLEAN.inventory, duplicates=None, not_read="too large")
    fp16 = replace(CLEAN.fp16, elements=None)
    assert judge(replace(CLEAN, inventory=unread, fp16=fp16)) == []


def test_a_node_that_onnxruntime_helps_itself_with_is_no_finding() -> None:
    cast = MissingKernel(
        operator="Relu", since=14, dtypes=("float16",), nodes=1, fallback="cast to float32 and back"
    )
    cpu, cuda = CLEAN.providers
    assert judge(replace(CLEAN, providers=(replace(cpu, missing_kernels=(cast,)), cuda))) == []


def test_the_fill_of_a_mask_may_become_infinite() -> None:
    fill = Fp16Tensor(name="fill", overflowing=1, flushed=0, elements=1)
    assert judge(replace(CLEAN, fp16=replace(CLEAN.fp16, overflowing=1, tensors=(fill,)))) == []


@pytest.mark.parametrize(("flushed", "codes"), [(10, []), (11, ["ONX017"])])
def test_values_that_turn_to_zero_count_from_one_per_cent_on(
    flushed: int, codes: list[str]
) -> None:
    found = judge(replace(CLEAN, fp16=replace(CLEAN.fp16, elements=1000, flushed=flushed)))
    assert [finding.code for finding in found] == codes


def test_many_names_are_cut_short() -> None:
    unused = tuple(
        StoredTensor(name=f"t{index}", dtype="float32", shape=(5,), bytes=20) for index in range(5)
    )
    found = judge(replace(CLEAN, inventory=replace(CLEAN.inventory, unused=unused)))
    assert found[0].message == "100 B (10.0 %) are never used: t0, t1, t2 and 2 more"
