"""Runs with equal settings: found by their names and hyperparameters, averaged step by step."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from reportgen.sections.training.curve import Curve, Floats
from reportgen.sections.training.result import RunGroup
from reportgen.training_logs.log_run import Hyperparameter

_SEED = re.compile(r"(^|[/_.-])(seed|fold|trial)s?[-_=/]?\d+", re.IGNORECASE)
_FEWEST_WITHOUT_SEED = 3  # two runs whose names differ in a number are more often two versions
_MOST_GRID_POINTS = 500  # as of the curves that it is drawn with
_LARGEST_TO_SQUARE = 1e150  # the square of more exceeds float64


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """The properties of a run that decide its group."""

    name: str
    tags: frozenset[str]
    hyperparameters: Mapping[str, Hyperparameter]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class MeanCurve:
    """Mean, lowest and highest value of several runs over one grid of steps; equal lengths."""

    steps: Floats
    mean: Floats
    low: Floats
    high: Floats


def group_runs(members: Sequence[Member], patterns: Sequence[str]) -> dict[str, str]:
    """Run name -> group name; runs without a group are left out.

    `patterns` are the globs of run names under `average` in the manifest. Without patterns, runs
    form a group if their names differ only in numbers, and their tags and hyperparameters (other
    than a seed) are equal.
    """
    if patterns:
        found = {m.name: p for m in members for p in patterns if fnmatchcase(m.name, p)}
        return {name: p for name, p in found.items() if list(found.values()).count(p) > 1}
    alike: dict[object, list[Member]] = {}
    for member in members:
        alike.setdefault(_signature(member), []).append(member)
    grouped = dict[str, str]()
    for together in alike.values():
        seeds = all(_SEED.search(m.name) or _seeds_of(m) for m in together)
        if len(together) >= (2 if seeds else _FEWEST_WITHOUT_SEED):
            grouped |= {m.name: re.sub(r"\d+", "*", m.name) for m in together}
    return grouped


def _signature(member: Member) -> object:
    # The seed is what may differ: it is why the runs were repeated.
    settings = {k: v for k, v in member.hyperparameters.items() if "seed" not in k.lower()}
    return re.sub(r"\d+", "*", member.name), member.tags, tuple(sorted(settings.items(), key=repr))


def _seeds_of(member: Member) -> bool:
    return any("seed" in key.lower() for key in member.hyperparameters)


def mean_curve(curves: Sequence[Curve]) -> MeanCurve:
    """Mean and range of `curves` over the steps of the longest, each curve interpolated."""
    longest = max(curves, key=lambda curve: len(curve.steps))
    grid = np.unique(longest.steps)
    if len(grid) > _MOST_GRID_POINTS:
        grid = grid[np.linspace(0, len(grid) - 1, _MOST_GRID_POINTS).round().astype(int)]
    rows = np.array([_on_grid(curve, grid) for curve in curves])
    # At a step that no run reaches with a finite value, nanmean would warn and return NaN.
    known = ~np.isnan(rows).all(axis=0)
    grid, rows = grid[known], rows[:, known]
    return MeanCurve(
        steps=grid,
        mean=np.nanmean(rows, axis=0),
        low=np.nanmin(rows, axis=0),
        high=np.nanmax(rows, axis=0),
    )


def _on_grid(curve: Curve, grid: Floats) -> Floats:
    finite = np.isfinite(curve.values)
    if not finite.any():
        return np.full(len(grid), np.nan)
    steps, values = curve.steps[finite], curve.values[finite]
    # np.interp repeats the last value beyond the end: a run that stopped must not be averaged on.
    inside = (grid >= steps[0]) & (grid <= steps[-1])
    return np.where(inside, np.interp(grid, steps, values), np.nan)


def summarize_group(name: str, tag: str, curves: Sequence[Curve]) -> RunGroup | None:
    """Mean and deviation of `tag` at the last step that all `curves` reach; None without one."""
    finite = [curve for curve in curves if np.isfinite(curve.values).any()]
    if len(finite) < 2:
        return None
    at = min(float(curve.steps[np.isfinite(curve.values)][-1]) for curve in finite)
    values = np.array([_on_grid(curve, np.array([at]))[0] for curve in finite])
    values = values[~np.isnan(values)]
    # The sum of squares of values such as 1e300 is infinite: of those there is no deviation.
    if len(values) < 2 or np.abs(values).max() > _LARGEST_TO_SQUARE:
        return None
    bests = [_best(curve) for curve in finite]
    known = [best for best in bests if best is not None]
    return RunGroup(
        name=name,
        tag=tag,
        runs=len(finite),
        at_step=at,
        mean=float(values.mean()),
        deviation=float(values.std(ddof=1)),  # of a sample: seeds are drawn from many
        low=float(values.min()),
        high=float(values.max()),
        best_mean=float(np.mean(known)) if known else None,
        best_deviation=float(np.std(known, ddof=1)) if len(known) > 1 else None,
    )


def _best(curve: Curve) -> float | None:
    finite = curve.values[np.isfinite(curve.values)]
    if curve.name.direction == "none":
        return None
    best = float(finite.min() if curve.name.direction == "lower" else finite.max())
    return best if abs(best) <= _LARGEST_TO_SQUARE else None
