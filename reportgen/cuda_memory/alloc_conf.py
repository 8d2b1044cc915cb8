"""Read PYTORCH_ALLOC_CONF, the environment's say in how memory is handed out."""

from __future__ import annotations

import os

from .allocator import MIB, AllocatorOptions
from .errors import CudaMemoryError

_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


def allocator_options(text: str | None = None) -> AllocatorOptions:
    """The options written as torch writes them; without a text, those of the environment.

    `expandable_segments:True,max_split_size_mb:128,roundup_power2_divisions:[256:1,512:2,>:4]`.
    Options that do not change sizes are passed over. Raises `CudaMemoryError` on a bad value.
    """
    if text is None:
        text = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    values = dict(_pairs(text))
    try:
        return AllocatorOptions(
            expandable_segments=values.get("expandable_segments", "False").lower() == "true",
            max_split_size_bytes=_mebibytes(values.get("max_split_size_mb")),
            large_segment_size_bytes=_mebibytes(values.get("large_segment_size_mb")) or 20 * MIB,
            roundup_power2_divisions=_divisions(values.get("roundup_power2_divisions", "")),
            garbage_collection_threshold=float(values.get("garbage_collection_threshold", "0")),
        )
    except ValueError as err:
        raise CudaMemoryError(
            f"allocator options {text!r} cannot be read: {err}",
            "write them as torch does: name:value, separated by commas",
        ) from err


def _pairs(text: str) -> list[tuple[str, str]]:
    """Split at commas outside brackets, then at the first colon."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    pairs = [part.partition(":") for part in parts if part.strip()]
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _mebibytes(value: str | None) -> int | None:
    return None if value is None else int(value) * MIB


def _divisions(value: str) -> tuple[tuple[int, int], ...]:
    """`4` for all sizes, or `[256:1,512:2,>:4]` with thresholds in MiB, each up to its size."""
    if not value:
        return ()
    if not value.startswith("["):
        return ((0, int(value)),)
    steps: list[tuple[int, int]] = []
    start = 0
    for part in value.strip("[]").split(","):
        threshold, _, divisions = part.partition(":")
        steps.append((start, int(divisions)))
        if threshold.strip() != ">":
            start = int(threshold) * MIB
    return tuple(steps)
