"""A section and what comes of it: done, skipped with a reason, or failed with an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import TypeAdapter

from reportgen.findings import Rule
from reportgen.metrics import Metric

if TYPE_CHECKING:
    from reportgen.study import FileStudy, Study, Subject

R = TypeVar("R")


def _no_metrics(_: object) -> tuple[Metric, ...]:
    return ()


def _no_files(_: object) -> tuple[str, ...]:
    return ()


def _no_headline(_: object) -> str:
    return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Done(Generic[R]):
    """The section ran; `result` is what it found."""

    result: R
    status: Literal["done"] = "done"


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """The section does not apply to this model; `reason` is a sentence."""

    reason: str
    status: Literal["skipped"] = "skipped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The section applies and could not be done; `error` says why, `hint` what to do.

    `details` is the road-map where there is one: everything that stands in the way, a line each.
    """

    error: str
    hint: str = ""
    details: tuple[str, ...] = ()
    status: Literal["failed"] = "failed"


class Unable(Exception):
    """Raised by `examine` where a section must fail with words of its own; becomes `Failed`."""

    def __init__(self, error: str, *, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(error)
        self.failed = Failed(error=error, hint=hint, details=details)


@dataclass(frozen=True, kw_only=True, slots=True)
class Section(Generic[R]):
    """One chapter of the report: its result type, how it is examined, and how it is judged.

    `examine_file` examines an ONNX file that comes without a module; None where there is nothing
    to say of one. `analyze_logs` analyzes an entry that consists of training logs alone; None
    where a section needs a model. A section that does not use the model says so with
    `uses_model`, and the model's state is then not saved around it.

    `metrics`, `files` and `headline` are what others may use of a result: figures, the files that
    it names below the model's folder, and one sentence for the first page ("" for none).
    """

    name: str
    title: str
    result: type[R]
    examine: Callable[[Study], R | Skipped]
    rules: tuple[Rule[R], ...]
    examine_file: Callable[[FileStudy], R | Skipped] | None = None
    analyze_logs: Callable[[Subject], R | Skipped] | None = None
    uses_model: bool = True
    metrics: Callable[[R], tuple[Metric, ...]] = _no_metrics
    files: Callable[[R], Iterable[str]] = _no_files
    headline: Callable[[R], str] = _no_headline


AnySection = Section[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chapter:
    """What one section said of one model, ready for the report."""

    name: str
    title: str
    outcome: Done[Any] | Skipped | Failed


def outcome_adapter(section: AnySection) -> TypeAdapter[Done[Any] | Skipped | Failed]:
    """Reads and writes the outcomes of `section` as JSON."""
    outcome: Any = Done[section.result] | Skipped | Failed  # type: ignore[name-defined]
    return TypeAdapter(outcome)
