"""What a section is: a result type, an analysis, rules, and what others may use of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter

from reportgen.context import Context, ModelContext, OnnxFileContext
from reportgen.findings import Rule
from reportgen.metrics import Metric
from reportgen.outcome import Done, Failed, Skipped

R = TypeVar("R")


def _no_metrics(_: object) -> tuple[Metric, ...]:
    return ()


def _no_files(_: object) -> tuple[str, ...]:
    return ()


def _no_headline(_: object) -> str:
    return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section(Generic[R]):
    """One section of the report: its result type, how it is examined, and how it is judged.

    `analyze_file` examines an ONNX file that comes without a module; None where there is nothing
    to say of one. `analyze_logs` analyzes an entry that consists of training logs alone; None
    where a section needs a model. A section that does not use the model says so with
    `uses_model`, and the model's state is then not saved around it.

    `metrics`, `files` and `headline` are what others may use of a result: figures, the files that
    it names below the model's folder, and one sentence for the first page ("" for none).
    """

    name: str
    title: str
    result: type[R]
    analyze: Callable[[ModelContext], R | Skipped]
    rules: tuple[Rule[R], ...]
    analyze_file: Callable[[OnnxFileContext], R | Skipped] | None = None
    analyze_logs: Callable[[Context], R | Skipped] | None = None
    uses_model: bool = True
    metrics: Callable[[R], tuple[Metric, ...]] = _no_metrics
    files: Callable[[R], Iterable[str]] = _no_files
    headline: Callable[[R], str] = _no_headline


AnySection = Section[Any]


def outcome_adapter(section: AnySection) -> TypeAdapter[Done[Any] | Skipped | Failed]:
    """Reads and writes the outcomes of `section` as JSON."""
    outcome: Any = Done[section.result] | Skipped | Failed  # type: ignore[name-defined]
    return TypeAdapter(outcome)
