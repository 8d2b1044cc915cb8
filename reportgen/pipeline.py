"""All steps of a build: Manifest -> analyze_all -> judge_model -> Report -> write_report.

The pages of a model are made while other models are analyzed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from reportgen.budgets import Baseline, check_budgets
from reportgen.cache import ResultCache
from reportgen.cache.fingerprint import comparable_software
from reportgen.compare.reports import compare_reports
from reportgen.compare.result import Comparison
from reportgen.cross_checks import cross_check
from reportgen.environment import describe_environment
from reportgen.error_text import shown_text
from reportgen.errors import ManifestError, ModelError
from reportgen.evidence import evidence_of
from reportgen.example_inputs import describe_inputs
from reportgen.executors import ClusterExecutor, Size, analyze_all, remaining_sections
from reportgen.findings import Finding
from reportgen.manifest import Manifest, ModelSpec, find_waiver
from reportgen.outcome import Done, Failed
from reportgen.outputs import (
    DEFAULT_FORMATS,
    PageOptions,
    make_again,
    making_pages,
    temporary_folder,
    write_report,
)
from reportgen.provenance import (
    Machine,
    commit_of,
    describe_machine,
    input_files,
    library_of,
    manifest_files,
    repository_of,
)
from reportgen.report import Headline, ModelReport, Report, Timings, judge, report_to_json
from reportgen.sections import SECTIONS
from reportgen.sections.section import AnySection
from reportgen.shards import Shard, ShardNote
from reportgen.workers import Job, ModelOutcomes, ProgressCallback
from reportgen.workers.limits import machine_memory

DEFAULT_PARENT = Path("reports")
_BYTES_PER_JOB = 6 * 2**30  # VGG-16, with half a gigabyte of weights, peaks at 2.5 GiB
_SHARE_OF_MACHINE = 0.85  # of the machine's memory, the limit of all child processes together


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A finished build: the report, its folder and all files written.

    `comparison` is the one with the baseline, None without one. `notes` says in sentences what
    was not cached and why.
    """

    report: Report
    output: Path
    files: tuple[Path, ...]
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()


