"""PyTorch with its fused encoder path, as it runs for inference, against the file.

In evaluation mode without gradients, `nn.TransformerEncoder` and `nn.MultiheadAttention` use a
fused implementation, which the exporters cannot trace. The file is compared without it. It may
return other values: at padded positions it returns zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from reportgen.error_text import one_line
from reportgen.sections.onnx.parity.compare import compare
from reportgen.sections.onnx.parity_result import FusedPath, ParityCase

if TYPE_CHECKING:
    from torch import nn

    from reportgen.sections.onnx.parity.case import CaseRun


def has_fused_path(model: nn.Module) -> bool:
    """Whether a module of `model` has a fused path, and the user has not disabled it."""
    import torch
    from torch import nn

    kinds = (nn.MultiheadAttention, nn.TransformerEncoder, nn.TransformerEncoderLayer)
    enabled = torch.backends.mha.get_fastpath_enabled()
    return enabled and any(isinstance(module, kinds) for module in nn.Module.modules(model))


def compare_fused(case_run: CaseRun, case: ParityCase) -> FusedPath | None:
    """The file's outputs against one call of PyTorch with its fused path; None without outputs."""
    if not case.outputs:
        return None
    try:
        with _fused_path():
            case_run.state.restore()
            reference = case_run.named(case_run.call())
    except Exception as error:  # the model's own code: any class
        return _result(case, note=f"PyTorch fails with it: {one_line(error)}")
    finally:
        case_run.state.restore()
    tolerance = case_run.context.spec.onnx.tolerance
    outputs = [
        compare(name, tensor, given, tolerance, case_run.computed).parity
        for (name, tensor), given in zip(reference.items(), case_run.found, strict=True)
    ]
    worst = max(outputs, key=lambda output: (not output.passed, output.max_absolute_error or 0.0))
    return _result(
        case,
        passed=worst.passed,
        output=worst.name,
        max_absolute_error=worst.max_absolute_error,
        note=worst.note,
    )


def _result(
    case: ParityCase, *, passed: bool = False, output: str = "",
    max_absolute_error: float | None = None, note: str = "",
) -> FusedPath:  # fmt: skip
    return FusedPath(
        passed=passed,
        batch=case.batch,
        seed=case.seed,
        output=output,
        max_absolute_error=max_absolute_error,
        note=note,
    )


def worse_of(a: FusedPath | None, b: FusedPath | None) -> FusedPath | None:
    """The failing one, or that with the larger error."""
    both = [each for each in (a, b) if each is not None]
    return max(
        both, key=lambda each: (not each.passed, each.max_absolute_error or 0.0), default=None
    )


@contextmanager
def _fused_path() -> Iterator[None]:
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(True)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
