"""The report of the base commit, built in a second checkout where no artifact has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from reportgen.errors import ReviewError
from reportgen.scratch import scratch_folder

_HAS_REPORT = (0, 1)  # exit statuses of a build that wrote one


def merge_base(base: str, head: str, root: Path) -> str:
    """The newest commit that `base` and `head` have in common; "" in a shallow clone."""
    return _git(root, "merge-base", base, head, check=False)


def build_at(commit: str, manifest: str, file: Path, arguments: Sequence[str], root: Path) -> None:
    """Write the `report.json` of `manifest` as it was at `commit` to `file`.

    Args:
        commit: fetched from `origin` if the clone does not have it.
        manifest: path from the root of the repository.
        file: where it is written.
        arguments: more arguments of `reportgen build`.
        root: root of the repository.

    Raises:
        ReviewError: the commit cannot be checked out, or gives no report.
    """
    if not _git(root, "cat-file", "-t", commit, check=False):
        _git(root, "fetch", "--quiet", "--depth=1", "origin", commit)
    with scratch_folder() as scratch:
        checkout = scratch / "base"
        _git(root, "worktree", "add", "--quiet", "--detach", str(checkout), commit)
        try:
            _build(checkout, manifest, scratch / "report", arguments)
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(scratch / "report" / "report.json", file)
        finally:
            _git(root, "worktree", "remove", "--force", str(checkout), check=False)
            shutil.rmtree(checkout, ignore_errors=True)


def _build(checkout: Path, manifest: str, output: Path, arguments: Sequence[str]) -> None:
    if not (checkout / manifest).is_file():
        raise ReviewError(f"{manifest} does not exist there")
    # The model's code has no need of the token.
    environment = {name: text for name, text in os.environ.items() if name != "GITHUB_TOKEN"}
    # -P: the checkout may contain a package reportgen, as that of this project does
    command = [sys.executable, "-P", "-m", "reportgen", "build", *arguments]
    done = subprocess.run(
        [*command, "--format", "json", "--output", str(output), "--quiet", "--", manifest],
        cwd=checkout, env=environment, check=False, capture_output=True, text=True,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    if done.returncode not in _HAS_REPORT:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise ReviewError(f"its build gives no report: {lines[-1]}")


def _git(root: Path, *arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], check=False, capture_output=True, text=True,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    if check and done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ReviewError(
            f"git {arguments[0]} fails: {reason}",
            hint="use actions/checkout with fetch-depth: 0",
        )
    return done.stdout.strip() if done.returncode == 0 else ""
