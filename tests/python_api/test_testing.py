"""The assertions for other projects' tests, and the pytest plugin in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import reportgen
from reportgen.errors import BaselineError
from reportgen.testing import assert_budget, assert_onnx_parity, assert_same_structure
from reportgen.testing.update import set_update_baselines


def net(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def failure(function: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(AssertionError) as error:
        function(*args, **options)
    return str(error.value)


def test_budgets_that_are_kept_pass() -> None:
    assert_budget(net(), (2, 4), parameters=58, macs="1k", peak_memory={"T4": 32})


def test_an_exceeded_budget_has_value_limit_and_excess() -> None:
    text = failure(assert_budget, net(), (2, 4), parameters=50, macs="1k")
    assert text == "parameters: 58 instead of at most 50, off by 8"


def test_a_batch_that_does_not_fit_is_named() -> None:
    with torch.device("meta"):
        model = nn.Linear(1_000, 1_000_000)
    text = failure(assert_budget, model, (1, 1_000), peak_memory={"T4": 4096})
    assert "a batch of 4096 does not safely fit T4" in text
    assert "GiB of 14.7 GiB" in text


def test_a_budget_relative_to_a_baseline(tmp_path: Path) -> None:
    reportgen.analyze(net(), (2, 4), sections=("layers",)).save(tmp_path, formats=("json",))
    assert_budget(net(), (2, 4), parameters="+2%", baseline=tmp_path)
    text = failure(assert_budget, net(9), (2, 4), parameters="+2%", baseline=tmp_path)
    assert text.startswith("parameters: 65 instead of at most 59")
    assert "the baseline has 58" in text


def test_parity_holds_for_a_model_that_exports() -> None:
    assert_onnx_parity(net(), (2, 4))


class Unexportable(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.linalg.eig(x)[0]


def test_a_failed_export_is_a_failure_with_the_operator() -> None:
    assert "eig" in failure(assert_onnx_parity, Unexportable(), (2, 4, 4))


def test_the_same_structure_passes_and_a_change_is_named(tmp_path: Path) -> None:
    file = tmp_path / "structure.json"
    set_update_baselines(True)
    try:
        assert_same_structure(net(), file)
    finally:
        set_update_baselines(False)
    assert_same_structure(net(), file)  # other weights
    text = failure(assert_same_structure, net(9), file)
    assert "0: out_features 8 → 9 (+5 parameters)" in text
    assert "2: in_features 8 → 9" in text
    assert "--reportgen-update" in text


def test_a_report_is_a_baseline_as_well(tmp_path: Path) -> None:
    reportgen.analyze(net(), (2, 4), sections=("layers",)).save(tmp_path, formats=("json",))
    file = tmp_path / "report.json"
    report = file.read_bytes()
    assert_same_structure(net(), file)
    text = failure(assert_same_structure, net(9), file)
    assert "out_features" in text
    assert "build the report again" in text
    set_update_baselines(True)
    try:
        failure(assert_same_structure, net(9), file)
    finally:
        set_update_baselines(False)
    assert file.read_bytes() == report


@pytest.mark.parametrize("content", [None, "{", "[]", '{"structure": 3}'])
def test_a_baseline_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "structure.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(BaselineError, match=r"structure\.json") as error:
        assert_same_structure(net(), file)
    assert "--reportgen-update" in error.value.hint


@pytest.mark.slow
def test_the_plugin_writes_baselines_and_reports_changes(tmp_path: Path) -> None:
    (tmp_path / "test_net.py").write_text(
        "import os\n"
        "from torch import nn\n"
        "from reportgen.testing import assert_same_structure\n\n"
        "def test_structure():\n"
        "    model = nn.Linear(4, int(os.environ['WIDTH']))\n"
        "    assert_same_structure(model, 'baselines/net.json')\n"
    )

    def run(width: int, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "reportgen.testing.plugin"]
        return subprocess.run(
            [*command, "-p", "no:cacheprovider", *options], cwd=tmp_path, text=True,
            capture_output=True, check=False, env={"WIDTH": str(width), **environment()},
        )  # fmt: skip

    assert run(2, "--reportgen-update").returncode == 0
    assert (tmp_path / "baselines/net.json").is_file()
    assert run(2).returncode == 0
    changed = run(3)
    assert changed.returncode == 1
    assert "out_features 2 → 3" in changed.stdout


def environment() -> dict[str, str]:
    import os

    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
