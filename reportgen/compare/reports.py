"""Two reports -> a `Comparison`: models by name, each section by what it offers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from reportgen.comparable import Comparable, LargestBatch, TrainingCurve, joined
from reportgen.compare.cost import cost_steps
from reportgen.compare.findings import diff_findings
from reportgen.compare.graphs import diff_graph
from reportgen.compare.merged_view import merged_views
from reportgen.compare.metrics import diff_metrics
from reportgen.compare.module_drawing import draw_module_diff
from reportgen.compare.modules import diff_modules
from reportgen.compare.modules.state_dict import diff_state_dict
from reportgen.compare.result import (
    Comparison,
    CostStep,
    CurvePair,
    FieldChange,
    FitChange,
    GraphDiff,
    MetricChange,
    ModelComparison,
    ModulesDiff,
    NotCompared,
    SideLabel,
    StateDictDiff,
)
from reportgen.metrics import Metric
from reportgen.outcome import Done, Skipped
from reportgen.report import ModelReport, Report
from reportgen.sections import SECTIONS


def compare_reports(old: Report, new: Report, *, draw: bool = False) -> Comparison:
    """What changed from `old`, the baseline, to `new`, the report that is judged.

    `draw`: with a drawing of each model whose structure changed, which takes graphviz a second.
    """
    environment = tuple(_environment(old, new))
    tools = ", ".join(f"{each.field} {each.old} → {each.new}" for each in environment)
    before = {model.name: model for model in old.models}
    after = {model.name for model in new.models}
    return Comparison(
        old=_label(old),
        new=_label(new),
        verdict=new.verdict.value,
        environment=environment,
        models=(
            *(
                compare_models(before[model.name], model, tools=tools, draw=draw)
                if model.name in before
                else ModelComparison(name=model.name, status="added")
                for model in new.models
            ),
            *(
                ModelComparison(name=model.name, status="removed")
                for model in old.models
                if model.name not in after
            ),
        ),
    )


def compare_models(
    old: ModelReport, new: ModelReport, *, tools: str = "", draw: bool = False
) -> ModelComparison:
    """What changed in one model; `tools` names the versions and the machine that differ."""
    missing = tuple(_not_compared(old, new))
    files = tuple(_files(old, new))
    both = _done(old) & _done(new)
    before, after = _comparable(old, both), _comparable(new, both)
    modules = (
        diff_modules(before.modules, after.modules) if before.modules and after.modules else None
    )
    graphs = _graphs(before, after, modules)
    metrics = diff_metrics(
        _metrics(old, both),
        _metrics(new, both),
        tools=tools,
        only_tools=_same_model(old, new, modules) and not files,
    )
    findings = diff_findings(old.findings, new.findings, _paths(modules))
    fits, curves = _fits(before.fits, after.fits), _curves(before.curves, after.curves)
    changed = (
        any(change.verdict != "noise" for change in metrics)
        or (modules is not None and modules.edits)
        or any(graph.nodes or graph.attributes for graph in graphs)
        or files
        or findings.new
        or findings.fixed
        or fits
        or curves
    )
    return ModelComparison(
        name=new.name,
        status="changed" if changed else "unchanged",
        metrics=metrics,
        modules=modules,
        state_dict=_state_dict(before, after, modules),
        graphs=graphs,
        cost=_cost(modules, metrics),
        findings=findings,
        fits=fits,
        curves=curves,
        files=files,
        drawing=draw_module_diff(before, after, modules, name=f"changes-{_slug(new.name)}")
        if draw and modules and modules.edits
        else "",
        views=merged_views(before, after, modules or ModulesDiff(), graphs) if draw else (),
        not_compared=missing,
    )


def _slug(name: str) -> str:
    """The name as a part of ids, unique on the page."""
    return name.encode().hex()


def _label(report: Report) -> SideLabel:
    commit = report.commit
    return SideLabel(
        title=report.title,
        commit=f"{commit.id[:10]}{' with changes' if commit.modified else ''}" if commit else "",
        built=report.timings.built if report.timings else "",
    )


def _environment(old: Report, new: Report) -> Iterator[FieldChange]:
    for name in {**old.environment, **new.environment}:
        before, after = old.environment.get(name, "none"), new.environment.get(name, "none")
        if before != after:
            yield FieldChange(path="", field=name, old=before, new=after)
    machines = [report.timings.machine if report.timings else None for report in (old, new)]
    if machines[0] and machines[1] and machines[0] != machines[1]:
        texts = [f"{m.cpu} with {m.cores} cores" for m in machines if m]
        yield FieldChange(path="", field="machine", old=texts[0], new=texts[1])


def _files(old: ModelReport, new: ModelReport) -> Iterator[FieldChange]:
    """Code, weights, data and logs whose content differs, by their first hexadecimal digits."""
    before = {(each.role, each.name): each.sha256 for each in old.files}
    after = {(each.role, each.name): each.sha256 for each in new.files}
    for key in {**before, **after}:
        hashes = before.get(key, ""), after.get(key, "")
        if hashes[0] != hashes[1]:
            role, name = key
            yield FieldChange(path=name, field=role, old=hashes[0][:12], new=hashes[1][:12])


def _done(model: ModelReport) -> set[str]:
    return {each.name for each in model.sections if isinstance(each.outcome, Done)}


def _not_compared(old: ModelReport, new: ModelReport) -> Iterator[NotCompared]:
    """The sections that have a result on one side only: nothing of them is better or worse."""
    before = {each.name: each for each in old.sections}
    after = {each.name: each for each in new.sections}
    for name, section in {**before, **after}.items():
        sides = [("the baseline", before.get(name)), ("this report", after.get(name))]
        outcomes = [side.outcome if side else None for _, side in sides]
        if any(isinstance(outcome, Done) for outcome in outcomes) and not all(
            isinstance(outcome, Done) for outcome in outcomes
        ):
            where, side = next(s for s in sides if not (s[1] and isinstance(s[1].outcome, Done)))
            yield NotCompared(section=section.title, reason=f"{_state(side)} in {where}")


def _state(side: Any) -> str:
    if side is None:
        return "not built"
    return "not run" if isinstance(side.outcome, Skipped) else "failed"


def _comparable(model: ModelReport, names: set[str]) -> Comparable:
    outcomes = {each.name: each.outcome for each in model.sections}
    return joined(
        section.comparable(outcome.result)
        for section in SECTIONS
        if section.name in names and isinstance(outcome := outcomes[section.name], Done)
    )


def _metrics(model: ModelReport, names: set[str]) -> Iterable[Metric]:
    return [metric for metric in model.metrics if metric.key.partition(".")[0] in names]


def _paths(modules: ModulesDiff | None) -> dict[str, str]:
    return {pair.old: pair.new for pair in modules.pairs if pair.old} if modules else {}


def _same_model(old: ModelReport, new: ModelReport, modules: ModulesDiff | None) -> bool:
    """Whether source, seed, weights and structure are the same on both sides."""
    same_entry = (old.source, old.seed, old.weights) == (new.source, new.seed, new.weights)
    return same_entry and modules is not None and not modules.edits


def _graphs(old: Comparable, new: Comparable, modules: ModulesDiff | None) -> tuple[GraphDiff, ...]:
    before = {graph.name: graph for graph in old.graphs}
    return tuple(
        diff_graph(before[graph.name], graph, modules or ModulesDiff())
        for graph in new.graphs
        if graph.name in before
    )


def _state_dict(
    old: Comparable, new: Comparable, modules: ModulesDiff | None
) -> StateDictDiff | None:
    return None if modules is None else diff_state_dict(old.modules, new.modules, modules)


def _cost(modules: ModulesDiff | None, metrics: tuple[MetricChange, ...]) -> tuple[CostStep, ...]:
    if modules is None:
        return ()
    by_name = {change.key.partition(".")[2]: change for change in reversed(metrics)}
    parameters, macs = (by_name.get(name) for name in ("parameters", "macs_per_sample"))
    return cost_steps(
        modules.edits,
        round(parameters.difference or 0) if parameters else 0,
        round(macs.difference or 0) if macs else 0,
    )


def _fits(old: tuple[LargestBatch, ...], new: tuple[LargestBatch, ...]) -> tuple[FitChange, ...]:
    def key(fit: LargestBatch) -> tuple[str, str, str, str]:
        return fit.gpu, fit.mode, fit.precision, fit.setting

    before = {key(fit): fit for fit in old}
    return tuple(
        FitChange(
            gpu=fit.gpu,
            mode=fit.mode,
            precision=fit.precision,
            setting=fit.setting,
            old=before[key(fit)].safe_batch,
            new=fit.safe_batch,
        )
        for fit in new
        if key(fit) in before and before[key(fit)].safe_batch != fit.safe_batch
    )


def _curves(
    old: tuple[TrainingCurve, ...], new: tuple[TrainingCurve, ...]
) -> tuple[CurvePair, ...]:
    """Curves of one tag: of the same run if both sides have it, else of the newest run."""
    by_run = {(curve.run, curve.tag): curve for curve in old}
    by_tag = {curve.tag: curve for curve in old}  # the last one is the newest
    pairs = []
    for curve in {each.tag: each for each in new}.values():
        match = by_run.get((curve.run, curve.tag), by_tag.get(curve.tag))
        if match is not None and (match.steps, match.values) != (curve.steps, curve.values):
            pairs.append(CurvePair(old=match, new=curve))
    return tuple(pairs)
