"""How builds grow: many models on one machine, two dask workers, a simulated large cluster.

    python benchmarks/scale.py [--models 100] [--workers 1000] [--tasks 20000] [--only NAME]

Writes `benchmarks/scale.md`. Ratios are of commands that ran alternately on this machine; seconds
depend on it. Requires the extra `reportgen[dask]`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from reportgen.executors import analyze_all  # noqa: E402
from reportgen.executors.answer import pack  # noqa: E402
from reportgen.executors.dask_cluster import DaskExecutor  # noqa: E402
from reportgen.executors.task import Task  # noqa: E402
from reportgen.manifest import load_manifest  # noqa: E402
from reportgen.outcome import SectionOutcome, Skipped  # noqa: E402
from reportgen.pipeline import make_job  # noqa: E402
from reportgen.workers import ModelOutcomes  # noqa: E402

RESULTS = Path(__file__).with_suffix(".md")
ANSWER_BYTES = 300_000
DATA = Path(__file__).with_suffix(".json")
NETS = """
from torch import nn

def net(width):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))
"""
PARENT = """
import sys
from reportgen import cli
sys.argv[1:] = {arguments!r}
try:
    cli.main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    text = open("/proc/self/status").read()
    print(text[text.index("VmHWM"):].split()[1])
"""
WORKERS = """
import asyncio
from distributed import Worker

async def main():
    workers = [
        Worker(scheduler_file={file!r}, nthreads=1, memory_limit="4GB", host="127.0.0.1",
               local_directory={folder!r}, dashboard=False)
        for _ in range({count})
    ]
    await asyncio.gather(*workers)
    await asyncio.gather(*(worker.finished() for worker in workers))

asyncio.run(main())
"""
LOGS_ONLY = """
version: 1
title: t
models:
  - {name: m, logs: run.csv}
"""


def write_manifest(folder: Path, models: int) -> None:
    (folder / "nets.py").write_text(NETS)
    entries = [
        {"name": f"m{i}", "source": "nets.py:net", "arguments": {"width": i + 1},
         "inputs": [{"shape": ["batch", 8]}]}
        for i in range(models)
    ]  # fmt: skip
    content = {"version": 1, "title": "Tiny models", "limits": {"cores": 1}, "models": entries}
    (folder / "m.yaml").write_text(json.dumps(content))


def build(folder: Path, output: str, *options: str) -> tuple[float, int]:
    """Wall seconds of a build, and the peak memory of its parent process in bytes."""
    arguments = ["build", "m.yaml", "--output", output, "--quiet", "--no-cache", *options]
    start = time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-c", PARENT.format(arguments=arguments)],
        cwd=folder, check=True, capture_output=True, text=True, env=environment(),
    )  # fmt: skip
    return time.monotonic() - start, int(answer.stdout.split()[-1]) * 1024


def environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def many_models(models: int) -> dict[str, Any]:
    """A build of many tiny models with all sections and all formats."""
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(Path(folder), models)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds, memory = build(Path(folder), "out", "--jobs", "2")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"models": models, "seconds": seconds, "cpu": cpu, "memory": memory}


def two_workers(models: int, rounds: int) -> dict[str, Any]:
    """Builds by two dask workers and by `--jobs 2`, alternately."""
    local, dask = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_manifest(folder, models)
        for _ in range(rounds):
            local.append(build(folder, "local", "--jobs", "2", "--no-timings")[0])
            dask.append(
                build(folder, "dask", "--jobs", "2", "--no-timings", "--executor", "dask")[0]
            )
        same = all(
            path.read_bytes() == (folder / "dask" / path.relative_to(folder / "local")).read_bytes()
            for path in (folder / "local").rglob("*")
            if path.is_file()
        )
    assert same, "the reports differ"
    return {"models": models, "local": local, "dask": dask}


def sleep_instead(text: str, **_: Any) -> bytes:
    """An answer after `SLEEP` seconds; instead of `examine`, on a simulated worker."""
    time.sleep(float(os.environ["SLEEP"]))
    task = Task.model_validate_json(text)
    with tempfile.TemporaryDirectory() as folder:
        job = task.job.model_copy(update={"folder": Path(folder)})
        job.outcomes.mkdir()
        job.outcome_file("training").write_text('{"reason":"none","status":"skipped"}')
        # as large as the files of a tiny model
        (job.outcomes / "padding.json").write_bytes(os.urandom(ANSWER_BYTES))
        section = SectionOutcome(name="training", title="", outcome=Skipped(reason="none"))
        return pack(
            task, job, ModelOutcomes(name=task.job.spec.name, sections=(section,), seconds={})
        )


class SleepingCluster(DaskExecutor):
    """A dask cluster whose workers sleep."""

    def submit(self, _: Any, /, *args: Any, **__: Any) -> Any:
        return super().submit(sleep_instead, *args)


@contextmanager
def simulated_cluster(folder: Path, workers: int, sleep: float) -> Iterator[Any]:
    """A real scheduler process, and worker objects with one thread each in four processes."""
    from distributed import Client

    file = folder / "scheduler.json"
    quiet = {"SLEEP": str(sleep), "DASK_LOGGING__DISTRIBUTED": "critical"}
    scheduler = ["-m", "distributed.cli.dask_scheduler", "--no-dashboard", "--host", "127.0.0.1",
                 "--port", "0", "--scheduler-file", str(file)]  # fmt: skip
    host = ["-c", WORKERS.format(count=workers // 4, file=str(file), folder=str(folder))]
    processes = []
    try:
        for command in (scheduler, host, host, host, host):
            processes.append(
                subprocess.Popen(
                    [sys.executable, *command], env=environment() | quiet, start_new_session=True
                )
            )
            while not file.is_file():
                time.sleep(0.1)
        with Client(scheduler_file=str(file), timeout=60) as client:
            client.wait_for_workers(workers // 4 * 4, timeout=600)
            yield client, processes[0].pid
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def large_cluster(workers: int, tasks: int, sleep: float) -> dict[str, Any]:
    """How many models per second one scheduler and one parent handle."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run.csv").write_text("step,loss\n0,1\n")
        (folder / "m.yaml").write_text(LOGS_ONLY)
        loaded = load_manifest(folder / "m.yaml")
        spec = loaded.models[0]
        with simulated_cluster(folder, workers, sleep) as (client, scheduler):
            executor = SleepingCluster(client)
            share = executor.share()
            jobs = [
                make_job(
                    loaded, spec.model_copy(update={"name": f"m{i}"}), folder, share, False,
                    ("training",),
                )
                for i in range(tasks)
            ]  # fmt: skip
            before = cpu_seconds(scheduler), time.process_time(), time.monotonic()
            found = analyze_all(jobs, parallel=1, progress=lambda *_: None, executor=executor)
            after = cpu_seconds(scheduler), time.process_time(), time.monotonic()
    in_scheduler, in_parent, seconds = (b - a for a, b in zip(before, after, strict=True))
    assert len(found) == tasks
    wrong = [each for each in found if not isinstance(each.sections[0].outcome, Skipped)]
    assert not wrong, wrong[0]
    return {
        "workers": workers, "tasks": tasks, "sleep": sleep, "seconds": seconds,
        "scheduler": in_scheduler, "parent": in_parent,
    }  # fmt: skip


