"""Outcomes of the sweep, their summary and the Markdown page."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

from zoo_draw import NotDrawn

SEED = 4
GOAL = 0.97
_MAX_CELL = 420

NOT_OURS: dict[str, str] = {}
"""Model -> why its library cannot run it; checked by hand if no inputs are known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A failed section; its name is "" if no report was built.

    Attributes:
        alone: the seconds or the error of the same operation in plain PyTorch; None if it was
            not run.
    """

    section: str
    error: str
    hint: str
    alone: float | str | None

    @property
    def pytorch_could(self) -> bool:
        """Whether plain PyTorch can do it; True if it was not run."""
        return not isinstance(self.alone, str)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The outcome of one model.

    Attributes:
        verdict: the verdict of the report; "" if there is none.
        parity: passed, vacuous, failed, not run, or "" without an ONNX file.
        seconds: the duration of the build.
    """

    name: str
    source: str
    parameters: int
    level: str
    verdict: str
    parity: str
    seconds: float
    failures: tuple[Failure, ...]

    @property
    def built(self) -> bool:
        """Whether a report was built."""
        return bool(self.verdict)

    @property
    def ours(self) -> tuple[Failure, ...]:
        """The failures of operations that plain PyTorch can do."""
        return () if self.name in NOT_OURS else tuple(f for f in self.failures if f.pytorch_could)

    @property
    def complete(self) -> bool:
        """Whether there are no failures of ours."""
        return not self.ours


def outcome_from(data: dict[str, Any]) -> Outcome:
    """An outcome from its JSON in the cache."""
    failures = tuple(Failure(**failure) for failure in data["failures"])
    return Outcome(**{**data, "failures": failures})


def summary(outcomes: list[Outcome], not_drawn: list[NotDrawn]) -> list[str]:
    """The summary, one sentence per line."""
    total = len(outcomes)
    complete = sum(outcome.complete for outcome in outcomes)
    parity = Counter(outcome.parity or "no file" for outcome in outcomes)
    failures = [f for outcome in outcomes for f in outcome.failures]
    ours = Counter(f.section or "model" for outcome in outcomes for f in outcome.ours)
    explained = sum(bool(f.error and f.hint and "\n" not in f.error) for f in failures)
    seconds = statistics.median([o.seconds for o in outcomes]) if outcomes else 0.0
    return [
        f"{_share(sum(o.built for o in outcomes), total)} have a report.",
        f"{_share(complete, total)} have no failed section that PyTorch itself could have done "
        f"(goal {GOAL:.0%}).",
        f"{_share(sum(not o.failures for o in outcomes), total)} have no failed section at all.",
        "Failures that are ours: " + (_counts(ours) or "none") + ".",
        f"{explained} of {len(failures)} failures have a one-line reason with a hint.",
        f"Parity: {_counts(parity)}.",
        f"Median build: {seconds:.0f} s on two shared cores.",
        f"{len(not_drawn)} more were drawn that could not be made tiny.",
    ]


def _share(part: int, total: int) -> str:
    return f"{part} of {total} ({100 * part / total:.1f} %)" if total else "0 of 0"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common())


def table(outcomes: list[Outcome], not_drawn: list[NotDrawn], drawn: int) -> str:
    """The page as Markdown: summary, table of models, and models that were not used."""
    built = "" if len(outcomes) == drawn else f"So far {len(outcomes)} of them were tried. "
    from importlib.metadata import version

    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "transformers"))
    lines = [
        f"# {drawn} architectures drawn at random",
        "",
        f"{built}Written by `python benchmarks/zoo.py --write` (seed {SEED}; {libraries}).",
        "",
        *(f"- {line}" for line in summary(outcomes, not_drawn)),
        "",
        "A section fails for a reason of **PyTorch's** where a bare forward pass, backward pass",
        "or `torch.onnx.export(dynamo=True)` with the same inputs fails too; else it is **ours**.",
        "",
        "| source | made small | parameters | verdict | parity | seconds | failed |",
        "| --- | --- | ---: | --- | --- | ---: | --- |",
        *(_row(outcome) for outcome in sorted(outcomes, key=lambda o: o.source)),
        "",
        "## Not drawn",
        "",
        "| source | reason |",
        "| --- | --- |",
        *(f"| {n.source} | {_cell(n.reason)} |" for n in sorted(not_drawn, key=lambda n: n.source)),
    ]
    return "\n".join(lines) + "\n"


def _row(outcome: Outcome) -> str:
    failed = "<br>".join(_description(outcome, failure) for failure in outcome.failures)
    cells = (
        outcome.source,
        outcome.level,
        f"{outcome.parameters:,}",
        outcome.verdict or "no report",
        outcome.parity or "–",
        f"{outcome.seconds:.0f}",
        failed,
    )
    return "| " + " | ".join(cells) + " |"


def _description(outcome: Outcome, failure: Failure) -> str:
    whose = "ours" if failure in outcome.ours else "PyTorch's"
    hint = f" ({failure.hint})" if failure.hint else ""
    known = NOT_OURS.get(outcome.name, "")
    alone = failure.alone if isinstance(failure.alone, str) else known
    text = f"{failure.error}{hint}" + (f" – alone: {alone}" if alone else "")
    return f"**{failure.section or 'model'}**, {whose}: {_cell(text)}"


def _cell(text: str) -> str:
    """A library's text as a table cell, with Markdown escaped."""
    flat = re.sub(r"([|<>*`\\])", r"\\\1", " ".join(text.split()))
    return flat if len(flat) <= _MAX_CELL else f"{flat[:_MAX_CELL]}…"


def line_of(outcome: Outcome) -> str:
    """One line of progress for a finished build."""
    failed = "; ".join(
        f"{'ours' if f in outcome.ours else 'not ours'}, {f.section or 'model'}: {f.error}"[:150]
        for f in outcome.failures
    )
    return (
        f"{outcome.verdict or '-':5} {outcome.seconds:6.1f} s  parity {outcome.parity or '-':8} "
        f"{outcome.name:45} {failed}"
    )
