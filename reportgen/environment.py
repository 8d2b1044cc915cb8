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

import reportgen

_PACKAGES = ("torch", "torchvision", "torchinfo", "onnx", "onnxruntime", "weasyprint")


def describe_environment() -> dict[str, str]:
    """What else than its inputs a report depends on: the versions, and nothing personal."""
    versions = {name: version(name) or "not installed" for name in _PACKAGES}
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
    yield _check_import("torchvision", _pair_hint())
    yield _check_import("onnxruntime", "pip install onnxruntime")
    yield _check_import("weasyprint", "apt install libpango-1.0-0 libpangoft2-1.0-0 "
                        "libharfbuzz-subset0, or brew install pango")
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
    """torchvision names the one torch it was built for; another one breaks its operators."""
    torch, torchvision = version("torch"), version("torchvision")
    wanted = torch_wanted_by_torchvision()
    fits = torch is not None and (wanted is None or torch.split("+")[0] == wanted)
    return Check(
        name="torch and torchvision",
        passed=fits,
        found=f"torch {torch or 'missing'}, torchvision {torchvision or 'missing'}"
        + (f" (built for torch {wanted})" if wanted else ""),
        hint="" if fits else _pair_hint(),
    )


def torch_wanted_by_torchvision() -> str | None:
    """The torch version that the installed torchvision was built for."""
    try:
        requirements = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return None
    found = [re.fullmatch(r"torch\s*==\s*([0-9.]+)", line) for line in requirements]
    return next((match[1] for match in found if match), None)


def _pair_hint() -> str:
    wanted = torch_wanted_by_torchvision()
    pair = (
        f"torch=={wanted} torchvision=={version('torchvision')}"
        if wanted
        else "torch==2.15.0 torchvision==0.29.2"
    )
    return f"install a matching pair of the same build (both CPU or both CUDA): pip install {pair}"


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
    lines = answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"]
    return Check(name=name, passed=False, found=lines[-1][:200], hint=hint)
