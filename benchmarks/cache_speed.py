"""How long a build takes if nothing, one file or one output format changed.

    python benchmarks/cache_speed.py [--manifest sample_models/manifest.yaml] [--model NAME]...

Builds with an empty cache, then twice without a change, with a comment added to the source of the
last model that has one, and with another format. Prints wall and CPU seconds of each build, and
the ratio to the first. The manifest's folder is copied: no file of it is modified.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reportgen.manifest import ModelSpec, load_manifest

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Run:
    """One build: seconds on the clock, and of all its processes."""

    what: str
    wall: float
    cpu: float


def run_build(what: str, manifest: Path, cache: Path, options: list[str]) -> Run:
    command = [sys.executable, "-P", "-m", "reportgen", "build", str(manifest), "--quiet"]
    command += ["--fail-on", "never", "--output", str(manifest.parent / "out"), *options]
    env = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # as pip installs a package: with .pyc files
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    status = subprocess.run(command, env=env, check=False).returncode
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - start
    if status not in (0, 1):  # 1: a finding or a budget
        raise SystemExit(f"{what}: the build failed with status {status}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(what=what, wall=wall, cpu=cpu)


def own_sources(manifest: Path, models: list[str]) -> list[ModelSpec]:
    return [
        spec
        for spec in load_manifest(manifest).models
        if spec.source.kind == "python" and (not models or spec.name in models)
    ]


def runs(manifest: Path, cache: Path, models: list[str]) -> list[Run]:
    chosen = [part for name in models for part in ("--model", name)]
    found = [
        run_build("empty cache", manifest, cache, chosen),
        run_build("nothing changed", manifest, cache, chosen),
        run_build("nothing changed, again", manifest, cache, chosen),
        run_build("another format", manifest, cache, [*chosen, "--format", "html,json"]),
    ]
    if sources := own_sources(manifest, models):
        spec = sources[-1]
        with Path(spec.source.target).open("a", encoding="utf-8") as source:
            source.write("# changed\n")
        found.append(run_build(f"{spec.name} changed", manifest, cache, chosen))
        alone = ["--model", spec.name, "--no-cache"]
        found.append(run_build(f"{spec.name} alone, no cache", manifest, cache, alone))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, default=ROOT / "sample_models/manifest.yaml")
    parser.add_argument("--model", action="append", default=[])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(arguments.manifest.parent, Path(folder) / "models"))
        found = runs(copy / arguments.manifest.name, Path(folder) / "cache", arguments.model)
        cache = sum(p.stat().st_size for p in (Path(folder) / "cache").rglob("*") if p.is_file())
    print(f"{'build':<32}{'wall s':>8}{'CPU s':>8}{'of first':>10}")
    for run in found:
        print(f"{run.what:<32}{run.wall:>8.1f}{run.cpu:>8.1f}{run.wall / found[0].wall:>9.1%}")
    print(f"cache: {cache / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
