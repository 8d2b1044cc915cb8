"""How fast onnxruntime runs a file on the CPU: by batch size and threads, and where time goes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from reportgen.onnx.runtime import CannotRunError, Runtime, runtime_line
from reportgen.sections.onnx.file_result import LatencyPoint, Speed
from reportgen.sections.onnx.inspection.optimized_graph import LARGEST_BYTES
from reportgen.sections.onnx.performance.latency import MakeFeed, percentile, time_runs
from reportgen.sections.onnx.performance.profile import Profile, profile

if TYPE_CHECKING:
    from reportgen.sections.onnx.result import Latency

_CELL_SECONDS = 0.4
_GRID_SECONDS = 2.5
_PROFILE_SECONDS = 0.7
_LARGER = 2  # times the manifest's batch


def measure_speed(
    path: Path, make_feed: MakeFeed, runtime: Runtime, known: Latency, *, dynamic: bool
) -> Speed:
    """Latency by batch size on one thread and on all, and a profile.

    What a run is expected to take is learned from those before it; one that does not fit into the
    time box is not started.

    Args:
        make_feed: inputs for a batch size.
        runtime: the file with all threads.
        known: what has been measured with it.
        dynamic: whether the file takes other batch sizes than that of `known`.
    """
    batches = batches_to_time(known.batch, dynamic=dynamic)
    points = _measure_grid(path, make_feed, runtime, known, batches)
    batch = known.batch if known.median < 1e3 * _PROFILE_SECONDS / 2 or not dynamic else 1
    profiled, reason = _profile(path, make_feed, runtime.threads, batch)
    return Speed(
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
    path: Path, make_feed: MakeFeed, runtime: Runtime, known: Latency, batches: Iterable[int]
) -> tuple[LatencyPoint, ...]:
    end = time.perf_counter() + _GRID_SECONDS
    points = [_told(known)]
    sessions = _sessions(path, runtime)
    expected = dict.fromkeys(range(len(sessions)), known.median / 1e3 / known.batch)
    for batch in batches:
        for index, session in enumerate(sessions):
            if (batch, session.threads) == (known.batch, known.threads):
                continue
            left = end - time.perf_counter()
            fits = 2 * expected[index] * batch < left  # a run to warm up, and one to measure
            point = _point(session, make_feed, batch, min(left, _CELL_SECONDS)) if fits else None
            points.append(point or _nothing(batch, session.threads))
            if point and point.median:
                expected[index] = point.median / 1e3 / batch
    return tuple(sorted(points, key=lambda one: (one.batch, one.threads)))


def _told(known: Latency) -> LatencyPoint:
    return LatencyPoint(
        batch=known.batch,
        threads=known.threads,
        runs=known.runs,
        median=known.median,
        p10=known.p10,
        p90=known.p90,
        samples_per_second=1e3 * known.batch / known.median if known.median else None,
    )


def _sessions(path: Path, runtime: Runtime) -> list[Runtime]:
    return [runtime] if runtime.threads == 1 else [runtime, Runtime(path, threads=1)]


def _point(session: Runtime, make_feed: MakeFeed, batch: int, box: float) -> LatencyPoint | None:
    try:
        seconds = time_runs(session, make_feed(batch), box)
    except Exception:  # parity has told of it
        return None
    median = percentile(seconds, 0.5)
    return LatencyPoint(
        batch=batch,
        threads=session.threads,
        runs=len(seconds),
        median=1e3 * median,
        p10=1e3 * percentile(seconds, 0.1),
        p90=1e3 * percentile(seconds, 0.9),
        samples_per_second=batch / median if median else None,
    )


def _nothing(batch: int, threads: int) -> LatencyPoint:
    return LatencyPoint(
        batch=batch,
        threads=threads,
        runs=0,
        median=None,
        p10=None,
        p90=None,
        samples_per_second=None,
    )


def _profile(path: Path, make_feed: MakeFeed, threads: int, batch: int) -> tuple[Profile, str]:
    if path.stat().st_size > LARGEST_BYTES:
        return Profile(operators=(), modules=()), "the file takes more than 1 GB"
    try:
        found = profile(path, make_feed(batch), threads, _PROFILE_SECONDS)
    except CannotRunError as reason:
        return Profile(operators=(), modules=()), str(reason)
    except Exception as error:  # onnxruntime's classes have no common one of their own
        return Profile(operators=(), modules=()), f"onnxruntime: {runtime_line(error)}"
    return found, "" if found.operators else "the profile names no operator"
