"""summary.md: the headline counts the rows below it, no part hides another, GitHub renders it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import html
from report_values import HOSTILE, finding, full_report, hostile_report, model

from reportgen.findings import Finding, Severity
from reportgen.outcome import Done, Failed, SectionOutcome
from reportgen.render.summary import SUMMARY_LIMIT, Part, marker, render_summary
from reportgen.report import BudgetCheck, ModelReport, Report, judge

cmarkgfm = pytest.importorskip("cmarkgfm")

SEVERITIES = ("error", "warning", "note")
TEXT = st.text(
    alphabet=st.one_of(st.sampled_from("|`*_<>@#[]()!\n\\&-~$1. "), st.characters()), max_size=60
)


def rendered(markdown: str) -> html.HtmlElement:
    """`markdown` as GitHub's own parser renders it."""
    options = cmarkgfm.Options.CMARK_OPT_UNSAFE  # GitHub keeps <details> and filters the rest
    return html.fragment_fromstring(
        cmarkgfm.github_flavored_markdown_to_html(markdown, options=options), create_parent=True
    )


def counts_in_headline(page: html.HtmlElement) -> dict[str, int]:
    line = page.xpath("./p")[0].text_content()
    found = re.findall(r"([\d,]+) ([a-z ]+?)s?(?=[,.])", line.partition(". ")[2])
    return {word: int(number.replace(",", "")) for number, word in found}


def rows_under(page: html.HtmlElement, title: str) -> list[str]:
    """The items of the list with this title, a heading or the summary of folded details."""
    for element in page.xpath("./h3|./details"):
        summary = element.find("summary")
        heading = (summary if summary is not None else element).text_content().strip()
        if re.fullmatch(title, heading, re.IGNORECASE):
            holder = element if summary is not None else element.getnext()
            lists = holder.xpath("./ul") if summary is not None else [holder]
            return [item.text_content().strip() for item in lists[0].xpath("./li")]
    return []


def number_of(rows: list[str]) -> int:
    hidden = re.fullmatch(r"… and ([\d,]+) more \w+: see the report\.", rows[-1]) if rows else None
    return len(rows) - 1 + int(hidden[1].replace(",", "")) if hidden else len(rows)


def make_model(name: str, findings: list[Finding], budgets: int, failed: list[str]) -> ModelReport:
    sections = tuple(
        SectionOutcome(name=n, title=n, outcome=Failed(error=n) if n in failed else Done(result=0))
        for n in ("one", "two", "three")
    )
    checks = tuple(
        BudgetCheck(name=f"b{number}", limit=1, value=2, passed=False) for number in range(budgets)
    )
    return replace(
        model(name, judge(sections, findings, checks), sections=()),
        sections=sections, findings=tuple(findings), budgets=checks,
    )  # fmt: skip


FINDINGS = st.builds(
    finding, st.just("LAY001"), st.sampled_from(Severity), TEXT, TEXT, TEXT,
    st.one_of(st.none(), TEXT),
)  # fmt: skip
MODELS = st.builds(
    make_model, TEXT, st.lists(FINDINGS, max_size=6), st.integers(0, 3),
    st.lists(st.sampled_from(["one", "two", "three"]), max_size=2, unique=True),
)  # fmt: skip
REPORTS = st.builds(
    lambda title, models: replace(full_report(), title=title, models=tuple(models)),
    TEXT, st.lists(MODELS, max_size=4),
)  # fmt: skip


@given(REPORTS)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_headline_counts_the_rows_below_it(report: Report) -> None:
    page = rendered(render_summary(report))
    headline = counts_in_headline(page)
    expected = {
        word: number_of(rows_under(page, rf"([\d,]+ )?{word}s?"))
        for word in (*SEVERITIES, "ignored finding")
    }
    expected["exceeded budget"] = number_of(rows_under(page, "Exceeded budgets"))
    # sections that fail for one reason share a row; here each has a reason of its own
    expected["failed section"] = number_of(rows_under(page, "Failed sections"))
    assert headline == {word: number for word, number in expected.items() if number}
    marks = [row.xpath("./td[2]")[0].text_content()[0] for row in page.xpath("./table/tbody/tr")]
    worst = next((mark for mark in "❌⚠✅" if mark in marks), "✅")
    assert page.xpath("./h2")[0].text_content().startswith(worst)


