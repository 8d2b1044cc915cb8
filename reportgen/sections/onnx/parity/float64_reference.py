"""Differences that are no more than rounding: float64 as the truth between PyTorch and the file.

Where values cancel, float32 itself is off by more than a tolerance allows, and two right programs
differ. Then neither side is the truth. The same PyTorch model in float64 is, as far as float32
can tell, and it says how far off PyTorch's own float32 is. A file that is no further off, but
for a small multiple, computes the same.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reportgen.sections.onnx.parity.case import Sides, copies
from reportgen.sections.onnx.parity.compare import excess, is_close
from reportgen.sections.onnx.parity.intermediates import look_inside
from reportgen.sections.onnx.parity.state import State
from reportgen.sections.onnx.parity.weight_mismatch import changed_weights
from reportgen.sections.onnx.result import OutputParity, ParityCase
from reportgen.units import format_error

if TYPE_CHECKING:
    from torch import Tensor, nn

_WORST = 4.0  # times PyTorch's own worst error, in units of what the tolerance allows
_USUAL = 3.0  # times its root mean square: what shifts every value a little shows there
_MOST_SHARE = 0.02  # of the largest value; what is further off is no number to compare with
_MOST_BYTES = 1_000_000_000  # of weights, which are copied twice as wide
_REPEATED = 0.1  # of the tolerance, between two calls of PyTorch


@dataclass(slots=True)
class _Errors:
    """How far the two sides are from the truth, over all cases of one output."""

    own: float = 0.0  # the worst, as a multiple of the tolerance
    file: float = 0.0
    own_squares: float = 0.0
    file_squares: float = 0.0
    own_absolute: float = 0.0
    file_absolute: float = 0.0
    largest: float = 0.0  # value

    def add(self, truth: Tensor, own: Tensor, file: Tensor, output: OutputParity) -> None:
        """One case more."""
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
        """Whether the file is about as far from the truth as PyTorch is, and both are near it."""
        return self._is_alike() and self._is_near()

    def told(self) -> str:
        """What the figures say."""
        if not self._is_alike():
            verdict = "more than rounding"
        elif self._is_near():
            verdict = "within PyTorch's own rounding error"
        else:
            verdict = "too few digits are left in float32 to tell rounding from a fault"
        return (
            f"{verdict}: from the same model in float64 PyTorch is off by up to "
            f"{format_error(self.own_absolute)}, the file by up to "
            f"{format_error(self.file_absolute)}"
        )

    def _is_alike(self) -> bool:
        usual = self.file_squares <= _USUAL**2 * self.own_squares
        return usual and self.file <= _WORST * self.own

    def _is_near(self) -> bool:
        return self.own_absolute <= _MOST_SHARE * self.largest


def excuse_rounding(cases: Sequence[ParityCase], sides: Sequence[Sides]) -> tuple[ParityCase, ...]:
    """`cases` with those outputs passed that differ by no more than float32 does from float64.

    Asks for a few calls more of both sides in every case, and is asked only where some output
    fails. Nothing is excused in a model that draws random numbers, in one that cannot run in
    float64, and in a file with a weight that is not the model's. Where the manifest asks for a
    tolerance, that one holds, and the figures are told only.

    Args:
        cases: all of one row, as they were compared.
        sides: those of each case, in the same order.
    """
    names = {output.name for case in cases for output in case.outputs if _may_be(output)}
    model = sides[0].context.model if sides else None
    if not names or model is None or _is_heavy(model) or _has_changed_weights(sides[0]):
        return tuple(cases)
    try:
        errors = _measure(cases, sides, names)
    except Exception:  # whatever a model does that was not made for float64
        return tuple(cases)
    asked = sides[0].context.spec.onnx.tolerance
    is_asked = asked.absolute is not None or asked.relative is not None
    return tuple(_judged(case, errors, is_asked=is_asked) for case in cases)


def _may_be(output: OutputParity) -> bool:
    is_float = output.dtype == "float32"
    return is_float and not output.passed and output.max_absolute_error is not None


def _is_heavy(model: nn.Module) -> bool:
    return sum(tensor.nbytes for tensor in model.parameters()) > _MOST_BYTES


def _has_changed_weights(sides: Sides) -> bool:
    """Whether a stored tensor is not the parameter whose name it bears."""
    if sides.runtime.replaced:
        return False
    sides.state.restore()
    inside = look_inside(sides.runtime.path)
    return any(changed_weights(inside, node, sides.context.model) for node in inside.nodes)


def _measure(
    cases: Sequence[ParityCase], sides: Sequence[Sides], names: set[str]
) -> dict[str, _Errors]:
    errors = {name: _Errors() for name in names}
    with _in_float64(sides[0].context.model) as twin:
        for case, each in zip(cases, sides, strict=True):
            for output, truth, own, file in _three(case, each, twin):
                if output.name in names:
                    errors[output.name].add(truth, own, file, output)
    return errors


def _three(
    case: ParityCase, sides: Sides, twin: tuple[nn.Module, State]
) -> Iterator[tuple[OutputParity, Tensor, Tensor, Tensor]]:
    """Every output in float64, in PyTorch's float32 and in the file's."""
    if not case.outputs:
        return
    own, again = _called(sides), _called(sides)
    model, state = twin
    state.restore()
    examples = sides.examples()
    truth = sides.named(model(*_widened(examples.args), **_widened(examples.kwargs)))
    found = dict(zip(own, sides.run(), strict=True))
    for output in case.outputs:
        name = output.name
        tolerance = output.absolute_tolerance, output.relative_tolerance
        if excess(own[name], again[name], *tolerance) > _REPEATED:
            raise ValueError(f"{name} is another one in every call")
        yield output, truth[name], own[name], found[name]


def _called(sides: Sides) -> dict[str, Tensor]:
    """The outputs of one call, which may draw nothing.

    Raises:
        ValueError: the call moves torch's random state.
    """
    sides.state.restore()
    outputs = copies(sides.named(sides.call()))
    if sides.drew:
        raise ValueError("the model draws random numbers")
    return outputs


@contextmanager
def _in_float64(model: nn.Module) -> Iterator[tuple[nn.Module, State]]:
    """A copy of the model in float64, while what it makes by itself is float64 too."""
    import torch

    before = torch.get_default_dtype()
    twin = copy.deepcopy(model).double()
    torch.set_default_dtype(torch.float64)
    try:
        yield twin, State(twin)
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
    """The sum of squared errors in units of the tolerance; Inf where NaN or Inf are misplaced."""
    a, b = truth.double(), other.double()
    finite = a.isfinite() & b.isfinite()
    if not bool(is_close(a, b, absolute, relative)[~finite].all()):
        return math.inf
    a, b = a[finite], b[finite]
    return float((((a - b) / (absolute + relative * a.abs())) ** 2).sum())


def _judged(case: ParityCase, errors: dict[str, _Errors], *, is_asked: bool) -> ParityCase:
    outputs = tuple(
        _with_verdict(output, errors[output.name], is_asked=is_asked)
        if output.name in errors and _may_be(output)
        else output
        for output in case.outputs
    )
    passed = case.passed or (bool(outputs) and all(output.passed for output in outputs))
    return replace(case, outputs=outputs, passed=passed)


def _with_verdict(output: OutputParity, found: _Errors, *, is_asked: bool) -> OutputParity:
    passed = found.is_rounding and not is_asked
    parts = (output.note, found.told())
    note = "; ".join(filter(None, reversed(parts) if passed else parts))
    return replace(output, passed=passed, within_rounding=passed, note=note)
