"""Rules that are tried on fewer nodes rewrite a graph as onnxscript alone does."""

from __future__ import annotations

import onnx
import onnx_ir
import pytest
from onnxscript import optimizer, rewriter

from reportgen.onnx.export.rewriting import rules_by_operator

SOURCE = """
<ir_version: 10, opset_import: ["": 18]>
net (float[2, 3, 8] x) => (float[2, 3, 4] sum, float[6, 8] flat, float[2, 3, 8] y) {
    zero = Constant <value = int64[1] {0}> ()
    four = Constant <value = int64[1] {4}> ()
    eight = Constant <value = int64[1] {8}> ()
    axis = Constant <value = int64[1] {2}> ()
    low = Slice (x, zero, four, axis)
    high = Slice (x, four, eight, axis)
    sum = Add (low, high)
    first = Constant <value = int64[2] {3, 16}> ()
    middle = Reshape (x, first)
    last = Constant <value = int64[2] {6, 8}> ()
    flat = Reshape (middle, last)
    swapped = Transpose <perm = [0, 2, 1]> (x)
    back = Transpose <perm = [0, 2, 1]> (swapped)
    positive = Relu (back)
    y = Relu (positive)
}
"""


def optimized() -> onnx_ir.Model:
    model = onnx_ir.from_onnx_text(SOURCE)
    optimizer.optimize_ir(model)
    return model


def test_the_graph_is_the_same_as_with_every_rule_on_every_node() -> None:
    plain = optimized()
    with rules_by_operator():
        filtered = optimized()
    assert onnx_ir.to_proto(filtered).SerializeToString(deterministic=True) == onnx_ir.to_proto(
        plain
    ).SerializeToString(deterministic=True)
    # one Reshape of two, no Transpose, one Relu of two
    assert [node.op_type for node in filtered.graph] == ["Slice", "Slice", "Add", "Reshape", "Relu"]
    onnx.checker.check_model(onnx_ir.to_proto(filtered), full_check=True)


def test_onnxscripts_rules_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = rewriter._DEFAULT_REWRITE_RULES
    with pytest.raises(ZeroDivisionError), rules_by_operator():
        optimizer.optimize_ir(1 / 0)
    assert rewriter._DEFAULT_REWRITE_RULES is before
    monkeypatch.delattr(rewriter, "_DEFAULT_REWRITE_RULES")
    with rules_by_operator():  # another version of onnxscript
        assert not hasattr(rewriter, "_DEFAULT_REWRITE_RULES")
