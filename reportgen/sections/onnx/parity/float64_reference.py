"""Accepts differences that are float32 rounding, with the float64 model as the reference.

Where values cancel, float32 rounding exceeds the tolerance and two correct programs differ. The
same PyTorch model in float64 shows how far off PyTorch's own float32 is. A file whose error is at
most a small multiple of that computes the same function.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reportgen.sections.onnx.parity.case import CaseRun, copies
from reportgen.sections.onnx.parity.compare import excess, is_close
from reportgen.sections.onnx.parity.divergence.intermediates import load_file_graph
from reportgen.sections.onnx.parity.divergence.suspects import weight_mismatches
from reportgen.sections.onnx.parity.state import State
from reportgen.sections.onnx.parity_result import OutputParity, ParityCase
from reportgen.units import format_error

if TYPE_CHECKING:
    from torch import Tensor, nn

_WORST = 4.0  # times PyTorch's own worst error, in units of what the tolerance allows
_USUAL = 3.0  # times its root mean square: what shifts every value a little shows there
_MOST_SHARE = 0.02  # of the largest value: beyond it float32 itself has too few correct digits
_MOST_BYTES = 1_000_000_000  # of weights: their float64 copy takes twice that
_REPEATED = 0.1  # of the tolerance, between two calls of PyTorch


@dataclass(slots=True)
class _Errors:
    """Errors of PyTorch's float32 and of the file against float64, over all cases of an output."""

    own: float = 0.0  # the worst, as a multiple of the tolerance
    file: float = 0.0
    own_squares: float = 0.0
    file_squares: float = 0.0
    own_absolute: float = 0.0
    file_absolute: float = 0.0
    largest: float = 0.0  # value

    def add(self, truth: Tensor, own: Tensor, file: Tensor, output: OutputParity) -> None:
        """Add one case."""
        tolerance = output.absolute_tolerance, output.relative_tolerance
        self.own = max(self.own, excess(truth, own, *tolerance))
        self.file = max(self.file, excess(truth, file, *tolerance))
        self.own_squares += _squares(truth, own, *tolerance)
        self.file_squares += _squares(truth, file, *tolerance)
        self.own_absolute = max(self.own_absolute, _furthest(truth, own))
        self.file_absolute = max(self.file_absolute, _furthest(truth, file))
        self.largest = max(self.largest, _furthest(truth, truth * 0))

    @property
    def is_rounding(self) -> bool:
        """Whether the file is about as far from float64 as PyTorch is, and both are near it."""
        return self._is_comparable() and self._is_near()

    def describe(self) -> str:
        """The verdict with its figures."""
        if not self._is_comparable():
            verdict = "more than rounding"
        elif self._is_near():
            verdict = "within PyTorch's own rounding error"
        else:
            verdict = "float32 leaves too few digits to distinguish rounding from an error"
        return (
            f"{verdict}: compared with the model in float64, PyTorch's error is up to "
            f"{format_error(self.own_absolute)}, the file's up to "
            f"{format_error(self.file_absolute)}"
        )

    def _is_comparable(self) -> bool:
        # a wrong constant may shift every value by less than the worst error: the squares show it
        usual = self.file_squares <= _USUAL**2 * self.own_squares
        return usual and self.file <= _WORST * self.own

    def _is_near(self) -> bool:
        return self.own_absolute <= _MOST_SHARE * self.largest


def accept_rounding(
    cases: Sequence[ParityCase], case_runs: Sequence[CaseRun]
) -> tuple[ParityCase, ...]:
    """`cases` with those outputs passed that differ by no more than float32 does from float64.

    Costs a few more calls per case, so call it only if an output fails. Nothing is accepted if the
    model draws random numbers or cannot run in float64, or if the file has a weight that differs
    from the model's. A tolerance in the manifest takes precedence; the figures are then only noted.

    Args:
        cases: all cases of one comparison.
        case_runs: the runs of each case, in the same order.
    """
    names = {o.name for case in cases for o in case.outputs if _may_be_rounding(o)}
    model = case_runs[0].context.model if case_runs else None
    if not names or model is None or _is_heavy(model) or _has_weight_mismatches(case_runs[0]):
        return tuple(cases)
    try:
        errors = _measure(cases, case_runs, names)
    except Exception:  # the model may not support float64
        return tuple(cases)
    requested = case_runs[0].context.spec.onnx.tolerance
    is_requested = requested.absolute is not None or requested.relative is not None
    return tuple(_assess(case, errors, is_requested=is_requested) for case in cases)


