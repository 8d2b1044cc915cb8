"""float16 readiness: stored values out of range, and operators known to overflow.

float16 holds magnitudes up to 65,504 and, with all 11 bits, down to 2**-14. Rounding to nearest
makes infinity of 65,520 and more, and zero of 2**-25 and less.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reportgen.sections.onnx.file_result import Fp16Readiness, Fp16Risk, Fp16Tensor
from reportgen.sections.onnx.inspection.graph import TensorData, TypedNode, module_path, outputs_of

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

LARGEST = 65504.0
BECOMES_INFINITE = 65520.0
BECOMES_ZERO = 2.0**-25
SMALLEST_NORMAL = 2.0**-14
_WIDER = ("float32", "float64", "bfloat16")
_CHUNK = 1 << 22  # elements at a time, so that no second copy of a weight exists
_WORST = 5  # tensors listed
_FEW_FLUSHED = 0.01  # share of values that may become zero unreported: their effect is negligible
_WIDE_TYPES = {"tensor(float)", "tensor(double)", "tensor(bfloat16)"}

# thresholds follow from 65,520: exp(11.09), 256², ...
_RISKS = {
    "Exp": "infinite above x = 11.09",
    "Pow": "a square is infinite from |x| = 256 on",
    "ReduceSumSquare": "one element of 256 makes it infinite",
    "ReduceL2": "the sum of squares is infinite once an element reaches 256",
    "ReduceProd": "a product leaves the range within a few elements",
    "CumSum": "a running sum may pass 65,504",
    "LpNormalization": "the sum of squares is infinite once an element reaches 256",
}
_NORMS = ("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization")
_NORM_REASON = "the variance is infinite once a deviation reaches 256, unless kept in float32"
# the opset in which a norm got `stash_type`; InstanceNormalization (22) still has none
_WITH_STASH = {"LayerNormalization": 17, "RMSNormalization": 23, "GroupNormalization": 21}
_FLOAT = 1  # TensorProto.FLOAT, the default of `stash_type`


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFp16:
    """The counts of `Fp16Readiness` that come from stored values; None: they were not read."""

    elements: int | None
    overflowing: int = 0
    flushed: int = 0
    subnormal: int = 0
    largest_magnitude: float = 0.0
    tensors: tuple[Fp16Tensor, ...] = ()


@dataclass(slots=True)
class _Counts:
    elements: int = 0
    overflowing: int = 0
    flushed: int = 0
    subnormal: int = 0
    largest: float = 0.0

    def add(self, values: Array) -> None:
        """Count the values of one tensor."""
        import numpy as np

        self.elements += values.size
        for start in range(0, values.size, _CHUNK):
            piece = values[start : start + _CHUNK]
            size = np.abs(piece if piece.dtype.kind == "f" else piece.astype(np.float32))
            top = float(size.max())  # most pieces are in range: one pass decides that
            if not math.isfinite(top):
                size = size[np.isfinite(size)]
                top = float(size.max(initial=0.0))
            self.largest = max(self.largest, top)
            if top >= BECOMES_INFINITE:
                self.overflowing += int(np.count_nonzero(size >= BECOMES_INFINITE))
            small = size[size < SMALLEST_NORMAL]
            zeros = small.size - np.count_nonzero(small)
            flushed = int(np.count_nonzero(small <= BECOMES_ZERO)) - int(zeros)
            self.flushed += flushed
            self.subnormal += int(small.size) - int(zeros) - flushed


def count_fp16_values(stored: Iterable[TensorData], not_read: str) -> StoredFp16:
    """Count stored values wider than float16; without counts if the weights are not to be read."""
    if not_read:
        return StoredFp16(elements=None)
    total, found = _Counts(), list[Fp16Tensor]()
    for tensor in stored:
        values = tensor.values() if tensor.dtype in _WIDER else None
        if values is None or not values.size:
            continue
        before = (total.overflowing, total.flushed)
        total.add(values)
        overflowing, flushed = total.overflowing - before[0], total.flushed - before[1]
        if overflowing or flushed > _FEW_FLUSHED * values.size:
            found.append(
                Fp16Tensor(
                    name=tensor.name,
                    overflowing=overflowing,
                    flushed=flushed,
                    elements=values.size,
                )
            )
    worst = sorted(found, key=lambda one: (-one.overflowing, -one.flushed, one.name))
    return StoredFp16(
        elements=total.elements,
        overflowing=total.overflowing,
        flushed=total.flushed,
        subnormal=total.subnormal,
        largest_magnitude=total.largest,
        tensors=tuple(worst[:_WORST]),
    )


def assess_fp16(weights: StoredFp16, nodes: Sequence[TypedNode], shapes: Shapes) -> Fp16Readiness:
    """Stored values and operators together; `shapes` are the known sizes of each value."""
    risks = _risks(nodes, shapes)
    return Fp16Readiness(
        elements=weights.elements,
        overflowing=weights.overflowing,
        flushed=weights.flushed,
        subnormal=weights.subnormal,
        largest_magnitude=weights.largest_magnitude,
        tensors=weights.tensors,
        risks=risks,
        verdict=_verdict(weights, risks, wide=any(map(_is_wide, nodes))),
    )


Shapes = dict[str, tuple[int | None, ...]]


def _verdict(weights: StoredFp16, risks: Sequence[Fp16Risk], *, wide: bool) -> str:
    if not wide and not weights.elements:
        return "nothing in the file is wider than float16"
    if weights.elements is None:
        stored = "the stored values were not read"
    elif weights.overflowing:
        stored = f"{_values(weights.overflowing)} would become infinite"
    elif weights.flushed > _FEW_FLUSHED * weights.elements:
        stored = f"{_values(weights.flushed)} would become zero"
    else:
        stored = "the stored values fit into float16"
    names = sorted({risk.operator for risk in risks})
    left = (
        f"; keep {', '.join(names)} in float32" if names else "; no operator is known to leave it"
    )
    return f"{stored}{left} (static evidence: no calibration was run)"


def _values(number: int) -> str:
    return f"{number:,} stored value{'' if number == 1 else 's'}"


def _risks(nodes: Iterable[TypedNode], shapes: Shapes) -> tuple[Fp16Risk, ...]:
    found = defaultdict[tuple[str, str], list[Any]](list)
    for typed in nodes:
        reason = _reason(typed, shapes) if _is_wide(typed) else ""
        if reason:
            found[typed.node.op_type, reason].append(typed.node)
    risks = [
        Fp16Risk(
            operator=operator,
            nodes=len(group),
            reason=reason,
            module=next(filter(None, map(module_path, group)), ""),
        )
        for (operator, reason), group in found.items()
    ]
    return tuple(sorted(risks, key=lambda risk: (-risk.nodes, risk.operator, risk.reason)))


def _is_wide(typed: TypedNode) -> bool:
    return bool(_WIDE_TYPES.intersection(filter(None, outputs_of(typed))))


def _reason(typed: TypedNode, shapes: Shapes) -> str:
    node = typed.node
    if typed.domain:
        return ""
    if node.op_type == "ReduceSum":
        return _sum_reason(node, shapes)
    if node.op_type in _NORMS:
        return "" if _keeps_float32(typed) else _NORM_REASON
    return _RISKS.get(node.op_type, "")


def _keeps_float32(typed: TypedNode) -> bool:
    """Whether a norm computes its statistics in float32 (attribute `stash_type`)."""
    since = _WITH_STASH.get(typed.node.op_type)
    stash = next((a.i for a in typed.node.attribute if a.name == "stash_type"), _FLOAT)
    return since is not None and typed.opset >= since and stash == _FLOAT


def _sum_reason(node: Any, shapes: Shapes) -> str:
    """The mean at which the sum overflows, if the number of its elements is known."""
    before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
    if before is None or after is None:
        return "a sum may pass 65,504"
    count = _quotient(before, after)
    if count is None or count < 2:
        return "" if count else "a sum may pass 65,504"  # a sum of one element adds nothing
    mean = LARGEST / count
    figure = f"{mean:,.0f}" if mean >= 100 else f"{mean:.3g}"
    return f"infinite once the mean of {count:,} elements passes {figure}"


def _quotient(before: tuple[int | None, ...], after: tuple[int | None, ...]) -> int | None:
    """Elements of `before` for each of `after`; None if that is unknown."""
    # as many unknown sizes before and after: the batch, which is not summed over
    unknown = before.count(None) != after.count(None)
    known_after = math.prod(size for size in after if size is not None)
    if unknown or not known_after:
        return None
    return math.prod(size for size in before if size is not None) // known_after
