"""Findings, their severities, and the rules that produce them.

A rule is a pure function of the result of one section. `reportgen rules CODE` prints its docstring.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

R = TypeVar("R")  # the result of a section


class Severity(StrEnum):
    """An error makes the verdict fail, a warning makes it warn, a note does not change it."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A problem in one model.

    Attributes:
        code: of the rule.
        severity: of the rule.
        where: the place: a module path, a node or a file; "" for the whole model.
        message: one sentence with the values.
        advice: what to do.
        ignored: the reason in the manifest for accepting it; None if it is not accepted.
        note: that a waiver for it has expired; "" otherwise.
        source: file and line of the module at `where`: `net.py:12`; "" if unknown.
        fingerprint: the same in every report that has this finding. Neither the text nor the line
            of a finding influences it.
    """

    code: str
    severity: Severity
    where: str
    message: str
    advice: str
    ignored: str | None = None
    note: str = ""
    source: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A place where a rule applies, and one sentence about it with the values.

    Attributes:
        where: the place, as readers see it.
        message: one sentence with the values.
        advice: replaces the rule's where the cause is known better.
        key: identifies the place where `where` depends on figures: "12 more curves".
    """

    where: str
    message: str
    advice: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Example:
    """Two small models: one that breaks a rule, and the same one corrected.

    Both are Python code that assigns a module to `model` and its `inputs`, as in a manifest, or an
    `onnx.ModelProto` to `model`. It may assign `options`, other keys of the manifest's entry, and
    write files to the path `folder`.
    """

    bad: str
    good: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule(Generic[R]):
    """A documented check; `check` yields one hit for each problem in a result."""

    code: str
    name: str
    severity: Severity
    advice: str
    documentation: str
    check: Callable[[R], Iterator[Hit]]
    example: Example | None = None

    @property
    def what(self) -> str:
        """The problem in one sentence."""
        return self.documentation.partition("\n\n")[0].replace("\n", " ")

    @property
    def why(self) -> str:
        """Why it matters, and when the rule does not apply."""
        return self.documentation.partition("\n\n")[2]

    def findings(self, result: R, sources: Mapping[str, str] | None = None) -> tuple[Finding, ...]:
        """All findings of this rule in `result`.

        Args:
            result: of the rule's section.
            sources: file and line of each module, by path.
        """
        seen: Counter[str] = Counter()
        found = []
        for hit in self.check(result):
            place = hit.key or hit.where
            seen[place] += 1
            found.append(
                Finding(
                    code=self.code,
                    severity=self.severity,
                    where=hit.where,
                    message=hit.message,
                    advice=hit.advice or self.advice,
                    source=source_of(hit.where, sources or {}),
                    fingerprint=fingerprint(self.code, place, seen[place]),
                )
            )
        return tuple(found)


def fingerprint(code: str, place: str, number: int = 1) -> str:
    """16 hexadecimal digits for the `number`th finding of the rule `code` at `place`."""
    return hashlib.blake2b(f"{code}\0{place}\0{number}".encode(), digest_size=8).hexdigest()


def source_of(where: str, sources: Mapping[str, str]) -> str:
    """The source of the module at `where`, or of the module that has the parameter `where`."""
    if where in sources:
        return sources[where]
    module, _, name = where.rpartition(".")
    return sources.get(module, "") if name.isidentifier() and module else ""


def rule(
    code: str, severity: Severity, *, advice: str, bad: str = "", good: str = ""
) -> Callable[[Callable[[R], Iterator[Hit]]], Rule[R]]:
    """Turn a function into a `Rule` with the name and docstring of the function.

    The first paragraph of the docstring says what is wrong, the rest why it matters; `advice` says
    how to fix it. `bad` and `good` are those of `Example`.
    """
    example = Example(bad=inspect.cleandoc(bad), good=inspect.cleandoc(good)) if bad else None

    def make(check: Callable[[R], Iterator[Hit]]) -> Rule[R]:
        return Rule(
            code=code,
            name=check.__name__.replace("_", "-"),
            severity=severity,
            advice=advice,
            documentation=inspect.cleandoc(check.__doc__ or ""),
            check=check,
            example=example,
        )

    return make
