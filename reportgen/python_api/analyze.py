"""`reportgen.analyze`: the sections of a report on a model object."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.environment import describe_environment
from reportgen.errors import ModelError, ReportgenError
from reportgen.example_inputs import describe_inputs
from reportgen.manifest import ModelSpec
from reportgen.outcome import SectionOutcome
from reportgen.pipeline import baseline_of, judge_model, make_timings, share_of
from reportgen.provenance import library_of
from reportgen.python_api.inputs import Inputs
from reportgen.python_api.model_object import Loss, ModelObject, as_names, describe_model, safe_name
from reportgen.python_api.progress import SectionProgress, show_sections
from reportgen.python_api.report import Report
from reportgen.report import Report as ReportData
from reportgen.sections import SECTIONS
from reportgen.sections.access import require_known
from reportgen.workers import Job, ModelOutcomes, SectionEvent, analyze_model

if TYPE_CHECKING:
    from torch import nn

    from reportgen.context import ModelContext


def analyze(
    model: nn.Module,
    inputs: Inputs = None,
    *,
    targets: str | Sequence[str] = ("T4",),
    sections: str | Sequence[str] = (),
    batch: int | None = None,
    loss: Loss = "sum",
    name: str = "",
    budgets: Mapping[str, Any] | None = None,
    baseline: Report | str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    timings: bool = True,
    progress: bool | None = None,
) -> Report:
    """Analyze a model object as `reportgen build` analyzes a model of a manifest.

    On Linux this runs in a fork of the process, with the limits of a build: a section that
    crashes or exceeds its time is a failed section. Where a fork is not possible (other threads
    run, as in a notebook, or CUDA is in use) it runs in this process without limits, and
    `Report.notes` says so. The model is returned as it was: weights, gradients, modes, hooks and
    random state.

    Args:
        model: any `torch.nn.Module`, on any device, in any mode; analyzed on the CPU.
        inputs: the arguments of `forward`: a tensor, a shape such as `(1, 3, 224, 224)`, a tuple
            of these for several arguments, or a dict for keyword arguments. Of a tensor the shape,
            dtype and range of values are used; its first size is the batch. None to find inputs
            from the model.
        targets: one name of a GPU, or several, see `reportgen gpus`; () to leave out memory.
        sections: one name of a section to analyze, or several; () for all.
        batch: batch size; None for that of `inputs`.
        loss: what a training step minimizes: `sum`, `cross_entropy`, or a function that takes the
            output of the model and returns a scalar tensor.
        name: of the model in the report; "" for that of its class.
        budgets: limits by key, as in a manifest: `{"parameters": "30M"}`.
        baseline: an earlier report or where it is stored, for budgets such as `"+2%"`. If it has
            several models, the one of the same name is used.
        settings: other keys of a model in a manifest: `{"onnx": {"opset": 18}}`.
        timings: whether to measure durations.
        progress: whether to show progress; None for in a terminal or a notebook only.

    Raises:
        ReportgenError: an argument is not valid, or no inputs are found on which the model runs.

    >>> import reportgen, torch
    >>> report = reportgen.analyze(torch.nn.Linear(4, 2), (8, 4), sections=("layers",))
    >>> report.metrics["layers.parameters"], report["layers"].macs
    (10, 64)
    """
    start = time.monotonic()
    sections = as_names(sections)
    for each in sections:
        require_known(each)
    old = _renamed_baseline(baseline, name or type(model).__name__)
    described = describe_model(
        model,
        inputs,
        targets=as_names(targets),
        batch=batch,
        loss=loss,
        name=name,
        settings=_fields(budgets, settings),
    )
    chosen = tuple(
        section.name
        for section in SECTIONS
        if section.name in sections or (not sections and section.analyze_logs is None)
    )
    # deleted with the report, see `Report`
    folder = Path(tempfile.mkdtemp(prefix="reportgen-report-"))
    spec = described.spec
    share = share_of(1)
    job = Job(
        spec=spec,
        targets=described.targets,
        sections=chosen,
        folder=folder / "models" / spec.name,
        seconds=spec.limits.seconds,
        memory_bytes=spec.limits.memory_bytes or share.memory,
        threads=1,
        timings=timings,
    )
    report = Report(ReportData(title=spec.name, environment={}, timings=None, models=()), folder)
    with show_sections(spec.name, chosen, shown=progress) as notify:
        reason = why_not_forked()
        run = _in_this_process if reason else _in_fork
        outcomes = run(described, job, notify)
    if outcomes.load_error is not None:
        raise ModelError(outcomes.load_error.error, hint=outcomes.load_error.hint)
    environment = describe_environment()
    judged = judge_model(
        spec,
        outcomes,
        complete=not sections,
        timings=timings,
        baseline=None if old is None else baseline_of(spec.name, old.data, environment),
    )
    report.data = ReportData(
        title=spec.name,
        environment=environment,
        timings=make_timings((outcomes,), time.monotonic() - start) if timings else None,
        models=(replace(judged, library=library_of(spec)),),
    )
    if reason:
        report.notes = (f"analyzed in this process, without limits: {reason}",)
    return report


_ARGUMENTS = {"source", "name", "inputs", "batch", "loss", "budgets"}


def _fields(
    budgets: Mapping[str, Any] | None, settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Fields of `ModelSpec` from values as a manifest has them.

    Raises:
        ReportgenError: a value is not valid, with its key.
    """
    from pydantic import ValidationError

    from reportgen.manifest.fields import Reading
    from reportgen.manifest.pydantic_errors import model_problem

    for key in sorted(_ARGUMENTS & set(settings or {})):
        raise ReportgenError(
            f"settings: {key!r} does not belong here",
            hint="analyze has arguments for the model, name, inputs, batch, loss and budgets",
        )
    # `Reading` makes pydantic read values as they stand in a file
    given = {**(settings or {}), **({"budgets": dict(budgets)} if budgets else {})}
    if not given:
        return {}
    try:
        read = ModelSpec.model_validate(
            {"name": "model", **given}, context=Reading(folder=Path.cwd())
        )
    except ValidationError as error:
        raise ReportgenError(
            model_problem(error), hint="reportgen schema manifest describes every key"
        ) from error
    return {key: getattr(read, key) for key in given if key in ModelSpec.model_fields}


