"""What results depend on besides a model: reportgen's code, packages, the system, this machine."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from reportgen.cache.digests import digest_of
from reportgen.environment import graphviz_version
from reportgen.fonts import templates_dir

_PACKAGE = Path(__file__).parents[1]
# Variables that torch, its libraries, onnxruntime, graphviz and Python read.
_VARIABLES = (
    "TORCH", "PYTORCH", "ATEN_", "CUDA", "CUBLAS", "CUDNN", "OMP_", "MKL_", "KMP_", "OPENBLAS",
    "DNNL_", "ONEDNN_", "NUMEXPR", "ONNX", "ORT_", "HF_", "TRANSFORMERS_", "TIMM_", "GV", "LD_",
    "DYLD_", "PYTHONPATH", "PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTHONUTF8",
)  # fmt: skip
# Parts of this package that are imported by no section; "templates" is among them in a wheel.
_AFTER_ANALYSIS = frozenset({
    "cli", "compare", "history", "merging", "outputs", "progress", "publish", "render", "review",
    "shards", "templates", "watching",
})  # fmt: skip
_CPU_MODEL = "model name"

CODE = "reportgen's code"
"""A key of `comparable_software`; its value is a digest."""


def describe_software() -> dict[str, object]:
    """Python, every installed package, graphviz, and variables for them."""
    return {
        "python": sys.version,
        "system": [platform.system(), platform.machine()],
        "packages": installed_packages(),
        "graphviz": graphviz_version(),
        "variables": {
            name: value for name, value in os.environ.items() if name.startswith(_VARIABLES)
        },
    }


def comparable_software() -> dict[str, str]:
    """What must be the same on each machine that analyzes models of one build, with versions.

    Not the digests of packages: they differ between environments in folders of other names.
    """
    packages = (path.name.removesuffix(".dist-info") for path in _package_folders())
    return {
        CODE: code_digest(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "graphviz": graphviz_version() or "",
    } | {name: version for name, _, version in (each.partition("-") for each in packages)}


def software_digest(software: dict[str, str]) -> str:
    """The digest of `comparable_software`."""
    return digest_of(json.dumps(software, sort_keys=True).encode())


def describe_machine() -> list[object]:
    """What durations depend on: the CPU, the number of cores, the kernel."""
    return [_cpu_model(), os.cpu_count(), platform.release()]


def code_digests() -> dict[str, str]:
    """Path -> digest of every file of this package."""
    return _digests(_PACKAGE, (f for f in _PACKAGE.rglob("*") if "__pycache__" not in f.parts))


def code_digest() -> str:
    """The digest of every file of this package."""
    return digest_of(json.dumps(code_digests()).encode())


def code_of_section(code: dict[str, str], section: str) -> dict[str, str]:
    """Those of the files `code` that the results of `section` depend on.

    Other sections are not among them, nor what is made of results afterwards.
    """
    return {path: digest for path, digest in code.items() if _may_reach(section, Path(path))}


def _may_reach(section: str, path: Path) -> bool:
    first, *rest = path.with_suffix("").parts
    if first == "sections" and len(rest) > 1:
        return rest[0] == section
    return first not in _AFTER_ANALYSIS


def templates_digest() -> str:
    """The digest of every template, style sheet, script and font of the pages."""
    return digest_of(json.dumps(_digests(templates_dir(), templates_dir().rglob("*"))).encode())


def _digests(folder: Path, paths: Iterable[Path]) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): digest_of(path.read_bytes())
        for path in sorted(paths)
        if path.is_file()
    }


def installed_packages() -> dict[str, str]:
    """`name-version` -> digest of its list of files, for every package but this one.

    The list has the hash of each file: a package that was built again has another one.
    """
    return {path.name: _digest(path / "RECORD") for path in _package_folders()}


def _package_folders() -> Iterator[Path]:
    for place in sys.path:
        with suppress(OSError):
            folders = Path(place).glob("*.dist-info")
            yield from sorted(path for path in folders if not path.name.startswith("reportgen-"))


def _digest(path: Path) -> str:
    with suppress(OSError):
        return digest_of(path.read_bytes())
    return ""  # packages of the system have no such list


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(_CPU_MODEL):
                return line.partition(":")[2].strip()
    return platform.processor()
