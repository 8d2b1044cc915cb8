"""Reports that earlier runs stored as artifacts, read as data and never run or extracted."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from reportgen.errors import ReviewError
from reportgen.review.github import Github

DATA = "reportgen-data"
"""Start of the names of the artifacts with `report.json`; the manifest follows."""

REPORT, BASELINE = "report.json", "baseline/report.json"
_MOST_BYTES = 2**28
_COMMITS = 100  # how far back a baseline is looked for


def artifact_name(start: str, manifest: str) -> str:
    """A name of an artifact for `manifest`, whose slashes it may not contain."""
    allowed = (char if char.isalnum() or char in "._-" else "-" for char in manifest)
    return f"{start}-{''.join(allowed)}"


def find_artifact(
    artifacts: Iterable[dict[str, Any]], commits: Sequence[str]
) -> dict[str, Any] | None:
    """The artifact of the first of `commits` that has one; of several, the newest."""
    by_commit: dict[str, dict[str, Any]] = {}
    for artifact in artifacts:
        run = artifact.get("workflow_run") or {}
        # Whoever opens a pull request from a fork can name an artifact like ours.
        own = run.get("head_repository_id") == run.get("repository_id")
        if own and not artifact.get("expired"):
            known = by_commit.setdefault(run.get("head_sha", ""), artifact)
            if artifact["id"] > known["id"]:
                by_commit[run["head_sha"]] = artifact
    return next((by_commit[commit] for commit in commits if commit in by_commit), None)


def download_baseline(github: Github, base: str, name: str, file: Path) -> str:
    """Write the report of commit `base`, or of the next older one that has one, to `file`.

    Returns:
        The commit; "" if none of the last hundred has a report.

    Raises:
        ReviewError: GitHub cannot be reached or refuses, or the artifact is damaged.
    """
    commits = [each["sha"] for each in github.get("commits", sha=base, per_page=_COMMITS)]
    listed = github.get_all("actions/artifacts", key="artifacts", name=name)
    artifact = find_artifact(listed, commits)
    if artifact is None:
        return ""
    content = read_artifact(github, artifact)
    if REPORT not in content:
        return ""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content[REPORT])
    return str(artifact["workflow_run"]["head_sha"])


def read_artifact(github: Github, artifact: dict[str, Any]) -> dict[str, bytes]:
    """The reports in an artifact, by name; everything else in it is ignored.

    Raises:
        ReviewError: it is not a zip file, or larger than 256 MiB.
    """
    packed = github.download(f"actions/artifacts/{int(artifact['id'])}/zip", _MOST_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(packed)) as archive:
            return {
                member.filename: archive.read(member)
                for member in archive.infolist()
                if member.filename in (REPORT, BASELINE) and member.file_size <= _MOST_BYTES
            }
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ReviewError(f"artifact {artifact['name']} cannot be read: {error}") from error
