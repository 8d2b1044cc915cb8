"""The steps of the action: where a baseline comes from, and comments for forks."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_values import finding, full_report, model

from reportgen.errors import ReviewError
from reportgen.findings import Severity
from reportgen.report import Report, Verdict, report_to_json
from reportgen.review.artifacts import artifact_name, find_artifact, read_artifact
from reportgen.review.github import Github
from reportgen.review.steps import STEPS, run_step

from .github_server import Repository, serve

MANIFEST = "models/m.yaml"
NAME = "reportgen-data-models-m.yaml"


def _report(message: str = "") -> Report:
    found = (finding("LAY001", Severity.WARNING, "fc", message, ""),) if message else ()
    one = model("net", Verdict.WARN if message else Verdict.PASS, sections=(), findings=found)
    return replace(full_report(), models=(one,), manifest=MANIFEST)


def _json(report: Report) -> bytes:
    return report_to_json(report).encode()


@pytest.fixture
def repository() -> Repository:
    return Repository(commits=["base", "older", "oldest"])


@pytest.fixture
def environment(repository: Repository, tmp_path: Path) -> Iterator[dict[str, str]]:
    event = tmp_path / "event.json"
    sides = {"base": {"sha": "tip"}, "head": {"sha": "head"}}
    event.write_text(json.dumps({"pull_request": {"number": 5, **sides}}))
    with serve(repository) as address:
        yield {
            "GITHUB_API_URL": address,
            "GITHUB_TOKEN": "secret",
            "GITHUB_REPOSITORY": "owner/name",
            "GITHUB_EVENT_PATH": str(event),
            "GITHUB_WORKSPACE": str(tmp_path / "work"),
            "RUNNER_TEMP": str(tmp_path / "temp"),
            "REPORTGEN_MANIFEST": MANIFEST,
            "REPORTGEN_BASELINE": "artifact",
        }


def _baseline(environment: dict[str, str]) -> Path:
    return Path(environment["RUNNER_TEMP"]) / NAME / "baseline/report.json"


def test_the_names_of_artifacts_have_no_forbidden_character() -> None:
    assert artifact_name("reportgen-data", MANIFEST) == NAME
    assert artifact_name("x", 'a/b:c"<>|*?\r\n\\é.yaml') == "x-a-b-c---------é.yaml"


def test_the_baseline_is_the_artifact_of_the_merge_base(
    repository: Repository, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    repository.add_artifact(NAME, "older", {"report.json": b"{}"})
    repository.add_artifact(NAME, "base", {"report.json": _json(_report("base"))})
    repository.add_artifact(NAME, "head", {"report.json": b"{}"})
    repository.add_artifact("reportgen-data-other", "base", {"report.json": b"{}"})
    assert STEPS["baseline"](environment) == 0
    assert _baseline(environment).read_bytes() == _json(_report("base"))
    assert capsys.readouterr().out == "baseline: the report of base, from an artifact\n"


def test_the_token_is_not_sent_to_the_host_of_a_download(
    repository: Repository, environment: dict[str, str]
) -> None:
    repository.add_artifact(NAME, "base", {"report.json": _json(_report())})
    STEPS["baseline"](environment)
    tokens = {path: token for _, path, token in repository.requests}
    assert tokens["/blob/1"] == ""
    assert tokens["/repos/owner/name/actions/artifacts/1/zip"] == "Bearer secret"


def test_without_one_at_the_merge_base_the_next_older_is_taken(
    repository: Repository, environment: dict[str, str]
) -> None:
    repository.add_artifact(NAME, "oldest", {"report.json": _json(_report("oldest"))})
    repository.add_artifact(NAME, "older", {"report.json": _json(_report("first run"))})
    repository.add_artifact(NAME, "older", {"report.json": _json(_report("second run"))})
    repository.add_artifact(NAME, "base", {"report.json": b""}, expired=True)
    STEPS["baseline"](environment)
    assert _baseline(environment).read_bytes() == _json(_report("second run"))


def test_an_artifact_of_a_fork_is_no_baseline() -> None:
    run = {"head_sha": "base", "repository_id": 1, "head_repository_id": 2}
    assert find_artifact([{"id": 1, "expired": False, "workflow_run": run}], ["base"]) is None


@pytest.mark.parametrize("content", [b"{}", b"[1", b'{"format": 99}'])
def test_a_baseline_that_cannot_be_read_is_none_and_no_error(
    repository: Repository, environment: dict[str, str], content: bytes,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    repository.add_artifact(NAME, "base", {"report.json": content})
    assert STEPS["baseline"](environment) == 0
    assert not _baseline(environment).exists()
    assert "no baseline from an artifact: " in capsys.readouterr().out


@pytest.mark.parametrize("status", [403, 404, 502])
def test_a_server_that_refuses_costs_the_baseline_and_not_the_build(
    repository: Repository, environment: dict[str, str], status: int,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("reportgen.review.github._WAITS", (0, 0, 0))
    repository.failing += [status] * 4
    assert STEPS["baseline"](environment) == 0
    assert f"no baseline from an artifact: GitHub refuses GET compare/tip...head: {status}" in (
        capsys.readouterr().out
    )


def test_a_first_pull_request_has_no_baseline(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert STEPS["baseline"](environment) == 0
    assert capsys.readouterr().out == "no baseline from an artifact\n"


def test_only_the_two_reports_of_an_archive_are_read(repository: Repository) -> None:
    names = ["report.json", "../report.json", "/etc/report.json", "a/report.json", "summary.md"]
    repository.add_artifact(NAME, "base", {name: name.encode() for name in names})
    with serve(repository) as address:
        github = Github(repository="owner/name", token="t", api=address)
        content = read_artifact(github, repository.artifacts[0])
        assert content == {"report.json": b"report.json"}
        repository.files[1] = b"no zip"
        with pytest.raises(ReviewError, match="cannot be read"):
            read_artifact(github, repository.artifacts[0])
        with pytest.raises(ReviewError, match="more than 3 bytes"):
            github.download("actions/artifacts/1/zip", 3)


def _fork_event(environment: dict[str, str], commit: str = "head") -> None:
    run = {
        "id": 77,
        "html_url": "https://example.org/runs/77",
        "head_sha": commit,
        "head_branch": "topic",
        "head_repository": {"owner": {"login": "mallory"}},
    }
    Path(environment["GITHUB_EVENT_PATH"]).write_text(json.dumps({"workflow_run": run}))


def _pull(number: int, label: str, commit: str) -> dict[str, Any]:
    return {"number": number, "head": {"label": label, "sha": commit}}


def test_the_run_of_a_fork_gets_its_comment_from_data(
    repository: Repository, environment: dict[str, str]
) -> None:
    _fork_event(environment)
    repository.pulls += [_pull(4, "mallory:topic", "old"), _pull(5, "mallory:topic", "head")]
    files = {
        "report.json": _json(_report("now")),
        "baseline/report.json": _json(_report()),
        "summary.md": b"<!-- reportgen manifest=models/m.yaml -->\n@everyone",
    }
    repository.add_artifact(NAME, "head", files)
    repository.add_artifact("reportgen-pages-models-m.yaml", "head", {"index.html": b""})
    assert STEPS["comment-for-fork"](environment) == 0
    [body] = repository.bodies()
    assert "@everyone" not in body
    assert "fc: now" in body
    assert "Compared with" in body
    assert "(https://example.org/runs/77#artifacts)" in body
    [post] = [path for method, path, _ in repository.requests if method == "POST"]
    assert post == "/repos/owner/name/issues/5/comments"


def test_a_fork_without_an_open_pull_request_gets_none(
    repository: Repository, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _fork_event(environment, commit="head")
    repository.pulls += [_pull(4, "mallory:topic", "old"), _pull(5, "someone:topic", "head")]
    assert STEPS["comment-for-fork"](environment) == 0
    assert "no open pull request has this commit" in capsys.readouterr().out
    assert repository.comments == []


def test_a_zip_bomb_of_a_fork_is_not_unpacked(
    repository: Repository, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reportgen.review.artifacts._MOST_BYTES", 10_000)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("report.json", b" " * 10**6)
    repository.add_artifact(NAME, "head", {})
    repository.files[1] = packed.getvalue()
    with serve(repository) as address:
        github = Github(repository="owner/name", token="t", api=address)
        assert read_artifact(github, repository.artifacts[0]) == {}


def test_a_push_or_a_schedule_is_not_commented_on(
    repository: Repository, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path(environment["GITHUB_EVENT_PATH"]).write_text("{}")
    assert STEPS["comment"](environment) == 0
    assert STEPS["baseline"](environment) == 0
    said = "no comment: not a pull request\nno baseline: not a pull request\n"
    assert capsys.readouterr().out == said
    assert repository.requests == []


def test_the_usage_and_missing_inputs_are_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REPORTGEN_MANIFEST", raising=False)
    assert run_step([]) == 2
    assert "usage: python -m reportgen.review baseline|build|" in capsys.readouterr().err
    assert run_step(["build"]) == 2
    assert capsys.readouterr().err.startswith("reportgen: REPORTGEN_MANIFEST is not set")


NET = """\
from torch import nn


