"""The rules of the layers section."""

from __future__ import annotations

from reportgen.sections.layers.rules.efficiency import EFFICIENCY_RULES
from reportgen.sections.layers.rules.structure import STRUCTURE_RULES
from reportgen.sections.layers.rules.weights import WEIGHT_RULES

RULES = (*STRUCTURE_RULES, *WEIGHT_RULES, *EFFICIENCY_RULES)
