"""What the documentation of a forward says of its arguments: how many dimensions each has."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

_OF_SHAPE = re.compile(r"^\s*(\w+) \([^()]*of shape `\(([^()]+)\)`", re.M)


def documented_ranks(forward: Callable[..., Any]) -> dict[str, int]:
    """The number of dimensions of each argument whose line ends in "of shape `(a, b)`".

    transformers writes these lines for most arguments; what they call a dimension is no size.
    """
    lines = _OF_SHAPE.findall(inspect.getdoc(forward) or "")
    return {name: len([dim for dim in dims.split(",") if dim.strip()]) for name, dims in lines}