@given(REPORTS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_text_of_a_report_is_markup(report: Report) -> None:
    page = rendered(render_summary(report))
    allowed = {"div", "h2", "h3", "p", "strong", "em", "ul", "li", "table", "thead", "tbody", "tr",
               "th", "td", "details", "summary"}  # fmt: skip
    assert {element.tag for element in page.iter() if isinstance(element.tag, str)} <= allowed
    assert not re.search(r"@\w|#\d", page.text_content())


def test_hostile_names_stay_text() -> None:
    page = rendered(render_summary(hostile_report()))
    assert len(page.xpath("./table")) == 1
    assert page.xpath("//script|//img|//a|//code") == []
    assert "<img src=x onerror=alert(1)>" in page.text_content()
    assert "@\u200boctocat" in page.text_content()


def test_every_table_is_parsed() -> None:
    page = rendered(render_summary(full_report()))
    [table] = page.xpath("./table")
    rows = [[cell.text_content() for cell in row] for row in table.iter("tr")]
    assert [row[0] for row in rows] == ["Model", *(m.name for m in full_report().models)]
    assert len({len(row) for row in rows}) == 1
    assert "|" not in page.text_content()


def _noisy(number: int, text: str = HOSTILE * 9) -> Report:
    notes = [finding("LAY001", Severity.NOTE, "fc", text, text)] * number
    warning = finding("LAY002", Severity.WARNING, "fc", "the one warning", "")
    sections = [make_model(f"m{n}", [*notes, warning], 1, ["one"]) for n in range(3)]
    return replace(full_report(), models=tuple(sections))


def test_a_noisy_part_does_not_hide_the_others() -> None:
    text = render_summary(_noisy(4000))
    assert SUMMARY_LIMIT - 4000 < len(text) <= SUMMARY_LIMIT  # and the room is used
    page = rendered(text)
    assert len(rows_under(page, "3 warnings")) == 3
    assert len(rows_under(page, "Exceeded budgets")) == 3
    assert len(rows_under(page, "Failed sections")) == 3
    assert number_of(rows_under(page, "12,000 notes")) == 12_000
    assert page.xpath("./details")[-1].find("summary").text_content() == "12,000 notes"


def test_parts_that_are_all_too_long_share_the_room_equally() -> None:
    crowd = [finding("LAY001", severity, "fc", HOSTILE * 9, "") for severity in Severity] * 300
    many = (make_model("m", crowd, 900, ["one"]),) * 50
    text = render_summary(replace(full_report(), models=many))
    assert len(text) <= SUMMARY_LIMIT
    page = rendered(text)
    for word in SEVERITIES:
        assert number_of(rows_under(page, rf"[\d,]+ {word}s")) == 300 * 50
        assert len(rows_under(page, rf"[\d,]+ {word}s")) > 10
    assert number_of(rows_under(page, "Exceeded budgets")) == 900 * 50


def test_a_part_of_a_comparison_follows_the_headline_and_counts_in_it() -> None:
    rows: list[Any] = [{"model": name, "message": "x"} for name in ("a", "b")]
    part = Part(template="budgets", rows=rows, counted="changed metric")
    text = render_summary(_noisy(0), [part])
    assert text.index("**a**") < text.index("| Model |")
    assert "2 changed metrics, 3 failed sections" in text


def test_the_first_line_names_the_manifest_and_cannot_be_left_early() -> None:
    assert marker("a b/m.yaml") == "<!-- reportgen manifest=a%20b/m.yaml -->"
    assert marker("--><script>").count(">") == 1
    report = replace(full_report(), manifest="models/m.yaml")
    assert render_summary(report).startswith("<!-- reportgen manifest=models/m.yaml -->\n## ")
