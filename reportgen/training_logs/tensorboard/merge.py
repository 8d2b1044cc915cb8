"""Merges folders of event files into runs: `add_scalars` and others write sub-folders.

Three layouts are put together again; nothing is copied where a tag comes from one folder only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from functools import partial

from reportgen.training_logs.log_run import LogRun, Series

# `add_hparams` names its folder str(time.time()).
_TIME_NAME = re.compile(r"[0-9]{9,11}\.[0-9]{1,9}")
# As _INVALID_TAG_CHARACTERS in tensorboardX/summary.py.
_NOT_IN_X_TAGS = re.compile(r"[^-/\w.]")
_KERAS_FOLDERS = ("train", "validation")

_Runs = dict[str, LogRun]


@dataclass(frozen=True, kw_only=True, slots=True)
class _RunPart:
    """A run that becomes part of another one, and what its tags are called there."""

    run: LogRun
    parent: str
    rename: Callable[[str], str]


def merge_runs(folders: Iterable[LogRun]) -> list[LogRun]:
    """One run per experiment, ordered by name; `folders` holds one run per folder, unchanged.

    - A folder with a single scalar tag and nothing else, named as `add_scalars` names it, becomes
      the tag `TAG/KEY` of the nearest run above.
    - A folder named by a time that `add_hparams` wrote becomes a session of the run above with
      the hyperparameters. Several with different hyperparameters are different trials: they stay.
    - Keras' folders `train` and `validation` with a common tag become one run whose tags begin
      with their names.
    """
    runs = {run.name: run for run in folders}
    for find_parts in (_family_parts, _hyperparameter_parts, _keras_parts):
        runs = _put_together(runs, list(find_parts(runs)))
    return [runs[name] for name in sorted(runs)]


def _put_together(runs: _Runs, parts: list[_RunPart]) -> _Runs:
    merged = {part.run.name for part in parts}
    result = {name: run for name, run in runs.items() if name not in merged}
    by_parent: dict[str, list[_RunPart]] = {}
    for part in parts:
        by_parent.setdefault(part.parent, []).append(part)
    for parent, own in by_parent.items():
        base = result.get(parent) or LogRun(name=parent, format=own[0].run.format)
        result[parent] = _joined(base, own)
    return result


def _ancestors(runs: _Runs, name: str) -> Iterator[str]:
    """Names of the runs above, the nearest first."""
    while name:
        name = name.rpartition("/")[0]
        if name in runs:
            yield name


def _below(parent: str, name: str) -> str:
    return name.removeprefix(f"{parent}/") if parent else name


def _family_parts(runs: _Runs) -> Iterator[_RunPart]:
    for name, run in sorted(runs.items()):
        tag = _only_scalar_tag(run)
        if tag is None:
            continue
        keys = ((p, _family_key(_below(p, name), tag)) for p in _ancestors(runs, name))
        parent, key = next(((p, key) for p, key in keys if key), ("", None))
        if key:
            yield _RunPart(run=run, parent=parent, rename=partial(_with_key, key=key))


def _with_key(tag: str, *, key: str) -> str:
    return f"{tag}/{key}"


def _with_prefix(prefix: str, tag: str) -> str:
    return f"{prefix}/{tag}"


def _only_scalar_tag(run: LogRun) -> str | None:
    others = (
        run.images, run.histograms, run.texts, run.pr_curves, run.tables, run.layouts,
        run.hyperparameters, run.not_shown,
    )  # fmt: skip
    return next(iter(run.scalars)) if len(run.scalars) == 1 and not any(others) else None


def _family_key(folder: str, tag: str) -> str | None:
    """The key of `add_scalars` in the name of a folder: torch `TAG_KEY`, tensorboardX `TAG/KEY`."""
    prefix = tag.replace("/", "_") + "_"  # as SummaryWriter.add_scalars in torch
    if folder.startswith(prefix):
        return folder.removeprefix(prefix) or None
    parts = folder.split("/")
    for i in range(1, len(parts)):
        # tensorboardX replaces characters in the tag, but not in the name of the folder.
        if _NOT_IN_X_TAGS.sub("_", "/".join(parts[:i])).lstrip("/") == tag:
            return "/".join(parts[i:])
    return None


def _hyperparameter_parts(runs: _Runs) -> Iterator[_RunPart]:
    by_parent: dict[str, list[LogRun]] = {}
    for name, run in sorted(runs.items()):
        parent, _, folder = name.rpartition("/")
        if run.hyperparameters and parent in runs and name and _TIME_NAME.fullmatch(folder):
            by_parent.setdefault(parent, []).append(run)
    for parent, own in by_parent.items():
        known = runs[parent].hyperparameters or own[0].hyperparameters
        # Different ones are the trials of a search: merged, each would overwrite the one before.
        if all(run.hyperparameters == known for run in own):
            yield from (_RunPart(run=run, parent=parent, rename=str) for run in own)


def _keras_parts(runs: _Runs) -> Iterator[_RunPart]:
    train, validation = _KERAS_FOLDERS
    for name in sorted(runs):
        parent, _, folder = name.rpartition("/")
        other = f"{parent}/{validation}" if parent else validation
        if folder != train or other not in runs:
            continue
        # Scalars beside the two folders: not Keras, which writes none there.
        has_own = parent in runs and bool(runs[parent].scalars)
        if not has_own and runs[name].scalars.keys() & runs[other].scalars.keys():
            for part, prefix in ((name, train), (other, validation)):
                yield _RunPart(run=runs[part], parent=parent, rename=partial(_with_prefix, prefix))


def _joined(base: LogRun, parts: list[_RunPart]) -> LogRun:
    # A copy: the folder's own run grows with the next update, and is merged again.
    run = copy(base)
    run.scalars = dict(base.scalars)
    run.hyperparameters = dict(base.hyperparameters)
    run.not_shown = base.not_shown.copy()
    for name in (*_TAGGED, *_LISTS):
        setattr(run, name, list(getattr(base, name)))
    for part in parts:
        _add(run, part)
    return run


_TAGGED = ("images", "histograms", "texts", "pr_curves", "tables", "charts")
_LISTS = ("layouts", "sessions", "files", "damage", "notes")


def _add(run: LogRun, part: _RunPart) -> None:
    first_session = len(run.sessions)
    for tag, series in part.run.scalars.items():
        name = part.rename(tag)
        known = run.scalars.get(name)
        # Sessions are indices into `run.sessions`, to which those of the part are appended.
        moved = _moved(series, first_session)
        run.scalars[name] = moved if known is None else _appended(known, moved)
    for name in _TAGGED:
        own = [replace(item, tag=part.rename(item.tag)) for item in getattr(part.run, name)]
        getattr(run, name).extend(own)
    for name in _LISTS:
        getattr(run, name).extend(getattr(part.run, name))
    run.hyperparameters.update(part.run.hyperparameters)
    run.not_shown.update(part.run.not_shown)


def _moved(series: Series, first_session: int) -> Series:
    """The same points, not copied, as those of sessions that begin at another index."""
    moved = Series()
    moved.steps, moved.values, moved.times = series.steps, series.values, series.times
    moved.starts = [(start, session + first_session) for start, session in series.starts]
    return moved


def _appended(first: Series, second: Series) -> Series:
    joined = Series()
    joined.steps = first.steps + second.steps
    joined.values = first.values + second.values
    joined.times = first.times + second.times
    joined.starts = [
        *first.starts,
        *((start + len(first), session) for start, session in second.starts),
    ]
    return joined
