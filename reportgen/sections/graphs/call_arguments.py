"""The arguments of a torch function that are not tensors, as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue

_MOST_ITEMS = 8  # of a list; longer ones are data, not settings
_LONGEST_TEXT = 40


def plain_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, JsonValue]:
    """Arguments by position ("1") or keyword; tensors, None and large values are left out."""
    named = {**{str(place): value for place, value in enumerate(args)}, **kwargs}
    found = {name: _plain(value) for name, value in named.items()}
    return {name: value for name, value in found.items() if value is not None}


def _plain(value: Any) -> JsonValue:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # JSON has no infinity
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT else None
    if isinstance(value, slice) or value is Ellipsis:
        return _slice(value)
    if isinstance(value, list | tuple) and 0 < len(value) <= _MOST_ITEMS:
        items = [":" if item is None else _plain(item) for item in value]
        return items if all(item is not None for item in items) else None
    # torch.float16, without importing torch
    text = str(value) if type(value).__name__ == "dtype" else ""
    return text.removeprefix("torch.") or None


def _slice(value: Any) -> str:
    if value is Ellipsis:
        return "..."
    ends = (value.start, value.stop, value.step)
    if not all(end is None or isinstance(end, int) for end in ends):
        return ":"  # a bound that was computed
    start, stop, step = ("" if end is None else str(end) for end in ends)
    return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"
