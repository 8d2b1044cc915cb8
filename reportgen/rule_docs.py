"""The documentation of the rules: as text for a terminal, as `docs/rules.md`, and for pages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from reportgen.findings import Rule
from reportgen.sections import SECTIONS
from reportgen.sections.section import AnySection

AnyRule = Rule[Any]

_HEAD = """# Rules

Written by `reportgen rules --markdown > docs/rules.md`; do not edit.

A rule is a function of the result of one section. An error makes the verdict of the model fail, a
warning makes it warn, a note does not change it. `reportgen rules CODE` prints one of them. To
accept findings of a rule for good, write `ignore: {CODE: reason}` in the manifest; to accept them
until a date, see [waivers](budgets.md#waivers). The examples are run by the tests: the first gives
exactly one finding of its section, the second none.
"""


def all_rules() -> dict[str, AnyRule]:
    """Every rule by its code, in reading order."""
    return {rule.code: rule for section in SECTIONS for rule in section.rules}


def rules_of(codes: Iterable[str]) -> tuple[AnyRule, ...]:
    """The rules with these codes, each once; codes of other versions are left out."""
    known, wanted = all_rules(), set(codes)
    return tuple(rule for code, rule in known.items() if code in wanted)


def rule_text(rule: AnyRule) -> str:
    """What, why, how to fix and both examples, for a terminal."""
    parts = [f"{rule.code} {rule.name} ({rule.severity.value})", rule.what]
    if rule.why:
        parts.append(rule.why)
    parts.append(f"How to fix it: {rule.advice}.")
    if rule.example is not None:
        parts += ["Bad:", _indented(rule.example.bad), "Good:", _indented(rule.example.good)]
    return "\n\n".join(parts)


def _indented(code: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in code.splitlines())


def rules_markdown() -> str:
    """The content of `docs/rules.md`."""
    return "\n".join([_HEAD, *_contents(), *(line for s in SECTIONS for line in _section(s))])


def _contents() -> Iterator[str]:
    yield "| code | name | severity | what |"
    yield "|---|---|---|---|"
    for rule in all_rules().values():
        yield f"| [{rule.code}](#{rule.code}) | {rule.name} | {rule.severity} | {rule.what} |"
    yield ""


def _section(section: AnySection) -> Iterator[str]:
    if section.rules:
        yield f"## {section.title}\n"
    for rule in section.rules:
        yield f'<a id="{rule.code}"></a>\n'
        yield f"### {rule.code} {rule.name}\n"
        yield f"**{rule.severity.value.capitalize()}.** {rule.what}\n"
        if rule.why:
            yield f"{rule.why}\n"
        yield f"**How to fix it:** {rule.advice}.\n"
        if rule.example is not None:
            yield f"Bad:\n\n```python\n{rule.example.bad}\n```\n"
            yield f"Good:\n\n```python\n{rule.example.good}\n```\n"
