"""Fields of a configuration that the library leaves open, though no model is built without them."""

from __future__ import annotations

import re
import traceback
from typing import Any

_READ = re.compile(r"\bconfig\.(\w+)")


def derived_values(config: Any) -> dict[str, int]:
    """The width of a head where a configuration leaves it to be derived: width by heads."""
    width, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", 0)
    is_open = hasattr(config, "head_dim") and config.head_dim is None
    return {"head_dim": width // heads} if is_open and width and heads else {}


def open_fields(config: Any, error: BaseException) -> list[str]:
    """The fields that are None and that the error names, or the code which failed reads."""
    frames = traceback.extract_tb(error.__traceback__)
    said = re.findall(r"`(\w+)`", str(error))
    names = [
        *said,
        *(name for frame in reversed(frames) for name in _READ.findall(frame.line or "")),
    ]
    return [n for n in dict.fromkeys(names) if getattr(config, n, "") is None]
