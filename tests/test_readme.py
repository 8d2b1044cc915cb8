"""All commands in the README run, and its first lines name both make targets."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from one_process import run_here

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MODEL = """
import torch
from torch import nn

class MyModel(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.head = nn.Linear(width, 10)
    def forward(self, x):
        return self.head(self.conv(x).relu().mean(dim=(2, 3)))
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    return [
        line.split("#")[0].strip() for block in blocks("console") for line in block.splitlines()
    ]


def test_the_first_lines_have_make_targets_and_a_picture() -> None:
    first = "\n".join(README.splitlines()[:12])
    assert "make report" in first
    assert "make test" in first
    picture = re.search(r"!\[.+\]\((.+\.png)\)", first)
    assert picture is not None
    assert (ROOT / picture[1]).stat().st_size > 20_000


def test_all_make_targets_exist() -> None:
    named = {c.split()[1] for c in commands() if c.startswith("make ")}
    assert named == {"report", "test"}
    for target in named | {"test-fast", "check", "docs", "clean"}:
        answer = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stderr


def run_watch(command: str, folder: Path) -> int:
    """The exit status of a watch command that gets Ctrl-C once it prints "watching"."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command.split()],
        cwd=folder, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stderr is not None
    assert any("watching" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    return process.returncode


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    words = command.split()
    if words[1] not in ("build", "doctor"):
        return run_here(*words[1:], folder=folder)
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_all_reportgen_commands_of_the_readme_run(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "my-model.yaml").write_text(blocks("yaml")[0], encoding="utf-8")
    (tmp_path / "training.yaml").write_text(blocks("yaml")[1], encoding="utf-8")
    shutil.copytree(ROOT / "sample_models" / "runs", tmp_path / "runs")
    ran = [c for c in commands() if c.startswith("reportgen ")]
    assert len(ran) >= 6
    for command in ran:
        if command.startswith("reportgen watch"):
            assert run_watch(command, tmp_path) == 130
            continue
        answer = run(command, tmp_path)
        assert answer.returncode == 0, f"{command}: {answer.stderr}"
        if command.startswith("reportgen estimate"):
            assert answer.stdout == blocks("text")[0]
    listed = re.findall(r"^\| `([^<`]+)` ", README, re.MULTILINE)
    assert len(listed) == 4
    for name in listed:
        assert (tmp_path / "my-report" / name).is_file()
