"""The share of complete reports for 200 random architectures of timm and transformers.

    python benchmarks/zoo.py [--cache DIR] [--count 200] [--only NAME]... [--failed] [--write]

Each model is reduced (`zoo_tiny`) and built from a manifest without inputs. Its outcome is stored
as one line in the cache folder, so that an interrupted run can be continued. If a section failed,
`zoo_bare` runs the same operation in plain PyTorch with the same inputs; if that works, the failure
is ours. The goal is 97 % of the models without a failure of ours.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
os.environ["HF_HUB_OFFLINE"] = "1"

import yaml  # noqa: E402
from zoo_draw import Drawn, NotDrawn, draw  # noqa: E402
from zoo_outcomes import (  # noqa: E402
    SEED,
    Failure,
    Outcome,
    line_of,
    outcome_from,
    summary,
    table,
)

TABLE = ROOT / "benchmarks" / "zoo.md"
_SECTION_SECONDS = 300  # the machine may be shared
_BUILD_SECONDS = 1200
_BARE_SECONDS = 360
_REQUIRED_OPERATION = {
    "onnx": "export",
    "memory": "backward",
}  # operation of `zoo_bare`; the other sections need "forward"

# One model ----------------------------------------------------------------------------------


def build_one(drawn: Drawn, cache: Path) -> Outcome:
    """Build the report of one model in a subprocess, and check its failures with `zoo_bare`."""
    manifest = write_manifest(drawn, cache / "manifests")
    output = cache / "reports" / drawn.name
    shutil.rmtree(output, ignore_errors=True)
    start = time.monotonic()
    last_line = build(manifest, output)
    seconds = round(time.monotonic() - start, 1)
    report = output / "report.json"
    if report.exists():
        model = json.loads(report.read_text(encoding="utf-8"))["models"][0]
        shutil.rmtree(output / "models", ignore_errors=True)  # large, and not needed
    else:
        model = {"verdict": "", "sections": {"": failure_of_build(last_line)}}
    failed = {k: s for k, s in model["sections"].items() if s["status"] == "failed"}
    alone = run_in_plain_pytorch(manifest) if failed else {}
    return Outcome(
        name=drawn.name,
        source=drawn.source,
        parameters=drawn.parameters,
        level=drawn.level,
        verdict=model["verdict"],
        parity=parity_of(model["sections"].get("onnx", {})),
        seconds=seconds,
        failures=tuple(
            Failure(
                section=name,
                error=section["error"],
                hint=section["hint"],
                alone=alone.get(_REQUIRED_OPERATION.get(name, "forward")),
            )
            for name, section in failed.items()
        ),
    )


def write_manifest(drawn: Drawn, folder: Path) -> Path:
    """Write the manifest of one model, with its source and arguments but without inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    entry: dict[str, Any] = {"name": drawn.name, "source": drawn.source}
    if drawn.arguments:
        entry["arguments"] = drawn.arguments
    document = {
        "version": 1,
        "title": drawn.source,
        "targets": ["T4"],
        "limits": {"seconds": _SECTION_SECONDS},
        "models": [entry],
    }
    path = folder / f"{drawn.name}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return path


def build(manifest: Path, output: Path) -> str:
    """Run `reportgen build` and return its last line on stderr, which contains the error if any."""
    command = [sys.executable, "-m", "reportgen", "build", str(manifest), "--output", str(output),
               "--format", "json", "--jobs", "1", "--no-timings"]  # fmt: skip
    return _run(command, _BUILD_SECONDS)[1]


def failure_of_build(last_line: str) -> dict[str, str]:
    """The error message of a failed build as a failed section."""
    message, bracket, hint = last_line.removeprefix("reportgen: ").rpartition(" (")
    if not bracket or not hint.endswith(")"):
        return {"status": "failed", "error": last_line, "hint": ""}
    return {"status": "failed", "error": message, "hint": hint[:-1]}


def run_in_plain_pytorch(manifest: Path) -> dict[str, float | str]:
    """The output of `zoo_bare`; operations missing after a crash or timeout count as failed."""
    command = [sys.executable, str(ROOT / "benchmarks" / "zoo_bare.py"), str(manifest)]
    output, _ = _run(command, _BARE_SECONDS)
    results: dict[str, float | str] = json.loads(output) if output.startswith("{") else {}
    if not output or "loading" in results:
        return {}  # the model or its inputs could not be made
    for name in ("forward", "backward", "export"):
        results.setdefault(name, f"crashed, or took more than {_BARE_SECONDS} s")
    return results


