"""The commit of the repository that contains the manifest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 10.0  # for git, which may wait for a network drive


@dataclass(frozen=True, kw_only=True, slots=True)
class Commit:
    """The commit of the manifest's repository; `modified`: tracked files differ from it."""

    id: str
    modified: bool | None = None  # None: unknown


def repository_of(folder: Path) -> Path | None:
    """The root of the git repository around `folder`; None without one, or without git."""
    found = _git(folder, "rev-parse", "--show-toplevel")
    return Path(found) if found else None


def commit_of(folder: Path) -> Commit | None:
    """The commit of the repository around `folder`; else the one in GITHUB_SHA; else None."""
    if found := _git(folder, "rev-parse", "HEAD"):
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
        return Commit(id=found, modified=None if changes is None else bool(changes))
    given = os.environ.get("GITHUB_SHA", "")
    return Commit(id=given) if re.fullmatch(r"[0-9a-f]{40,64}", given) else None


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None if it fails. Writes nothing and runs no hook of the repository."""
    program = shutil.which("git")
    if program is None:
        return None
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    settings = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
    try:
        answer = subprocess.run(
            [program, *settings, "-C", str(folder), *arguments],
            env=own | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
