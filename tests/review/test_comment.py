"""One comment, whatever happens: pages, busy servers, forks, two runs at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from report_values import finding, full_report, model
from typer.testing import CliRunner

from reportgen import cli
from reportgen.compare.result import Comparison, ModelComparison, SideLabel
from reportgen.errors import ReviewError
from reportgen.findings import Severity
from reportgen.render.summary import marker
from reportgen.report import Report, Verdict, report_to_json
from reportgen.review.comment import has_something_to_say, post_comment
from reportgen.review.github import Github, RefusedError

from .github_server import BOT, Repository, serve

PASSING = replace(
    full_report(),
    title="Small @models",
    manifest="models/m.yaml",
    models=(model("net", Verdict.PASS, sections=()),),
)
WARNED = model("net", Verdict.WARN, sections=(),
               findings=(finding("LAY001", Severity.WARNING, "fc", "large", ""),))  # fmt: skip
WARNING = replace(PASSING, models=(WARNED,))


@pytest.fixture
def repository() -> Repository:
    return Repository()


@pytest.fixture
def github(repository: Repository) -> Iterator[Github]:
    with serve(repository) as address:
        yield Github(
            repository="owner/name", token="secret", api=address, wait=lambda seconds: None
        )


def _compared(status: str) -> Comparison:
    side = SideLabel(title="base")
    changed = ModelComparison(name="net", status=status)  # type: ignore[arg-type]
    return Comparison(old=side, new=side, verdict="pass", models=(changed,))


def test_three_pushes_leave_one_comment(github: Github, repository: Repository) -> None:
    for message in ("one", "two", "three"):
        found = (replace(WARNED.findings[0], message=message),)
        report = replace(WARNING, models=(replace(WARNED, findings=found),))
        post_comment(github, 5, report, link="https://example.org/run")
    [body] = repository.bodies()
    assert body.startswith(marker("models/m.yaml"))
    assert "fc: three" in body
    assert body.endswith("[The whole report](https://example.org/run)\n")


def test_an_equal_comment_is_not_edited(github: Github, repository: Repository) -> None:
    post_comment(github, 5, WARNING)
    # as GitHub stores it
    repository.comments[0]["body"] = repository.comments[0]["body"].strip()
    repository.requests.clear()
    post_comment(github, 5, WARNING)
    assert {method for method, _, _ in repository.requests} == {"GET"}


@pytest.mark.parametrize(
    ("report", "comparison", "expected"),
    [
        (PASSING, None, False),
        (PASSING, _compared("unchanged"), False),
        (PASSING, _compared("changed"), True),
        (PASSING, _compared("added"), True),
        (PASSING, _compared("removed"), True),
        (WARNING, _compared("unchanged"), True),
        (WARNING, None, True),
    ],
)
def test_there_is_something_to_say(
    report: Report, comparison: Comparison | None, expected: bool
) -> None:
    assert has_something_to_say(report, comparison) is expected


def test_nothing_is_posted_where_there_is_nothing_to_say(
    github: Github, repository: Repository
) -> None:
    assert "no comment is needed" in post_comment(github, 5, PASSING)
    assert repository.comments == []


def test_a_comment_is_taken_back_when_the_problem_is_solved_and_comes_back_with_it(
    github: Github, repository: Repository
) -> None:
    post_comment(github, 5, WARNING)
    assert "was taken back" in post_comment(github, 5, PASSING, _compared("unchanged"))
    text = "✅ Small @&#8203;models: every model passes, nothing changed.\n"
    assert repository.bodies() == [f"{marker('models/m.yaml')}\n{text}"]
    post_comment(github, 5, WARNING)
    [body] = repository.bodies()
    assert "1 warning" in body


def test_each_manifest_has_its_own_comment(github: Github, repository: Repository) -> None:
    for manifest in ("a.yaml", "b.yaml", "a.yaml"):
        post_comment(github, 5, replace(WARNING, manifest=manifest))
    firsts = [body.splitlines()[0] for body in repository.bodies()]
    assert firsts == [marker("a.yaml"), marker("b.yaml")]


def test_a_copy_of_the_marker_by_someone_else_is_left_alone(
    github: Github, repository: Repository
) -> None:
    repository.add_comment(f"{marker('models/m.yaml')}\nmine", author="mallory")
    repository.add_comment(f"> {marker('models/m.yaml')}\nquoted")
    post_comment(github, 5, WARNING)
    assert [c["user"]["login"] for c in repository.comments] == ["mallory", BOT, BOT]
    assert repository.bodies("mallory") == [f"{marker('models/m.yaml')}\nmine"]


def test_the_comment_is_found_on_a_later_page(github: Github, repository: Repository) -> None:
    for number in range(230):
        repository.add_comment(f"talk {number}", author="someone")
    ours = repository.add_comment(f"{marker('models/m.yaml')}\nold")
    for number in range(70):
        repository.add_comment(f"more talk {number}", author="someone")
    post_comment(github, 5, WARNING)
    [body] = repository.bodies()
    assert ours["body"] == body
    pages = [path for method, path, _ in repository.requests if method == "GET"]
    assert [path.rpartition("page=")[2] for path in pages] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_busy_server_is_asked_again(github: Github, repository: Repository, status: int) -> None:
    repository.failing += [status, status]
    post_comment(github, 5, WARNING)
    repository.failing += [status]
    post_comment(github, 5, PASSING)
    assert len(repository.bodies()) == 1


def test_a_server_that_stays_busy_is_an_error(github: Github, repository: Repository) -> None:
    repository.failing += [502] * 9
    with pytest.raises(RefusedError, match="502 Server Error"):
        post_comment(github, 5, WARNING)
    assert len(repository.requests) == 4


def test_a_server_that_is_not_there_is_an_error() -> None:
    waits: list[float] = []
    github = Github(repository="o/n", token="t", api="http://127.0.0.1:1", wait=waits.append)
    with pytest.raises(ReviewError, match="GitHub cannot be reached"):
        post_comment(github, 5, WARNING)
    assert waits == [1, 3, 9]


def test_a_post_that_seemed_to_fail_leaves_one_comment(
    github: Github, repository: Repository
) -> None:
    """A gateway may time out after the comment was stored; the next try stores another."""
    repository.before_post = lambda: repository.before_post_once()  # type: ignore[attr-defined]

    def stored_already() -> None:
        repository.before_post_once = lambda: None  # type: ignore[attr-defined]
        repository.add_comment(f"{marker('models/m.yaml')}\nstored by the first try")

    repository.before_post_once = stored_already  # type: ignore[attr-defined]
    post_comment(github, 5, WARNING)
    [body] = repository.bodies()
    assert "1 warning" in body


def test_a_fork_is_told_and_is_no_error(github: Github, repository: Repository) -> None:
    repository.read_only = True
    said = post_comment(github, 5, WARNING)
    assert said.startswith("no comment on pull request 5: the token may not write comments")
    assert repository.comments == []


def test_a_missing_pull_request_is_an_error(github: Github) -> None:
    with pytest.raises(RefusedError, match="404 Not Found"):
        github.get("pulls/77777")


def test_runs_that_race_leave_one_comment(repository: Repository) -> None:
    """All look before any has posted: the worst case."""
    together = threading.Barrier(4)
    repository.before_post = lambda: together.wait(10)  # type: ignore[assignment,return-value]
    with serve(repository) as address:

        def run(_: int) -> str:
            github = Github(
                repository="owner/name", token="t", api=address, wait=lambda seconds: None
            )
            return post_comment(github, 5, WARNING)

        with ThreadPoolExecutor(4) as pool:
            assert len(list(pool.map(run, range(4)))) == 4
    posts = [method for method, _, _ in repository.requests if method == "POST"]
    assert len(posts) == 4
    assert len(repository.bodies()) == 1


def test_the_command_posts_a_report(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "report.json").write_text(report_to_json(WARNING), encoding="utf-8")
    with serve(repository) as address:
        monkeypatch.setenv("GITHUB_API_URL", address)
        monkeypatch.setenv("GITHUB_TOKEN", "secret")
        monkeypatch.delenv("GITHUB_EVENT_PATH", raising=False)
        options = ["--repository", "owner/name", "--pull-request", "5"]
        result = CliRunner().invoke(cli.app, ["comment", str(tmp_path), *options])
    assert (result.exit_code, result.stderr) == (0, "commented on pull request 5\n")
    assert len(repository.bodies()) == 1
    assert {token for _, _, token in repository.requests} == {"Bearer secret"}


def test_the_command_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_EVENT_PATH", "GITHUB_TOKEN", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)
    run = CliRunner().invoke
    assert "requires --pull-request N" in str(run(cli.app, ["comment", "r"]).exception)
    numbered = ["comment", "r", "--pull-request", "5"]
    assert "is not a repository" in str(run(cli.app, numbered).exception)
    named = [*numbered, "--repository", "o/n"]
    assert "GITHUB_TOKEN is not set" in str(run(cli.app, named).exception)
