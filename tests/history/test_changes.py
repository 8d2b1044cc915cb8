"""Changes: of counts and of measured figures, their causes, recoveries and records."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nights import FIRST, LATENCY, MACS, make_night, nights_of

from reportgen.history.acknowledgments import Acknowledgment, acknowledged, matches
from reportgen.history.changes import (
    Change,
    change_from_data,
    change_to_data,
    find_changes,
    merge_recorded,
)
from reportgen.history.drift import find_drift
from reportgen.history.night import Night
from reportgen.history.timeline import Timeline, make_timelines


def timeline_of(nights: Sequence[Night]) -> Timeline:
    [timeline] = make_timelines(nights)
    return timeline


def changes_of(nights: Sequence[Night], recorded: Sequence[Change] = ()) -> list[Change]:
    timeline = timeline_of(nights)
    return merge_recorded(timeline, find_changes(timeline), recorded)


def day(moment: object) -> int:
    return (moment - FIRST).days  # type: ignore[operator, no-any-return]


def noisy(count: int, level: float = 10.0, seed: int = 0) -> list[float]:
    return (level * (1 + 0.01 * np.random.default_rng(seed).standard_normal(count))).tolist()


@given(st.lists(st.none() | st.integers(1, 3), min_size=1, max_size=40))
def test_a_count_changes_whenever_it_differs_and_never_else(macs: list[int | None]) -> None:
    known = [(index, value) for index, value in enumerate(macs) if value is not None]
    expected = [
        (before, after, old, new) for (before, old), (after, new) in pairwise(known) if old != new
    ]
    found = changes_of(nights_of(macs))
    assert [(day(c.before), day(c.night), c.old, c.new) for c in found] == expected
    assert all(change.confirmed for change in found)


def test_a_change_has_its_difference_commits_and_key() -> None:
    [change] = changes_of(nights_of([100, None, 104]))
    assert (change.difference, change.share, change.effect) == (4, 0.04, "worse")
    assert change.commits == ("c000", "c002")
    assert change.key == "vision/net/layers.macs@2026-01-03"


def test_the_share_of_a_change_from_zero_is_unknown() -> None:
    assert changes_of(nights_of([0, 5]))[0].share is None


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({}, "unknown"),
        ({"environment": {"torch": "2.15"}}, "torch 2.14 → 2.15"),
        ({"environment": {"torch": "2.14", "onnx": "1.2"}}, "onnx none → 1.2"),
        ({"environment": {"torch": "2.14", "graphviz": "9"}}, "unknown"),
        ({"manifest": "n"}, "manifest"),
        ({"manifest": ""}, "unknown"),  # a report of an older version
        ({"hashes": {"code": "d"}}, "code"),
        ({"hashes": {"code": "c", "weights": "w"}}, "weights"),
        ({"manifest": "n", "hashes": {"code": "d"}}, "manifest, code"),
    ],
)
def test_the_cause_is_what_else_differs(fields: dict[str, object], cause: str) -> None:
    [change] = changes_of([make_night(0, 1), make_night(1, 2, **fields)])
    assert change.cause == cause


def test_recoveries_end_changes() -> None:
    first, second, last = changes_of(nights_of([100, 100, 106, 106, 107, 100]))
    assert (day(first.night), day(first.recovered)) == (2, 5)
    assert (second.kind, day(second.recovered)) == ("over", 5)
    assert (last.reverts, last.recovered) == (True, None)


def test_a_drop_beyond_the_old_value_ends_a_rise_and_is_a_change_of_its_own() -> None:
    rise, drop = changes_of(nights_of([100, 106, 90]))
    assert (rise.kind, drop.reverts, drop.kind) == ("over", False, "confirmed")


def test_a_measured_change_is_found_with_the_cause_two_nights_away() -> None:
    values = noisy(40) + noisy(2) + noisy(38, 11.0)
    nights = [
        make_night(d, None, value, hashes={"code": "old" if d < 40 else "new"})
        for d, value in enumerate(values)
    ]
    [change] = changes_of(nights)
    assert (change.cause, day(change.night)) == ("code", 40)
    assert change.share == pytest.approx(0.1, abs=0.01)


def test_another_machine_is_never_a_change() -> None:
    fast, slow = noisy(60, seed=1), noisy(60, 20.0, seed=2)
    nights = [
        make_night(d, None, slow[d] if d % 3 == 0 else fast[d], machine="b" if d % 3 == 0 else "a")
        for d in range(60)
    ]
    assert changes_of(nights) == []
    assert changes_of([make_night(n, None, v, machine="a") for n, v in enumerate(fast[:30])]
                      + [make_night(30 + n, None, v, machine="b") for n, v in enumerate(slow[:30])]
                      ) == []  # fmt: skip


def test_versions_that_measured_figures_depend_on_begin_a_new_series() -> None:
    old, new = noisy(30), noisy(30, 12.0)
    nights = [
        make_night(d, None, v, environment={"torch": "2.14" if d < 30 else "2.15"})
        for d, v in enumerate(old + new)
    ]
    assert changes_of(nights) == []


def test_the_last_nights_of_a_measured_figure_are_possible() -> None:
    [change] = changes_of(nights_of(latency=[*noisy(30), 12.0, 12.1]))
    assert (change.kind, day(change.night)) == ("possible", 30)


def test_a_recorded_change_stays_where_it_was_found() -> None:
    values = noisy(40) + noisy(40, 11.0)
    [found] = changes_of(nights_of(latency=values))
    moved = Change(**{
        **{name: getattr(found, name) for name in Change.__dataclass_fields__},
        "night": found.night + timedelta(days=2), "commits": ("x", "y"),
    })  # fmt: skip
    assert [c.commits for c in changes_of(nights_of(latency=values), [moved])] == [("x", "y")]
    # a later fit has no change there, but it was one
    assert [c.commits for c in changes_of(nights_of(latency=noisy(80)), [moved])] == [("x", "y")]


def test_a_recorded_count_is_used_only_for_nights_that_were_pruned() -> None:
    nights = nights_of([1, 2, 2, 3])
    recorded = changes_of(nights)
    assert [(c.old, c.new) for c in changes_of(nights, recorded)] == [(1, 2), (2, 3)]
    assert [(c.old, c.new) for c in changes_of(nights[2:], recorded)] == [(1, 2), (2, 3)]
    late = sorted([*nights[:1], *nights[3:]], key=lambda night: night.time)
    wrong = changes_of(late)  # before the nights between arrived
    assert [(c.old, c.new) for c in changes_of(nights, wrong)] == [(1, 2), (2, 3)]


def test_a_change_comes_back_from_the_store_as_it_was() -> None:
    [change] = changes_of(nights_of([1, 2]))
    assert change_from_data(change_to_data(change)) == change


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("vision", True),
        ("net", True),
        ("vision/net", True),
        ("layers.macs", True),
        ("net/layers.macs", True),
        ("vision/net/layers.macs", True),
        ("vision/net/layers.macs@2026-01-02", True),
        ("net@2026-01-02", True),
        ("net@2026-01-03", False),
        ("vision/layers.macs", False),
        ("macs", False),
    ],
)
def test_a_key_names_changes(key: str, expected: bool) -> None:
    [change] = changes_of(nights_of([1, 2]))
    assert matches(key, change) is expected


def test_an_acknowledgment_covers_what_is_older_than_it() -> None:
    early, late = changes_of(nights_of([1, 2, 3]))
    note = Acknowledgment(key="net", reason="r", owner="o", time=early.night)
    assert acknowledged(early, [note]) is note
    assert acknowledged(late, [note]) is None


def test_drift_compares_the_first_with_the_last() -> None:
    timeline = timeline_of(nights_of([1000 + n for n in range(365)]))
    [series] = [s for s in timeline.series() if s.figure == MACS]
    drift = find_drift(timeline, series)
    assert drift is not None
    assert drift.shares == pytest.approx((6 / 1358, 29 / 1335, 364 / 1000))


def test_drift_over_more_nights_than_there_are_is_unknown() -> None:
    timeline = timeline_of(nights_of([100, 110, 121]))
    drift = find_drift(timeline, next(timeline.series()))
    assert drift is not None
    assert drift.shares == (pytest.approx(0.21), None, None)


def test_measured_drift_is_that_of_the_last_machine_and_of_medians() -> None:
    nights = [make_night(d, None, 50.0, machine="b") for d in range(20)]
    nights += [make_night(20 + d, None, 10.0) for d in range(10)]
    nights += [make_night(30 + d, None, 11.0) for d in range(9)]
    nights += [make_night(39, None, 99.0)]  # one busy night
    timeline = timeline_of(nights)
    [series] = [s for s in timeline.series() if s.figure == LATENCY]
    drift = find_drift(timeline, series)
    assert drift is not None
    assert drift.shares == (0.0, pytest.approx(0.1), None)
