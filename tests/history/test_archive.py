"""Dated copies of reports: hard links, what is left out, and which ones are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen.history import archive
from reportgen.history.archive import copy_report, delete_old_copies, kept_times
from reportgen.history.night import stamp

LAST = datetime(2026, 11, 27, 3, 15, tzinfo=UTC)


@pytest.fixture
def report(tmp_path: Path) -> Path:
    model = tmp_path / "vision" / "models" / "net"
    model.mkdir(parents=True)
    (tmp_path / "vision" / "index.html").write_text("page")
    (tmp_path / "vision" / "notes.txt").write_text("of the user")
    (model / "layers.csv").write_text("rows")
    return tmp_path / "vision"


def files_in(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_copy_has_the_files_of_the_report_as_links(report: Path, tmp_path: Path) -> None:
    copy = tmp_path / "reports" / "copy"
    copy_report(report, copy)
    assert files_in(copy) == {"index.html", "models/net/layers.csv"}
    assert (copy / "index.html").samefile(report / "index.html")
    assert files_in(tmp_path / "reports") == {f"copy/{name}" for name in files_in(copy)}


def test_the_next_build_does_not_change_a_copy(report: Path, tmp_path: Path) -> None:
    copy_report(report, tmp_path / "copy")
    (report / "new").write_text("the next night")
    (report / "new").replace(report / "index.html")  # as builds do
    copy_report(report, tmp_path / "copy")  # the same night again
    assert (tmp_path / "copy" / "index.html").read_text() == "page"


def test_large_files_are_left_out(
    report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LARGEST_BYTES", 100)
    (report / "models" / "net" / "model.onnx").write_bytes(bytes(101))
    copy_report(report, tmp_path / "copy")
    assert files_in(tmp_path / "copy") == {"index.html", "models/net/layers.csv"}


def test_three_years_of_nights_leave_a_month_a_year_of_weeks_and_months() -> None:
    nights = [LAST - timedelta(days=age) for age in range(3 * 365)]
    kept = sorted(kept_times(nights), reverse=True)
    ages = [(LAST - time).days for time in kept]
    assert ages[:31] == list(range(31))
    weekly = [age for age in ages if 30 < age <= 365]
    assert all(later - earlier == 7 for earlier, later in pairwise(weekly[1:-1]))
    assert 45 <= len(weekly) <= 50
    monthly = [time for time in kept if (LAST - time).days > 365]
    assert len({(time.year, time.month) for time in monthly}) == len(monthly) == 25


@given(st.lists(st.integers(0, 2000), min_size=1, max_size=60))
def test_pruning_twice_is_pruning_once(ages: list[int]) -> None:
    times = {LAST - timedelta(days=age) for age in ages}
    kept = kept_times(times)
    assert max(times) in kept
    assert kept <= times
    assert kept_times(kept) == kept


def test_copies_of_each_report_are_pruned_by_themselves(tmp_path: Path) -> None:
    def copy(days: int, report: str) -> str:
        name = f"{stamp(LAST - timedelta(days=days))}-{report}-0123abcd"
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text("")
        return name

    doomed = [copy(41, "a-b"), copy(42, "a-b")]
    kept = [copy(0, "a-b"), copy(40, "a-b"), copy(41, "other"), copy(13, "other")]
    (tmp_path / "2026-of-the-user").mkdir()
    assert delete_old_copies(tmp_path) == sorted(doomed)
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "2026-of-the-user"}
