"""Turns rows of numbers into points: finds the step of a row, and detects restarts."""

from __future__ import annotations

import math
import reprlib
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path

from reportgen.training_logs.log_run import UNKNOWN_TIME, Hyperparameter, LogRun, Session

# In order of preference: a global count of steps is the finest axis, an epoch the coarsest.
_STEP_NAMES = (
    frozenset({"step", "steps", "_step"}),
    frozenset({"global_step", "global_steps"}),
    frozenset({"total_timesteps", "num_timesteps", "timesteps", "timestep"}),
    frozenset({"iter", "iters", "iteration", "iterations"}),
    frozenset({"epoch", "epochs"}),
)
# Only candidates: `time` holds a duration in most logs, so the values decide (`wall_time`).
_TIME_NAMES = frozenset({"timestamp", "_timestamp", "wall_time", "walltime", "datetime", "time"})

# 2001 to 2128 in seconds; `time` in most logs is a duration, which is far smaller.
_EPOCH_SECONDS = (1e9, 5e9)

_DEEPEST_SETTING = 20  # aliases in YAML may make a mapping contain itself
# A plain `repr` of nested aliases would be gigabytes of text: this one cuts at every level.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 200, 200
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxdict = 20


# Cached: JSON lines look it up for every row, and the rows of a log have few sets of keys.
@lru_cache(maxsize=1024)
def step_name(names: tuple[str, ...]) -> str | None:
    """The name among `names` that holds the step: step > global_step > iteration > epoch.

    A name counts without case and surrounding blanks, then by its last part (`time/iterations`).
    """
    for candidates in _STEP_NAMES:
        for shorten in (_plain, _last_part):
            for name in names:
                if shorten(name) in candidates:
                    return name
    return None


@lru_cache(maxsize=1024)
def is_time_name(name: str) -> bool:
    """Whether a column of this name may hold wall times."""
    return _plain(name) in _TIME_NAMES


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def _last_part(name: str) -> str:
    return _plain(name.rsplit("/", 1)[-1])


