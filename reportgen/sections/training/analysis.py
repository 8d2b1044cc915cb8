"""Builds the training section from logs: runs, curves, pictures and diagnoses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reportgen.errors import SectionError
from reportgen.manifest import LogOptions
from reportgen.outcome import Skipped
from reportgen.sections.training import records
from reportgen.sections.training.curve import AXES, Curve, RunCurves
from reportgen.sections.training.diagnosis import diagnose
from reportgen.sections.training.files import Normalization, SectionFolder
from reportgen.sections.training.groups import Member, group_runs, summarize_group
from reportgen.sections.training.headline import headline, run_state
from reportgen.sections.training.metric_names import describe_tag
from reportgen.sections.training.plots import PlottedRun, draw_plots
from reportgen.sections.training.result import (
    DamagedStretch,
    Diagnosis,
    LogFileRead,
    Run,
    RunGroup,
    Scalar,
    Superseded,
    Training,
)
from reportgen.sections.training.scalars import Summary, as_scalar, points_per_series, summarize
from reportgen.sections.training.sessions import Attempt, join_sessions
from reportgen.training_logs.log_run import LogRun
from reportgen.training_logs.log_set import FoundRun, LogSet

if TYPE_CHECKING:
    from reportgen.context import Context

SMOOTHING = (
    "debiased exponential moving average with a half-life of 1 % of the points of a curve; "
    "points outside the drawn range are left out"
)
# report.json and the page must stay small: one damaged folder may have thousands of each.
_MOST_FILES, _MOST_NOTES, _MOST_DAMAGE = 200, 50, 100


def analyze(context: Context) -> Training | Skipped:
    """The training section of the logs that the manifest names for this model.

    Raises:
        SectionError: there are logs, and none of them could be read.
    """
    if not context.spec.logs:
        return Skipped(reason="the manifest names no logs for this model")
    logs = context.logs()
    logs.update()
    return summarize_logs(logs, context.spec.log_options, context.folder)


def summarize_logs(logs: LogSet, options: LogOptions, folder: Path) -> Training:
    """The training section of what `logs` has read so far; writes its files to `folder`.

    Raises:
        SectionError: no run was found, with the reason for every log.
    """
    found = logs.runs()
    if not found:
        raise SectionError(
            "no training log could be read: " + "; ".join(logs.notes[:5] or ["the logs are empty"]),
            hint="name a folder of TensorBoard event files, a visdom environment, a CSV file or "
            "another log that `reportgen schema manifest` lists under logs",
        )
    runs = [run for each in found for run in _attempts_of(each, options)]
    runs = _with_groups(runs, options)
    notes = (*logs.notes, *unused_options(options, runs))
    return _SectionBuilder(runs, options, SectionFolder(folder), notes).result(found)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class AnalyzedRun:
    """One attempt at a training run, with its curves and diagnoses."""

    name: str
    found: FoundRun
    attempt: Attempt
    number: int
    attempts: int
    curves: RunCurves
    diagnoses: tuple[Diagnosis, ...]
    group: str = ""

    @property
    def newest(self) -> bool:
        """Whether this is the last attempt of its run."""
        return self.number == self.attempts


def _attempts_of(found: FoundRun, options: LogOptions) -> Iterator[AnalyzedRun]:
    attempts = join_sessions(found.run)
    for number, attempt in enumerate(attempts, 1):
        name = found.name if number == len(attempts) else f"{found.name} (attempt {number})"
        curves = RunCurves(
            name=name,
            curves=_curves(attempt, options),
            # Records other than scalars belong to no session: the newest attempt shows them.
            histograms=records.by_tag(found.run.histograms) if number == len(attempts) else {},
            planned_steps=options.planned_steps or found.run.planned_steps,
        )
        diagnoses = (*diagnose(curves, options.ranges), *_session_diagnoses(name, attempt))
        yield AnalyzedRun(
            name=name,
            found=found,
            attempt=attempt,
            number=number,
            attempts=len(attempts),
            curves=curves,
            diagnoses=diagnoses,
        )


def _curves(attempt: Attempt, options: LogOptions) -> dict[str, Curve]:
    return {
        tag: Curve(
            tag=tag,
            name=describe_tag(tag, options.directions),
            steps=joined.steps,
            values=joined.values,
            times=joined.times,
            resumes=joined.resumes,
        )
        for tag, joined in sorted(attempt.tags.items())
        if len(joined.steps)
    }


def _session_diagnoses(run: str, attempt: Attempt) -> Iterator[Diagnosis]:
    for tag, joined in attempt.tags.items():
        if joined.repeats and describe_tag(tag).kind == "metric":
            repeated = joined.steps[1:][np.diff(joined.steps) == 0]
            yield Diagnosis(
                kind="repeated-steps",
                run=run,
                tag=tag,
                points=len(joined.steps),
                evidence={"repeats": joined.repeats, "first_step": float(repeated[0])},
            )
        if joined.unit_change is not None:
            first, then = joined.unit_change
            yield Diagnosis(
                kind="mixed-units",
                run=run,
                tag=tag,
                points=len(joined.steps),
                evidence={"first_step": first, "unit_change_step": then},
            )


def _with_groups(runs: Sequence[AnalyzedRun], options: LogOptions) -> list[AnalyzedRun]:
    members = [
        Member(
            name=run.name,
            tags=frozenset(run.curves.curves),
            hyperparameters=run.found.run.hyperparameters,
        )
        for run in runs
        if run.newest
    ]
    groups = group_runs(members, options.average)
    return [replace(run, group=groups.get(run.name, "")) for run in runs]


def unused_options(options: LogOptions, runs: Sequence[AnalyzedRun]) -> Iterator[str]:
    """A sentence for every metric and run that the manifest names and no log has."""
    tags = {tag for run in runs for tag in run.curves.curves}
    named = [("ranges", tag) for tag in options.ranges]
    named += [("directions", tag) for tag in options.directions]
    named += [("reference_lines", line.metric) for line in options.reference_lines]
    named += [("x", options.x)] if options.x not in AXES else []
    for option, tag in dict.fromkeys(named):
        if tag not in tags:
            yield f"log_options: {option}: no log has a curve {tag!r}"
    for pattern in options.average:
        if sum(fnmatchcase(run.name, pattern) for run in runs if run.newest) < 2:
            yield f"log_options: average: {pattern!r} matches fewer than two runs"


class _SectionBuilder:
    def __init__(
        self,
        runs: Sequence[AnalyzedRun],
        options: LogOptions,
        folder: SectionFolder,
        notes: tuple[str, ...],
    ) -> None:
        self._runs = runs
        self._options = options
        self._folder = folder
        self._notes = list(notes)
        most = points_per_series(sum(len(run.curves.curves) for run in runs))
        self._summaries: dict[str, dict[str, Summary]] = {
            run.name: {tag: summarize(curve, most) for tag, curve in run.curves.curves.items()}
            for run in runs
        }

    def result(self, found: Sequence[FoundRun]) -> Training:
        groups = _groups(self._runs)
        drawn = draw_plots(
            [self._plotted(run) for run in self._runs],
            self._means(),
            self._options,
            [layout for each in found for layout in each.run.layouts],
            self._folder,
        )
        runs = tuple(self._run(run, drawn.plot_of) for run in self._runs)
        return Training(
            headline=headline(runs),
            points=sum(len(s) for each in found for s in each.run.scalars.values()),
            smoothing=SMOOTHING,
            runs=runs,
            plots=drawn.plots,
            groups=groups,
            # Of an attempt that was abandoned, a finding would ask for work that is done already.
            diagnoses=tuple(d for run in self._runs if run.newest for d in run.diagnoses),
            files=tuple(_files(found)),
            notes=_notes((*self._notes, *drawn.notes)),
        )

    def _plotted(self, run: AnalyzedRun) -> PlottedRun:
        return PlottedRun(
            name=run.name,
            curves=run.curves.curves,
            summaries=self._summaries[run.name],
            faded=not run.newest or bool(run.group),
        )

    def _means(self) -> dict[str, dict[str, list[Curve]]]:
        """Group -> tag -> the curves of its runs."""
        means: dict[str, dict[str, list[Curve]]] = {}
        for run in self._runs:
            if run.group:
                for tag, curve in run.curves.curves.items():
                    means.setdefault(run.group, {}).setdefault(tag, []).append(curve)
        return means

    def _run(self, run: AnalyzedRun, plot_of: dict[str, tuple[str, str]]) -> Run:
        # An earlier attempt has curves only: everything else is shown once, with the newest.
        log = run.found.run if run.newest else LogRun(name="", format=run.found.run.format)
        state, summary = run_state(run.curves, run.diagnoses)
        images, problems = self._folder.write_images(log.images, self._normalization())
        charts, unreadable = self._folder.write_charts(log.charts)
        return Run(
            name=run.name,
            source=run.found.source,
            format=log.format,
            attempt=run.number,
            attempts=run.attempts,
            group=run.group,
            state=state,
            summary=summary,
            sessions=len(run.attempt.sessions),
            scalars=self._scalars(run, plot_of),
            images=images,
            images_found=len(log.images),
            histograms=tuple(records.summarize_histograms(log.histograms)),
            texts=tuple(records.last_texts(log.texts)),
            pr_curves=tuple(records.last_pr_curves(log.pr_curves)),
            tables=tuple(records.cut_tables(log.tables)),
            charts=charts,
            hyperparameters=dict(records.readable_settings(log.hyperparameters)),
            damage=_damage(log),
            superseded=tuple(
                Superseded(tag=r.tag, from_step=r.from_step, to_step=r.to_step, points=r.points)
                for r in run.attempt.replaced
            ),
            planned_steps=run.curves.planned_steps,
            not_shown=dict(sorted(log.not_shown.items())),
            notes=_notes((*log.notes, *problems, *unreadable)),
        )

    def _scalars(self, run: AnalyzedRun, plot_of: dict[str, tuple[str, str]]) -> dict[str, Scalar]:
        return {
            tag: as_scalar(summary, plot=plot_of[tag][0], csv=plot_of[tag][1])
            for tag, summary in self._summaries[run.name].items()
        }

    def _normalization(self) -> Normalization | None:
        options = self._options
        if options.mean is None or options.std is None:
            return None
        return Normalization(mean=tuple(options.mean), std=tuple(options.std))


def _groups(runs: Sequence[AnalyzedRun]) -> tuple[RunGroup, ...]:
    found: dict[tuple[str, str], list[Curve]] = {}
    for run in runs:
        if run.group:
            for tag, curve in run.curves.curves.items():
                if curve.name.kind == "metric":
                    found.setdefault((run.group, tag), []).append(curve)
    groups = [summarize_group(name, tag, curves) for (name, tag), curves in found.items()]
    return tuple(group for group in groups if group is not None)


def _damage(log: LogRun) -> tuple[DamagedStretch, ...]:
    return tuple(
        DamagedStretch(
            file=records.without_host(d.file), offset=d.offset, bytes=d.size_bytes, reason=d.reason
        )
        for d in log.damage[:_MOST_DAMAGE]
    )


def _notes(notes: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(records.without_host, notes)))[:_MOST_NOTES]


def _files(found: Sequence[FoundRun]) -> Iterator[LogFileRead]:
    # By path: several runs may share a file, such as those of one database.
    files = {file.path: (file, each) for each in found for file in each.run.files}
    for file, each in list(files.values())[:_MOST_FILES]:
        yield LogFileRead(
            file=records.without_host(file.name),
            format=file.format,
            bytes=file.size_bytes,
            read_bytes=file.read_bytes,
            skipped_bytes=sum(d.size_bytes for d in each.run.damage if d.file == file.name),
            records=file.records,
        )