def make():
    return nn.Sequential(nn.Linear(4, {width}), nn.Linear({width}, 2))
"""
MODELS = """\
version: 1
title: Models
models:
  - {name: net, source: net.py:make, inputs: [{shape: [batch, 4]}]}
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip


def throw_away_repository(folder: Path, manifest: str = MANIFEST) -> tuple[str, str]:
    """A repository with a base commit and a head commit that widens the model."""
    (folder / "models").mkdir(parents=True)
    (folder / manifest).write_text(MODELS)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commits = []
    for width in (8, 16):
        (folder / "models/net.py").write_text(NET.format(width=width))
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", str(width))
        commits.append(git(folder, "rev-parse", "HEAD"))
    return commits[0], commits[1]


@pytest.mark.slow
def test_a_base_without_an_artifact_is_built_in_a_second_checkout(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    base, head = throw_away_repository(work)
    # GitLab: no event file, the two commits in variables
    gitlab = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "CI_PROJECT_DIR": str(work),
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": base,
        "CI_COMMIT_SHA": head,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "REPORTGEN_MANIFEST": MANIFEST,
        "REPORTGEN_BASELINE": "build",
        "REPORTGEN_ARGS": "--section layers --no-timings --quiet",
    }
    assert STEPS["baseline"](gitlab) == 0
    said = f"baseline: the report of {base[:12]}, from a second checkout\n"
    assert capsys.readouterr().out == said
    assert git(work, "worktree", "list").count("\n") == 0
    assert git(work, "status", "--porcelain", "--untracked-files=no") == ""
    assert STEPS["build"](gitlab) == 0
    compared = json.loads((work / "reports/m/comparison.json").read_text())
    [changed] = compared["models"]
    rows = {metric["key"]: metric for metric in changed["metrics"]}
    assert (rows["layers.parameters"]["old"], rows["layers.parameters"]["new"]) == (58, 114)
    written = {path.name for path in (work / "reports/m").iterdir()}
    assert {"report.sarif", "report.junit.xml", "summary.md", "report.pdf"} <= written


