"""The steps of `action.yml`, each with its inputs from the environment.

Everything that a pull request can choose arrives in variables and never in a command line.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from reportgen.compare.reading import read_report
from reportgen.compare.reports import compare_reports
from reportgen.errors import ReportgenError, ReviewError
from reportgen.render.problems import repository_root
from reportgen.report import Report
from reportgen.review.annotations import workflow_commands
from reportgen.review.artifacts import (
    BASELINE,
    DATA,
    REPORT,
    artifact_name,
    download_baseline,
    read_artifact,
)
from reportgen.review.base_checkout import build_at, merge_base
from reportgen.review.comment import AUTHOR, post_comment
from reportgen.review.event import Event, address_of_run, connect, read_event
from reportgen.review.github import Github
from reportgen.scratch import scratch_folder

Environment = Mapping[str, str]

_PAGES = "reportgen-pages"
_FORMATS = "html,pdf,json,md,sarif,junit"
_MODES = ("auto", "artifact", "build", "none")
_MOST_ARTIFACTS = 20  # of one run: manifests that are commented on


def find_baseline(environment: Environment) -> int:
    """Write the base's report into the data folder: from an artifact, else built.

    Without one the build goes on and says so: a first pull request must not fail for that.
    """
    mode = environment.get("REPORTGEN_BASELINE", "") or "auto"
    if mode not in _MODES:
        raise ReviewError(f"unknown baseline {mode!r}", hint=f"use one of {', '.join(_MODES)}")
    event, manifest = read_event(environment), _manifest(environment)
    target = _data(environment) / BASELINE
    target.unlink(missing_ok=True)  # of an earlier job on the same machine
    if mode == "none" or not event.base or not event.head:
        _say("no baseline: not a pull request" if mode != "none" else "no baseline was asked for")
        return 0
    for name, find in (("artifact", _from_artifact), ("build", _from_checkout)):
        if mode in ("auto", name):
            try:
                found = find(environment, event, manifest, target)
                if found:
                    read_report(target)
            except ReportgenError as error:
                target.unlink(missing_ok=True)
                _say(f"no baseline from {_WORDS[name]}: {error.message}")
                continue
            if found:
                _say(f"baseline: the report of {found[:12]}, from {_WORDS[name]}")
                return 0
            _say(f"no baseline from {_WORDS[name]}")
    return 0


_WORDS = {"artifact": "an artifact", "build": "a second checkout"}


def _from_artifact(environment: Environment, event: Event, manifest: str, target: Path) -> str:
    github = connect(environment)
    compared = github.get(f"compare/{event.base}...{event.head}")
    base = compared["merge_base_commit"]["sha"]
    return download_baseline(github, base, artifact_name(DATA, manifest), target)


def _from_checkout(environment: Environment, event: Event, manifest: str, target: Path) -> str:
    root = _workspace(environment)
    # In a shallow clone the two commits have none in common; the base is close to it.
    commit = merge_base(event.base, event.head, root) or event.base
    build_at(commit, manifest, target, _arguments(environment), root)
    return commit


def build_report(environment: Environment) -> int:
    """Build the head's report; the exit status is that of the build."""
    manifest, data = _manifest(environment), _data(environment)
    output = _workspace(environment) / "reports" / Path(manifest).stem
    command = [sys.executable, "-P", "-m", "reportgen", "build", "--format", _FORMATS]
    command += ["--output", str(output), "--pdf", environment.get("REPORTGEN_PDF") or "brief"]
    command += ["--fail-on", environment.get("REPORTGEN_FAIL_ON") or "error"]
    command += ["--baseline", str(data / BASELINE)] if (data / BASELINE).is_file() else []
    command += [*_arguments(environment), "--", manifest]
    without_token = {name: text for name, text in environment.items() if name != "GITHUB_TOKEN"}
    status = subprocess.run(
        command, cwd=_workspace(environment), env=without_token, check=False
    ).returncode
    if (output / REPORT).is_file() and status in (0, 1):
        data.mkdir(parents=True, exist_ok=True)
        (data / REPORT).write_bytes((output / REPORT).read_bytes())
        _output(
            environment,
            folder=str(output),
            data=str(data),
            pages_name=artifact_name(_PAGES, manifest),
            data_name=artifact_name(DATA, manifest),
            status=str(status),
        )
    return status


def annotate(environment: Environment) -> int:
    """Print the annotations, and append `summary.md` to the summary of the job."""
    folder = Path(environment.get("REPORTGEN_FOLDER", ""))
    for line in annotate_folder(folder, environment):
        _say(line)
    return 0