def build(
    manifest: Manifest,
    *,
    output: Path | None = None,
    models: tuple[str, ...] = (),
    sections: tuple[str, ...] = (),
    formats: tuple[str, ...] = DEFAULT_FORMATS,
    jobs: int | None = None,
    timings: bool = True,
    baseline: Report | None = None,
    brief_pdf: bool = False,
    progress: ProgressCallback | None = None,
    today: date | None = None,
    cache: ResultCache | None = None,
    executor: Executor | None = None,
    shared: Path | None = None,
    shard: Shard | None = None,
) -> Built:
    """Analyze the models of a manifest and write the report.

    Args:
        manifest: from `load_manifest`.
        output: folder of the report; None for `reports/<manifest name>` in the current folder.
        models: names of the models to analyze; empty for all.
        sections: names of the sections to build; empty for those of the manifest, else for all.
        formats: any of `outputs.FORMATS`.
        jobs: how many models to analyze in parallel; None for as many as CPUs and memory allow.
        timings: whether the report includes measured times.
        baseline: the report to compare with, which relative budgets refer to; models that are not
            chosen are left out of it.
        brief_pdf: whether the PDF has two pages for each model instead of every section.
        progress: called when a section starts or ends.
        today: the day on which waivers must not have expired; None for today, in UTC.
        cache: from `cache.open_cache`; sections whose inputs did not change are not analyzed
            again. None to analyze everything.
        executor: where models are analyzed: any executor of `concurrent.futures`, whose workers
            have the same software and the same files under the same paths; None for threads of
            this process. Each model has child processes of its own in any case.
        shared: a folder that the workers of `executor` see as well, for files above 64 MiB, which
            are otherwise left out of the report.
        shard: the part of the models to analyze; `merging.merge` joins the reports of all parts.

    Raises:
        ReportgenError: nothing was written; a previous report was not modified.
        ModelError: no model could be loaded, and there are no training logs either.
    """
    start = time.monotonic()  # the wall clock may be set while models are analyzed
    chosen = choose_models(manifest, models)
    specs = tuple(spec for spec in chosen if shard is None or shard.holds(spec.name))
    # Of all models, also for a shard: results depend on the number of threads.
    sections = sections or manifest.sections
    parallel = min(jobs or default_jobs(), len(chosen))
    share = executor.share() if isinstance(executor, ClusterExecutor) else share_of(parallel)
    output = output or default_output(manifest, shard)
    # Beside the output, so that large files are linked into it and not copied.
    folder = manifest.path.parent
    root = repository_of(folder)
    environment = describe_environment()
    judged: dict[str, ModelReport] = {}
    with ExitStack() as stack:
        work = stack.enter_context(temporary_folder(output))
        options = PageOptions(
            work=work,
            formats=frozenset(formats if specs else ()),  # a shard may have no model to show
            models=len(specs),
            brief_pdf=brief_pdf,
            reuse=cache.reuse if cache else make_again,
        )
        pages = stack.enter_context(making_pages(options, processes=jobs or default_jobs()))
        jobs_to_do = [make_job(manifest, spec, work, share, timings, sections) for spec in specs]

        def finish(job: Job, outcomes: ModelOutcomes) -> None:
            """Start the pages of a model; they depend on no other."""
            if cache:
                cache.restore_files(job)
            spec = job.spec
            judged[spec.name] = judge_model(
                spec,
                outcomes,
                manifest=manifest.path.name,
                line=manifest.lines.get(spec.name, 1),
                complete=not sections,
                timings=timings,
                baseline=baseline_of(spec.name, baseline, environment),
                today=today,
            )
            times = make_timings((outcomes,), 0.0) if timings else None
            pages.start(manifest.title, judged[spec.name], specs.index(spec) + 1, times)
            if cache:
                cache.save(job, outcomes)  # while the pages are made

        known = {job.spec.name: cache.look_up(job) for job in jobs_to_do} if cache else {}
        if any(remaining_sections(job, known.get(job.spec.name)) for job in jobs_to_do):
            pages.prepare()
        outcomes = analyze_all(
            jobs_to_do,
            parallel=parallel,
            progress=progress or (lambda *_: None),
            known=known,
            finished=finish,
            executor=executor,
            shared=shared,
            manifest=manifest.path,
        )
        not_loaded = _not_loaded(outcomes)
        if shard is None:
            require_a_model(len(specs), not_loaded)
        report = Report(
            title=manifest.title,
            manifest=path_in_repository(manifest.path),
            environment=environment,
            timings=make_timings(outcomes, time.monotonic() - start) if timings else None,
            models=tuple(
                replace(
                    judged[spec.name],
                    library=library_of(spec),
                    files=input_files(spec, each.code, folder, root),
                )
                for spec, each in zip(specs, outcomes, strict=True)
            ),
            files=manifest_files(manifest.path),
            commit=commit_of(folder),
        )
        comparison = (
            compare_reports(
                only_models(baseline, {spec.name for spec in specs})
                if models or shard
                else baseline,
                report,
                draw=True,
            )
            if baseline
            else None
        )
        files = write_report(
            report,
            report_to_json(report),
            output,
            pages,
            comparison=comparison,
            shard=ShardNote(
                index=shard.index,
                count=shard.count,
                models=tuple(spec.name for spec in chosen),
                chosen=bool(models),
                manifest=report.files[0].sha256 if report.files else "",
                software=comparable_software(),
                sections=sections,
                timings=timings,
                baseline=report_digest(baseline) if baseline else "",
                not_loaded=not_loaded,
            )
            if shard
            else None,
        )
    if cache:
        cache.close()
    return Built(
        report=report,
        output=output,
        files=files,
        comparison=comparison,
        notes=tuple(cache.notes) if cache else (),
    )


def default_output(manifest: Manifest, shard: Shard | None = None) -> Path:
    """The folder of the report if none is given: `reports/<manifest name>`."""
    name = manifest.path.stem
    return DEFAULT_PARENT / (f"{name}-{shard.index}-of-{shard.count}" if shard else name)


def only_models(report: Report, names: set[str]) -> Report:
    """`report` with these models only: what was left out on request has not been removed."""
    return replace(report, models=tuple(m for m in report.models if m.name in names))


