"""Findings of two reports are paired by place, never by text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reportgen.compare.findings import diff_findings
from reportgen.findings import Finding, Severity


def finding(
    where: str, message: str = "is large", code: str = "LAY001", ignored: str | None = None
) -> Finding:
    return Finding(
        code=code,
        severity=Severity.WARNING,
        where=where,
        message=message,
        advice="shrink it",
        ignored=ignored,
    )


def test_a_reworded_finding_is_neither_new_nor_fixed() -> None:
    diff = diff_findings([finding("fc", "is large")], [finding("fc", "holds 40 %")], {})
    assert (diff.new, diff.fixed) == ((), ())


def test_a_finding_moves_with_its_module() -> None:
    paths = {"fc": "head.fc", "": ""}
    diff = diff_findings([finding("fc.weight")], [finding("head.fc.weight")], paths)
    assert (diff.new, diff.fixed) == ((), ())


def test_of_several_at_one_place_the_one_that_differs_is_left_over() -> None:
    old = [finding("fc", "a"), finding("fc", "b")]
    new = [finding("fc", "b"), finding("fc", "c"), finding("fc", "a")]
    diff = diff_findings(old, new, {})
    assert [f.message for f in diff.new] == ["c"]
    assert diff.fixed == ()


def test_another_place_is_a_new_and_a_fixed_finding() -> None:
    diff = diff_findings([finding("a")], [finding("b")], {})
    assert [f.where for f in diff.new] == ["b"]
    assert [f.where for f in diff.fixed] == ["a"]


def test_ignored_findings_are_neither_new_nor_fixed() -> None:
    shown, accepted = finding("fc"), finding("fc", ignored="transfer learning")
    assert diff_findings([shown], [accepted], {}).fixed == ()
    assert diff_findings([], [accepted], {}).new == ()


places = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=6)


@given(places, places)
def test_counts_of_new_and_fixed_follow_from_the_counts_of_each_place(
    old: list[tuple[str, str]], new: list[tuple[str, str]]
) -> None:
    diff = diff_findings([finding(*f) for f in old], [finding(*f) for f in new], {})
    for place in "ab":
        before = sum(where == place for where, _ in old)
        after = sum(where == place for where, _ in new)
        assert sum(f.where == place for f in diff.new) == max(0, after - before)
        assert sum(f.where == place for f in diff.fixed) == max(0, before - after)
