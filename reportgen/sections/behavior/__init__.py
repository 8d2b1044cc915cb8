"""Behavior: what the model does when it runs, found by trying."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.outcome import Skipped
from reportgen.sections.behavior.result import (
    Behavior,
    Mode,
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
    "Mode",
    "ModuleGroup",
    "OperatorCounts",
    "OutputForm",
    "Probe",
    "analyze",
]


def analyze(context: ModelContext) -> Behavior | Skipped:
    """Training mode beside evaluation mode, and a row of probes on tiny batches.

    Raises:
        SectionError: no forward pass ends on the manifest's inputs.
    """
    from reportgen.sections.behavior.analysis import analyze_model  # torch from here on

    return analyze_model(context)


SECTION = Section(name="behavior", title="Behavior", result=Behavior, analyze=analyze, rules=RULES)