def report_digest(report: Report) -> str:
    """The SHA-256 of the content of a report."""
    return hashlib.sha256(report_to_json(report).encode()).hexdigest()


def _not_loaded(outcomes: tuple[ModelOutcomes, ...]) -> dict[str, Failed]:
    """Why models could not be loaded of which nothing else is known either, such as logs."""
    return {
        each.name: each.load_error
        for each in outcomes
        if each.load_error is not None and not any(_done(each))
    }


def require_a_model(models: int, not_loaded: Mapping[str, Failed]) -> None:
    """Raise a `ModelError` with every reason if none of so many models could be loaded."""
    if len(not_loaded) < models:
        return
    raise ModelError(
        "\n".join(f"model {name!r}: {failed.error}" for name, failed in not_loaded.items()),
        hint=next((failed.hint for failed in not_loaded.values()), ""),
    )


def default_jobs() -> int:
    """One job per CPU, but no more than the machine's memory allows."""
    return max(1, min(os.cpu_count() or 1, machine_memory() // _BYTES_PER_JOB))


def choose_models(manifest: Manifest, names: tuple[str, ...]) -> tuple[ModelSpec, ...]:
    """The models with these names, in the order of the manifest; all if `names` is empty."""
    known = {spec.name: spec for spec in manifest.models}
    for name in names:
        if name not in known:
            raise ManifestError(
                f"{manifest.path.name}: unknown model {name!r}",
                hint=f"use one of {', '.join(known)}",
            )
    return tuple(spec for spec in manifest.models if not names or spec.name in names)


def share_of(parallel: int) -> Size:
    """What each of `parallel` models gets of this machine."""
    # With more, memory could run out before any job reaches its limit.
    return Size(
        memory=int(machine_memory() * _SHARE_OF_MACHINE / parallel),
        cores=max(1, (os.cpu_count() or 1) // parallel),
    )


def make_job(
    manifest: Manifest,
    spec: ModelSpec,
    work: Path,
    share: Size,
    timings: bool,
    sections: tuple[str, ...] = (),
) -> Job:
    """The job of `spec`, with its `share` of a machine where the manifest sets no limits."""
    return Job(
        spec=spec,
        targets=manifest.targets,
        sections=tuple(
            name for name in applicable_sections(spec) if not sections or name in sections
        ),
        folder=work / "models" / spec.name,
        seconds=spec.limits.seconds,
        memory_bytes=spec.limits.memory_bytes or share.memory,
        threads=spec.limits.cores or share.cores,
        timings=timings,
    )


def applicable_sections(spec: ModelSpec) -> tuple[str, ...]:
    """Names of the sections that apply to `spec`; without a model, those that read logs only."""
    return tuple(s.name for s in SECTIONS if spec.source.kind != "none" or s.analyze_logs)


def baseline_of(
    name: str, baseline: Report | None, environment: Mapping[str, str]
) -> Baseline | None:
    """The metrics of the model `name` in `baseline`; None if it is not in it.

    Measured metrics can be compared if this machine with this `environment` made the baseline.
    """
    if baseline is None:
        return None
    model = next((model for model in baseline.models if model.name == name), None)
    if model is None:
        return None
    machine = baseline.timings.machine if baseline.timings else None
    is_this = machine == describe_machine(machine_memory())
    return Baseline(
        metrics={metric.key: metric for metric in model.metrics},
        same_machine=is_this and baseline.environment == environment,
    )


def judge_model(
    spec: ModelSpec,
    outcomes: ModelOutcomes,
    *,
    manifest: str = "manifest.yaml",
    line: int = 1,
    complete: bool = True,
    timings: bool = True,
    baseline: Baseline | None = None,
    today: date | None = None,
) -> ModelReport:
    """The report of one model: section outcomes, findings, metrics, budgets and verdict.

    `manifest` is the file's name, `line` the one on which the model's entry begins. It is not
    `complete` if sections were left out on request. Waivers that expired before `today` do not
    apply.
    """
    today = today or datetime.now(UTC).date()
    complete = complete and spec.source.kind != "none"
    sources = {
        module.path: module.call or module.source
        for section, result in _done(outcomes)
        for module in section.comparable(result).modules
    }
    findings = tuple(
        accept_finding(finding, spec, today)
        for section, result in _done(outcomes)
        for rule in section.rules
        for finding in rule.findings(result, sources)
    )
    metrics = tuple(
        metric for section, result in _done(outcomes) for metric in section.metrics(result)
    )
    budgets = check_budgets(
        spec.budgets,
        metrics,
        complete=complete,
        timings=timings,
        baseline=baseline,
        waivers=spec.waivers,
        today=today,
    )
    return ModelReport(
        name=spec.name,
        source=shown_text(spec.source.text),
        comment=spec.comment or "",
        seed=spec.seed,
        weights=weights_file(spec),
        verdict=judge(outcomes.sections, findings, budgets),
        budgets=budgets,
        findings=findings,
        sections=outcomes.sections,
        cross_checks=cross_check(
            count for section, result in _done(outcomes) for count in section.counts(result)
        ),
        metrics=metrics,
        evidence=tuple(
            evidence_of(
                spec,
                [(s.name, method) for s, result in _done(outcomes) for method in s.methods(result)],
                manifest=manifest,
                inputs=outcomes.inputs or describe_inputs(spec.inputs, spec.dims),
                timings=timings,
            )
        ),
        headlines=tuple(
            Headline(section=section.title, sentence=sentence)
            for section, result in _done(outcomes)
            if (sentence := section.headline(result))
        ),
        line=line,
        left_out=outcomes.left_out,
    )


def accept_finding(finding: Finding, spec: ModelSpec, today: date) -> Finding:
    """`finding` with the reason for which the manifest accepts it, if it does."""
    if finding.code in spec.ignore:
        return replace(finding, ignored=spec.ignore[finding.code])
    mine = tuple(each for each in spec.waivers if each.matches(finding.code, finding.where))
    waiver = find_waiver(mine, today)
    if waiver is None:
        return finding
    if waiver.applies(today):
        return replace(finding, ignored=waiver.describe())
    return replace(finding, note=waiver.describe_expired())


def path_in_repository(path: Path) -> str:
    """The absolute `path` from the root of its repository, or from the current folder without one.

    Only the file name if it is outside both: no report contains a folder of this machine.
    """
    roots = [folder for folder in path.parents if (folder / ".git").exists()]
    root = roots[0] if roots else Path.cwd()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def weights_file(spec: ModelSpec) -> str:
    """Name of the file that contains the weights; "" for random weights or without a model."""
    if spec.source.kind in ("pt2", "onnx"):
        return Path(spec.source.target).name
    return spec.weights.name if spec.weights else ""


def _done(outcomes: ModelOutcomes) -> Iterator[tuple[AnySection, Any]]:
    sections = {section.name: section for section in SECTIONS}
    for section in outcomes.sections:
        if isinstance(section.outcome, Done):
            yield sections[section.name], section.outcome.result


def make_timings(outcomes: tuple[ModelOutcomes, ...], total_seconds: float) -> Timings:
    """All measured times, rounded to milliseconds."""
    return Timings(
        built=datetime.now(UTC).isoformat(timespec="seconds"),
        total_seconds=round(total_seconds, 3),
        section_seconds={
            model.name: {
                name: round(model.seconds[name], 3)
                for name in _in_section_order(model, model.seconds)
            }
            for model in outcomes
        },
        machine=_machine_of(outcomes),
        analyzed={
            model.name: {
                name: model.analyzed[name] for name in _in_section_order(model, model.analyzed)
            }
            for model in outcomes
        },
    )


def _machine_of(outcomes: tuple[ModelOutcomes, ...]) -> Machine | None:
    """The machine that measured the times; None if there were several."""
    own = describe_machine(machine_memory())
    machines = {each.machine or own for each in outcomes}
    return machines.pop() if len(machines) == 1 else None


def _in_section_order(model: ModelOutcomes, names: Container[str]) -> Iterator[str]:
    """Those of `names` that are sections, whichever ended first or came from the cache."""
    return (section.name for section in model.sections if section.name in names)
