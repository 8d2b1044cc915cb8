"""What the probes may compute: a fixed amount of work, so that no clock decides what is tried."""

from __future__ import annotations

from reportgen.units import format_bytes, format_count

WORK = 300 * 10**9
"""Floating-point operations for all probes of one model: a few seconds on two cores."""
MOST_BYTES = 3 * 2**30
"""Memory for one pass, activations and gradients together."""


class Budget:
    """Work that is left; a probe takes its share before it runs."""

    def __init__(self, work: int = WORK) -> None:
        self._left = work

    def refusal(self, work: int, held_bytes: int = 0) -> str:
        """Take `work` operations; returns why not, where that is too much, else ""."""
        if held_bytes > MOST_BYTES:
            return f"it would need {format_bytes(held_bytes)} of memory"
        if work > self._left:
            return (
                f"it would need {format_count(work)} operations, and {format_count(self._left)} "
                "are left in this model's budget"
            )
        self._left -= work
        return ""
