"""Layers: parameters, shapes, cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.chapter import Section
from reportgen.sections.layers.result import (
    Experts,
    Layer,
    Layers,
    LayerTime,
    PassTime,
    Reached,
    Roofline,
    Uncounted,
    Unregistered,
)
from reportgen.sections.layers.rules import RULES

if TYPE_CHECKING:
    from reportgen.study import FileStudy, Study

__all__ = [
    "SECTION",
    "Experts",
    "Layer",
    "LayerTime",
    "Layers",
    "PassTime",
    "Reached",
    "Roofline",
    "Uncounted",
    "Unregistered",
    "examine",
]


def examine(study: Study) -> Layers:
    """The layers of a model and the cost of one forward pass; writes the two tables.

    Raises:
        Unable: no forward pass ends on the manifest's inputs.
    """
    from reportgen.sections.layers.examination import Examination  # torch only from here on

    return Examination(study).result()


def examine_file(study: FileStudy) -> Layers:
    """The nodes of an ONNX file and their cost; writes the two tables."""
    from reportgen.sections.layers.onnx_layers import examine_onnx, summary_text
    from reportgen.sections.layers.tables import layers_csv

    result = examine_onnx(study)
    study.write(result.table_file, layers_csv(result.layers))
    study.write(result.summary_file, summary_text(result))
    return result


SECTION = Section(
    name="layers",
    title="Layers",
    result=Layers,
    examine=examine,
    examine_file=examine_file,
    rules=RULES,
)
