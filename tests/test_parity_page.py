"""The parity part of a page: what fails comes first, with the place where it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from report_values import model, onnx, sections, small_report
from report_values.parity import DIVERGENCE, HISTOGRAM

from reportgen.render import render_model
from reportgen.sections.onnx import OnnxResult
from reportgen.sections.onnx.page import error_bins, parity_rows


def failing() -> OnnxResult:
    """An export of which the last output of the last case fails."""
    good = onnx()
    *others, last = good.parity.cases
    output = replace(last.outputs[0], passed=False, max_absolute_error=0.31)
    parity = replace(
        good.parity,
        passed=False,
        cases=(*others, replace(last, passed=False, outputs=(last.outputs[0], output))),
        failure="at batch 8, seed 1 logits (8 × 1000) is off by up to 3.1e-01",
        divergence=DIVERGENCE,
    )
    return replace(good, parity=parity)


def test_a_broken_parity_shows_where_the_file_leaves_pytorch(tmp_path: Path) -> None:
    report = small_report()
    broken = model("broken", "fail", sections=sections(onnx=failing()))
    page = render_model(replace(report, models=(broken,)), broken, tmp_path)
    assert "encoder.layers.1.linear2 (Linear) is the first module whose output differs" in page
    assert "the first diverging node is Gemm node_linear_7" in page
    assert "off by up to 3.1e-01" in page


def test_failing_outputs_are_the_first_rows() -> None:
    rows, left_out = parity_rows(failing().parity.cases)
    assert [row.output.passed for row in rows] == [False, True, True, True, True]
    assert left_out == 0


def test_of_very_many_rows_the_first_are_shown_and_the_rest_counted() -> None:
    case = onnx().parity.cases[0]
    rows, left_out = parity_rows([replace(case, outputs=case.outputs * 100)])
    assert (len(rows) + left_out, left_out > 0) == (100, True)


def test_a_histogram_is_drawn_from_its_first_filled_bin_to_its_last() -> None:
    drawn = error_bins(HISTOGRAM.ulps, "Elements by distance")
    assert "64 – 255" in drawn
    assert "65,536 and more" not in drawn
    assert "304 (30.4 %)" in drawn
