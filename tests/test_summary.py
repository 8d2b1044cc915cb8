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

from reportgen.compare.result import (
    Comparison,
    Edit,
    MetricChange,
    ModelComparison,
    ModulesDiff,
    SideLabel,
)
from reportgen.findings import Finding, Severity
from reportgen.outcome import Done, Failed, SectionOutcome
from reportgen.render.changes import changes_of
from reportgen.render.summary import SUMMARY_LIMIT, marker, render_changes, render_summary
from reportgen.report import BudgetCheck, ModelReport, Report, judge

cmarkgfm = pytest.importorskip("cmarkgfm")

SEVERITIES = ("error", "warning", "note")
TEXT = st.text(
    alphabet=st.one_of(st.sampled_from("|`*_<>@#[]()!\n\\&-~$1. "), st.characters(codec="utf-8")),
    max_size=60,
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


STATES: list[Any] = [
    {"passed": False, "state": "exceeded", "level": "fail"},
    {"passed": True, "state": "warning", "level": "warn"},
    {"passed": True, "state": "waived", "level": "fail", "waived": "until | May"},
]


def make_model(name: str, findings: list[Finding], budgets: int, failed: list[str]) -> ModelReport:
    sections = tuple(
        SectionOutcome(name=n, title=n, outcome=Failed(error=n) if n in failed else Done(result=0))
        for n in ("one", "two", "three")
    )
    checks = tuple(
        BudgetCheck(name=f"b{n}", limit=1, value=2, **STATES[n % len(STATES)])
        for n in range(budgets)
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
        for word in (*SEVERITIES, "ignored finding", "waived budget")
    }
    for word in ("exceeded budget", "budget warning"):
        expected[word] = number_of(rows_under(page, f"{word}s"))
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
    assert number_of(rows_under(page, "Exceeded budgets")) == 300 * 50


def test_the_first_line_names_the_manifest_and_cannot_be_left_early() -> None:
    assert marker("a b/m.yaml") == "<!-- reportgen manifest=a%20b/m.yaml -->"
    assert marker("--><script>").count(">") == 1
    report = replace(full_report(), manifest="models/m.yaml")
    assert render_summary(report).startswith("<!-- reportgen manifest=models/m.yaml -->\n## ")


def _comparison(metrics: int, edits: int, models: int = 1) -> Comparison:
    changed = ModelComparison(
        name="net",
        status="changed",
        metrics=tuple(
            MetricChange(key=f"layers.m{n}", label=f"Metric {n}", unit="", old=1, new=2,
                         difference=1, percent=100, verdict="worse", headline=True,
                         old_text="1", new_text="2")
            for n in range(metrics)
        ),
        modules=ModulesDiff(edits=(Edit(kind="added", new="layer.x", type="Conv2d"),) * edits),
    )  # fmt: skip
    side = SideLabel(title="base")
    return Comparison(old=side, new=side, verdict="pass", models=(changed,) * models)


def test_what_changed_comes_first_with_details_folded() -> None:
    page = rendered(render_summary(_noisy(0), changes_of(_comparison(2, 3))))
    first = page.xpath("./table")[0]
    rows = [[cell.text_content() for cell in row] for row in first.iter("tr")]
    assert rows[0][:5] == ["Model", "Metric", "Baseline", "Now", "Change"]
    assert [row[1] for row in rows[1:]] == ["Metric 0", "Metric 1"]
    assert len(page.xpath("./details")[0].xpath("./ul/li")) == 3
    headings = [h.text_content() for h in page.xpath("./h3")]
    assert headings == ["What changed", "Failed sections", "Exceeded budgets", "Models"]


@given(st.lists(st.sampled_from(["added", "removed", "changed", "unchanged"]), max_size=6))
@settings(max_examples=40, deadline=None)
def test_the_sentence_on_changes_counts_the_models_of_its_table(statuses: list[Any]) -> None:
    side = SideLabel(title="base")
    comparison = Comparison(
        old=side, new=side, verdict="pass",
        models=tuple(ModelComparison(name=f"m{n}", status=s) for n, s in enumerate(statuses)),
    )  # fmt: skip
    page = rendered(render_changes(changes_of(comparison)))
    sentence = page.xpath("./p")[0].text_content().partition("Compared")[0]
    numbers = [int(n) for n in re.findall(r"(\d+) (?=of|added|removed)", sentence)]
    assert sum(numbers) == len(page.xpath("./table/tbody/tr"))
    assert ("Nothing changed." in sentence) == (not numbers)


def test_names_in_the_title_of_folded_details_are_text() -> None:
    """There Markdown has no meaning, and a tag would be one."""
    evil = "<b>x</b> a_b @octocat #1 & \n\n</summary>"
    comparison = _comparison(1, 1)
    named = replace(comparison, models=(replace(comparison.models[0], name=evil),))
    page = rendered(render_summary(_noisy(0), changes_of(named)))
    title = page.xpath("./details")[0].find("summary")
    assert title.text.startswith("<b>x</b> a_b @\u200boctocat #\u200b1 & </summary>: Metric 0 +100")
    assert page.xpath("//b") == []


@pytest.mark.slow
def test_a_huge_comparison_leaves_room_for_the_rest_and_the_rest_for_it() -> None:
    text = render_summary(_noisy(4000), changes_of(_comparison(3, 300, models=400)))
    assert len(text) <= SUMMARY_LIMIT
    page = rendered(text)
    rows = page.xpath("./table")[0].xpath("./tbody/tr")
    assert len(rows) > 100
    [more] = [p for p in page.xpath("./p") if "more rows" in p.text_content()]
    assert more.text_content() == f"And {1200 - len(rows)} more rows: see the report."
    assert len(rows_under(page, "Exceeded budgets")) == 3
    assert number_of(rows_under(page, "12,000 notes")) == 12_000
    alone = render_changes(changes_of(_comparison(3, 300, models=400)))
    assert SUMMARY_LIMIT - 4000 < len(alone) <= SUMMARY_LIMIT


def test_a_comparison_without_changes_says_so() -> None:
    text = render_summary(_noisy(0), changes_of(replace(_comparison(0, 0), models=())))
    assert "\n\n**Nothing changed.** Compared with base." in text
