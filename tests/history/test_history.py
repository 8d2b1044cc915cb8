"""The history as a whole: nights added, the page over them, the commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nights import FIRST, make_night, make_report, nights_of
from one_process import run_here

from reportgen.errors import HistoryError
from reportgen.history import Places, acknowledge, add_night, load_history, prune, write_index
from reportgen.history.describe import history_lines, share_text
from reportgen.history.night import Night, night_of_report, night_to_data
from reportgen.history.overview import History
from reportgen.history.store import append_record, record_files

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
CRON = ROOT / "docs" / "examples" / "nightly.cron"


def store(root: Path, nights: list[Night]) -> Places:
    places = Places(root)
    for night in nights:
        append_record(places.nights, night.time, night_to_data(night))
    return places


def loaded(root: Path, nights: list[Night]) -> History:
    return load_history(store(root, nights))


def last_of(nights: list[Night]) -> datetime:
    return nights[-1].time


def test_a_report_becomes_a_night(tmp_path: Path) -> None:
    folder = make_report(
        tmp_path / "vision", FIRST, 7,
        commit={"id": "a" * 40, "modified": True},
        files=[{"role": "manifest", "name": "m.yaml", "sha256": "1"}],
        timings={"built": FIRST.isoformat(), "machine": {"cpu": "EPYC", "cores": 2}},
        models=[{
            "name": "net", "verdict": "warn", "metrics": [],
            "files": [{"role": "code", "name": "net.py", "sha256": "2"}],
        }],
    )  # fmt: skip
    night = night_of_report(folder)
    assert (night.report, night.title, night.time) == ("vision", "Vision", FIRST)
    assert (night.commit, night.machine) == ("aaaaaaaaaaaa-dirty", "EPYC, 2 cores")
    assert night.manifest
    assert night.models["net"].verdict == "warn"
    assert night.models["net"].hashes.keys() == {"code"}


def test_a_report_without_timings_has_the_time_of_its_file(tmp_path: Path) -> None:
    folder = make_report(tmp_path / "vision", FIRST, 7, timings={})
    os.utime(folder / "report.json", (FIRST.timestamp(),) * 2)
    assert night_of_report(folder).time == FIRST


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"models": [1]}', '{"title": 1, "models": 2}']
)
def test_what_is_not_a_report_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(HistoryError, match=r"report\.json"):
        add_night(tmp_path, tmp_path / "reports")


def test_adding_twice_is_adding_once(tmp_path: Path) -> None:
    report = make_report(tmp_path / "vision", FIRST, 7)
    nights = [add_night(report, tmp_path) for _ in range(2)]
    assert nights[0] == nights[1]
    assert len(record_files(Places(tmp_path).nights)) == 1
    assert (Places(tmp_path).reports / nights[0].copy / "models/net/index.html").is_file()


def test_the_page_of_someone_else_is_not_replaced(tmp_path: Path) -> None:
    report = make_report(tmp_path / "reports" / "vision", FIRST, 7)
    (tmp_path / "reports" / "index.html").write_text("<title>my page</title>")
    with pytest.raises(HistoryError, match="is not from reportgen"):
        add_night(report, tmp_path / "reports")
    with pytest.raises(HistoryError, match="contains a report"):
        add_night(report, report)


def add_one(folder: Path, number: int) -> None:
    report = make_report(folder / str(number) / "vision", FIRST + timedelta(days=number), number)
    add_night(report, folder / "reports")
    write_index(folder / "reports", FIRST)


@pytest.mark.slow
def test_nights_that_arrive_at_once_are_all_on_the_page(tmp_path: Path) -> None:
    add_one(tmp_path / "before", 0)  # the processes are forked with the page's templates compiled
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(add_one, [tmp_path] * 16, range(16)))
    assert len(record_files(Places(tmp_path / "reports").nights)) == 16
    assert "16 nights" in (tmp_path / "reports" / "index.html").read_text()


def test_the_oldest_nights_go_when_the_store_is_full_and_their_changes_stay(tmp_path: Path) -> None:
    nights = nights_of([1, 2, 2, 3, 3, 3])
    places = store(tmp_path, nights)
    size = record_files(places.nights)[0].stat().st_size
    assert len(prune(tmp_path, largest_bytes=3 * size + 20).nights) == 3
    [report] = load_history(places).reports
    assert len(report.timeline.nights) == 3
    assert [(n.change.old, n.change.new) for n in report.changes] == [(1, 2), (2, 3)]


@pytest.mark.parametrize(("hours", "silent"), [(1, False), (36, False), (37, True)])
def test_the_alarm_is_raised_after_36_hours(tmp_path: Path, hours: int, silent: bool) -> None:
    nights = nights_of([1, 1])
    history = loaded(tmp_path, nights)
    now = last_of(nights) + timedelta(hours=hours)
    assert history.needs_attention(now) is silent
    assert any("ALARM" in line for line in history_lines(history, "", now)) is silent


def test_the_end_of_a_history_can_be_accepted(tmp_path: Path) -> None:
    nights = nights_of([1, 1])
    store(tmp_path, nights)
    now = last_of(nights) + timedelta(days=9)
    acknowledge(tmp_path, "vision", reason="moved", owner="Kim", now=now)
    assert not load_history(Places(tmp_path)).needs_attention(now)
    later = [*nights, make_night(12)]
    assert loaded(tmp_path, later).needs_attention(last_of(later) + timedelta(days=9))


@pytest.mark.parametrize(
    ("macs", "urgent"),
    [
        ([100, 104], True),
        ([104, 100], False),  # for the better
        ([100, 104, 100], False),  # recovered
        ([100] + [104] * 40, False),  # long ago
        (list(range(100, 120)), False),  # every night
    ],
)
def test_what_needs_attention(tmp_path: Path, macs: list[int], urgent: bool) -> None:
    nights = nights_of(macs)
    [report] = loaded(tmp_path, nights).reports
    assert bool(report.urgent) is urgent


def test_an_acknowledged_change_needs_no_attention(tmp_path: Path) -> None:
    nights = nights_of([100, 104])
    store(tmp_path, nights)
    now = last_of(nights)
    with pytest.raises(HistoryError, match="no change"):
        acknowledge(tmp_path, "net@2026-01-01", reason="r", owner="o", now=now)
    acknowledge(tmp_path, "net@2026-01-02", reason="wider head", owner="Kim", now=now)
    history = load_history(Places(tmp_path))
    assert not history.needs_attention(now)
    write_index(tmp_path, now)
    assert "wider head (Kim, 2026-01-02)" in Places(tmp_path).index.read_text()


def test_measured_changes_are_recorded_once(tmp_path: Path) -> None:
    places = store(tmp_path, nights_of(latency=[10.0, 10.1, 9.9] * 10 + [12.0, 12.1, 11.9] * 10))
    for _ in range(2):
        write_index(tmp_path, FIRST)
    [file] = record_files(places.changes)
    [change] = json.loads(file.read_text())["changes"]
    assert (change["old"], change["new"]) == (10.0, 12.0)


class _Words(HTMLParser):
    """The text of the changes on a page, and every link."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.links = "", [""]
        self.feed(page)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]


