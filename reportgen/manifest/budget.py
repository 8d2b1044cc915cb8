"""One budget of a manifest: absolute or relative to the baseline, with warn and fail levels."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

from reportgen.manifest.errors import quote
from reportgen.manifest.fields import Value, parse_amount, reading_folder

Side = Literal["max", "min"]
Unit = Literal["count", "bytes", "ms", "any"]

_COUNT_TEXT = r"[0-9]+(\.[0-9]+)?\s*[kMGT]?"
_SIZE_TEXT = r"[0-9]+(\.[0-9]+)?\s*[kKMGTP]?i?[bB]"
_NUMBER_TEXT = r"[0-9]+(\.[0-9]+)?"
_TEXT_OF: dict[Unit, str] = {
    "count": _COUNT_TEXT,
    "bytes": _SIZE_TEXT,
    "ms": _NUMBER_TEXT,
    "any": f"({_COUNT_TEXT}|{_SIZE_TEXT})",
}
_PERCENT = re.compile(r"([+-])\s*([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*%")
_CHANGE = re.compile(r"([+-])\s*([0-9].*)")
_AND = re.compile(r"\s+and\s+")
_FORMS = '30M, "+2%", "+2% and 1M", {min: 0.9} or {warn: 28M, fail: 30M}'


class Bound(Value):
    """One limit: an absolute value, or a change of the baseline's value.

    With `percent` and `change`, a value exceeds the bound only if it is beyond both.
    """

    text: str
    """As in the manifest: "+2% and 1M"."""
    side: Side | None = None
    """Whether it is a maximum or a minimum; None for the side that is worse for its metric."""
    absolute: float | None = None
    """The limit itself."""
    percent: float | None = None
    """The limit as a difference from the baseline, in percent of it."""
    change: float | None = None
    """The limit as a difference from the baseline, in the metric's unit."""

    def limit(self, side: Side, baseline: float | None) -> float | None:
        """The value to stay within; None if it requires a baseline and there is none."""
        if self.absolute is not None:
            return self.absolute
        if baseline is None:
            return None
        limits = []
        if self.percent is not None:
            # multiplied first: 100 * 2 / 100 is exact, 100 * 0.02 is not always
            limits.append(baseline + abs(baseline) * self.percent / 100)
        if self.change is not None:
            limits.append(baseline + self.change)
        return max(limits) if side == "max" else min(limits)


class Budget(Value):
    """The levels of one budget; at least one is set."""

    warn: Bound | None = None
    """Beyond it the verdict is at least a warning."""
    fail: Bound | None = None
    """Beyond it the model fails."""


def _reader(unit: Unit) -> Callable[[object, ValidationInfo], object]:
    def read(value: object, info: ValidationInfo) -> object:
        if value is None or isinstance(value, Budget):
            return value
        if isinstance(value, dict) and reading_folder(info) is None and _is_parsed(value):
            return value  # JSON from another process
        return _budget(value, unit)

    return read


def _is_parsed(value: dict[Any, Any]) -> bool:
    levels = value.values()
    return all(level is None or (isinstance(level, dict) and "text" in level) for level in levels)


def _budget(value: object, unit: Unit) -> Budget:
    if not isinstance(value, dict) or not {"warn", "fail"} & value.keys():
        return Budget(fail=_bound(value, unit))
    _only(value, {"warn", "fail"})
    levels = {}
    for level, limit in value.items():
        try:
            levels[level] = _bound(limit, unit)
        except ValueError as error:
            raise ValueError(f"{level}: {error}") from None
    return Budget(**levels)


def _bound(value: object, unit: Unit, side: Side | None = None) -> Bound:
    if isinstance(value, dict):
        _only(value, {"max", "min"})
        if len(value) != 1:
            raise ValueError(f"must set max or min, not both; write {_FORMS}")
        ((key, limit),) = value.items()
        if isinstance(limit, dict):
            raise ValueError(f"must be a limit such as {_FORMS}, not a mapping")
        return _bound(limit, unit, side=key)
    if isinstance(value, str):
        return _text_bound(value.strip(), unit, side)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a limit such as {_FORMS}, not {quote(value)}")
    if value < 0 or (value == 0 and side is None):
        raise ValueError(
            f"must be greater than 0, not {quote(value)}; write {{max: 0}} for none at all, or "
            'quotes, "+0" or "-1%", for a limit relative to the baseline'
        )
    return Bound(text=str(value), side=side, absolute=value)


def _text_bound(text: str, unit: Unit, side: Side | None) -> Bound:
    if not text.startswith(("+", "-")):
        if text.endswith("%"):
            raise ValueError(
                f'expected a sign before the percentage, such as "+2%", got {quote(text)}'
            )
        return Bound(text=text, side=side, absolute=parse_amount(text, unit))
    first, *others = _AND.split(text)
    percent = _PERCENT.fullmatch(first)
    if percent is None:
        change = _CHANGE.fullmatch(first)
        if change is None or others:
            raise ValueError(
                'expected a change from the baseline, such as "+2%", "-1%", "+1M" or '
                f'"+2% and 1M", got {quote(text)}'
            )
        amount = _signed(change[1], parse_amount(change[2], unit))
        return Bound(text=text, side=side, change=amount)
    if len(others) > 1:
        raise ValueError(f'expected one least change, such as "+2% and 1M", got {quote(text)}')
    least = [_signed(percent[1], parse_amount(each.lstrip("+- "), unit)) for each in others]
    return Bound(
        text=text,
        side=side,
        percent=_signed(percent[1], float(Decimal(percent[2]))),
        change=least[0] if least else None,
    )


def _signed(sign: str, amount: float) -> float:
    return -amount if sign == "-" else amount


def _only(value: dict[Any, Any], known: set[str]) -> None:
    for key in value:
        if key not in known:
            raise ValueError(f"unknown key {quote(key)}; write {_FORMS}")


def _schema(unit: Unit) -> dict[str, Any]:
    amount = _TEXT_OF[unit]
    relative = rf"[+-]\s*([0-9]+(\.[0-9]+)?\s*%(\s+and\s+[+-]?\s*{amount})?|{amount})"
    text = {"type": "string", "pattern": rf"^\s*({amount}|{relative})\s*$"}
    plain = [{"type": "number", "exclusiveMinimum": 0}, text]
    sided: dict[str, Any] = {
        "type": "object",
        "properties": {
            "max": {"description": "A maximum.", "anyOf": [{"type": "number", "minimum": 0}, text]},
            "min": {"description": "A minimum.", "anyOf": [{"type": "number", "minimum": 0}, text]},
        },
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    levels: dict[str, Any] = {
        "type": "object",
        "properties": {
            "warn": {"description": "Beyond it: a warning.", "anyOf": [*plain, sided]},
            "fail": {"description": "Beyond it: the model fails.", "anyOf": [*plain, sided]},
        },
        "additionalProperties": False,
        "minProperties": 1,
    }
    return {"anyOf": [*plain, sided, levels]}


CountBudget = Annotated[Budget, BeforeValidator(_reader("count")), WithJsonSchema(_schema("count"))]
BytesBudget = Annotated[Budget, BeforeValidator(_reader("bytes")), WithJsonSchema(_schema("bytes"))]
TimeBudget = Annotated[Budget, BeforeValidator(_reader("ms")), WithJsonSchema(_schema("ms"))]
AnyBudget = Annotated[Budget, BeforeValidator(_reader("any")), WithJsonSchema(_schema("any"))]