@pytest.mark.slow
def test_a_base_that_cannot_be_built_is_said_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    base, head = throw_away_repository(work)
    variables = {
        "CI_PROJECT_DIR": str(work),
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": base,
        "CI_COMMIT_SHA": head,
        "REPORTGEN_MANIFEST": "models/new.yaml",
        "REPORTGEN_BASELINE": "build",
    }
    assert STEPS["baseline"](variables) == 0
    said = "no baseline from a second checkout: models/new.yaml does not exist there\n"
    assert capsys.readouterr().out == said
    unknown = {**variables, "CI_MERGE_REQUEST_DIFF_BASE_SHA": "f" * 40}
    assert STEPS["baseline"](unknown) == 0
    assert "no baseline from a second checkout: git fetch fails" in capsys.readouterr().out
    shutil.rmtree(work)


@pytest.mark.slow
def test_the_nightly_workflow_leaves_a_night_for_each_run(tmp_path: Path) -> None:
    """What its steps run, with the inputs that it gives to the action."""
    root = Path(__file__).parents[2]
    text = (root / ".github/workflows/nightly.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["nightly"]["steps"]
    [inputs] = [step["with"] for step in steps if step.get("uses") == "./"]
    [show] = [step["run"] for step in steps if "history" in step.get("run", "")]
    work = tmp_path / "work"
    throw_away_repository(work)
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
        "PYTHONPATH": str(root),
        "GITHUB_WORKSPACE": str(work),
        "RUNNER_TEMP": str(tmp_path / "temp"),
        "REPORTGEN_MANIFEST": MANIFEST,
        "REPORTGEN_BASELINE": inputs["baseline"],
        "REPORTGEN_ARGS": f"{inputs['args']} --section layers --format html,json --quiet",
    }
    for width in (8, 16):
        (work / "models/net.py").write_text(NET.format(width=width))
        assert STEPS["baseline"](environment) == 0
        assert STEPS["build"](environment) == 0
        git(work, "commit", "--quiet", "--allow-empty", "-am", str(width))
    shown = subprocess.run(
        [sys.executable, *show.split()[1:]], cwd=work, env=environment, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert "layers.parameters" in shown.stdout, shown.stderr
    assert shown.returncode == 1  # a change for the worse that nobody has acknowledged
    assert (work / "reports/index.html").is_file()