def annotate_folder(folder: Path, environment: Environment) -> tuple[str, ...]:
    """The workflow commands of the report in `folder`, whose `summary.md` is appended.

    Raises:
        ReportgenError: there is no report, or it was built without `md`.
    """
    report = read_report(folder)
    if path := environment.get("GITHUB_STEP_SUMMARY", ""):
        try:
            text = (folder / "summary.md").read_text(encoding="utf-8")
        except OSError as error:
            raise ReviewError(
                f"{folder / 'summary.md'} cannot be read", hint="build with --format md"
            ) from error
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
    return workflow_commands(report, repository_root(report))


def comment(environment: Environment) -> int:
    """Comment on the pull request of this run."""
    event = read_event(environment)
    if event.pull_request is None:
        _say("no comment: not a pull request")
        return 0
    github, link = connect(environment), address_of_run(environment)
    data = _data(environment)
    _say(comment_on(github, event.pull_request, data / REPORT, data / BASELINE, link))
    return 0


def comment_on(
    github: Github,
    pull_request: int,
    report: Path,
    baseline: Path | None,
    link: str = "",
    author: str = AUTHOR,
) -> str:
    """Comment with the report in `report`, compared with `baseline` if there is one.

    Raises:
        ReportgenError: a report cannot be read, or GitHub cannot be reached.
    """
    new = read_report(report)
    old = _readable(baseline) if baseline is not None and baseline.exists() else None
    compared = compare_reports(old, new) if old is not None else None
    return post_comment(github, pull_request, new, compared, link=link, author=author)


def comment_for_fork(environment: Environment) -> int:
    """Comment for a run that may not, because it is that of a fork.

    The artifacts of that run are data from someone else: only the two reports are read, and the
    text is made here. The pull request is looked up, and never taken from an artifact.
    """
    event = read_event(environment)
    run = event.workflow_run
    if run is None:
        raise ReviewError("not a workflow_run event", hint="see report-comment.yml")
    github = connect(environment)
    number = _pull_request_of(github, run["head_repository"]["owner"]["login"],
                              run["head_branch"], event.head)  # fmt: skip
    if number is None:
        _say("no comment: no open pull request has this commit")
        return 0
    artifacts = [
        artifact
        for artifact in github.get_all(f"actions/runs/{int(run['id'])}/artifacts", key="artifacts")
        if artifact["name"].startswith(f"{DATA}-")
    ]
    for artifact in artifacts[:_MOST_ARTIFACTS]:
        with scratch_folder() as folder:
            for name, content in read_artifact(github, artifact).items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
            link = f"{run['html_url']}#artifacts"
            _say(comment_on(github, number, folder / REPORT, folder / BASELINE, link))
    return 0


def _pull_request_of(github: Github, owner: str, branch: str, commit: str) -> int | None:
    listed = github.get_all("pulls", state="open", head=f"{owner}:{branch}")
    return next((int(each["number"]) for each in listed if each["head"]["sha"] == commit), None)


def _readable(file: Path) -> Report | None:
    try:
        return read_report(file)
    except ReportgenError as error:
        _say(f"no baseline: {error.message}")
        return None


def _manifest(environment: Environment) -> str:
    manifest = environment.get("REPORTGEN_MANIFEST", "")
    if not manifest:
        raise ReviewError("REPORTGEN_MANIFEST is not set", hint="name the manifest in the action")
    return manifest


def _arguments(environment: Environment) -> list[str]:
    return shlex.split(environment.get("REPORTGEN_ARGS", ""))


def _workspace(environment: Environment) -> Path:
    named = environment.get("GITHUB_WORKSPACE") or environment.get("CI_PROJECT_DIR")
    return Path(named or Path.cwd())


def _data(environment: Environment) -> Path:
    # Beside the workspace: what lies in it could be committed or analyzed.
    name = artifact_name(DATA, _manifest(environment))
    return Path(environment.get("RUNNER_TEMP") or _workspace(environment) / ".reportgen") / name


def _output(environment: Environment, **values: str) -> None:
    """Outputs of the step, for the next ones."""
    if path := environment.get("GITHUB_OUTPUT", ""):
        with Path(path).open("a", encoding="utf-8") as file:
            for name, value in values.items():
                if "\n" in value or "\r" in value:  # the next line would be another output
                    raise ReviewError(f"{name} contains a line break: {value!r}")
                file.write(f"{name}={value}\n")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


STEPS: dict[str, Callable[[Environment], int]] = {
    "baseline": find_baseline,
    "build": build_report,
    "annotate": annotate,
    "comment": comment,
    "comment-for-fork": comment_for_fork,
}


def run_step(arguments: list[str]) -> int:
    """Run the step with this name; the exit status is 2 for an error that the user can fix."""
    if len(arguments) != 1 or arguments[0] not in STEPS:
        sys.stderr.write(f"usage: python -m reportgen.review {'|'.join(STEPS)}\n")
        return 2
    try:
        return STEPS[arguments[0]](os.environ)
    except ReportgenError as error:
        hint = f" ({error.hint})" if error.hint else ""
        sys.stderr.write(f"reportgen: {error.message}{hint}\n")
        return error.status
