"""Behavior: properties of the model that are checked by running it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reportgen.outcome import Skipped
from reportgen.sections.behavior.result import (
    Behavior,
    ModeStats,
    ModuleGroup,
    OperatorCounts,
    OutputForm,
    Probe,
)
from reportgen.sections.behavior.rules import RULES
from reportgen.sections.section import Section

if TYPE_CHECKING:
    from reportgen.context import ModelContext

__all__ = [
    "SECTION",
    "Behavior",
    "ModeStats",
    "ModuleGroup",
    "OperatorCounts",
    "OutputForm",
    "Probe",
    "analyze",
]


def analyze(context: ModelContext) -> Behavior | Skipped:
    """Compare training mode with evaluation mode, and run the probes on small batches.

    Raises:
        SectionError: the forward pass fails with the manifest's inputs.
    """
    from reportgen.sections.behavior.analysis import analyze_model  # torch from here on

    return analyze_model(context)


def remaining(items: Sequence[object], shown: int) -> int:
    """The number of items beyond the first `shown`."""
    return max(0, len(items) - shown)


SECTION = Section(
    name="behavior",
    title="Behavior",
    result=Behavior,
    analyze=analyze,
    imports=("reportgen.sections.behavior.analysis",),
    reads=frozenset({"threads"}),
    rules=RULES,
    filters={"remaining": remaining},
)
