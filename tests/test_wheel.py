"""Build the wheel, install it outside the checkout, and build a report with it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NET = "from torch import nn\ndef make(): return nn.Linear(4, 2)\n"
MANIFEST = """
version: 1
title: 휠 Wheel
models:
  - name: tiny
    source: net.py:make
    inputs: [{name: x, shape: [batch, 4]}]
"""


@pytest.mark.slow
def test_a_report_can_be_built_from_the_installed_wheel(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "reportgen/templates/print.html.j2" in names
    assert any(n.startswith("reportgen/templates/fonts/") and "OFL" in n for n in names)
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "wheel.yaml").write_text(MANIFEST, encoding="utf-8")
    answer = subprocess.run(
        [sys.executable, "-m", "reportgen", "build", "wheel.yaml", "--section", "layers"],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "reports" / "wheel" / "report.pdf").stat().st_size > 10_000
    where = subprocess.run(
        [sys.executable, "-c", "import reportgen; print(reportgen.__file__)"],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site))
