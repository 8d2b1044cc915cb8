"""Versions of Python, libraries and Graphviz, and whether they are compatible."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import reportgen

# The error of `import torchvision` if its compiled operators do not fit torch.
_BROKEN_PAIR = "operator torchvision::nms does not exist"
_PAIR_HINT = (
    "install matching builds, both for CUDA or both for CPU: "
    "pip install --force-reinstall torch==2.15.0 torchvision==0.29.2"
)
_PACKAGES = ("torch", "torchvision", "torchinfo", "onnx", "onnxruntime", "weasyprint")
_OPTIONAL = ("timm", "transformers")  # required only for models from these libraries


def describe_environment() -> dict[str, str]:
    """All versions that a report depends on; contains no personal data."""
    versions = {name: version(name) or "not installed" for name in _PACKAGES}
    versions |= {name: found for name in _OPTIONAL if (found := version(name))}
    return {
        "reportgen": reportgen.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **versions,
        "graphviz": graphviz_version() or "not installed",
    }


@cache
def version(package: str) -> str | None:
    """The installed version of `package`, None if it is missing; does not import it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def graphviz_version() -> str | None:
    """The version of Graphviz's `dot`, None if it is not installed."""
    if shutil.which("dot") is None:
        return None
    # `dot -V` prints to stderr.
    answer = subprocess.run(["dot", "-V"], capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"version ([0-9.]+)", answer.stderr)
    return found[1] if found else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """The result of one check; `hint` says what to do if it did not pass."""

    name: str
    passed: bool
    found: str
    hint: str = ""


def check_environment() -> Iterator[Check]:
    """Check all dependencies of `reportgen build`, fastest checks first."""
    yield _check_python()
    yield _check_pair()
    yield _check_import("torch", "pip install torch")
    yield _check_import("torchvision", _PAIR_HINT)
    yield _check_import("onnxruntime", "pip install onnxruntime")
    yield _check_import(
        "weasyprint",
        "apt install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0, or brew install pango",
    )
    for name in _OPTIONAL:
        yield _check_optional(name)
    dot = graphviz_version()
    yield Check(
        name="graphviz",
        passed=dot is not None,
        found=f"dot {dot}" if dot else "dot is not on the PATH",
        hint="" if dot else "apt install graphviz, or brew install graphviz",
    )


def _check_python() -> Check:
    fits = sys.version_info >= (3, 11)
    return Check(
        name="python",
        passed=fits,
        found=platform.python_version(),
        hint="" if fits else "reportgen requires Python 3.11 or newer",
    )


def _check_pair() -> Check:
    # Torchvision's compiled operators work only with the torch version that it requires.
    torch, torchvision = version("torch"), version("torchvision")
    required = torch_required_by_torchvision()
    fits = torch is not None and torchvision is not None and required.contains(torch)
    return Check(
        name="torch and torchvision",
        passed=fits,
        found=f"torch {torch or 'missing'}, torchvision {torchvision or 'missing'}"
        + (f" (requires torch {required})" if torchvision else ""),
        hint="" if fits else _PAIR_HINT,
    )


def torch_required_by_torchvision() -> SpecifierSet:
    """The torch versions that the installed torchvision requires; any if it is not installed."""
    try:
        lines = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        lines = []
    required = [found.specifier for found in map(Requirement, lines) if found.name == "torch"]
    # Nightly builds of torch have versions such as 2.15.0.dev20261101.
    return SpecifierSet(",".join(map(str, required)), prereleases=True)


def _check_optional(name: str) -> Check:
    # It may be missing, but must be importable if it is installed.
    if version(name) is None:
        found = f"not installed; required for sources {name}: (pip install 'reportgen[{name}]')"
        return Check(name=name, passed=True, found=found)
    return _check_import(name, f"pip install --force-reinstall {name}")


def _check_import(name: str, hint: str) -> Check:
    # In a child process, because a broken library may crash it.
    try:
        answer = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Check(name=name, passed=False, found="import timed out", hint=hint)
    if answer.returncode == 0:
        return Check(name=name, passed=True, found=f"{version(name)} imports")
    if _BROKEN_PAIR in answer.stderr:
        found = f"{_BROKEN_PAIR}: torch and torchvision are different builds"
        return Check(name=name, passed=False, found=found, hint=_PAIR_HINT)
    lines = answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"]
    return Check(name=name, passed=False, found=lines[-1][:200], hint=hint)
