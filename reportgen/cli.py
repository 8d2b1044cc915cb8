"""The front door: parse, call, print, exit status.

0 clean · 1 a report was written but something in it is wrong · 2 no report ·
3 an estimate that does not fit · 130 interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import signal
import sys
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from reportgen import __version__
from reportgen.errors import ManifestError, OutputError, ReportgenError, WatchEnded

_DOES_NOT_FIT = 3
_ENDED = {130: "interrupted", 128 + signal.SIGTERM: "stopped by SIGTERM"}

app = typer.Typer(
    name="reportgen",
    help="Static-analysis reports for PyTorch models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ManifestPath = Annotated[Path, typer.Argument(metavar="MANIFEST", help="The YAML manifest.")]


class FailOn(StrEnum):
    """The least severity of a finding that makes the exit status 1."""

    ERROR = "error"
    WARNING = "warning"
    NEVER = "never"


class SchemaName(StrEnum):
    """What has a JSON Schema."""

    MANIFEST = "manifest"
    REPORT = "report"


class Mode(StrEnum):
    """What runs in a step."""

    TRAIN = "train"
    INFERENCE = "inference"


_PRECISIONS = "fp32, tf32, amp-bf16, amp-fp16, bf16 or fp16."
_OPTIMIZERS = "sgd, adam, adamw, rmsprop, adagrad, adafactor or none."


@app.command()
def build(
    manifest: ManifestPath,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the report [reports/<manifest name>]."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Examine this model only; repeatable.")
    ] = None,
    section: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Build this section only; repeatable.")
    ] = None,
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="Any of html,pdf,json,md.")
    ] = "html,pdf,json,md",
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Models examined at once [one for each processor].")
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="Least severity that makes the exit status 1.")
    ] = FailOn.ERROR,
    no_cache: Annotated[  # noqa: ARG001 - nothing is cached yet; scripts say it already
        bool, typer.Option("--no-cache", help="Examine everything anew, as every build does now.")
    ] = False,
    no_timings: Annotated[
        bool, typer.Option("--no-timings", help="Leave out what a clock measured.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json on stdout.")] = False,
) -> None:
    """Examine the models of MANIFEST and write their report."""
    from reportgen import pipeline
    from reportgen.manifest import load_manifest
    from reportgen.progress import shown_progress
    from reportgen.report import report_to_json
    from reportgen.sections import SECTIONS

    asked = load_manifest(manifest)
    names = [spec.name for spec in pipeline.choose(asked, tuple(model or ()))]
    with shown_progress(names, [s.name for s in SECTIONS], quiet=quiet) as progress:
        built = pipeline.build(
            asked,
            output=output,
            models=tuple(names),
            sections=_sections(section),
            formats=_formats(formats),
            jobs=jobs,
            timings=not no_timings,
            progress=progress,
        )
    if as_json:
        typer.echo(report_to_json(built.report), nl=False)
    if not quiet:
        _say_what_came_out(built)
    raise typer.Exit(_status(built, fail_on))


@app.command()
def check(manifest: ManifestPath) -> None:
    """Validate MANIFEST without examining anything."""
    from reportgen.manifest import load_manifest

    models = load_manifest(manifest).models
    typer.echo(f"{manifest}: {len(models)} model{'s' * (len(models) != 1)}, no errors")


@app.command()
def init(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="As in a manifest.")
    ] = None,
    logs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of training logs; with or without a SOURCE."),
    ] = None,
) -> None:
    """Print a manifest for the model at SOURCE, for training logs, or for both."""
    if source is None and logs is None:
        raise ReportgenError("nothing to write a manifest for", hint="name a SOURCE or --logs DIR")
    from reportgen.dummy_inputs.manifest_template import log_entries, manifest_for_logs

    if source is None:
        assert logs is not None
        typer.echo(manifest_for_logs(logs), nl=False)
        return
    from reportgen.dummy_inputs.manifest_template import manifest_for_source

    entry = log_entries(logs) if logs is not None else ""
    typer.echo(manifest_for_source(source) + entry, nl=False)


@app.command()
def estimate(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="As in a manifest.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", metavar="SHAPE", help="batch,3,224,224 or ids=batch,9:int64<99"),
    ] = None,
    batch: Annotated[int, typer.Option(help="Batch size.")] = 1,
    mode: Annotated[Mode, typer.Option(help="What runs.")] = Mode.TRAIN,
    precision: Annotated[str, typer.Option(metavar="NAME", help=_PRECISIONS)] = "fp32",
    optimizer: Annotated[str, typer.Option(metavar="NAME", help=_OPTIMIZERS)] = "adamw",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Recompute activations in the backward pass.")
    ] = False,
    loss: Annotated[str, typer.Option(metavar="NAME", help="cross_entropy, sum or mean.")] = "sum",
    gpu: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A card to fit; repeatable.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also run the step on this machine's CUDA device.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Estimate the peak GPU memory of one step; no GPU required."""
    from reportgen.cuda_memory.errors import CudaMemoryError
    from reportgen.cuda_memory.step import Step
    from reportgen.estimation import answer_data, answer_lines, estimate_step
    from reportgen.manifest import parse_shape_argument

    trains = mode is Mode.TRAIN
    try:
        step = Step(
            mode=mode.value,
            precision=precision,
            optimizer=optimizer if trains else "none",
            checkpointing=checkpointing and trains,
            loss=loss,
        )
    except CudaMemoryError as error:
        raise ReportgenError(str(error), hint=error.hint) from error
    answer = estimate_step(
        source,
        tuple(map(parse_shape_argument, inputs or ())),
        batch=batch,
        step=step,
        gpus=tuple(gpu or ()),
        measure=measure,
    )
    if as_json:
        typer.echo(json.dumps(answer_data(answer), ensure_ascii=False, indent=1, allow_nan=False))
    else:
        for line in answer_lines(answer):
            typer.echo(line)
    raise typer.Exit(0 if answer.fits_everywhere else _DOES_NOT_FIT)


