"""The wheel alone, installed in an environment without the checkout, has all that it needs."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import TypeAlias

import pytest

pytestmark = pytest.mark.slow
Run: TypeAlias = Callable[..., CompletedProcess[str]]
ROOT = Path(__file__).parents[1]
NET = "from torch import nn\ndef make(): return nn.Sequential(nn.Linear(4, 2), nn.ReLU())\n"
MANIFEST = """
version: 1
title: 휠 Wheel
models:
  - name: tiny
    source: net.py:make
    inputs: [{name: x, shape: [batch, 4]}]
"""
IN_PYTHON = """
import sys
from pathlib import Path

import reportgen
from net import make

assert Path(reportgen.__file__).is_relative_to(sys.prefix)
assert not any(Path(folder, "pyproject.toml").exists() for folder in sys.path)
reportgen.summary(make(), (1, 4))
report = reportgen.analyze(make(), (1, 4), sections=("layers", "graphs"))
print("page", "<svg" in report._repr_html_())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def run(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs a program of an environment with the wheel, in a folder with a model and a manifest."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin/python"
    # --no-deps: the dependencies come from this environment, but not its editable installation,
    # as Python does not read the .pth files of a folder that a .pth file names
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, "install", *options, str(wheel)], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (folder / "net.py").write_text(NET)
    (folder / "wheel.yaml").write_text(MANIFEST, encoding="utf-8")

    def run(program: str, *arguments: str) -> CompletedProcess[str]:
        command = [str(folder / "bin" / program), *arguments]
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder)}
        ran = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr
        return ran

    return run


def test_templates_and_the_license_of_the_fonts_are_in_the_wheel(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "reportgen/templates/print.html.j2" in names
    assert any(n.startswith("reportgen/templates/fonts/") and "OFL" in n for n in names)


def test_the_commands_work(run: Run, tmp_path: Path) -> None:
    from reportgen import __version__

    assert run("reportgen", "--version").stdout.split()[-1] == __version__
    drawing = tmp_path / "graph.svg"
    run("reportgen", "graph", "net.py:make", "--input", "batch,4", "--output", str(drawing))
    assert "Linear" in drawing.read_text()
    output = str(tmp_path / "report")
    run("reportgen", "build", "wheel.yaml", "--section", "layers", "--output", output)
    assert (tmp_path / "report/report.pdf").stat().st_size > 10_000


def test_the_functions_work(run: Run) -> None:
    lines = run("python", "-c", IN_PYTHON).stdout.splitlines()
    assert any("Linear(4, 2)" in line for line in lines)
    assert lines[-1] == "page True"
