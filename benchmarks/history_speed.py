"""How fast the nightly history is: a synthetic year of nights of 50 models.

    python benchmarks/history_speed.py [--folder DIR] [--nights 365] [--models 50]

Prints the time to add one night, the time and size of the page over all nights, and the size of
the store. The year stays in `--folder`, if it is given: open its `index.html` to look at it. The
models have 45 figures each, 8 of them on the page; among the events are a change of code, of
weights and of PyTorch, a slower measured latency, one that recovers, a slow drift, failed nights,
a second machine and a last night that is out of line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from reportgen.history import add_night, prune, write_index
from reportgen.history.archive import kept_times
from reportgen.history.night import Figure, ModelNight, Night, night_to_data, stamp
from reportgen.history.overview import Places
from reportgen.history.store import append_record
from reportgen.metrics import COMPARISON

LAST = datetime(2026, 11, 27, 3, 15, tzinfo=UTC)
HEADLINES = (
    ("layers.parameters", "Parameters", "", "lower"),
    ("layers.parameter_bytes", "Weights", "bytes", "lower"),
    ("layers.macs_per_sample", "MACs / sample", "", "lower"),
    ("onnx.bytes", "ONNX file", "bytes", "lower"),
    ("memory.peak_memory@8", "Peak memory at batch 8", "bytes", "lower"),
    ("memory.safe_train_batch@T4", "Safe training batch T4", "batch", "higher"),
    ("training.val/acc.best", "Best val/acc", "", "higher"),
)
LATENCY = Figure(key="onnx.latency_ms", label="Latency", unit="ms", direction="lower",
                 exact=False, headline=True)  # fmt: skip
FIGURES = (
    *(Figure(key=k, label=name, unit=u, direction=d, headline=True) for k, name, u, d in HEADLINES),
    LATENCY,
    *(Figure(key=f"memory.detail_{i}", label=f"Detail {i}", unit="bytes") for i in range(37)),
)


def synthetic_nights(nights: int, models: int, seed: int = 0) -> list[Night]:
    """A year, or `nights`, with everything that the page must show; equal seeds, equal nights."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2_000_000, 90_000_000, models)
    made = []
    for index in range(nights):
        if index in (60, 61, 200):  # nothing ran
            continue
        moment = LAST - timedelta(days=nights - 1 - index, minutes=int(rng.integers(0, 20)))
        values = {
            f"model_{number:02d}": _model(number, int(size), index, nights, rng)
            for number, size in enumerate(sizes)
        }
        second_machine = index % 10 in (3, 7, 8)
        made.append(_night(moment, index, nights, values, second_machine))
    return made


