"""action.yml, the workflows and the examples: valid, pinned, safe on forks, one line a step."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from reportgen import cli
from reportgen.review.steps import STEPS

ROOT = Path(__file__).parents[1]
ACTION = ROOT / "action.yml"
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
GITLAB = ROOT / "docs/examples/gitlab-ci.yml"
MATRIX = ROOT / "docs/examples/matrix.yml"
SLURM = ROOT / "docs/examples/slurm-array.sh"


def tool(name: str) -> str:
    """The program `name` of this environment; skips the test without it."""
    found = Path(sys.executable).parent / name
    path = str(found) if found.is_file() else shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: pip install 'reportgen[test]'")
    return path


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def read(file: Path) -> dict[str, Any]:
    return yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)


def steps_of(file: Path) -> list[dict[str, Any]]:
    data = read(file)
    if "runs" in data:
        return data["runs"]["steps"]
    return [step for job in data["jobs"].values() for step in job["steps"]]


def test_zizmor_finds_nothing() -> None:
    done = run(tool("zizmor"), "--offline", "--no-progress", "--min-severity=medium",
               "--format=json", ".")  # fmt: skip
    assert json.loads(done.stdout) == []


def test_actionlint_finds_nothing() -> None:
    assert run(tool("actionlint"), "-no-color").stdout == ""


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("vendor.github-workflows", [*WORKFLOWS, MATRIX]),
        ("vendor.github-actions", [ACTION]),
        ("vendor.gitlab-ci", [GITLAB]),
    ],
)
def test_the_files_are_valid(schema: str, files: list[Path]) -> None:
    done = run(tool("check-jsonschema"), "--builtin-schema", schema, *files)
    assert done.returncode == 0, done.stdout


def test_yamllint_finds_nothing() -> None:
    done = run(tool("yamllint"), "-s", ".github", "action.yml", "docs/examples", "sample_models",
               ".pre-commit-hooks.yaml", ".yamllint.yaml")  # fmt: skip
    assert done.stdout == ""


@pytest.mark.parametrize("file", [ACTION, *WORKFLOWS], ids=lambda file: file.name)
def test_a_step_is_one_line_without_expressions(file: Path) -> None:
    for step in steps_of(file):
        line = step.get("run", "")
        assert "\n" not in line
        assert "${{" not in line, line
        if "reportgen.review" in line:
            assert line.split()[-1] in STEPS


@pytest.mark.parametrize("file", [ACTION, *WORKFLOWS, MATRIX], ids=lambda file: file.name)
def test_actions_of_others_are_pinned_to_a_commit(file: Path) -> None:
    for step in steps_of(file):
        name, _, version = step.get("uses", "").partition("@")
        if name and name != "./":
            assert len(version) == 40, step["uses"]


def test_no_workflow_runs_the_code_of_a_pull_request_with_rights() -> None:
    for file in WORKFLOWS:
        data = read(file)
        assert data["permissions"] == {}
        assert "pull_request_target" not in data["on"]
        for step in steps_of(file) if "workflow_run" in data["on"] else []:
            if "actions/checkout" in step.get("uses", ""):
                assert "ref" not in step["with"]  # the default branch
                assert "repository" not in step["with"]


def test_every_step_of_gitlab_is_a_step_that_is_tested() -> None:
    lines = read(GITLAB)["report"]["script"]
    assert [line.rpartition(" ")[2] for line in lines] == ["baseline", "build"]


def test_the_hook_validates_every_manifest_that_it_is_given(tmp_path: Path) -> None:
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    (tmp_path / "net.onnx").touch()
    (tmp_path / "a.yaml").write_text(
        "version: 1\ntitle: A\nmodels: [{name: a, source: net.onnx}]\n"
    )
    (tmp_path / "b.yaml").write_text(
        "version: 2\ntitle: B\nmodels: [{name: a, source: net.onnx}]\n"
    )
    command = [sys.executable, "-m", *hook["entry"].split()]
    done = subprocess.run(
        [*command, "b.yaml", "a.yaml"], cwd=tmp_path, check=False, capture_output=True, text=True,
        env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == "a.yaml: 1 model, no errors\n"
    assert done.stderr.startswith("b.yaml:1: version")


@pytest.mark.parametrize("file", [MATRIX, SLURM], ids=lambda file: file.name)
def test_the_commands_of_an_example_exist(file: Path) -> None:
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]
    found = re.findall(r"reportgen (build|merge) ([^\n]*)", file.read_text(encoding="utf-8"))
    assert {name for name, _ in found} == {"build", "merge"}
    for name, words in found:
        options = {option for parameter in commands[name].params for option in parameter.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", words)) <= options


def test_examples_have_no_syntax_errors() -> None:
    assert run(tool("actionlint"), "-no-color", MATRIX).stdout == ""
    assert run("sh", "-n", SLURM).returncode == 0


def test_arguments_and_inputs_exist() -> None:
    known = {
        name
        for command in get_command(cli.app).commands.values()  # type: ignore[attr-defined]
        if command.name == "build"
        for parameter in command.params
        for name in parameter.opts
    }
    inputs = set(read(ACTION)["inputs"])
    for file in WORKFLOWS:
        for step in steps_of(file):
            if step.get("uses") == "./":
                assert set(step["with"]) <= inputs
                words = step["with"].get("args", "").split()
                assert {word for word in words if word.startswith("--")} <= known
