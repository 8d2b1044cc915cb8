"""Every rule of the ONNX section: a result that breaks it, and one that must not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from report_values.onnx_file import BAD_FILES, clean_file

from reportgen.findings import Finding, Severity
from reportgen.onnx.export import ExportAttempt
from reportgen.sections.onnx import SECTION, OnnxResult
from reportgen.sections.onnx.parity_result import (
    Divergence,
    FusedPath,
    OutputParity,
    Parity,
    ParityCase,
    SecondCall,
    StateChange,
)
from reportgen.sections.onnx.result import ExportResult

OUTPUT = OutputParity(
    name="logits",
    dtype="float32",
    shape=(1, 3),
    max_absolute_error=1e-7,
    max_relative_error=1e-7,
    absolute_tolerance=1e-4,
    relative_tolerance=1e-3,
    passed=True,
    vacuous=False,
    note="",
)
CASE = ParityCase(
    batch=1,
    seed=0,
    perturbed=False,
    max_absolute_error=1e-7,
    max_relative_error=1e-7,
    passed=True,
    outputs=(OUTPUT,),
)
GOOD = OnnxResult(
    file=clean_file(),
    export=ExportResult(
        dynamic=("batch",),
        strategy="torch.export, dynamic batch",
        requested_dynamic=("batch",),
        requested_opset=20,
    ),
    parity=Parity(passed=True, vacuous=False, cases=(CASE, replace(CASE, batch=3)), note=""),
    performance=None,
)


def with_file(**changes: Any) -> OnnxResult:
    return replace(GOOD, file=replace(GOOD.file, **changes))


def with_export(result: OnnxResult = GOOD, **changes: Any) -> OnnxResult:
    return replace(result, export=replace(result.export, **changes))


def with_output(passed: bool = True, **changes: Any) -> OnnxResult:
    """GOOD with a second case of batch 3 that has a changed output."""
    output = replace(OUTPUT, **{"passed": passed, **changes})
    case = replace(CASE, batch=3, outputs=(output,), passed=passed)
    vacuous = bool(changes.get("vacuous"))
    first = replace(CASE, outputs=(replace(OUTPUT, vacuous=vacuous),))
    parity = Parity(passed=passed, vacuous=vacuous, cases=(first, case), note="")
    return replace(GOOD, parity=parity)


def judge(result: OnnxResult) -> list[Finding]:
    return [finding for rule in SECTION.rules for finding in rule.findings(result)]


STATEFUL = SecondCall(
    pytorch_repeats=False, file_repeats=True, state=(StateChange(path="steps", kind="buffer"),)
)

TIMED = with_export(dynamic=("batch", "time"))
STOPPED = replace(
    CASE,
    batch=3,
    dims={"time": 5},
    passed=False,
    outputs=(),
    note="onnxruntime fails: the input cannot be reshaped",
)

BAD_PARITIES = {
    "ONX020": replace(GOOD.parity, second_call=STATEFUL),
    "ONX021": replace(GOOD.parity, compared_dtype="float32"),
    "ONX022": replace(GOOD.parity, second_call=replace(STATEFUL, state=())),
}
BAD = {
    "ONX001": with_output(
        passed=False, max_absolute_error=0.5, note="7 of 9 values beyond the tolerance"
    ),
    "ONX002": with_output(vacuous=True),
    "ONX003": with_export(
        dynamic=(), fixed_dims={"batch": "batch could not be made dynamic: axis 0"}
    ),
    "ONX004": with_export(with_file(opset=13), requested_opset=13),
    "ONX005": with_file(invalid="Unrecognized attribute: nonsense"),
    "ONX006": with_file(custom_operators=("com.example.Fancy",)),
    "ONX007": with_file(random_operators=("Dropout in head.drop",)),
    "ONX008": replace(
        GOOD, parity=Parity(passed=None, vacuous=False, cases=(), note="", not_run="bfloat16")
    ),
    "ONX009": with_output(
        nan_values=2, note="2 NaN and 0 infinite values, at the same places in both"
    ),
    "ONX010": with_export(training_modules=("head.drop (Dropout)",)),
    "ONX011": with_file(external_file="model.onnx.data"),
    "ONX012": with_file(opset=18),
    "ONX013": replace(
        GOOD,
        parity=Parity(
            passed=True, vacuous=False, cases=(CASE, CASE), note="PyTorch itself fails at batch 3"
        ),
    ),
    **{code: replace(GOOD, file=file) for code, file in BAD_FILES.items()},
    **{code: replace(GOOD, parity=parity) for code, parity in BAD_PARITIES.items()},
    "ONX023": with_output(within_rounding=True, note="within PyTorch's own rounding error: …"),
    "ONX024": replace(
        GOOD,
        parity=replace(
            GOOD.parity,
            fused_path=FusedPath(
                passed=False, batch=2, seed=0, output="logits", max_absolute_error=0.38
            ),
        ),
    ),
    "ONX025": replace(GOOD, parity=replace(GOOD.parity, autocast="torch.autocast at net.py:16")),
    "ONX026": with_output(undecided=True, max_absolute_error=None),
    "ONX030": replace(
        with_export(TIMED, proven_dynamic=("batch",)),
        parity=replace(GOOD.parity, passed=False, cases=(*GOOD.parity.cases, STOPPED)),
    ),
    "ONX031": with_export(TIMED, proven_dynamic=("batch",)),
    "ONX032": with_export(structure_only=True),
    "ONX033": with_export(
        model_patches=("cache off",),
        attempts=(
            ExportAttempt(strategy="torch.export", error="the model returns a DynamicCache"),
            ExportAttempt(strategy="torch.export, cache off", error=""),
        ),
    ),
    "ONX034": with_export(decomposed_operators=("aten.cdist",)),
    "ONX035": replace(
        with_export(from_module=False),
        parity=Parity(passed=None, vacuous=False, cases=(), note="", not_run="no such operator"),
    ),
    "ONX036": replace(
        with_export(
            with_file(
                custom_operators=("mmdeploy.GridPriors",),
                library_operators=("mmdeploy.GridPriors",),
            ),
            from_module=False,
        ),
        parity=Parity(passed=None, vacuous=False, cases=(), note="", not_run="no such operator"),
    ),
    "ONX037": with_export(traced=True, fixed_decisions=("net.py:12: if x.sum() > 0:",)),
}
BROKEN_TOO = {"ONX030": ["ONX001"]}  # what a rule's bad file cannot but break as well


def test_a_good_file_is_no_finding() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize("code", BAD)
def test_a_bad_file_is_found_by_its_rule_alone(code: str) -> None:
    found = [finding.code for finding in judge(BAD[code])]
    assert found == [*BROKEN_TOO.get(code, ()), code]


def test_every_rule_has_its_bad_file() -> None:
    # the others have an example, which test_rules.py runs
    codes = [rule.code for rule in SECTION.rules if rule.code in BAD or rule.example is None]
    assert codes == list(BAD)


def test_only_wrong_and_invalid_files_are_errors() -> None:
    errors = [rule.code for rule in SECTION.rules if rule.severity == Severity.ERROR]
    assert errors == ["ONX001", "ONX005", "ONX030"]


def test_a_failing_parity_names_output_case_and_error() -> None:
    [finding] = judge(BAD["ONX001"])
    assert finding.where == "logits"
    assert finding.message == (
        "1 of 2 cases fail; at batch 3, seed 0 logits is off by up to 5.0e-01: "
        "7 of 9 values beyond the tolerance"
    )


def test_a_failing_parity_names_the_smallest_output_and_where_it_diverges() -> None:
    large = replace(OUTPUT, name="features", shape=(3, 900), passed=False)
    small = replace(OUTPUT, name="logits", shape=(3, 2), passed=False)
    case = replace(CASE, passed=False, outputs=(large, small))
    place = Divergence(
        output="logits", batch=1, seed=0, cause="file", sentences=("fc (Linear) is the first",)
    )
    parity = replace(GOOD.parity, passed=False, cases=(case, CASE), divergence=place)
    finding = next(one for one in judge(replace(GOOD, parity=parity)) if one.code == "ONX001")
    assert finding.where == "logits"
    assert finding.message.endswith("; fc (Linear) is the first")


def test_state_without_effect_on_the_output_is_no_finding() -> None:
    harmless = replace(STATEFUL, pytorch_repeats=True)
    assert judge(replace(GOOD, parity=replace(GOOD.parity, second_call=harmless))) == []


def test_a_case_without_outputs_says_what_happened() -> None:
    case = replace(CASE, passed=False, outputs=(), note="onnxruntime fails: bad Reshape")
    cases = (case, replace(case, batch=3))
    parity = replace(GOOD.parity, passed=False, cases=cases, note="in train mode: 1 (Dropout)")
    [finding] = judge(replace(GOOD, parity=parity))
    assert "onnxruntime fails: bad Reshape (in train mode: 1 (Dropout))" in finding.message


def test_a_dim_that_is_dynamic_in_name_only_is_named_with_its_size() -> None:
    finding = judge(BAD["ONX030"])[-1]
    assert finding.where == "time"
    assert finding.message == (
        "time is declared dynamic, but at time 5 the file fails: onnxruntime fails: "
        "the input cannot be reshaped"
    )


def test_a_batch_that_stops_the_file_is_dynamic_in_name_only() -> None:
    cases = (CASE, replace(STOPPED, dims={}))
    parity = replace(GOOD.parity, passed=False, cases=cases)
    found = [one for one in judge(replace(GOOD, parity=parity)) if one.code == "ONX030"]
    assert [finding.where for finding in found] == ["batch"]


def test_a_dim_that_agreed_at_another_size_is_no_finding() -> None:
    moved = replace(CASE, batch=3, dims={"time": 5})
    parity = replace(GOOD.parity, cases=(*GOOD.parity.cases, moved))
    assert judge(replace(with_export(TIMED, proven_dynamic=("batch", "time")), parity=parity)) == []


def test_infinite_values_alone_are_no_finding() -> None:
    note = "0 NaN and 6 infinite values, at the same places in both"
    assert judge(with_output(note=note)) == []


def test_a_dim_given_up_is_told_with_the_exporters_reason() -> None:
    [finding] = judge(BAD["ONX003"])
    assert (finding.where, finding.message) == ("batch", "batch could not be made dynamic: axis 0")


def test_a_fixed_batch_that_was_asked_for_is_no_finding() -> None:
    assert judge(with_export(dynamic=(), requested_dynamic=())) == []


def test_a_model_that_keeps_state_is_not_said_to_fix_a_dim() -> None:
    stateful = replace(BAD["ONX030"].parity, second_call=STATEFUL)
    found = {one.code for one in judge(replace(BAD["ONX030"], parity=stateful))}
    assert "ONX020" in found
    assert "ONX030" not in found


def test_an_operator_of_another_domain_of_onnx_is_not_called_foreign() -> None:
    result = with_file(custom_operators=("ai.onnx.ml.Scaler", "com.example.Fancy"))
    rule = next(rule for rule in SECTION.rules if rule.code == "ONX006")
    assert [hit.message for hit in rule.check(result)] == [
        "ai.onnx.ml.Scaler is in an ONNX domain that many runtimes do not implement",
        "com.example.Fancy is not a standard operator",
    ]


def test_a_missing_library_is_named_with_its_operators() -> None:
    [finding] = judge(BAD["ONX036"])
    assert finding.where == "mmdeploy"
    assert finding.message == (
        "GridPriors: onnxruntime needs a library of custom operators, "
        "mmdeploy's (mmdeploy_onnxruntime_ops)"
    )
    assert "register_custom_ops_library" in finding.advice


def test_a_file_without_standard_operators_has_no_old_opset() -> None:
    assert judge(with_export(with_file(opset=0), requested_opset=0)) == []
    foreign = with_file(opset=11, operators={"acme.Fancy": 1})
    assert judge(with_export(foreign, requested_opset=11)) == []


def test_a_source_that_fails_at_a_second_batch_is_one_error() -> None:
    failing = with_export(from_module=False, failing_batch=2, batch_failure="y has size 1")
    [finding] = judge(failing)
    assert (finding.code, finding.where) == ("ONX030", "batch")
    assert finding.message == (
        "batch is declared dynamic, but at batch 2 the file fails: y has size 1"
    )