def _run(command: list[str], seconds: float) -> tuple[str, str]:
    """Run a command; the last lines of its stdout and stderr."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # SIGTERM: reportgen then ends its children
        out, err = process.communicate(timeout=60)
        err += f"\ntimeout after {seconds:.0f} s"
    return _last_line(out), _last_line(err)


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def parity_of(section: dict[str, Any]) -> str:
    """The result of the parity check in one or two words."""
    if section.get("status") != "done":
        return ""
    parity = section["result"]["parity"]
    if parity["passed"] is None:
        return "not run"
    if not parity["passed"]:
        return "failed"
    return "vacuous" if parity["vacuous"] else "passed"


# The sweep ----------------------------------------------------------------------------------


def cached_draw(cache: Path, count: int) -> tuple[list[Drawn], list[NotDrawn]]:
    """The architectures of the sweep, cached: drawing takes minutes and is deterministic."""
    file = cache / f"draw_{SEED}_{count}.json"
    if not file.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            drawn, not_drawn = draw(count, SEED)
        data = {"drawn": [asdict(d) for d in drawn], "not_drawn": [asdict(d) for d in not_drawn]}
        file.write_text(json.dumps(data, indent=1), encoding="utf-8")
    data = json.loads(file.read_text(encoding="utf-8"))
    return [Drawn(**d) for d in data["drawn"]], [NotDrawn(**d) for d in data["not_drawn"]]


def cached_outcomes(cache: Path) -> dict[str, Outcome]:
    """The last outcome of each model that was built."""
    file = cache / "outcomes.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {outcome.name: outcome for outcome in map(outcome_from, map(json.loads, lines))}


def is_known(drawn: Drawn, known: dict[str, Outcome]) -> bool:
    """Whether the model was built with the same arguments (same number of parameters)."""
    outcome = known.get(drawn.name)
    return outcome is not None and outcome.parameters == drawn.parameters


def sweep(drawn: list[Drawn], cache: Path, processes: int) -> Iterator[Outcome]:
    """Build every model of `drawn`, and append each outcome to the cache."""
    with ThreadPoolExecutor(processes) as pool:
        running = [pool.submit(build_one, one, cache) for one in drawn]
        for done in as_completed(running):
            outcome = done.result()
            with (cache / "outcomes.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(outcome)) + "\n")
            yield outcome


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    parser.add_argument("--cache", type=Path, default=home / "reportgen-zoo")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--first", type=int, help="only the first N of the draw")
    parser.add_argument("--only", action="append", help="rebuild this model; repeatable")
    parser.add_argument("--failed", action="store_true", help="rebuild models with a failure")
    parser.add_argument("--ours", action="store_true", help="rebuild models with a failure of ours")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="build nothing, print the table")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    return parser.parse_args()


def models_to_build(
    options: argparse.Namespace, drawn: list[Drawn], known: dict[str, Outcome]
) -> list[Drawn]:
    """The models to build in this run."""
    if options.table:
        return []
    if options.only:
        return [one for one in drawn if one.name in options.only]
    if options.failed or options.ours:
        again = {o.name for o in known.values() if (not o.complete if options.ours else o.failures)}
        return [one for one in drawn if one.name in again]
    return [one for one in drawn[: options.first] if not is_known(one, known)]


def main() -> None:
    """Draw, build the models that are not cached, and print the summary and the table."""
    options = _options()
    options.cache.mkdir(parents=True, exist_ok=True)
    drawn, not_drawn = cached_draw(options.cache, options.count)
    known = cached_outcomes(options.cache)
    for outcome in sweep(models_to_build(options, drawn, known), options.cache, options.processes):
        print(line_of(outcome), flush=True)
    known = cached_outcomes(options.cache)
    outcomes = [known[one.name] for one in drawn if is_known(one, known)]
    print("\n" + "\n".join(summary(outcomes, not_drawn)) + "\n")
    page = table(outcomes, not_drawn, len(drawn))
    if options.write:
        TABLE.write_text(page, encoding="utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
