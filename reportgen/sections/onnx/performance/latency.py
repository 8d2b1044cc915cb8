"""How long onnxruntime takes for one batch, measured within a few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from reportgen.sections.onnx.result import Latency

if TYPE_CHECKING:
    from reportgen.onnx.runtime import Feed, Runtime

MakeFeed = Callable[[int], "Feed"]
"""Inputs for a batch size, as the file wants them."""

_SECONDS = 2.0
_MOST_RUNS = 200
_FEWEST_RUNS = 3


def measure_latency(runtime: Runtime, make_feed: MakeFeed, batch: int) -> Latency | None:
    """Median, 10th and 90th percentile at a batch size; None if it cannot run there.

    One run warms up. Runs then follow for two seconds, 3 of them at least (one, if the warm-up
    alone took half of that) and 200 at most.
    """
    try:
        seconds = time_runs(runtime, make_feed(batch))
    except Exception:  # parity has told of it
        return None
    return Latency(
        batch=batch,
        runs=len(seconds),
        threads=runtime.threads,
        median=1e3 * percentile(seconds, 0.5),
        p10=1e3 * percentile(seconds, 0.1),
        p90=1e3 * percentile(seconds, 0.9),
    )


def time_runs(runtime: Runtime, feed: Feed, box: float = _SECONDS) -> list[float]:
    """Seconds of each run within a box of `box` seconds, after a run to warm up."""
    start = time.perf_counter()
    runtime.run(feed)
    fewest = 1 if time.perf_counter() - start > box / 2 else _FEWEST_RUNS
    begin, seconds = time.perf_counter(), list[float]()
    while len(seconds) < fewest or (
        len(seconds) < _MOST_RUNS and time.perf_counter() - begin < box
    ):
        before = time.perf_counter()
        runtime.run(feed)
        seconds.append(time.perf_counter() - before)
    return seconds


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of `values` lie, interpolated between neighbors."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
