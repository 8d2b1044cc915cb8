"""Behaviour: what the model does when it runs, found by trying."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.chapter import Section, Skipped
from reportgen.sections.behaviour.result import (
    Behaviour,
    Mode,
    ModuleGroup,
    OperatorCounts,
    OutputForm,
    Probe,
)
from reportgen.sections.behaviour.rules import RULES

if TYPE_CHECKING:
    from reportgen.study import Study

__all__ = [
    "SECTION",
    "Behaviour",
    "Mode",
    "ModuleGroup",
    "OperatorCounts",
    "OutputForm",
    "Probe",
    "examine",
]


def examine(study: Study) -> Behaviour | Skipped:
    """Training mode beside evaluation mode, and a row of probes on tiny batches.

    Raises:
        Unable: no forward pass ends on the manifest's inputs.
    """
    from reportgen.sections.behaviour.examination import examine_model  # torch from here on

    return examine_model(study)


SECTION = Section(
    name="behaviour", title="Behaviour", result=Behaviour, examine=examine, rules=RULES
)