def test_the_page_says_what_changed_and_links_to_reports(tmp_path: Path) -> None:
    for day, macs in enumerate([100, 104]):
        report = make_report(
            tmp_path / "vision", FIRST + timedelta(days=day), macs,
            commit={"id": f"{day}" * 40, "modified": False},
        )  # fmt: skip
        night = add_night(report, tmp_path)
    write_index(tmp_path, FIRST)
    page = _Words(Places(tmp_path).index.read_text())
    assert "+4.0 % MACs (worse)" in page.text
    assert "since 2026-01-02, commits 000000000000..111111111111, cause: unknown" in page.text
    assert f"history/reports/{night.copy}/index.html" in page.links
    assert f"history/reports/{night.copy}/models/net/index.html" in page.links
    local = [link for link in page.links if link and not link.startswith("#")]
    assert all((tmp_path / link).is_file() for link in local)


def test_the_same_history_gives_the_same_page(tmp_path: Path) -> None:
    nights = nights_of([1, 2, 2], [5.0, 5.1, 5.2])
    pages = []
    for name in ("a", "b"):
        store(tmp_path / name, nights)
        pages.append(write_index(tmp_path / name, last_of(nights)).read_bytes())
    assert pages[0] == pages[1]


def test_names_from_outside_are_escaped(tmp_path: Path) -> None:
    night = make_night(0, 1, report="<b>x</b> y", title="<script>alert(1)</script>")
    store(tmp_path, [night])
    page = write_index(tmp_path, night.time).read_text()
    assert "<script>alert" not in page
    assert "<b>x</b>" not in page


