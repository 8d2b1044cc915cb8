"""Layers: parameters, shapes, cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.chapter import Section
from reportgen.sections.layers.result import Layer, Layers, Reached, Uncounted, Unregistered
from reportgen.sections.layers.rules import RULES

if TYPE_CHECKING:
    from reportgen.study import Study

__all__ = ["SECTION", "Layer", "Layers", "Reached", "Uncounted", "Unregistered", "examine"]


def examine(study: Study) -> Layers:
    """The layers of a model and the cost of one forward pass; writes the two tables.

    Raises:
        Unable: no forward pass ends on the manifest's inputs.
    """
    from reportgen.sections.layers.examination import Examination  # torch only from here on

    return Examination(study).result()


SECTION = Section(name="layers", title="Layers", result=Layers, examine=examine, rules=RULES)