def _renamed_baseline(baseline: Report | str | Path | None, name: str) -> Report | None:
    """The baseline, its only model under `name`: a model object has no name of its own."""
    if baseline is None:
        return None
    report = baseline if isinstance(baseline, Report) else Report.load(baseline)
    if len(report.models) != 1:
        return report
    [model] = report.data.models
    renamed = replace(report.data, models=(replace(model, name=safe_name(name)),))
    return Report(renamed, Path(), keep=True)


def why_not_forked() -> str:
    """Why this process cannot be forked for an analysis; "" if it can."""
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return "CUDA is in use, which a fork cannot use"
    if sys.platform != "linux":
        return "only Linux can fork a process that has used torch"
    threads = [each.name for each in threading.enumerate() if type(each).__name__ not in _HARMLESS]
    if len(threads) > 1:
        return f"other threads run ({threads[1]}), and a fork might wait for them forever"
    if not _autograd_survives_fork():
        return "autograd has started threads in this process, which a fork does not have"
    return ""


def _autograd_survives_fork() -> bool:
    """Whether a backward pass runs in a fork: tried, as torch does not say."""
    import torch

    process = os.fork()
    if process == 0:
        try:
            torch.ones(1, requires_grad=True).sum().backward()  # type: ignore[no-untyped-call]
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(process, 0)[1] == 0


# The monitor of tqdm wakes every ten seconds and holds a lock for an instant; it runs in every
# process that has shown a progress bar.
_HARMLESS = {"TMonitor"}


def _in_fork(
    described: ModelObject, job: Job, notify: Callable[[str, SectionEvent], None]
) -> ModelOutcomes:
    from reportgen.workers.fork import start_fork

    def open_context(job: Job) -> AbstractContextManager[ModelContext]:
        return described.context(job.folder, timings=job.timings)

    return analyze_model(job, notify, start_child=lambda start: start_fork(start, open_context))


def _in_this_process(described: ModelObject, job: Job, notify: SectionProgress) -> ModelOutcomes:
    from reportgen.workers.child import outcome_of

    outcomes: list[SectionOutcome] = []
    seconds: dict[str, float] = {}
    analyzed: dict[str, str] = {}
    job.folder.mkdir(parents=True)
    with described.context(job.folder, timings=job.timings) as context:
        for section in SECTIONS:
            if section.name not in job.sections:
                continue
            notify(section.name, SectionEvent.STARTED)
            start = time.monotonic()
            outcome = outcome_of(section, context)
            seconds[section.name] = time.monotonic() - start
            analyzed[section.name] = datetime.now(UTC).isoformat(timespec="seconds")
            outcomes.append(SectionOutcome(name=section.name, title=section.title, outcome=outcome))
            notify(section.name, SectionEvent(outcome.status))
        inputs = describe_inputs(context.spec.inputs, context.spec.dims)
    return ModelOutcomes(
        name=job.spec.name,
        sections=tuple(outcomes),
        seconds=seconds,
        inputs=inputs,
        analyzed=analyzed,
    )
