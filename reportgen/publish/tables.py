"""Verdicts, findings, hyperparameters and logged tables as Markdown or HTML text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

from reportgen.publish.contents import ModelContents

Markup = Literal["markdown", "html"]
_SPECIAL = re.compile(r"([\\`*_\[\]|#])")  # TensorBoard renders texts as Markdown


@dataclass(frozen=True, kw_only=True, slots=True)
class TextItem:
    """A text of one model; `name` is unique among them and safe to use in a tag."""

    name: str
    title: str
    text: str


def text_items(model: ModelContents, markup: Markup) -> list[TextItem]:
    """The texts of `model`: its verdict, and tables where there is something to list."""
    items = [TextItem(name="summary", title="summary", text=_summary(model, markup))]
    if model.metrics:
        items.append(TextItem(name="metrics", title="metrics", text=_metrics(model, markup)))
    if model.findings:
        items.append(TextItem(name="findings", title="findings", text=_findings(model, markup)))
    if any(run.hyperparameters for run in model.runs):
        items.append(
            TextItem(
                name="hyperparameters",
                title="hyperparameters",
                text=_hyperparameters(model, markup),
            )
        )
    return [*items, *_logged_tables(model, markup)]


def _logged_tables(model: ModelContents, markup: Markup) -> Iterator[TextItem]:
    used: Counter[str] = Counter()
    for run in model.runs:
        for entry in run.tables:
            name = "/".join(part for part in ("tables", run.name, entry.tag) if part)
            used[name] += 1
            yield TextItem(
                name=name if used[name] == 1 else f"{name} ({used[name]})",
                title=f"{run.name} {entry.tag}".strip(),
                text=table(entry.columns, entry.rows, markup),
            )


def _summary(model: ModelContents, markup: Markup) -> str:
    lines = [f"{headline.section}: {headline.sentence}" for headline in model.headlines]
    lines += [f"{run.name or 'training'}: {run.summary}" for run in model.runs if run.summary]
    if markup == "html":
        items = "".join(f"<li>{escape(line)}</li>" for line in lines)
        return f"<p><b>{escape(model.verdict)}</b></p>" + (f"<ul>{items}</ul>" if items else "")
    bullets = [f"- {escape_markdown(line)}" for line in lines]
    return "\n".join([f"**{escape_markdown(model.verdict)}**", "", *bullets]).strip()


def _metrics(model: ModelContents, markup: Markup) -> str:
    rows = [
        (metric.label, f"{'≥ ' * metric.lower_bound}{metric.value:,.12g}", metric.unit)
        for metric in model.metrics
    ]
    return table(("metric", "value", "unit"), rows, markup)


def _findings(model: ModelContents, markup: Markup) -> str:
    rows = [
        (
            finding.code,
            f"{finding.severity}, ignored" if finding.ignored is not None else finding.severity,
            finding.where,
            finding.message,
            finding.advice if finding.ignored is None else finding.ignored,
        )
        for finding in model.findings
    ]
    return table(("code", "severity", "where", "message", "advice"), rows, markup)


def _hyperparameters(model: ModelContents, markup: Markup) -> str:
    """One row per hyperparameter of any run, one column per run that has some."""
    runs = [run for run in model.runs if run.hyperparameters]
    keys = sorted({key for run in runs for key in run.hyperparameters})
    rows = [(key, *(str(run.hyperparameters.get(key, "")) for run in runs)) for key in keys]
    return table(("hyperparameter", *(run.name or "training" for run in runs)), rows, markup)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], markup: Markup) -> str:
    """A table; short rows are filled up with empty cells, markup in cells is escaped."""
    rows = [[*row, *[""] * (len(columns) - len(row))] for row in rows]
    if markup == "markdown":
        lines = [columns, ["---"] * len(columns), *rows]
        # By identity: a row of the table may consist of "---" as well.
        cells = [
            [cell if line is lines[1] else escape_markdown(cell) for cell in line] for line in lines
        ]
        return "\n".join(f"| {' | '.join(line)} |" for line in cells)
    head = "".join(f'<th align="left">{escape(cell)}</th>' for cell in columns)
    body = "".join(
        "<tr>" + "".join(f'<td valign="top">{escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return f'<table border="1" cellpadding="4"><tr>{head}</tr>{body}</table>'


def escape_markdown(text: str) -> str:
    """`text` on one line, so that Markdown and HTML show it as it is."""
    return _SPECIAL.sub(r"\\\1", escape(" ".join(text.split()), quote=False))
