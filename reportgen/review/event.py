"""What GitHub or GitLab says about a run: the repository, the pull request and the two commits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reportgen.errors import ReviewError
from reportgen.review.github import Github

_NO_COMMIT = "0" * 40  # the commit before the first push of a branch


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """The event that started a run.

    Attributes:
        pull_request: its number; None for another event.
        base: commit that is merged into, or the one before a push; "" if there is none.
        head: commit that is judged; "" if the event has none.
        workflow_run: the run that has ended, for an event of this name.
    """

    pull_request: int | None = None
    base: str = ""
    head: str = ""
    workflow_run: Mapping[str, Any] | None = None


def read_event(environment: Mapping[str, str]) -> Event:
    """The event in the file that `GITHUB_EVENT_PATH` names, or the merge request of GitLab.

    Raises:
        ReviewError: the file cannot be read.
    """
    path = environment.get("GITHUB_EVENT_PATH", "")
    if not path:  # GitLab names the two commits itself
        return Event(
            base=environment.get("CI_MERGE_REQUEST_DIFF_BASE_SHA", ""),
            head=environment.get("CI_COMMIT_SHA", ""),
        )
    try:
        data: Any = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ReviewError(f"GITHUB_EVENT_PATH {path}: {error}") from error
    if "pull_request" in data:
        request = data["pull_request"]
        return Event(
            pull_request=int(request["number"]),
            base=request["base"]["sha"],
            head=request["head"]["sha"],
        )
    if "workflow_run" in data:
        return Event(workflow_run=data["workflow_run"], head=data["workflow_run"]["head_sha"])
    before = data.get("before", _NO_COMMIT)
    return Event(base="" if before == _NO_COMMIT else before, head=data.get("after", ""))


def connect(environment: Mapping[str, str], repository: str = "") -> Github:
    """The API of `repository`, or of the one that the run belongs to.

    Raises:
        ReviewError: `GITHUB_TOKEN` or the name of the repository is missing.
    """
    repository = repository or environment.get("GITHUB_REPOSITORY", "")
    if repository.count("/") != 1:
        raise ReviewError(
            f"{repository!r} is not a repository",
            hint="name it with --repository OWNER/NAME or in GITHUB_REPOSITORY",
        )
    token = environment.get("GITHUB_TOKEN", "")
    if not token:
        raise ReviewError("GITHUB_TOKEN is not set", hint="pass ${{ github.token }} to the step")
    api = environment.get("GITHUB_API_URL") or "https://api.github.com"
    return Github(repository=repository, token=token, api=api)


def address_of_run(environment: Mapping[str, str]) -> str:
    """Where the artifacts of this run are; "" outside a run."""
    server, run = environment.get("GITHUB_SERVER_URL", ""), environment.get("GITHUB_RUN_ID", "")
    repository = environment.get("GITHUB_REPOSITORY", "")
    return f"{server}/{repository}/actions/runs/{run}#artifacts" if server and run else ""
