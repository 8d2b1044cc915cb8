"""The training section: curves, images, hyperparameters and a verdict, from training logs."""

from __future__ import annotations

from reportgen.sections.section import Section
from reportgen.sections.training.analysis import analyze
from reportgen.sections.training.metrics import comparable_of, methods_of, metrics_of
from reportgen.sections.training.page import FILTERS
from reportgen.sections.training.result import Training
from reportgen.sections.training.rules import RULES

__all__ = ["SECTION", "Training", "analyze"]


def files_of(result: Training) -> list[str]:
    """The files that the section wrote, relative to the model's folder."""
    files = [file for plot in result.plots for file in (plot.svg, plot.csv)]
    for run in result.runs:
        files += [image.file for image in run.images]
        files += [chart.svg for chart in run.charts]
    return list(dict.fromkeys(files))


SECTION = Section(
    name="training",
    title="Training",
    result=Training,
    analyze=analyze,
    analyze_file=analyze,
    analyze_logs=analyze,
    uses_model=False,
    reads=frozenset({"logs", "log_options"}),
    rules=RULES,
    metrics=metrics_of,
    comparable=comparable_of,
    methods=methods_of,
    files=files_of,
    filters=FILTERS,
    headline=lambda result: result.headline,
)