def cpu_seconds(process: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(results: dict[str, Any]) -> str:
    lines = [
        "# Many models, many machines",
        "",
        f"Written by `python benchmarks/scale.py`: {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, torch {version('torch')}, distributed "
        f"{version('distributed')}. Read seconds as of this machine; other programs ran on it.",
        "",
        "| work | figure | bar |",
        "|---|---|---|",
    ]
    if many := results.get("many"):
        lines += [
            f"| {many['models']} tiny models, all sections, `--jobs 2`: seconds per model | "
            f"{many['seconds'] / many['models']:.1f} | ≤ 3 |",
            f"| the same: peak memory of the parent | {many['memory'] / 1e6:.0f} MB | < 500 MB |",
        ]
        if "cpu" in many:
            lines.append(
                f"| the same: CPU seconds per model | {many['cpu'] / many['models']:.1f} | |"
            )
    if two := results.get("two"):
        ratios = [dask / local for dask, local in zip(two["dask"], two["local"], strict=True)]
        lines.append(
            f"| {two['models']} tiny models: 2 dask workers over `--jobs 2`, same bytes, median of "
            f"{len(ratios)} | {statistics.median(ratios):.2f} | ≤ 1.1 |"
        )
    if large := results.get("large"):
        scheduler, parent = (large["tasks"] / large[name] for name in ("scheduler", "parent"))
        limit = min(scheduler, parent)
        lines += [
            f"| {large['workers']:,} simulated workers, {large['tasks']:,} models that sleep "
            f"{large['sleep']:g} s: models per CPU second of the scheduler | {scheduler:.0f} | |",
            f"| the same: models per CPU second of the parent | {parent:.0f} | |",
            f"| the same: models per second on the clock, all processes on these cores | "
            f"{large['tasks'] / large['seconds']:.0f} | |",
            "",
            "The simulated cluster has a real scheduler process, and real worker objects with one "
            "thread each in four processes. Tasks, answers and their checks are those of a build, "
            f"with answers of {ANSWER_BYTES / 1000:.0f} kB; pages are written afterwards.",
            "",
            "The scheduler and the parent each use one core, so that the smaller figure is the "
            f"limit: {limit:.0f} models per second. Extrapolated to models of 10 s, that is "
            f"{limit * 10:,.0f} workers, and with 1,000 workers 100,000 models take "
            f"{100_000 / min(limit, 100) / 60:.0f} minutes; the "
            f"{'workers' if limit >= 100 else 'scheduler and the parent'} are then the limit. "
            "With more workers than that, build shards, each with a scheduler of its own.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--sleep", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["many", "two", "large"])
    chosen = parser.parse_args()
    parts = {
        "many": lambda: many_models(chosen.models),
        "two": lambda: two_workers(max(2, chosen.models // 2), chosen.rounds),
        "large": lambda: large_cluster(chosen.workers, chosen.tasks, chosen.sleep),
    }
    results: dict[str, Any] = json.loads(DATA.read_text()) if DATA.is_file() else {}
    for name, run in parts.items():
        if chosen.only in (None, name):
            results[name] = run()
            print(name, results[name], flush=True)
    DATA.write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.write_text(report(results), encoding="utf-8")


if __name__ == "__main__":
    main()
