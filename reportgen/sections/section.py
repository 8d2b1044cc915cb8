"""`Section`: the type of a result, its analysis and rules, and what others may use of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from reportgen.comparable import Comparable
from reportgen.context import Context, ModelContext, OnnxFileContext
from reportgen.findings import Rule
from reportgen.metrics import FigureCount, Method, Metric
from reportgen.outcome import Done, Failed, SectionOutcome, Skipped

R = TypeVar("R")

LOADING = frozenset({"source", "arguments", "weights", "inputs", "dims", "batch", "seed"})
"""The fields of `ModelSpec` that every section with a model depends on."""


def _none(_: object) -> tuple[Any, ...]:
    return ()


def _nothing_comparable(_: object) -> Comparable:
    return Comparable()


def _no_headline(_: object) -> str:
    return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section(Generic[R]):
    """One section of the report. Nothing else in the package uses its name or its result.

    Attributes:
        name: key in `report.json`, and the name of its folder, its template and its tests.
        title: heading of its chapter.
        result: a frozen dataclass of plain values.
        analyze: result of a model, or why the section does not apply.
        rules: the functions that derive findings from a result.
        analyze_file: result of an ONNX file without a module; None if the section needs a module.
        analyze_logs: result of an entry that has training logs and no model; None if the section
            needs a model.
        uses_model: whether the model's state must be preserved around `analyze`.
        imports: modules that `analyze` imports when it runs, for a process that forks children.
        exports: whether `analyze` reads the ONNX file that the context exports.
        share: computes in the context what `analyze` and a section beside it both use.
        runs_beside: whether `analyze` uses nothing that the context computes once, except by
            `share`, so that it may run in a process of its own beside the others.
        metrics: figures for budgets, the first page, comparisons and `publish`.
        methods: how the metrics were made; each key is in exactly one of them.
        counts: figures counted independently, for cross-checks between sections.
        comparable: modules, graphs, fits and curves, for comparisons of two reports.
        files: the files of a result, relative to the model's folder.
        print_files: further files that only the PDF is made of.
        reads: what a result depends on besides files, versions and `LOADING`: fields of
            `ModelSpec`, "onnx.opset" for a part of one; "targets"; "threads" if values are
            computed; "timings" if durations are measured. The cache's key consists of these.
        headline: one sentence for the first page; "" for none.
        filters: functions that the section's template may call, by name.
    """

    name: str
    title: str
    result: type[R]
    analyze: Callable[[ModelContext], R | Skipped]
    rules: tuple[Rule[R], ...]
    analyze_file: Callable[[OnnxFileContext], R | Skipped] | None = None
    analyze_logs: Callable[[Context], R | Skipped] | None = None
    uses_model: bool = True
    imports: tuple[str, ...] = ()
    exports: bool = False
    share: Callable[[ModelContext], object] = _none
    runs_beside: bool = False
    metrics: Callable[[R], tuple[Metric, ...]] = _none
    methods: Callable[[R], tuple[Method, ...]] = _none
    counts: Callable[[R], tuple[FigureCount, ...]] = _none
    comparable: Callable[[R], Comparable] = _nothing_comparable
    files: Callable[[R], Iterable[str]] = _none
    print_files: Callable[[R], Iterable[str]] = _none
    reads: frozenset[str] = frozenset()
    headline: Callable[[R], str] = _no_headline
    filters: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


AnySection = Section[Any]


def outcome_adapter(section: AnySection) -> TypeAdapter[Done[Any] | Skipped | Failed]:
    """Reads and writes the outcomes of `section` as JSON."""
    result: object = section.result
    return _adapter_of(result)


@cache  # building one takes longer than reading many outcomes
def _adapter_of(result: object) -> TypeAdapter[Done[Any] | Skipped | Failed]:
    # mypy cannot use a value as a type argument
    outcome: Any = Done[result] | Skipped | Failed  # type: ignore[valid-type]
    return TypeAdapter(outcome)


def files_of(section: AnySection, outcome: SectionOutcome) -> tuple[str, ...]:
    """The files of an outcome of `section`, those of the PDF included."""
    if not isinstance(outcome.outcome, Done):
        return ()
    result = outcome.outcome.result
    return tuple(dict.fromkeys((*section.files(result), *section.print_files(result))))
