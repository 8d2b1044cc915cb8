"""action.yml run by act: a throw-away repository, two commits, GitHub's API on this machine.

act is not GitHub: rights of tokens and the artifact service are not modelled.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .github_server import Repository, serve
from .test_steps import git, throw_away_repository

ROOT = Path(__file__).parents[2]
CACHE = "actions/cache@5a3ec84eff668545956fd18022155c47e93e2684"
UPLOAD = "actions/upload-artifact@ea165f8d65b6e75b540449e92b4886f43607fa02"
# A name that a shell or a workflow would run if it ever saw it unquoted.
MANIFEST = "models/$(touch pwned) `touch pwned` ${{ github.token }}.yaml"
SLUG = "models---touch-pwned---touch-pwned------github.token---.yaml"
WORKFLOW = """\
on: pull_request
jobs:
  report:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8
      - uses: ./
        with:
          manifest: ${{ github.event.manifest }}
          baseline: build
          install: "false"
          python: PYTHON
          args: --section layers --no-timings --quiet --format html,json,md
"""


def _act() -> str:
    beside = Path(sys.executable).parent / "act"
    found = str(beside) if beside.is_file() else shutil.which("act")
    if found is None or shutil.which("node") is None:
        pytest.skip("act or node is not installed: pip install 'reportgen[test]'")
    return found


class _Runner:
    """Runs the workflow over the work tree in `folder`."""

    def __init__(self, folder: Path, base: str, api: str) -> None:
        self.folder, self.base, self.api = folder, base, api
        self.work, self.uploads = folder / "work", folder / "uploads"

    def run(self) -> subprocess.CompletedProcess[str]:
        event = self.folder / "event.json"
        sides = {"base": {"sha": self.base}, "head": {"sha": git(self.work, "rev-parse", "HEAD")}}
        event.write_text(json.dumps({"manifest": MANIFEST, "pull_request": {"number": 5, **sides}}))
        variables = {"PYTHONPATH": ROOT, "UPLOADS": self.uploads, "GITHUB_API_URL": self.api,
                     "GITHUB_REPOSITORY": "owner/name"}  # fmt: skip
        (self.folder / "home").mkdir(exist_ok=True)
        # host mode is no sandbox: nothing of this environment but the programs
        clean = {"PATH": os.environ["PATH"], "HOME": str(self.folder / "home")}
        return subprocess.run(
            [_act(), "pull_request", "-e", event, "-W", ".github/workflows/report.yml",
             "-P", "ubuntu-latest=-self-hosted", "--action-offline-mode",
             "-s", "GITHUB_TOKEN=top-secret",
             "--local-repository", f"{UPLOAD}={ROOT / 'tests/stand_ins/upload'}",
             "--local-repository", f"{CACHE}={ROOT / 'tests/stand_ins/cache'}",
            "--local-repository", f"{CACHE}={ROOT / 'tests/stand_ins/cache'}",
             *(word for name, text in variables.items() for word in ("--env", f"{name}={text}"))],
            cwd=self.work, env=clean, check=False, capture_output=True, text=True, timeout=500,
        )  # fmt: skip


@pytest.mark.slow
def test_a_pull_request_is_built_compared_uploaded_and_commented_on(tmp_path: Path) -> None:
    repository = Repository()
    work = tmp_path / "work"
    base, _ = throw_away_repository(work, MANIFEST)
    for name in ("action.yml", "constraints.txt"):
        shutil.copy(ROOT / name, work / name)
    (work / ".github/workflows").mkdir(parents=True)
    workflow = WORKFLOW.replace("PYTHON", sys.executable)
    (work / ".github/workflows/report.yml").write_text(workflow)
    with serve(repository) as api:
        runner = _Runner(tmp_path, base, api)
        done = runner.run()
        assert done.returncode == 0, done.stdout[-3000:]
        assert f"baseline: the report of {base[:12]}, from a second checkout" in done.stdout
        assert "Summary - <!-- reportgen manifest=models/" in done.stdout
        [body] = repository.bodies()
        assert "| net | Parameters | 58 | 114 |" in body
        data = tmp_path / "uploads" / f"reportgen-data-{SLUG}"
        assert sorted(path.relative_to(data).as_posix() for path in data.rglob("*.json")) == [
            "baseline/report.json",
            "report.json",
        ]
        pages = tmp_path / "uploads" / f"reportgen-pages-{SLUG}"
        assert {"index.html", "models"} <= {path.name for path in pages.iterdir()}
        assert {token for _, _, token in repository.requests} == {"Bearer top-secret"}

        # a second push breaks a budget: the check is red, and everything is there all the same
        with (work / MANIFEST).open("a") as file:
            file.write("budgets: {parameters: 100}\n")
        done = runner.run()
        assert done.returncode != 0
        [body] = repository.bodies()
        assert "budget parameters allows at most 100, but the value is 114" in body
        assert (
            ",line=4,title=budget-exceeded net parameters::budget parameters allows" in done.stdout
        )
    assert not list(tmp_path.rglob("pwned"))
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