@app.command()
def watch(
    manifest: ManifestPath,
    output: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the report [reports/<manifest name>]."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Watch this model only; repeatable.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No output on stderr.")] = False,
) -> None:
    """Follow the training logs of MANIFEST and refresh the report until Ctrl-C."""
    from reportgen.manifest import load_manifest
    from reportgen.watching import watch as keep_watching

    keep_watching(
        load_manifest(manifest),
        output=output,
        models=tuple(model or ()),
        say=(lambda _: None) if quiet else _tell,
    )


@app.command()
def publish(
    report_dir: Annotated[
        Path, typer.Argument(metavar="REPORT_DIR", help="Folder of a built report.")
    ],
    visdom: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of a running visdom server.")
    ] = None,
    env: Annotated[
        str | None, typer.Option(metavar="NAME", help="visdom environment [title of the report].")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="TensorBoard log directory to write to.")
    ] = None,
) -> None:
    """Publish curves, images, tables, graphs and headline metrics to visdom or TensorBoard."""
    if (visdom is None) == (tensorboard is None):
        raise ReportgenError("publish requires either --visdom URL or --tensorboard DIR")
    if env is not None and visdom is None:
        raise ReportgenError("--env requires --visdom URL")
    from reportgen.publish import publish_to_tensorboard, publish_to_visdom

    if visdom is not None:
        published = publish_to_visdom(report_dir, visdom, env)
    else:
        assert tensorboard is not None
        published = publish_to_tensorboard(report_dir, tensorboard)
    for line in published.lines():
        _tell(line)


@app.command()
def rules(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="One rule's page.")] = None,
) -> None:
    """List the rules, or explain one."""
    from reportgen.sections import SECTIONS

    known = {rule.code: rule for section in SECTIONS for rule in section.rules}
    if code is None:
        for rule in known.values():
            typer.echo(f"{rule.code}  {rule.severity.value:<8}{rule.name}")
    elif (found := known.get(code.upper())) is None:
        raise ReportgenError(f"there is no rule {code!r}", hint=f"rules are {', '.join(known)}")
    else:
        typer.echo(f"{found.code} {found.name} ({found.severity.value})\n")
        typer.echo(f"{found.documentation}\n\nAdvice: {found.advice}")


@app.command()
def gpus(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One card's data.")] = None,
) -> None:
    """List the GPUs whose memory is known, or show one."""
    from reportgen.cuda_memory.errors import UnknownGpuError
    from reportgen.cuda_memory.gpus import catalog, find_gpu
    from reportgen.units import format_bytes

    if name is None:
        for card in catalog():
            typer.echo(f"{card.name:<24}{format_bytes(card.usable_bytes):>10}")
        return
    try:
        card = find_gpu(name)
    except UnknownGpuError as error:
        raise ReportgenError(str(error), hint=error.hint) from error
    for key, value in dataclasses.asdict(card).items():
        typer.echo(f"{key}: {', '.join(map(str, value)) if isinstance(value, tuple) else value}")


