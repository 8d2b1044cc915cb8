"""A comparison arranged for templates: rows, lines and charts, in the order they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from markupsafe import Markup

from reportgen.charts.curves import CurveLine, curve_plot
from reportgen.charts.svg import bare
from reportgen.compare.modules.snippet import load_snippet
from reportgen.compare.result import (
    Comparison,
    CostStep,
    CurvePair,
    FieldChange,
    FitChange,
    GraphDiff,
    MergedView,
    MetricChange,
    ModelComparison,
    NotCompared,
    StateDictDiff,
)
from reportgen.compare.wording import (
    EditLine,
    checkpoint_sentence,
    comparison_sentence,
    edit_line,
    model_sentence,
    signed,
    signed_percent,
)
from reportgen.findings import Finding
from reportgen.render.filters import moment
from reportgen.units import format_in_unit

_MOST_STEPS = 12  # of a change of cost; the rest is one row
_MOST_CURVES = 6
# WeasyPrint knows no variables in SVG; without the style, the colors of the attributes apply.
_STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)
VERDICT_WORDS = {
    "better": "better",
    "worse": "worse",
    "changed": "changed",
    "noise": "not judged",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricRow:
    """A metric before and after."""

    label: str
    old: str
    new: str
    change: str
    verdict: str
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CostRow:
    """One block's part of a change of cost."""

    place: str
    reason: str
    parameters: str
    macs: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ComparedCurve:
    """A training curve of both reports in one plot."""

    tag: str
    plot: Markup


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelChanges:
    """What changed in one model, as a page shows it."""

    name: str
    href: str
    status: str
    sentence: str
    headline: tuple[MetricRow, ...]
    others: tuple[MetricRow, ...]  # metrics that the first page does not show
    edits: tuple[EditLine, ...]
    checkpoint: str
    snippet: str
    cost: tuple[CostRow, ...]
    fits: tuple[FitChange, ...]
    operators: tuple[str, ...]  # of the ONNX graph
    new: tuple[Finding, ...]
    fixed: tuple[Finding, ...]
    curves: tuple[ComparedCurve, ...]
    drawing: Markup  # both module graphs in one; "" if there is none
    files: tuple[str, ...]
    not_compared: tuple[NotCompared, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """A comparison as a page shows it."""

    sentence: str
    baseline: str
    environment: tuple[str, ...]
    models: tuple[ModelChanges, ...]
    views: tuple[tuple[str, MergedView], ...] = ()  # with the names of their models

    @property
    def changed(self) -> tuple[ModelChanges, ...]:
        """The models with something to show."""
        return tuple(model for model in self.models if model.status != "unchanged")


def changes_of(comparison: Comparison, *, on_paper: bool = False) -> Changes:
    """`comparison` with everything sorted, cut and formatted."""
    return Changes(
        sentence=comparison_sentence(comparison.models),
        baseline=", ".join(
            filter(
                None, [comparison.old.title, comparison.old.commit, moment(comparison.old.built)]
            )
        ),
        environment=tuple(
            f"{each.field} {each.old} → {each.new}" for each in comparison.environment
        ),
        models=tuple(_model(model, on_paper) for model in comparison.models),
        views=tuple(
            (model.name, view)
            for model in comparison.models
            for view in model.views
            if not on_paper
        ),
    )


def _model(model: ModelComparison, on_paper: bool) -> ModelChanges:
    # the table of safe batches has these, for every step and not only the plainest one
    shown = [change for change in model.metrics if change.unit != "batch" or not model.fits]
    rows = [(change.headline, _metric_row(change)) for change in shown]
    return ModelChanges(
        name=model.name,
        href=f"models/{quote(model.name)}/index.html",
        status=model.status,
        sentence=model_sentence(model),
        headline=tuple(row for headline, row in rows if headline),
        others=tuple(row for headline, row in rows if not headline),
        edits=tuple(map(edit_line, model.modules.edits)) if model.modules else (),
        checkpoint=checkpoint_sentence(model.state_dict) if model.state_dict else "",
        snippet=_snippet(model.state_dict),
        cost=tuple(_cost_rows(model.cost)),
        fits=model.fits,
        operators=_operators(model.graphs),
        new=model.findings.new,
        fixed=model.findings.fixed,
        curves=tuple(_curve(pair, on_paper) for pair in model.curves[:_MOST_CURVES]),
        drawing=Markup(_STYLE.sub("", model.drawing) if on_paper else model.drawing),  # noqa: S704 - graphviz has escaped it
        files=tuple(f"{each.field} {each.path}{_presence(each)}" for each in model.files),
        not_compared=model.not_compared,
    )


def _presence(change: FieldChange) -> str:
    return "" if change.old and change.new else " (new)" if change.new else " (gone)"


def _metric_row(change: MetricChange) -> MetricRow:
    return MetricRow(
        label=change.label,
        old=change.old_text or "–",
        new=change.new_text or "–",
        change=_change(change),
        verdict=change.verdict,
        note=change.note,
    )


def _change(change: MetricChange) -> str:
    if not change.difference:
        return ""
    size = signed(change.difference, lambda value: format_in_unit(value, change.unit))
    percent = signed_percent(change.percent)
    return f"{percent} ({size})" if percent else size


def _snippet(diff: StateDictDiff | None) -> str:
    return load_snippet(diff) if diff and diff.verdict in ("rename", "convert") else ""


def _cost_rows(steps: tuple[CostStep, ...]) -> Iterator[CostRow]:
    shown = steps if len(steps) <= _MOST_STEPS else steps[: _MOST_STEPS - 1]
    for step in shown:
        yield CostRow(
            place=step.path or "(the model)",
            reason=step.reason,
            parameters=signed(step.parameters) if step.parameters else "",
            macs=signed(step.macs) if step.macs else "",
        )
    rest = steps[len(shown) :]
    if rest:
        parameters, macs = sum(s.parameters for s in rest), sum(s.macs or 0 for s in rest)
        yield CostRow(
            place=f"{len(rest)} more",
            reason="",
            parameters=signed(parameters) if parameters else "",
            macs=signed(macs) if macs else "",
        )


def _operators(graphs: tuple[GraphDiff, ...]) -> tuple[str, ...]:
    """Opset and operator counts of the ONNX graph; the edits say the same of the other graphs."""
    return tuple(
        line
        for graph in graphs
        if graph.name == "onnx"
        for line in (
            *(f"{each.field} {each.old} → {each.new}" for each in graph.attributes),
            *(f"{each.name}: {each.old:,} → {each.new:,}" for each in graph.operators),
        )
    )


def _curve(pair: CurvePair, on_paper: bool) -> ComparedCurve:
    lines = [
        CurveLine(name="baseline", xs=pair.old.steps, values=pair.old.values, color=5),
        CurveLine(name="this report", xs=pair.new.steps, values=pair.new.values, color=0),
    ]
    drawn = curve_plot(pair.new.tag, lines).svg
    return ComparedCurve(tag=pair.new.tag, plot=bare(str(drawn)) if on_paper else drawn)
