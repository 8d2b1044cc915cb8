"""What differs between a module and its counterpart, and what of it implies the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from pydantic import JsonValue

from reportgen.comparable import StateTensor
from reportgen.compare.modules.tree import Node

_ABSENT = "none"
# Arguments that decide which tensors a module has.
_COUNTS = {"num_layers"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """A value of a module that differs: an attribute, `weight` or `weight.shape`."""

    field: str
    old: JsonValue
    new: JsonValue
    computed: bool = False  # the constructor sets it, but it is no argument

    @property
    def factor(self) -> float | None:
        """New through old, of positive numbers."""
        old, new = _single(self.old), _single(self.new)
        numbers = not isinstance(old, bool) and not isinstance(new, bool)
        if numbers and isinstance(old, int | float) and isinstance(new, int | float):
            return new / old if old > 0 and new > 0 else None
        return None


def value_text(value: JsonValue) -> str:
    """`2` for `[2, 2]`, `(3, 1)`, `true`, `1e-05`; `none` for None."""
    value = _single(value)
    if value is None:
        return _ABSENT
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"({', '.join(map(value_text, value))})"
    return str(value)


def texts(old: JsonValue, new: JsonValue) -> tuple[str, str]:
    """Two values that differ, as texts that differ."""
    before, after = value_text(old), value_text(new)
    return (before, after) if before != after else (repr(old), repr(new))


def tensor_text(tensor: StateTensor | None) -> str:
    """`float32 (64, 3)`; `none` for a tensor that is not there."""
    return _ABSENT if tensor is None else f"{tensor.dtype} {shape_text(tensor.shape)}"


def shape_text(shape: Sequence[int]) -> str:
    """`(64, 3)`, `(64)`, `()`."""
    return f"({', '.join(map(str, shape))})"


def _single(value: JsonValue) -> JsonValue:
    """The number of which `value` consists."""
    if isinstance(value, list) and value and all(item == value[0] for item in value):
        return value[0]
    return value


def attribute_differences(a: Node, b: Node) -> list[Difference]:
    """Attributes that differ, in the order of the constructor's arguments."""
    computed = {*a.record.computed} | {*b.record.computed}
    names = dict.fromkeys([*b.attributes, *a.attributes])
    return [
        Difference(
            field=name,
            old=a.attributes.get(name),
            new=b.attributes.get(name),
            computed=name in computed,
        )
        for name in names
        if _single(a.attributes.get(name)) != _single(b.attributes.get(name))
    ]


def tensor_differences(a: Node, b: Node) -> Iterator[Difference]:
    """Tensors that came, went or have another shape or kind."""
    for name in dict.fromkeys([*a.tensors, *b.tensors]):
        old, new = a.tensors.get(name), b.tensors.get(name)
        if old is None or new is None:
            yield Difference(field=name, old=tensor_text(old), new=tensor_text(new))
            continue
        if old.shape != new.shape:
            yield Difference(field=f"{name}.shape", old=list(old.shape), new=list(new.shape))
        if old.kind != new.kind:
            yield Difference(field=f"{name}.kind", old=old.kind, new=new.kind)


def stated_differences(a: Node, b: Node, below: Sequence[Difference]) -> list[Difference]:
    """The differences that nothing else implies.

    Args:
        a: the module.
        b: its counterpart.
        below: the attributes that differ in the modules below.
    """
    attributes, tensors = attribute_differences(a, b), list(tensor_differences(a, b))
    if a.type != b.type:  # another class has other attributes and tensors
        tensors = [each for each in tensors if each.field.endswith(".shape")]
        needed = [each for each in attributes if any(_explains([each], t) for t in tensors)]
        return [*needed, *(t for t in tensors if not _explains(needed, t))]
    stated = [each for each in attributes if not _is_implied(each, attributes, below)]
    switched = any(
        isinstance(each.new, bool) or isinstance(each.old, bool) or each.field in _COUNTS
        for each in attributes
    )
    for tensor in tensors:
        came_or_went = "." not in tensor.field
        if not (switched and came_or_went) and not _explains(attributes, tensor):
            stated.append(tensor)
    return stated


def _is_implied(
    each: Difference, beside: Sequence[Difference], below: Sequence[Difference]
) -> bool:
    if each.computed and any(not other.computed for other in beside):
        return True
    if each.field.startswith("parametrizations."):
        return False
    for other in below:
        same = (value_text(other.old), value_text(other.new)) == (
            value_text(each.old), value_text(each.new),
        )  # fmt: skip
        # true -> false may be a coincidence
        if same and (other.field == each.field or not isinstance(each.new, bool)):
            return True
        if each.computed and _is_power(each.factor, other.factor):
            return True
    return False


def _is_power(factor: float | None, of: float | None) -> bool:
    """Whether a value grew with another one: in proportion, inversely, or by the square root."""
    if factor is None or of is None or of == 1:
        return False
    return any(math.isclose(factor, of**power, rel_tol=1e-6) for power in (1, -1, 0.5, -0.5))


def _explains(attributes: Sequence[Difference], tensor: Difference) -> bool:
    """Whether every size of a shape changed along with one attribute or two."""
    if not tensor.field.endswith(".shape"):
        return False
    old, new = tensor.old, tensor.new
    if not isinstance(old, list) or not isinstance(new, list) or len(old) != len(new):
        return False
    known = [f for each in attributes if (f := each.factor) is not None]
    factors = [x for factor in known for x in (factor, 1 / factor)]
    factors += [x * y for x, y in product(factors, factors)]
    steps = {n - o for each in attributes for o, n in [_numbers(each)] if n != o}
    return all(
        o == n
        or (n - o in steps)
        or any(math.isclose(o * factor, n, rel_tol=1e-9) for factor in factors)
        for o, n in zip(map(_int, old), map(_int, new), strict=True)
    )


def _numbers(each: Difference) -> tuple[int, int]:
    return _int(_single(each.old)), _int(_single(each.new))


def _int(value: JsonValue) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
