"""The machine and the versions that a report was made with, and whether they fit together."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import reportgen

_BROKEN_PAIR = "operator torchvision::nms does not exist"
_PAIR_HINT = (
    "install a pair of one build, both with CUDA or both for the CPU: "
    "pip install --force-reinstall torch==2.15.0 torchvision==0.29.2"
)
_PACKAGES = ("torch", "torchvision", "torchinfo", "onnx", "onnxruntime", "weasyprint")
_OPTIONAL = ("timm", "transformers")  # only models of these libraries need them


def describe_environment() -> dict[str, str]:
    """What else than its inputs a report depends on: the versions, and nothing personal."""
    versions = {name: version(name) or "not installed" for name in _PACKAGES}
    versions |= {name: found for name in _OPTIONAL if (found := version(name))}
    return {
        "reportgen": reportgen.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **versions,
        "graphviz": graphviz_version() or "not installed",
    }


def version(package: str) -> str | None:
    """The installed version of `package`, None if there is none; it is not imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def graphviz_version() -> str | None:
    """The version `dot` says it has, None where there is no `dot`."""
    if shutil.which("dot") is None:
        return None
    answer = subprocess.run(["dot", "-V"], capture_output=True, text=True, timeout=20, check=False)
    found = re.search(r"version ([0-9.]+)", answer.stderr)
    return found[1] if found else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that must be in order: what was found, and if it is not right what to do."""

    name: str
    passed: bool
    found: str
    hint: str = ""


def check_environment() -> Iterator[Check]:
    """Everything `reportgen build` relies on, cheapest first."""
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
        found=f"dot {dot}" if dot else "no dot on the PATH",
        hint="" if dot else "apt install graphviz, or brew install graphviz",
    )


def _check_python() -> Check:
    fits = sys.version_info >= (3, 11)
    return Check(
        name="python",
        passed=fits,
        found=platform.python_version(),
        hint="" if fits else "reportgen needs Python 3.11 or newer",
    )


def _check_pair() -> Check:
    """Torchvision says which torch it wants; another one breaks its compiled operators."""
    torch, torchvision = version("torch"), version("torchvision")
    wanted = torch_wanted_by_torchvision()
    fits = torch is not None and torchvision is not None and wanted.contains(torch)
    return Check(
        name="torch and torchvision",
        passed=fits,
        found=f"torch {torch or 'missing'}, torchvision {torchvision or 'missing'}"
        + (f" (wants torch {wanted})" if torchvision else ""),
        hint="" if fits else _PAIR_HINT,
    )


def torch_wanted_by_torchvision() -> SpecifierSet:
    """The torch versions that the installed torchvision asks for; any, where it is missing."""
    try:
        lines = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        lines = []
    wanted = [found.specifier for found in map(Requirement, lines) if found.name == "torch"]
    return SpecifierSet(",".join(map(str, wanted)), prereleases=True)


def _check_optional(name: str) -> Check:
    """A library that may be missing; one that is there must import."""
    if version(name) is None:
        found = f"not installed; sources {name}: need it (pip install 'reportgen[{name}]')"
        return Check(name=name, passed=True, found=found)
    return _check_import(name, f"pip install --force-reinstall {name}")


def _check_import(name: str, hint: str) -> Check:
    """Import `name` in a process of its own, where a crash does no harm."""
    try:
        answer = subprocess.run(
            [sys.executable, "-c", f"import {name}"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Check(name=name, passed=False, found="its import does not end", hint=hint)
    if answer.returncode == 0:
        return Check(name=name, passed=True, found=f"{version(name)} imports")
    if _BROKEN_PAIR in answer.stderr:
        found = f"{_BROKEN_PAIR}: torch and torchvision are not of the same build"
        return Check(name=name, passed=False, found=found, hint=_PAIR_HINT)
    lines = answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"]
    return Check(name=name, passed=False, found=lines[-1][:200], hint=hint)