@app.command()
def schema(
    name: Annotated[SchemaName, typer.Argument(metavar="NAME", help="manifest or report.")],
) -> None:
    """Print the JSON Schema of manifests, or of report.json."""
    from reportgen.manifest import manifest_schema
    from reportgen.report import report_schema
    from reportgen.sections import SECTIONS

    made = manifest_schema() if name is SchemaName.MANIFEST else report_schema(SECTIONS)
    typer.echo(json.dumps(made, ensure_ascii=False, indent=2))


@app.command()
def doctor() -> None:
    """Check that everything a build relies on is installed and fits together."""
    from reportgen.environment import check_environment

    broken = False
    for result in check_environment():
        typer.echo(f"{'ok  ' if result.passed else 'FAIL'}  {result.name}: {result.found}")
        if not result.passed:
            typer.echo(f"      {result.hint}")
            broken = True
    raise typer.Exit(1 if broken else 0)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"reportgen {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Run the command line and exit with its status; `ReportgenError` becomes one line."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except ReportgenError as error:
        _complain(error)
        sys.exit(error.status)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        _complain(OutputError("the disk is full", hint="free some room and try again"))
        sys.exit(OutputError.status)
    except SystemExit as end:
        reported = isinstance(end, WatchEnded)
        if isinstance(end.code, int) and end.code in _ENDED and not reported:
            _tell(f"reportgen: {_ENDED[end.code]}; what was there before is untouched")
        raise
    raise AssertionError("typer ends by exiting")


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    """Let `finally` blocks run when a scheduler ends the build."""
    sys.exit(128 + number)


def _complain(error: ReportgenError) -> None:
    """Say what is wrong; terminal control characters from files stay visible text.

    Complaints about a manifest begin with its file and line, so that editors can follow them.
    """
    prefix = "" if isinstance(error, ManifestError) else "reportgen: "
    hint = f" ({error.hint})" if error.hint else ""
    for line in f"{error.message}{hint}".splitlines():
        typer.echo(prefix + _visible(line), err=True)


def _visible(line: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _formats(text: str) -> tuple[str, ...]:
    from reportgen.pipeline import FORMATS

    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in FORMATS:
            raise ReportgenError(f"there is no format {name!r}", hint=f"use {', '.join(FORMATS)}")
    if not wanted:
        raise ReportgenError("--format names no format", hint=f"use {', '.join(FORMATS)}")
    return tuple(wanted)


def _sections(names: list[str] | None) -> tuple[str, ...]:
    from reportgen.sections import SECTIONS

    known = [section.name for section in SECTIONS]
    for name in names or ():
        if name not in known:
            raise ReportgenError(f"there is no section {name!r}", hint=f"use {', '.join(known)}")
    return tuple(names or ())


def _say_what_came_out(built: Any) -> None:
    from reportgen.report import failures

    for model in built.report.models:
        found = len(model.findings)
        _tell(f"{model.verdict.value:<5} {model.name}: {found} finding{'s' * (found != 1)}")
        for failure in failures(model):
            hint = f" ({failure.failed.hint})" if failure.failed.hint else ""
            _tell(f"      {failure.titles} failed: {failure.failed.error}{hint}")
    _tell(f"wrote {built.output}")


def _tell(line: str) -> None:
    """Say `line` on stderr; a reader who has gone away (`2>&1 | head`) changes no exit status."""
    with contextlib.suppress(BrokenPipeError):
        typer.echo(_visible(line), err=True)


def _status(built: Any, fail_on: FailOn) -> int:
    """1 where a section failed, a budget is exceeded, or a finding reaches `fail_on`."""
    from reportgen.findings import Severity
    from reportgen.outcome import Failed

    reaching = {
        FailOn.ERROR: {Severity.ERROR},
        FailOn.WARNING: {Severity.ERROR, Severity.WARNING},
        FailOn.NEVER: set(),
    }[fail_on]
    for model in built.report.models:
        if any(isinstance(section.outcome, Failed) for section in model.sections):
            return 1
        if any(budget.passed is False for budget in model.budgets):
            return 1
        if any(f.severity in reaching and f.ignored is None for f in model.findings):
            return 1
    return 0
