"""The layout of single clusters: by dot within a time limit, else in execution order."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reportgen.viewer.levels import Level

PORT = 8  # width of the place where a value enters or leaves, in points
_POINTS = 72.0  # per inch
_SECONDS = 1.5  # for one cluster that takes longer than the others
_GAP = 14

Crossings = dict[tuple[int, int], tuple[int, ...]]


@dataclass(slots=True)
class Sketch:
    """A cluster that is laid out: see `LevelDrawing`; `crossings` of each of its edges."""

    level: Level
    widths: list[int]
    ranks: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    crossings: Crossings = field(default_factory=dict)


def lay_out(sketches: Sequence[Sketch], seconds: float) -> str:
    """Give each sketch ranks and places; returns `dot`, or why some are in execution order."""
    for sketch in sketches:
        _in_order(sketch)
    if shutil.which("dot") is None:
        return "graphviz is not installed, so boxes stand in execution order"
    with tempfile.TemporaryDirectory(prefix="reportgen-viewer-") as folder:
        missing = _with_dot(list(sketches), Path(folder), seconds)
    if not missing:
        return "dot"
    return (
        f"graphviz did not finish {missing} of {len(sketches)} layouts in time, "
        "so their boxes stand in execution order"
    )


def _with_dot(sketches: list[Sketch], folder: Path, seconds: float) -> int:
    """Lay out with dot as many as possible; returns the number of the others."""
    end = time.monotonic() + seconds
    files = [folder / f"{number}.gv" for number in range(len(sketches))]
    for file, sketch in zip(files, sketches, strict=True):
        file.write_text("\n".join(_dot_lines(sketch)), encoding="ascii")
    missing = first = 0
    limit = seconds
    while first < len(sketches):
        left = end - time.monotonic()
        if left <= 0:
            return missing + len(sketches) - first
        try:
            # a file for each output: what is complete survives a crash and the time limit
            subprocess.run(
                ["dot", "-q", "-Tplain", "-O", *map(str, files[first:])],
                capture_output=True,
                timeout=min(limit, left),
                check=False,
            )
        except subprocess.TimeoutExpired:
            limit = _SECONDS
        while first < len(sketches) and _read(sketches[first], files[first]):
            first += 1
        if first < len(sketches):  # dot crashed on it, or ran out of time
            missing, first = missing + 1, first + 1
    return missing


def _dot_lines(sketch: Sketch) -> Iterator[str]:
    level = sketch.level
    yield "digraph g { ranksep=0.35 nodesep=0.2 nslimit=8 nslimit1=8 mclimit=2"
    yield 'node [shape=box fixedsize=true height=0.5 label=""]'
    for number, width in enumerate(sketch.widths):
        yield f"n{number} [width={width / _POINTS:.3f}]"
    for kind, rank in (("in", "source"), ("out", "sink")):
        ports = [f"n{n}" for n, item in enumerate(level.items) if item.kind == kind]
        if ports:
            yield f"{{ rank={rank}; {'; '.join(ports)} }}"
    for source, target in _pairs(level):
        yield f"n{source} -> n{target} [arrowhead=none]"
    yield "}"


def _pairs(level: Level) -> list[tuple[int, int]]:
    """Producing and reading item of each drawn edge, each once."""
    pairs = {(level.values[value][0], reader): None for value, reader in level.edges}
    return [(a, b) for a, b in pairs if a != b]


def _read(sketch: Sketch, file: Path) -> bool:
    """The layout from dot's output; False if it is incomplete."""
    output = file.with_name(f"{file.name}.plain")
    lines = output.read_text(encoding="utf-8").splitlines() if output.is_file() else []
    if not lines or lines[-1] != "stop":
        return False
    x: dict[int, float] = {}
    y: dict[int, float] = {}
    curves: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for words in map(str.split, lines):
        if words[0] == "node":
            number = int(words[1][1:])
            x[number], y[number] = float(words[2]) * _POINTS, -float(words[3])
        elif words[0] == "edge":
            count = int(words[3])
            numbers = [float(word) for word in words[4 : 4 + 2 * count]]
            curves[int(words[1][1:]), int(words[2][1:])] = [
                (a * _POINTS, -b) for a, b in zip(numbers[::2], numbers[1::2], strict=True)
            ]
    heights = sorted({round(each, 3) for each in y.values()})
    sketch.ranks = [heights.index(round(y[n], 3)) for n in range(len(sketch.widths))]
    sketch.places = [round(x[n]) for n in range(len(sketch.widths))]
    sketch.crossings = {}
    for value, reader in sketch.level.edges:
        producer = sketch.level.values[value][0]
        first, last = sorted((sketch.ranks[producer], sketch.ranks[reader]))
        curve = sorted(curves.get((producer, reader), ()), key=lambda point: point[1])
        if curve:
            sketch.crossings[value, reader] = tuple(
                round(_at(curve, heights[rank])) for rank in range(first + 1, last)
            )
    return True


def _at(curve: list[tuple[float, float]], height: float) -> float:
    """Where the polygon of a curve's control points, which is close to it, is at `height`."""
    after = bisect_right(curve, height, key=lambda point: point[1])
    if after in (0, len(curve)):
        return curve[min(after, len(curve) - 1)][0]
    (x0, y0), (x1, y1) = curve[after - 1], curve[after]
    return x0 + (x1 - x0) * (height - y0) / (y1 - y0) if y1 > y0 else x0


def _in_order(sketch: Sketch) -> None:
    """Rank: the longest path from the start; place: execution order within the rank."""
    level = sketch.level
    ranks = [1] * len(level.items)
    sources: dict[int, list[int]] = defaultdict(list)
    for a, b in _pairs(level):
        if level.items[a].kind != "in" and a < b:  # others close a cycle
            sources[b].append(a)
    for number in range(len(level.items)):
        ranks[number] = 1 + max((ranks[a] for a in sources[number]), default=0)
    last = max(ranks, default=0) + 1
    for number, item in enumerate(level.items):
        if item.kind in ("in", "out"):
            ranks[number] = 0 if item.kind == "in" else last
    known = {rank: number for number, rank in enumerate(sorted(set(ranks)))}
    sketch.ranks = [known[rank] for rank in ranks]
    ends: dict[int, int] = defaultdict(int)
    sketch.places = []
    for rank, width in zip(sketch.ranks, sketch.widths, strict=True):
        sketch.places.append(ends[rank] + width // 2)
        ends[rank] += width + _GAP
    for rank, end in ends.items():  # each rank around the same middle
        for number in (n for n, r in enumerate(sketch.ranks) if r == rank):
            sketch.places[number] -= (end - _GAP) // 2
    for value, reader in level.edges:
        start, end = level.values[value][0], reader
        first, final = sketch.ranks[start], sketch.ranks[end]
        steps = abs(final - first)
        low, high = (start, end) if first <= final else (end, start)
        sketch.crossings[value, reader] = tuple(
            sketch.places[low] + (sketch.places[high] - sketch.places[low]) * step // steps
            for step in range(1, steps)
        )