def wall_time(value: object) -> float:
    """Seconds since 1970 of an epoch time in s or ms or an ISO date; `UNKNOWN_TIME` otherwise."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip()).timestamp()
        except (ValueError, OverflowError, OSError):
            return wall_time(number(value))
    if not isinstance(value, int | float) or isinstance(value, bool):
        return UNKNOWN_TIME
    # Seconds, or milliseconds as JavaScript counts them: their ranges do not overlap.
    for unit in (1.0, 1000.0):
        if _EPOCH_SECONDS[0] * unit <= value <= _EPOCH_SECONDS[1] * unit:
            return value / unit
    return UNKNOWN_TIME


def number(value: object) -> float | None:
    """A logged value as float64, "NaN" and "Infinity" as text included; None for anything else."""
    # bool is a subclass of int; as a curve it would be noise.
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return value
    if isinstance(value, int):
        # JSON has integers of any length; as text the same number would be read as infinity.
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    # Python also reads 1_000 as a number, which no logger writes.
    if isinstance(value, str) and "_" not in value:
        try:
            return float(value)
        except ValueError:
            return None
    return None


def finite_number(value: object) -> float | None:
    """As `number`, and None for NaN and infinities: a step has to be finite."""
    read = number(value)
    return read if read is not None and math.isfinite(read) else None


def parse_setting(text: str) -> Hyperparameter:
    """A setting that its log stores as text: as a bool or a number where it reads as one."""
    if text in ("True", "False", "true", "false"):
        return text.lower() == "true"
    # int first: a batch size of 32 must not become 32.0.
    try:
        return int(text)
    except ValueError:
        value = number(text)
    return text if value is None else value


def flat_settings(value: object, most: int = 5000) -> dict[str, Hyperparameter]:
    """Nested settings as one level, names joined by dots; lists and others as text.

    Bounded in number and length: a few aliases in YAML stand for billions of entries.
    """
    return dict(islice(_flat(value, "", 0), most))


def _flat(value: object, name: str, depth: int) -> Iterator[tuple[str, Hyperparameter]]:
    if isinstance(value, dict) and value and depth < _DEEPEST_SETTING:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key), depth + 1)
    else:
        yield name, value if isinstance(value, str | float | int | bool) else _SHORT.repr(value)


class PointLog:
    """Appends rows to the scalars of a run and detects where a run starts again.

    A new session begins where the step of any tag returns to its first step or below it. A step
    that goes back less far may be a resume, which `sections.training` detects.

    Args:
        file: the name of the log, for its sessions.
    """

    def __init__(self, run: LogRun, file: str) -> None:
        self.run = run
        self._file = file
        self._first: dict[str, float] = {}
        self._provisional: tuple[list[str], dict[str, float], int] | None = None

    def add_row(
        self,
        step: float,
        time: float,
        values: Sequence[tuple[str, float]],
        *,
        provisional: bool = False,
    ) -> None:
        """Add the points of one row; `undo_provisional` removes a `provisional` one."""
        # Recorded before anything changes, so that the row can be undone as a whole.
        if provisional:
            tags = [tag for tag, _ in values]
            self._provisional = (tags, dict(self._first), len(self.run.sessions))
        if not self.run.sessions or self._restarts(step, values):
            self.begin_session()
        session = len(self.run.sessions) - 1
        for tag, value in values:
            self._first.setdefault(tag, step)
            self.run.series(tag).append(step, value, time, session)

    def begin_session(self) -> None:
        """Begin a new session with the next row."""
        self.run.sessions.append(Session(file=self._file))
        self._first.clear()

    def undo_provisional(self) -> None:
        """Remove the row that was added as provisional, if one was."""
        if self._provisional is None:
            return
        tags, self._first, sessions = self._provisional
        self._provisional = None
        del self.run.sessions[sessions:]
        for tag in tags:
            self._shorten(tag)

    def _restarts(self, step: float, values: Sequence[tuple[str, float]]) -> bool:
        for tag, _ in values:
            first = self._first.get(tag)
            # The second test: repeats of the first step, before any other, are one session.
            if first is not None and step <= first and step < self.run.scalars[tag].steps[-1]:
                return True
        return False

    def _shorten(self, tag: str) -> None:
        series = self.run.scalars[tag]
        for column in (series.steps, series.values, series.times):
            column.pop()
        # The session of that row began with it: without its point, it has no start.
        if series.starts[-1][0] == len(series):
            series.starts.pop()
        # A tag that only a cut-off row had must not stay behind as an empty curve.
        if not series:
            del self.run.scalars[tag]


def settings_beside(log: Path) -> tuple[dict[str, Hyperparameter], list[str]]:
    """The hyperparameters in `hparams.yaml` or `args.yaml` beside a log, and notes on reading them.

    Lightning writes the first, ultralytics and timm the second.
    """
    for name in ("hparams.yaml", "args.yaml"):
        # Settings are an extra: a file that is damaged must not cost the curves.
        try:
            return read_settings(log.with_name(name)), []
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            return {}, [f"{name} beside the log could not be read: {reason}"]
    return {}, []


def read_settings(file: Path, limit: int = 1 << 20) -> dict[str, Hyperparameter]:
    """The settings in a YAML file of at most `limit` bytes; none if it holds no mapping.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    import yaml  # only some logs have settings beside them

    # safe_load uses PyYAML's parser in Python, which takes seconds per MB.
    if file.stat().st_size > limit:
        raise ValueError(f"larger than {limit >> 20} MB")
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    return flat_settings(value) if isinstance(value, dict) else {}


def listed(names: Counter[str], most: int = 10) -> str:
    """Names in alphabetical order; the end of a long list is replaced by its length."""
    ordered = sorted(names)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + more
