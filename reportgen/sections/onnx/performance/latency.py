"""Latency of onnxruntime on the CPU, by batch size and number of threads."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from reportgen.onnx.runtime import OnnxRuntimeError, Runtime, session_error_text
from reportgen.sections.onnx.performance.profile import NodeOrigins, Profile, profile
from reportgen.sections.onnx.result import Latency, LatencyPoint, Performance

if TYPE_CHECKING:
    from reportgen.onnx.runtime import Feed

MakeFeed = Callable[[int], "Feed"]
"""Inputs of the file for a batch size."""

LATENCY_SHARE = 0.4
"""Share of a model's seconds for measuring that its latency takes."""
_GRID_SHARE = 0.45
_CELL_SHARE = 0.08  # of one batch size on one number of threads
_PROFILE_SHARE = 0.15
_MOST_RUNS = 200
_FEWEST_RUNS = 3
_TOLERANCE = 0.02  # of a median: later runs on the same machine differ by more
_Z = 1.96  # standard deviations either side of the mean that hold 95 % of a normal distribution
_LARGER = 2  # times the manifest's batch


def measure_latency(
    runtime: Runtime, make_feed: MakeFeed, batch: int, limit: float
) -> Latency | None:
    """Median, 10th and 90th percentile at a batch size; None if it cannot run there.

    A warm-up run is followed by at most 200 runs in at most `limit` seconds, until the median is
    known to 2 %. There are at least 3 (1 if the warm-up took half of the limit).
    """
    try:
        seconds = time_runs(runtime, make_feed(batch), limit)
    except Exception:  # parity reports the error
        return None
    return Latency(
        batch=batch,
        runs=len(seconds),
        threads=runtime.threads,
        median=1e3 * percentile(seconds, 0.5),
        p10=1e3 * percentile(seconds, 0.1),
        p90=1e3 * percentile(seconds, 0.9),
    )


def time_runs(runtime: Runtime, feed: Feed, limit: float) -> list[float]:
    """Seconds of each run after a warm-up run, until `limit` or until their median is known."""
    start = time.perf_counter()
    runtime.run(feed)  # onnxruntime allocates its memory in the first run
    fewest = 1 if time.perf_counter() - start > limit / 2 else _FEWEST_RUNS
    begin, seconds = time.perf_counter(), list[float]()
    while len(seconds) < fewest or (
        len(seconds) < _MOST_RUNS
        and time.perf_counter() - begin < limit
        and not is_median_known(seconds)
    ):
        before = time.perf_counter()
        runtime.run(feed)
        seconds.append(time.perf_counter() - before)
    return seconds


def is_median_known(seconds: list[float]) -> bool:
    """Whether the median's 95 % confidence interval is within 2 % either way.

    The interval between two order statistics holds for any distribution; it takes 8 runs at least.
    """
    rank = int((len(seconds) - _Z * math.sqrt(len(seconds))) / 2)
    if rank < 1:
        return False
    ordered = sorted(seconds)
    return ordered[-rank] - ordered[rank - 1] <= 2 * _TOLERANCE * percentile(seconds, 0.5)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of `values` lie, interpolated between neighbors."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def measure_performance(
    runtime: Runtime,
    origins: NodeOrigins | None,
    make_feed: MakeFeed,
    known: Latency,
    *,
    dynamic: bool,
    seconds: float,
) -> Performance:
    """Latency by batch size on one thread and on all, and a profile.

    Args:
        runtime: the file with all threads.
        origins: the modules of its nodes; None if onnxruntime's graph is unknown.
        make_feed: inputs for a batch size.
        known: the latency already measured with it.
        dynamic: whether the file accepts other batch sizes than that of `known`.
        seconds: for measuring the model, of which `known` took `LATENCY_SHARE`.
    """
    batches = batches_to_time(known.batch, dynamic=dynamic)
    points = _measure_grid(make_feed, runtime, known, batches, seconds)
    limit = seconds * _PROFILE_SHARE
    # a slow model is profiled on one sample, for which two runs fit into the time
    batch = known.batch if known.median < 1e3 * limit / 2 or not dynamic else 1
    profiled, reason = _profile(runtime, origins, make_feed, batch, limit)
    return Performance(
        latency_ms=known,
        points=points,
        profiled_batch=None if reason else batch,
        operators=profiled.operators,
        modules=profiled.modules,
        not_profiled=reason,
    )


def batches_to_time(batch: int, *, dynamic: bool) -> tuple[int, ...]:
    """One sample, the manifest's batch and twice that; a file with a fixed batch has only one."""
    return tuple(sorted({1, batch, _LARGER * batch})) if dynamic else (batch,)


def _measure_grid(
    make_feed: MakeFeed,
    runtime: Runtime,
    known: Latency,
    batches: Iterable[int],
    limit: float,
) -> tuple[LatencyPoint, ...]:
    end = time.perf_counter() + limit * _GRID_SHARE
    points = [_point_of(known)]
    sessions = _sessions(runtime)
    # seconds per sample: what does not fit into the time left is not started
    expected = dict.fromkeys(range(len(sessions)), known.median / 1e3 / known.batch)
    for batch in batches:
        for index, session in enumerate(sessions):
            if (batch, session.threads) == (known.batch, known.threads):
                continue
            left = end - time.perf_counter()
            fits = 2 * expected[index] * batch < left  # a run to warm up, and one to measure
            cell = min(left, limit * _CELL_SHARE)
            latency = measure_latency(session, make_feed, batch, cell) if fits else None
            points.append(_point_of(latency) if latency else _unmeasured(batch, session.threads))
            if latency and latency.median:
                expected[index] = latency.median / 1e3 / batch
    return tuple(sorted(points, key=lambda one: (one.batch, one.threads)))


def _point_of(known: Latency) -> LatencyPoint:
    return LatencyPoint(
        batch=known.batch,
        threads=known.threads,
        runs=known.runs,
        median=known.median,
        p10=known.p10,
        p90=known.p90,
        samples_per_second=1e3 * known.batch / known.median if known.median else None,
    )


def _sessions(runtime: Runtime) -> list[Runtime]:
    return [runtime] if runtime.threads == 1 else [runtime, Runtime(runtime.path, threads=1)]


def _unmeasured(batch: int, threads: int) -> LatencyPoint:
    return LatencyPoint(
        batch=batch,
        threads=threads,
        runs=0,
        median=None,
        p10=None,
        p90=None,
        samples_per_second=None,
    )


def _profile(
    runtime: Runtime, origins: NodeOrigins | None, make_feed: MakeFeed, batch: int, limit: float
) -> tuple[Profile, str]:
    if origins is None:
        return Profile(operators=(), modules=()), "onnxruntime's optimized graph is unknown"
    try:
        found = profile(runtime.path, origins, make_feed(batch), runtime.threads, limit)
    except OnnxRuntimeError as reason:
        return Profile(operators=(), modules=()), str(reason)
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        return Profile(operators=(), modules=()), f"onnxruntime: {session_error_text(error)}"
    return found, "" if found.operators else "the profile names no operator"
