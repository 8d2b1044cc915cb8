"""The ways round: every replacement that is named exports, and computes what it replaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from factories import make_spec
from torch import Tensor, nn

from reportgen.errors import SectionError
from reportgen.model_state import preserve_model_state
from reportgen.onnx.export import export_onnx
from reportgen.onnx.export.unsupported_ops import _WORKAROUNDS, workaround

Function = Callable[[Tensor], Tensor]


def most_frequent(x: Tensor) -> Tensor:
    rounded = x.round()
    counts = (rounded.unsqueeze(-1) == rounded.unsqueeze(-2)).sum(-1)
    return rounded.gather(-1, counts.argmax(-1, keepdim=True)).squeeze(-1)


def count_of_most_frequent(mode: Tensor, x: Tensor) -> Tensor:
    return (x.round() == mode.unsqueeze(-1)).sum(-1)


REPLACEMENTS: dict[str, tuple[Function, Function]] = {
    "mode": (
        lambda x: count_of_most_frequent(torch.mode(x.round()).values, x),
        lambda x: count_of_most_frequent(most_frequent(x), x),
    ),
}


class Applied(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self._function = function

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


@pytest.mark.slow
@pytest.mark.parametrize("operator", REPLACEMENTS)
def test_a_replacement_exports_and_computes_what_it_replaces(operator: str, tmp_path: Path) -> None:
    original, replacement = map(Applied, REPLACEMENTS[operator])
    spec = make_spec("x=batch,4,4", batch=2)
    with pytest.raises(SectionError, match=operator), preserve_model_state(original):
        export_onnx(original, spec, tmp_path)
    with preserve_model_state(replacement):
        file = export_onnx(replacement, spec, tmp_path)
    x = torch.randn(2, 4, 4)
    session = onnxruntime.InferenceSession(str(file.path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(found, original(x).numpy(), rtol=1e-3, atol=1e-4)


def test_operators_with_a_known_way_round_have_no_onnx_form_in_this_torch() -> None:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    known = {
        str(target).split(".")[1]
        for target, entries in ONNXRegistry.from_torchlib().functions.items()
        if "." in str(target) and not all(entry.is_complex for entry in entries)
    }
    partly = {"roi_pool", "equal"}  # some overload or argument has one
    assert known & set(_WORKAROUNDS) - partly == set()


@pytest.mark.parametrize(
    ("operator", "way"),
    [
        ("aten.linalg_qr.default", "matrix factorizations"),
        ("prims.bessel_j0.default", "no runtime implements this function"),
        ("mine.twice.default", "a custom operator"),
        ("aten.some_new_one.default", "custom_translation_table"),
        ("quantized.linear_dynamic.default", "onnxruntime.quantization"),
    ],
)
def test_an_operator_of_a_known_kind_has_a_way_round_of_its_kind(operator: str, way: str) -> None:
    assert way in workaround(operator)