def test_an_empty_history_has_a_page(tmp_path: Path) -> None:
    assert "No nights yet" in write_index(tmp_path, FIRST).read_text()


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.04, "+4.0 %"), (-0.04, "−4.0 %"), (0, "0 %"), (0.0004, "+0.04 %"), (None, "–")],
)
def test_shares_keep_a_digit(share: float | None, text: str) -> None:
    assert share_text(share) == text


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_raises_the_alarm_by_itself(
    browser: Browser, tmp_path: Path, width: int, scheme: str
) -> None:
    now = datetime.now(UTC)
    nights = nights_of([100] * 5 + [104] * 5 + [100] * 5, [5.0, 5.1, 5.2] * 5)
    store(tmp_path, nights)
    path = write_index(tmp_path, last_of(nights))  # the alarm was not due then
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    assert now > last_of(nights) + timedelta(hours=36)
    assert page.locator(".alarm").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg .mark").count() == 1  # and none for the night of the recovery
    assert complaints == []
    assert requests == [path.as_uri()]
    context.close()


@pytest.mark.parametrize("above", [".", "reports"])
def test_the_commands_find_the_history(tmp_path: Path, above: str) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_here("history", *arguments, folder=tmp_path)

    built = datetime.now(UTC).replace(microsecond=0)
    assert run("show").returncode == 2
    for hours, macs in ((20, 100), (1, 104)):
        make_report(tmp_path / above / "vision", built - timedelta(hours=hours), macs)
        assert run("add", f"{above}/vision").returncode == 0
    shown = run("show")
    assert (shown.returncode, shown.stdout.count("! vision/net/layers.macs@")) == (1, 1)
    assert run("acknowledge", "net", "--reason", "r", "--owner", "o").returncode == 0
    assert run("show", "layers.macs").returncode == 0
    assert run("prune").returncode == 0
    assert (tmp_path / above / "index.html").is_file()


def run_cron(line: str, project: Path) -> subprocess.CompletedProcess[str]:
    command = line.split(maxsplit=5)[5]
    environment = {**os.environ, "PROJECT": str(project), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_cron_example_builds_and_reports_what_needs_attention(tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Linear(4, 2)\n"
    )
    (tmp_path / "manifest.yaml").write_text(
        "version: 1\ntitle: Tiny\nmodels:\n"
        "  - {name: tiny, source: 'net.py:make', inputs: [{shape: [batch, 4]}], batch: 2}\n"
    )
    build, check = (line for line in CRON.read_text().splitlines() if line[:1].isdigit())
    build += " --section layers --format html"
    first = run_cron(build, tmp_path)
    assert (first.returncode, first.stdout) == (0, ""), first.stderr
    assert run_cron(check, tmp_path).stdout == ""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Linear(4, 3)\n"
    )
    assert run_cron(build, tmp_path).returncode == 0
    mail = run_cron(check, tmp_path).stdout
    assert "! manifest/tiny/layers.parameters@" in mail
    assert "cause: code" in mail
    index = _Words((tmp_path / "reports" / "index.html").read_text())
    assert "2 nights" in index.text
    nights = load_history(Places(tmp_path / "reports")).reports[0].timeline.nights
    assert all((Places(tmp_path / "reports").reports / night.copy).is_dir() for night in nights)
