"""The doctor sees a pair that does not fit, and the floors of security advisories are kept."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from reportgen import environment

FLOORS = {  # the least versions without a known hole; the reasons stand in pyproject.toml
    "jinja2": (3, 1, 6),
    "onnx": (1, 22),
    "protobuf": (6, 33, 5),
    "torch": (2, 10),
    "weasyprint": (70,),
}


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_installed_versions_are_above_their_advisories(
    package: str, floor: tuple[int, ...]
) -> None:
    numbers = re.findall(r"\d+", metadata.version(package))
    assert tuple(map(int, numbers[: len(floor)])) >= floor


def test_weasyprint_is_of_the_major_version_the_layout_was_made_for() -> None:
    assert metadata.version("weasyprint").startswith("70.")


@pytest.mark.slow
def test_the_doctor_finds_this_environment_healthy() -> None:
    assert [c.name for c in environment.check_environment() if not c.passed] == []


@pytest.mark.parametrize("installed", ["2.13.0+cpu", "2.13.0", None])
def test_the_doctor_sees_a_torch_that_torchvision_does_not_want(
    installed: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions: dict[str, Any] = {"torch": installed, "torchvision": "0.29.2"}
    monkeypatch.setattr(environment, "version", versions.get)
    monkeypatch.setattr(
        environment, "torch_wanted_by_torchvision", lambda: SpecifierSet(">=2.14.0")
    )
    check = environment._check_pair()
    assert not check.passed
    assert "torch==2.15.0 torchvision==0.29.2" in check.hint


def test_the_doctor_recognizes_a_pair_of_two_builds_by_its_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mismatched.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = environment._check_import("mismatched", "")
    assert not check.passed
    assert "not of the same build" in check.found
    assert "torch==2.15.0 torchvision==0.29.2" in check.hint


def test_the_pair_of_the_constraints_is_a_pair(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "constraints.txt").read_text()
    (torch,) = re.findall(r"^torch==(.+)$", text, re.MULTILINE)
    assert environment.torch_wanted_by_torchvision().contains(torch)


def test_an_import_that_fails_is_told_with_its_last_line(tmp_path: Any) -> None:
    check = environment._check_import("no_such_module_anywhere", "install it")
    assert not check.passed
    assert check.found == "ModuleNotFoundError: No module named 'no_such_module_anywhere'"
    assert check.hint == "install it"