def _may_be_rounding(output: OutputParity) -> bool:
    is_float = output.dtype == "float32"
    return is_float and not output.passed and output.max_absolute_error is not None


def _is_heavy(model: nn.Module) -> bool:
    return sum(tensor.nbytes for tensor in model.parameters()) > _MOST_BYTES


def _has_weight_mismatches(case_run: CaseRun) -> bool:
    """Whether a stored tensor differs from the parameter of its name."""
    if case_run.runtime.replaced:  # the session has the model's perturbed values, not the file's
        return False
    case_run.state.restore()  # the call may have moved running statistics
    file_graph = load_file_graph(case_run.runtime.path)
    return any(
        weight_mismatches(file_graph, node, case_run.context.model) for node in file_graph.nodes
    )


def _measure(
    cases: Sequence[ParityCase], case_runs: Sequence[CaseRun], names: set[str]
) -> dict[str, _Errors]:
    errors = {name: _Errors() for name in names}
    with _in_float64(case_runs[0].context.model) as model64:
        for case, each in zip(cases, case_runs, strict=True):
            for output, truth, own, file in _references(case, each, model64):
                if output.name in names:
                    errors[output.name].add(truth, own, file, output)
    return errors


def _references(
    case: ParityCase, case_run: CaseRun, model64: tuple[nn.Module, State]
) -> Iterator[tuple[OutputParity, Tensor, Tensor, Tensor]]:
    """Every output in float64, in PyTorch's float32 and in the file's."""
    if not case.outputs:
        return
    # twice: a model may change with every call without moving torch's generator
    own, again = _deterministic_outputs(case_run), _deterministic_outputs(case_run)
    model, state = model64
    state.restore()
    examples = case_run.examples()
    truth = case_run.named(model(*_widened(examples.args), **_widened(examples.kwargs)))
    found = dict(zip(own, case_run.run(), strict=True))
    for output in case.outputs:
        name = output.name
        tolerance = output.absolute_tolerance, output.relative_tolerance
        if excess(own[name], again[name], *tolerance) > _REPEATED:
            raise ValueError(f"{name} changes with every call")
        yield output, truth[name], own[name], found[name]


def _deterministic_outputs(case_run: CaseRun) -> dict[str, Tensor]:
    case_run.state.restore()
    outputs = copies(case_run.named(case_run.call()))
    if case_run.drew:
        raise ValueError("the model draws random numbers")
    return outputs


@contextmanager
def _in_float64(model: nn.Module) -> Iterator[tuple[nn.Module, State]]:
    """A copy of the model in float64."""
    import torch

    before = torch.get_default_dtype()
    model64 = copy.deepcopy(model).double()
    torch.set_default_dtype(torch.float64)  # for tensors that the model makes in its forward
    try:
        yield model64, State(model64)
    finally:
        torch.set_default_dtype(before)


def _widened(arguments: Any) -> Any:
    import torch
    from torch.utils._pytree import tree_map_only

    return tree_map_only(
        torch.Tensor, lambda t: t.double() if t.dtype.is_floating_point else t, arguments
    )


def _furthest(truth: Tensor, other: Tensor) -> float:
    apart = (truth.double() - other.double()).abs()
    finite = apart[apart.isfinite()]
    return float(finite.max()) if finite.numel() else 0.0


def _squares(truth: Tensor, other: Tensor, absolute: float, relative: float) -> float:
    """The sum of squared errors in units of the tolerance; Inf if NaN or Inf are misplaced."""
    a, b = truth.double(), other.double()
    finite = a.isfinite() & b.isfinite()
    if not bool(is_close(a, b, absolute, relative)[~finite].all()):
        return math.inf
    a, b = a[finite], b[finite]
    return float((((a - b) / (absolute + relative * a.abs())) ** 2).sum())


def _assess(case: ParityCase, errors: dict[str, _Errors], *, is_requested: bool) -> ParityCase:
    outputs = tuple(
        _with_verdict(output, errors[output.name], is_requested=is_requested)
        if output.name in errors and _may_be_rounding(output)
        else output
        for output in case.outputs
    )
    passed = case.passed or (bool(outputs) and all(output.passed for output in outputs))
    return replace(case, outputs=outputs, passed=passed)


def _with_verdict(output: OutputParity, found: _Errors, *, is_requested: bool) -> OutputParity:
    passed = found.is_rounding and not is_requested
    # the reason of the verdict first: rounding if it passes, the failed values if not
    parts = (output.note, found.describe())
    note = "; ".join(filter(None, reversed(parts) if passed else parts))
    return replace(output, passed=passed, within_rounding=passed, note=note)
