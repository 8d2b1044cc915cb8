"""What the first page says: verdicts with their reasons, and all models side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote

from reportgen.findings import Finding, Severity
from reportgen.outcome import Done, SectionOutcome
from reportgen.report import BudgetCheck, Headline, ModelReport, Report, Verdict, failures
from reportgen.sections.layers import Layers
from reportgen.sections.memory import Fit, Memory
from reportgen.sections.onnx import OnnxExport

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How many findings there are of each severity; ignored ones apart."""

    errors: int
    warnings: int
    notes: int
    ignored: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOverview:
    """One model in the comparison; None where a section has no result."""

    name: str
    anchor: str  # its id in print
    href: str  # its page, relative to the index
    source: str
    verdict: Verdict
    reasons: tuple[str, ...]
    counts: Counts
    sections: tuple[SectionOutcome, ...]
    headlines: tuple[Headline, ...]
    layers: Layers | None
    onnx: OnnxExport | None
    memory: Memory | None
    parity: str | None  # "passed" | "vacuous" | "failed" | "not run"
    macs_per_sample: float | None
    training_fits: dict[str, Fit]  # GPU -> fit of the plainest training step
    inference_fits: dict[str, Fit]


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """All models side by side."""

    verdict: Verdict
    sentence: str
    counts: Counts
    failed_sections: int
    exceeded_budgets: int
    models: tuple[ModelOverview, ...]
    sections: dict[str, str]  # name -> title of every section that some model has
    gpus: tuple[str, ...]
    training_setting: str  # what the plainest training step is: "fp32, adamw"
    inference_setting: str

    @property
    def with_source(self) -> tuple[ModelOverview, ...]:
        """Those that are models, and not training logs alone."""
        return tuple(model for model in self.models if model.source)

    @property
    def trains(self) -> bool:
        """Whether a training step of some model was estimated; else inference is shown."""
        return bool(self.training_setting)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A finding and the model it was found in."""

    model: str
    href: str
    finding: Finding


def overview(report: Report) -> Overview:
    """Everything the first page compares."""
    models = tuple(model_overview(model, n) for n, model in enumerate(report.models, start=1))
    return Overview(
        verdict=report.verdict,
        sentence=verdict_sentence(report.models),
        counts=count(finding for model in report.models for finding in model.findings),
        failed_sections=sum(len(f.sections) for m in report.models for f in failures(m)),
        exceeded_budgets=sum(len(broken_budgets(m.budgets)) for m in report.models),
        models=models,
        sections={c.name: c.title for m in models for c in m.sections},
        gpus=_unique(gpu for m in models for gpu in (*m.training_fits, *m.inference_fits)),
        training_setting=_setting(fit for m in models for fit in m.training_fits.values()),
        inference_setting=_setting(fit for m in models for fit in m.inference_fits.values()),
    )


def model_overview(model: ModelReport, number: int = 1) -> ModelOverview:
    """What the comparison says of `model`, the `number`th of the report."""
    layers, onnx, memory = (
        _result(model, Layers),
        _result(model, OnnxExport),
        _result(model, Memory),
    )
    fits = memory.fits if memory else ()
    return ModelOverview(
        name=model.name,
        anchor=f"model-{number}",
        href=f"models/{quote(model.name)}/index.html",
        source=model.source,
        verdict=model.verdict,
        reasons=reasons(model),
        counts=count(model.findings),
        sections=model.sections,
        headlines=model.headlines,
        layers=layers,
        onnx=onnx,
        memory=memory,
        parity=_parity(onnx),
        macs_per_sample=layers.macs / layers.batch if layers and layers.batch else None,
        training_fits=_plainest(fits, "train"),
        inference_fits=_plainest(fits, "inference"),
    )


def verdict_sentence(models: Sequence[ModelReport]) -> str:
    """How many models fail, warn and pass, in one sentence."""
    if not models:
        return "The report holds no model."
    parts = []
    for verdict, words in (
        (Verdict.FAIL, ("fails", "fail")),
        (Verdict.WARN, ("has warnings", "have warnings")),
        (Verdict.PASS, ("passes", "pass")),
    ):
        number = sum(model.verdict is verdict for model in models)
        if number == len(models):
            return f"{_all(number)} {words[number > 1]}."
        if number:
            parts.append(f"{number} {words[number > 1]}")
    return f"Of {len(models)} models, {', '.join(parts[:-1])} and {parts[-1]}."


def reasons(model: ModelReport) -> tuple[str, ...]:
    """Why a model does not simply pass, each in two or three words."""
    failed = [
        f"{title} failed"
        for failure in failures(model)
        for title in (
            [failure.titles] if failure.everything else [c.title for c in failure.sections]
        )
    ]
    broken = [f"budget {budget.name} exceeded" for budget in broken_budgets(model.budgets)]
    counts = count(model.findings)
    found = [
        _plural(number, word)
        for number, word in ((counts.errors, "error"), (counts.warnings, "warning"))
        if number
    ]
    return (*failed, *broken, *found)


def broken_budgets(budgets: Iterable[BudgetCheck]) -> tuple[BudgetCheck, ...]:
    """The budgets that are exceeded."""
    return tuple(budget for budget in budgets if budget.passed is False)


def count(findings: Iterable[Finding]) -> Counts:
    """How many findings there are of each severity."""
    kinds = [None if f.ignored is not None else f.severity for f in findings]
    return Counts(
        errors=kinds.count(Severity.ERROR),
        warnings=kinds.count(Severity.WARNING),
        notes=kinds.count(Severity.NOTE),
        ignored=kinds.count(None),
    )


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst first; what the manifest ignores is left out."""
    order = list(Severity)
    heard = [finding for finding in findings if finding.ignored is None]
    return tuple(sorted(heard, key=lambda finding: order.index(finding.severity)))


def all_found(report: Report) -> tuple[Found, ...]:
    """Every finding of every model, worst first; what the manifest ignores is left out."""
    order = list(Severity)
    found = [
        Found(model=m.name, href=f"models/{quote(m.name)}/index.html", finding=finding)
        for m in report.models
        for finding in in_order(m.findings)
    ]
    return tuple(sorted(found, key=lambda each: order.index(each.finding.severity)))


def _result(model: ModelReport, kind: type[T]) -> T | None:
    for section in model.sections:
        if isinstance(section.outcome, Done) and isinstance(section.outcome.result, kind):
            return section.outcome.result
    return None


def _parity(onnx: OnnxExport | None) -> str | None:
    if onnx is None:
        return None
    if onnx.parity.not_run:
        return "not run"
    if not onnx.parity.passed:
        return "failed"
    return "vacuous" if onnx.parity.vacuous else "passed"


def _plainest(fits: Sequence[Fit], mode: str) -> dict[str, Fit]:
    """The first fit of each GPU without checkpointing, in the precision that comes first."""
    plain = [fit for fit in fits if fit.mode == mode and not fit.checkpointing]
    first: dict[str, Fit] = {}
    for fit in plain:
        if fit.precision == plain[0].precision:
            first.setdefault(fit.gpu, fit)
    return first


def _setting(fits: Iterable[Fit]) -> str:
    settings = _unique(", ".join(filter(None, (fit.precision, _optimizer(fit)))) for fit in fits)
    return " / ".join(settings)


def _optimizer(fit: Fit) -> str:
    return fit.optimizer if fit.mode == "train" else ""


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(words))


def _all(number: int) -> str:
    return "The one model" if number == 1 else f"All {number} models"


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
