"""`reportgen doctor` detects incompatible versions; minimum versions of security advisories."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from reportgen import environment

FLOORS = {  # oldest versions without a known vulnerability; reasons are in pyproject.toml
    "jinja2": (3, 1, 6),
    "onnx": (1, 22),
    "protobuf": (6, 33, 5),
    "torch": (2, 10),
    "weasyprint": (70,),
}


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_installed_versions_have_no_known_vulnerability(
    package: str, floor: tuple[int, ...]
) -> None:
    numbers = re.findall(r"\d+", metadata.version(package))
    assert tuple(map(int, numbers[: len(floor)])) >= floor


def test_weasyprint_has_the_tested_major_version() -> None:
    assert metadata.version("weasyprint").startswith("70.")


@pytest.mark.parametrize("installed", ["2.13.0+cpu", "2.13.0", None])
def test_a_torch_version_that_torchvision_does_not_support_fails(
    installed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions: dict[str, Any] = {"torch": installed, "torchvision": "0.29.2"}
    monkeypatch.setattr(environment, "version", versions.get)
    monkeypatch.setattr(
        environment, "torch_required_by_torchvision", lambda: SpecifierSet(">=2.14.0")
    )
    check = environment._check_pair()
    assert not check.passed
    assert "torch==2.15.0 torchvision==0.29.2" in check.hint


def test_different_builds_of_torch_and_torchvision_are_detected_by_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mismatched.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = environment._check_import("mismatched", "")
    assert not check.passed
    assert "different builds" in check.found
    assert "torch==2.15.0 torchvision==0.29.2" in check.hint


def test_torch_in_constraints_txt_is_supported_by_torchvision(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "constraints.txt").read_text()
    (torch,) = re.findall(r"^torch==(.+)$", text, re.MULTILINE)
    assert environment.torch_required_by_torchvision().contains(torch)


def test_a_failed_import_is_reported_with_the_last_line_of_its_error(tmp_path: Any) -> None:
    check = environment._check_import("no_such_module_anywhere", "install it")
    assert not check.passed
    assert check.found == "ModuleNotFoundError: No module named 'no_such_module_anywhere'"
    assert check.hint == "install it"