def _model(
    number: int, size: int, index: int, nights: int, rng: np.random.Generator
) -> tuple[list[float | None], dict[str, str]]:
    change = nights - 8 - number * 5  # of the code; each model has its own night
    parameters = size * (104 if number % 4 == 0 and index >= change else 100) // 100
    parameters += number % 7 == 3 and index * 1500  # a slow drift
    macs = parameters * 49 * (1.06 if number % 9 == 2 and 200 < index < 230 else 1.0)
    graph = 1.02 if index >= nights - 90 else 1.0  # the other exporter writes larger files
    slower = 1.06 if number % 5 == 1 and index >= nights - 40 else 1.0
    slower *= 1.25 if number % 6 == 2 and 120 < index < 150 else 1.0
    slower *= 1.3 if number == 7 and index >= nights - 2 else 1.0
    machine = 1.12 if index % 10 in (3, 7, 8) else 1.0
    latency = parameters / 4e6 * slower * machine * (1 + 0.01 * rng.standard_t(3))
    failed = number % 11 == 4 and index % 50 == 7
    values: list[float | None] = [
        parameters, 4 * parameters, round(macs), None if failed else round(4 * parameters * graph),
        round(17.5 * parameters), 2 ** (12 - len(str(parameters)) % 4), 0.7 + number / 500,
        None if failed else float(f"{latency:.6g}"),
    ]  # fmt: skip
    hashes = {
        "code": f"code{number}{number % 4 == 0 and index >= change}",
        "weights": f"weights{number}{number % 9 == 2 and 200 < index < 230}",
    }
    return values + [size // (i + 2) for i in range(37)], hashes


def _night(
    moment: datetime,
    index: int,
    nights: int,
    models: dict[str, tuple[list[float | None], dict[str, str]]],
    second_machine: bool,
) -> Night:
    torch = "2.15.0" if index >= nights - 90 else "2.14.1"
    return Night(
        report="vision",
        title="Vision models",
        time=moment,
        digest=f"{index:064x}",
        figures=FIGURES,
        models={
            name: ModelNight(
                verdict="fail" if values[3] is None else "warn" if name.endswith("3") else "pass",
                values=tuple(values),
                hashes=hashes,
            )
            for name, (values, hashes) in models.items()
        },
        commit=f"{index * 7919 + 1_000_003:x}".rjust(12, "c"),
        environment={"python": "3.11.9", "torch": torch, "onnxruntime": "1.32.0"},
        machine="b" if second_machine else "a",
        manifest="m1",
        copy=f"{stamp(moment)}-vision-{index:08x}",
    )


def make_report(folder: Path, night: Night) -> Path:
    """A report folder with the figures of `night`, as `build` leaves it."""
    folder.mkdir(parents=True)
    models = [
        {
            "name": name,
            "verdict": model.verdict,
            "metrics": [
                {
                    "key": figure.key, "label": figure.label, "value": value, "unit": figure.unit,
                    "direction": figure.direction, "exact": figure.exact,
                    "table": COMPARISON if figure.headline and figure.exact else "",
                }
                for figure, value in zip(night.figures, model.values, strict=True)
            ],
        }
        for name, model in night.models.items()
    ]  # fmt: skip
    data = {
        "format": 1, "title": night.title, "verdict": "pass", "models": models,
        "environment": dict(night.environment), "timings": {"built": night.time.isoformat()},
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(data, indent=1))
    for name in night.models:
        page = folder / "models" / name / "index.html"
        page.parent.mkdir(parents=True)
        page.write_text("<title>a page</title>")
    (folder / "index.html").write_text('<meta name="generator" content="reportgen">')
    return folder


def fill(root: Path, nights: list[Night]) -> None:
    """Write all `nights` and a page for each copy that the retention rule keeps."""
    places = Places(root)
    kept = kept_times(night.time for night in nights)
    for night in nights:
        append_record(places.nights, night.time, night_to_data(night))
        if night.time in kept:
            (places.reports / night.copy).mkdir(parents=True)
            (places.reports / night.copy / "index.html").write_text("<p>the report</p>")


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--nights", type=int, default=365)
    parser.add_argument("--models", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary) / "reports"
        nights = synthetic_nights(options.nights, options.models)
        fill(root, nights)
        added = []
        for number in range(20):
            report = make_report(Path(temporary) / str(number) / "vision", nights[-1])
            added.append(seconds(lambda: add_night(report, Path(temporary) / "other")))  # noqa: B023
        cpu = time.process_time()
        page = seconds(lambda: write_index(root, LAST + timedelta(hours=2)))
        cpu = time.process_time() - cpu
        pruned = seconds(lambda: prune(root))
        store = sum(file.stat().st_size for file in Places(root).nights.iterdir())
        index = Places(root).index.stat().st_size
    print(f"{len(nights)} nights of {options.models} models, {len(FIGURES)} figures each")
    print(f"add a night, with its copy: median {1e3 * statistics.median(added):.0f} ms,"
          f" most {1e3 * max(added):.0f} ms")  # fmt: skip
    print(f"page: {page:.2f} s, of the CPU {cpu:.2f} s; {index / 1e6:.2f} MB")
    print(f"prune: {1e3 * pruned:.0f} ms; store: {store / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
