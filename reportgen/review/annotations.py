"""GitHub's workflow commands: a line of output that becomes an annotation at a line of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reportgen.findings import Severity
from reportgen.render.problems import Problem, all_problems
from reportgen.report import Report
from reportgen.visible_text import visible

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
_MOST = 10  # of each severity: GitHub drops all others of a step


def workflow_commands(report: Report, root: Path) -> tuple[str, ...]:
    """One line per problem, the worst first; what the manifest accepts is left out.

    Args:
        report: the report.
        root: root of the repository, see `all_problems`.
    """
    found = [problem for problem in all_problems(report, root) if problem.ignored is None]
    return tuple(
        _command(problem)
        for severity in Severity
        for problem in _shown([each for each in found if each.severity is severity])
    )


def _shown(problems: Sequence[Problem]) -> Sequence[Problem]:
    if len(problems) <= _MOST:
        return problems
    more = len(problems) - _MOST + 1
    last = replace(
        problems[_MOST - 1],
        code="more",
        where="",
        message=f"{more:,} more of this severity: see the summary of the job",
        advice="",
    )
    return [*problems[: _MOST - 1], last]


def _command(problem: Problem) -> str:
    title = " ".join(filter(None, (problem.code, problem.model, problem.where)))
    properties = {"file": problem.file, "line": str(problem.line), "title": visible(title)}
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
    text = "\n".join(filter(None, (problem.message, problem.advice)))
    return f"::{_COMMANDS[problem.severity]} {listed}::{_message(visible(text))}"


def _message(text: str) -> str:
    # A line break would end the command, and the next line could be another one.
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
