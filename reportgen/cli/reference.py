"""`reportgen rules`, `gpus` and `schema`: print what is built in."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Literal

import typer

from reportgen.cli.printing import print_text
from reportgen.errors import ReportgenError


def rules(
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="Code of a rule: LAY001.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/rules.md, which explains all rules.")
    ] = False,
) -> None:
    """List all rules, or explain one."""
    from reportgen.rule_docs import all_rules, rule_text, rules_markdown

    known = all_rules()
    if markdown:
        print_text(rules_markdown(), end="")
    elif code is None:
        for rule in known.values():
            print_text(f"{rule.code}  {rule.severity.value:<8}{rule.name}")
    elif (found := known.get(code.upper())) is None:
        raise ReportgenError(f"unknown rule {code!r}", hint=f"use one of {', '.join(known)}")
    else:
        print_text(rule_text(found))


def gpus(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of a GPU: T4.")] = None,
) -> None:
    """List all known GPUs, or print the data of one."""
    from reportgen.cuda_memory.errors import UnknownGpuError
    from reportgen.cuda_memory.gpus import catalog, find_gpu
    from reportgen.units import format_bytes

    if name is None:
        for gpu in catalog():
            print_text(f"{gpu.name:<24}{format_bytes(gpu.usable_bytes):>10}")
        return
    try:
        gpu = find_gpu(name)
    except UnknownGpuError as error:
        raise ReportgenError(str(error), hint=error.hint) from error
    for key, value in dataclasses.asdict(gpu).items():
        print_text(f"{key}: {', '.join(map(str, value)) if isinstance(value, tuple) else value}")


def schema(
    name: Annotated[
        Literal["manifest", "report"], typer.Argument(metavar="NAME", help="manifest or report.")
    ],
) -> None:
    """Print the JSON Schema of manifests or of report.json."""
    from reportgen.manifest import manifest_schema
    from reportgen.report import report_schema
    from reportgen.sections import SECTIONS

    content = manifest_schema() if name == "manifest" else report_schema(SECTIONS)
    print_text(json.dumps(content, ensure_ascii=False, indent=2))
