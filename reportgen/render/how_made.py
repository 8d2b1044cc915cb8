"""The appendix "How each figure was made": equal methods of several models once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reportgen.metrics import COMPARISON, Metric
from reportgen.report import ModelReport

_MOST_LABELS = 12  # a training may log hundreds of tags


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeFigures:
    """Figures that one method made.

    Attributes:
        anchor: the id of its place in the appendix.
        labels: of the figures; those of several GPUs or batches as one.
        models: names of the models that it was used for; empty for all that have figures.
    """

    anchor: str
    keys: frozenset[str]
    labels: tuple[str, ...]
    method: str
    tools: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeModel:
    """What the figures of one model were made from, and the commands that make them again."""

    name: str
    inputs: tuple[str, ...]
    seed: int | None
    commands: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class HowMade:
    """The appendix of a report, or of one model."""

    figures: tuple[MadeFigures, ...]
    models: tuple[MadeModel, ...]

    def anchor(self, metric: Metric) -> str:
        """The place about `metric`; "" if there is none."""
        return next((made.anchor for made in self.figures if metric.key in made.keys), "")

    def method(self, metric: Metric) -> str:
        """How `metric` was made; "" if that is unknown."""
        return next((made.method for made in self.figures if metric.key in made.keys), "")


def how_made(models: Iterable[ModelReport]) -> HowMade:
    """How the figures of `models` were made, in their order."""
    with_figures = [model for model in models if model.evidence]
    used: dict[tuple[str, tuple[str, ...]], dict[str, tuple[Metric, ...]]] = {}
    for model in with_figures:
        metrics = {metric.key: metric for metric in model.metrics}
        for made in model.evidence:
            by_model = used.setdefault((made.method, made.tools), {})
            found = tuple(metrics[key] for key in made.keys if key in metrics)
            by_model[model.name] = (*by_model.get(model.name, ()), *found)
    return HowMade(
        figures=tuple(
            _figures(number, method, tools, by_model, len(with_figures))
            for number, ((method, tools), by_model) in enumerate(used.items(), start=1)
        ),
        models=tuple(map(_model, with_figures)),
    )


def _figures(
    number: int,
    method: str,
    tools: tuple[str, ...],
    by_model: dict[str, tuple[Metric, ...]],
    all_models: int,
) -> MadeFigures:
    metrics = {metric.key: metric for found in by_model.values() for metric in found}
    return MadeFigures(
        anchor=f"how-{number}",
        keys=frozenset(metrics),
        labels=_labels(tuple(metrics.values())),
        method=method,
        tools=tools,
        models=tuple(by_model) if len(by_model) < all_models else (),
    )


def _labels(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """The labels; where a table has a column for each GPU, its title with all of them."""
    by_table: dict[str, list[str]] = {}
    for metric in metrics:
        titled = metric.table not in ("", COMPARISON)
        by_table.setdefault(metric.table if titled else metric.label, []).append(metric.label)
    labels = [
        title if columns == [title] else f"{title} on {', '.join(dict.fromkeys(columns))}"
        for title, columns in by_table.items()
    ]
    hidden = len(labels) - _MOST_LABELS
    return (*labels[:_MOST_LABELS], f"and {hidden} more") if hidden > 0 else tuple(labels)


def _model(model: ModelReport) -> MadeModel:
    return MadeModel(
        name=model.name,
        inputs=tuple(dict.fromkeys(made.inputs for made in model.evidence if made.inputs)),
        seed=next((made.seed for made in model.evidence if made.seed is not None), None),
        commands=tuple(dict.fromkeys(made.command for made in model.evidence)),
    )
