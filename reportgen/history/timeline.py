"""All nights of one report as arrays: a value for each night, model and figure."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from reportgen.history.night import Figure, ModelNight, Night
from reportgen.history.segmentation import Floats

Indices = NDArray[np.int64]

# Programs that draw pages; no figure depends on them.
_DRAWING_TOOLS = frozenset({"graphviz", "weasyprint"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One figure of one model: a value for each night of the timeline, NaN where it has none."""

    model: str
    figure: Figure
    values: Floats

    def nights(self) -> Indices:
        """The nights that have a value."""
        return np.flatnonzero(np.isfinite(self.values))


@dataclass(frozen=True, slots=True)
class Timeline:
    """The nights of one report in order of time.

    Attributes:
        report: name of the report's folder.
        nights: at least one.
        figures: by key, as the last night that has it describes it.
        models: names, those of the last night first.
        values: of each night, model and figure; NaN where there is none.
        environments: of each night, the hash of what measured figures depend on.
    """

    report: str
    nights: tuple[Night, ...]
    figures: dict[str, Figure]
    models: tuple[str, ...]
    values: NDArray[np.float64]
    environments: tuple[str, ...]

    @property
    def last(self) -> Night:
        """The newest night."""
        return self.nights[-1]

    def series(self) -> Iterator[Series]:
        """Every figure of every model that ever had a value."""
        for model_index, model in enumerate(self.models):
            for figure_index, figure in enumerate(self.figures.values()):
                values = self.values[:, model_index, figure_index]
                if np.isfinite(values).any():
                    yield Series(model=model, figure=figure, values=values)

    def by_environment(self, nights: Indices) -> list[Indices]:
        """`nights` split by their environments, in order of appearance."""
        groups: dict[str, list[int]] = {}
        for night in nights.tolist():
            groups.setdefault(self.environments[night], []).append(night)
        return [np.array(group, dtype=np.int64) for group in groups.values()]

    def last_of(self, model: str) -> ModelNight | None:
        """What the newest night says of `model`; None if it lacks the model."""
        return self.last.models.get(model)

    def position(self, moment: datetime) -> int:
        """The index of the first night at `moment` or later."""
        return bisect_left(self.nights, moment, key=lambda night: night.time)


def make_timelines(nights: Iterable[Night]) -> tuple[Timeline, ...]:
    """A timeline for each report, by name."""
    ordered = sorted(nights, key=lambda night: (night.report, night.time))
    return tuple(
        _timeline(report, tuple(group))
        for report, group in groupby(ordered, key=lambda night: night.report)
    )


def _timeline(report: str, nights: tuple[Night, ...]) -> Timeline:
    newest_first = nights[::-1]
    figures: dict[str, Figure] = {}
    models: dict[str, None] = {}
    for night in newest_first:
        for figure in night.figures:
            figures.setdefault(figure.key, figure)
        models |= dict.fromkeys(night.models)
    return Timeline(
        report=report,
        nights=nights,
        figures=figures,
        models=tuple(models),
        values=_values(nights, list(models), list(figures)),
        environments=tuple(map(environment_digest, nights)),
    )


def _values(nights: Sequence[Night], models: list[str], keys: list[str]) -> NDArray[np.float64]:
    model_index = {model: index for index, model in enumerate(models)}
    key_index = {key: index for index, key in enumerate(keys)}
    values = np.full((len(nights), len(models), len(keys)), np.nan)
    for night, plane in zip(nights, values, strict=True):
        rows = [model_index[name] for name in night.models]
        columns = [key_index[figure.key] for figure in night.figures]
        if rows and columns:
            # float64 turns None into NaN.
            found = np.array([m.values for m in night.models.values()], dtype=np.float64)
            plane[np.ix_(rows, columns)] = found
    return values


def measuring_tools(night: Night) -> dict[str, str]:
    """The versions on which figures depend."""
    return {k: v for k, v in night.environment.items() if k not in _DRAWING_TOOLS}


def environment_digest(night: Night) -> str:
    """A hash of the machine and the versions: measured figures are compared within one only."""
    described = json.dumps([night.machine, sorted(measuring_tools(night).items())])
    return hashlib.sha256(described.encode()).hexdigest()[:8]
