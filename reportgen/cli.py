"""The command line.

Exit status: 0 without problems; 1 if the report was written, but a section failed, a budget is
exceeded or a finding reaches `--fail-on`; 2 if no report was written; 3 if an estimated step does
not fit; 130 if interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from reportgen import __version__
from reportgen.errors import ManifestError, OutputError, ReportgenError, WatchEnded

if TYPE_CHECKING:
    from reportgen.manifest import Manifest
    from reportgen.pipeline import Built
    from reportgen.report import Report

_DOES_NOT_FIT = 3
# A shell reports 128 plus the number of the signal; click ends with 130 on Ctrl-C.
_ENDED = {
    130: "interrupted",
    128 + signal.SIGTERM: "stopped by SIGTERM",
    128 + signal.SIGHUP: "stopped by SIGHUP",
}

# Commands import what they need themselves: --help, check and gpus must not wait for torch.
app = typer.Typer(
    name="reportgen",
    help="Analyze PyTorch models and write reports.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would read a default in brackets, [reports/...], as markup
    pretty_exceptions_enable=False,  # a bug is a plain traceback, to be pasted into an issue
    context_settings={"help_option_names": ["-h", "--help"]},
)

history_app = typer.Typer(
    help="The store of nights: DIR/history, and the page DIR/index.html over all of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(history_app, name="history")

ManifestPath = Annotated[Path, typer.Argument(metavar="MANIFEST", help="A YAML manifest.")]
OutputFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the report [reports/<manifest name>]."),
]
HistoryFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the history [the folder above the report's]."),
]
HistoryRoot = Annotated[
    Path | None,
    typer.Option(
        "--history-dir", metavar="DIR", help="Folder of the history [reports or current folder]."
    ),
]
ReportFolder = Annotated[Path, typer.Argument(metavar="REPORT_DIR", help="Folder of a report.")]
FailOn = Literal["error", "warning", "never"]

_PRECISIONS = "fp32, tf32, amp-bf16, amp-fp16, bf16 or fp16."
_OPTIMIZERS = "sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad, adafactor or none."


@app.command()
def build(
    manifest: ManifestPath,
    output: OutputFolder = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Analyze only this model; repeatable.")
    ] = None,
    section: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Build only this section; repeatable.")
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format", metavar="LIST", help="Comma-separated: html, pdf, json, md, sarif, junit."
        ),
    ] = "html,pdf,json,md",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Models analyzed in parallel [as many as CPUs and memory allow]."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="REPORT", help="Compare with an earlier report: file or folder."),
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="Exit with 1 if a finding has this severity or a higher one.")
    ] = "error",
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Analyze everything again; store no results.")
    ] = False,
    no_timings: Annotated[
        bool, typer.Option("--no-timings", help="Omit all measured times.")
    ] = False,
    pdf: Annotated[
        Literal["brief", "full"],
        typer.Option(help="Every section, or two pages for each model to attach to a review."),
    ] = "full",
    history: Annotated[
        bool, typer.Option("--history", help="Add the report to the history, as history add does.")
    ] = False,
    history_dir: HistoryFolder = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No output on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json on stdout.")] = False,
) -> None:
    """Analyze the models in MANIFEST and write the report."""
    from reportgen import pipeline
    from reportgen.cache import cache_folder, open_cache
    from reportgen.progress import show_progress
    from reportgen.report import report_to_json
    from reportgen.sections import SECTIONS

    loaded = _load_manifest(manifest)
    folder = output or pipeline.default_output(loaded)
    if history:
        _check_history(folder, history_dir)
    old = _read_report(baseline) if baseline else None
    names = [spec.name for spec in pipeline.choose_models(loaded, tuple(model or ()))]
    output = output or pipeline.default_output(loaded)
    with show_progress(names, [s.name for s in SECTIONS], quiet=quiet) as progress:
        built = pipeline.build(
            loaded,
            output=output,
            models=tuple(model or ()),
            sections=_sections(section),
            formats=_formats(formats),
            jobs=jobs,
            timings=not no_timings,
            baseline=old,
            brief_pdf=pdf == "brief",
            progress=progress,
            cache=None if no_cache else open_cache(cache_folder(output)),
        )
    if as_json:
        _print(report_to_json(built.report), end="")
    if not quiet:
        _print_summary(built)
    status = _exit_status(built, fail_on)
    if history and not _record_history(folder, history_dir):
        status = 1
    raise typer.Exit(status)


@app.command()
def check(
    manifests: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="YAML manifests.")],
) -> None:
    """Validate manifests without loading their models."""
    failed: ManifestError | None = None
    for manifest in manifests:
        try:
            models = _load_manifest(manifest).models
        except ManifestError as error:
            _print_error(error)
            failed = error
        else:
            _print(f"{manifest}: {len(models)} model{'s' * (len(models) != 1)}, no errors")
    if failed is not None:
        raise typer.Exit(failed.status)


@app.command()
def init(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="Source of a model, as in a manifest.")
    ] = None,
    logs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of training logs; SOURCE is then optional."),
    ] = None,
) -> None:
    """Print a manifest for a model, for training logs, or for both."""
    if source is None and logs is None:
        raise ReportgenError("init requires SOURCE, --logs DIR, or both")
    from reportgen.dummy_inputs.manifest_template import log_entries, manifest_for_logs

    if source is None:
        assert logs is not None
        _print(manifest_for_logs(logs), end="")
        return
    from reportgen.dummy_inputs.manifest_template import manifest_for_source

    entry = log_entries(logs) if logs is not None else ""
    _print(manifest_for_source(source) + entry, end="")


@app.command()
def estimate(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="As in a manifest: torchvision:resnet50.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="SHAPE", help="batch,3,224,224 or ids=batch,9:int64<99; repeatable."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Batch size.", max=2**63 - 1)] = 1,
    mode: Annotated[
        Literal["train", "inference"], typer.Option(help="Training step or forward pass.")
    ] = "train",
    precision: Annotated[str, typer.Option(metavar="NAME", help=_PRECISIONS)] = "fp32",
    optimizer: Annotated[str, typer.Option(metavar="NAME", help=_OPTIMIZERS)] = "adamw",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Use activation checkpointing.")
    ] = False,
    loss: Annotated[str, typer.Option(metavar="NAME", help="cross_entropy, sum or mean.")] = "sum",
    accumulation: Annotated[
        int, typer.Option(metavar="N", help="Micro-batches before one optimizer step.")
    ] = 1,
    zero_grad: Annotated[
        Literal["free", "keep"], typer.Option(help="keep: zero_grad(set_to_none=False).")
    ] = "free",
    prefetch: Annotated[
        int, typer.Option(metavar="N", help="Batches of inputs on the GPU at once.")
    ] = 1,
    ddp: Annotated[
        bool, typer.Option("--ddp", help="With DistributedDataParallel's gradient buckets.")
    ] = False,
    ema: Annotated[
        bool, typer.Option("--ema", help="With an averaged copy of the weights.")
    ] = False,
    clip: Annotated[
        float | None, typer.Option(metavar="NORM", help="With gradient clipping.")
    ] = None,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="In the channels_last memory format.")
    ] = False,
    gpu: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Check whether the step fits this GPU; repeatable."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also run the step on this machine's CUDA device.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Estimate the peak GPU memory of one step; no GPU required."""
    from reportgen.cuda_memory.errors import CudaMemoryError
    from reportgen.cuda_memory.step import Step
    from reportgen.manifest import parse_shape_argument
    from reportgen.sections.memory.analysis import ZERO_GRAD
    from reportgen.sections.memory.estimation import answer_data, answer_lines, estimate_step

    trains = mode == "train"
    try:
        step = Step(
            mode=mode,
            precision=precision,
            optimizer=optimizer if trains else "none",
            checkpointing=checkpointing and trains,
            loss=loss,
            accumulation=accumulation,
            zero_grad=ZERO_GRAD[zero_grad],
            prefetch=prefetch,
            ddp=ddp,
            ema=ema,
            clip=clip,
            channels_last=channels_last,
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
        _print(json.dumps(answer_data(answer), ensure_ascii=False, indent=1, allow_nan=False))
    else:
        for line in answer_lines(answer):
            _print(line)
    raise typer.Exit(0 if answer.fits_everywhere else _DOES_NOT_FIT)


@app.command()
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A report.json or its folder.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The report to judge.")],
    form: Annotated[
        Literal["md", "json", "html"], typer.Option("--format", help="What to print.")
    ] = "md",
) -> None:
    """Print what changed between two reports."""
    from reportgen.compare.as_json import comparison_to_json
    from reportgen.compare.reports import compare_reports
    from reportgen.render import changes_of, render_changes, render_comparison

    comparison = compare_reports(_read_report(old), _read_report(new), draw=form == "html")
    if form == "json":
        _print(comparison_to_json(comparison), end="")
    elif form == "html":
        _print(render_comparison(comparison, changes_of(comparison)), end="")
    else:
        _print(render_changes(changes_of(comparison)), end="")


@app.command()
def watch(
    manifest: ManifestPath,
    output: OutputFolder = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Watch only this model; repeatable.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No output on stderr.")] = False,
) -> None:
    """Update the training section of the report until Ctrl-C."""
    from reportgen.watching import watch as watch_logs

    watch_logs(
        _load_manifest(manifest),
        output=output,
        models=tuple(model or ()),
        print_line=(lambda _: None) if quiet else _print_stderr,
    )


@app.command()
def publish(
    report_dir: Annotated[Path, typer.Argument(metavar="REPORT_DIR", help="Folder of a report.")],
    visdom: Annotated[
        str | None, typer.Option(metavar="URL", help="URL of a running visdom server.")
    ] = None,
    env: Annotated[
        str | None, typer.Option(metavar="NAME", help="visdom environment [title of the report].")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="TensorBoard log directory.")
    ] = None,
) -> None:
    """Send the content of a report to visdom or TensorBoard."""
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
        _print_stderr(line)


@app.command()
def annotate(report_dir: ReportFolder) -> None:
    """Print a report's problems as GitHub annotations; append it to the job summary."""
    from reportgen.review.steps import annotate_folder

    for line in annotate_folder(report_dir, os.environ):
        _print(line)


@app.command()
def comment(
    report_dir: ReportFolder,
    repository: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="Repository [GITHUB_REPOSITORY].")
    ] = "",
    pull_request: Annotated[
        int | None, typer.Option(metavar="N", help="Pull request [that of the run].")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="REPORT", help="Compare with this report.")
    ] = None,
    link: Annotated[str, typer.Option(metavar="URL", help="Where the whole report is.")] = "",
    author: Annotated[
        str, typer.Option(metavar="LOGIN", help="Whose comments are edited: the token's user.")
    ] = "github-actions[bot]",
) -> None:
    """Post the report as one comment on a pull request, or edit it; needs GITHUB_TOKEN."""
    from reportgen.review.event import connect, read_event
    from reportgen.review.steps import comment_on

    number = pull_request or read_event(os.environ).pull_request
    if number is None:
        raise ReportgenError("comment requires --pull-request N outside a pull request's run")
    github = connect(os.environ, repository)
    _print_stderr(comment_on(github, number, report_dir, baseline, link, author))


@history_app.command("add")
def history_add(report_dir: ReportFolder, history_dir: HistoryFolder = None) -> None:
    """Add a report to the history.

    Appends its metrics to DIR/history/nights, keeps a dated copy of the report in
    DIR/history/reports (hard links; files above 16 MiB are left out), deletes old copies as `prune`
    does, and writes DIR/index.html. Adding a report twice has no effect.
    """
    from datetime import UTC, datetime

    from reportgen.history import folder_above, record_night

    root = history_dir or folder_above(report_dir)
    night = record_night(report_dir, root, datetime.now(UTC))
    _print_stderr(f"added the night {night.time:%Y-%m-%d %H:%M UTC} of {night.report}")
    _print_stderr(f"wrote {root / 'index.html'}")


@history_app.command("show")
def history_show(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Part of report/model/metric.")
    ] = None,
    history_dir: HistoryRoot = None,
) -> None:
    """Print the changes of the last 30 days, or the drift and all changes of what KEY names.

    The exit status is 1 if no night arrived for 36 hours, or if a confirmed change for the worse of
    the last 30 days (marked with !) is neither acknowledged nor over.
    """
    from datetime import UTC, datetime

    from reportgen.history import Places, load_history
    from reportgen.history.describe import history_lines

    found, now = load_history(Places(_history_root(history_dir))), datetime.now(UTC)
    for line in history_lines(found, key or "", now):
        _print(_escape_control_characters(line))
    raise typer.Exit(1 if found.needs_attention(now) else 0)


@history_app.command("prune")
def history_prune(history_dir: HistoryRoot = None) -> None:
    """Delete old copies of reports, and the oldest nights of a store above 64 MiB.

    Of the copies of each report, all of the last 30 days are kept, the last one of each week for a
    year, and the last one of each month before that.
    """
    from datetime import UTC, datetime

    from reportgen.history import prune, write_index

    root = _history_root(history_dir)
    pruned = prune(root)
    write_index(root, datetime.now(UTC))
    for name in (*pruned.copies, *pruned.nights):
        _print_stderr(f"deleted {name}")


@history_app.command("acknowledge")
def history_acknowledge(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Part of report/model/metric, or with @DATE.")
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why it is accepted.")],
    owner: Annotated[str, typer.Option(metavar="NAME", help="Who accepts it.")],
    history_dir: HistoryRoot = None,
) -> None:
    """Accept the changes until now that KEY names, as `show` prints it.

    With the name of a report as KEY, also that no further night of it will arrive.
    """
    from datetime import UTC, datetime

    from reportgen.history import acknowledge, write_index

    root, now = _history_root(history_dir), datetime.now(UTC)
    acknowledge(root, key, reason=reason, owner=owner, now=now)
    write_index(root, now)


@app.command()
def rules(
    code: Annotated[
        str | None, typer.Argument(metavar="[CODE]", help="Code of a rule: LAY001.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print docs/rules.md, which explains all rules.")
    ] = False,
) -> None:
    """List all rules, or explain one."""
    from reportgen.rule_docs import all_rules, rule_text, rules_markdown

    known = all_rules()
    if markdown:
        _print(rules_markdown(), end="")
    elif code is None:
        for rule in known.values():
            _print(f"{rule.code}  {rule.severity.value:<8}{rule.name}")
    elif (found := known.get(code.upper())) is None:
        raise ReportgenError(f"unknown rule {code!r}", hint=f"use one of {', '.join(known)}")
    else:
        _print(rule_text(found))


@app.command()
def gpus(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Name of a GPU: T4.")] = None,
) -> None:
    """List all known GPUs, or print the data of one."""
    from reportgen.cuda_memory.errors import UnknownGpuError
    from reportgen.cuda_memory.gpus import catalog, find_gpu
    from reportgen.units import format_bytes

    if name is None:
        for gpu in catalog():
            _print(f"{gpu.name:<24}{format_bytes(gpu.usable_bytes):>10}")
        return
    try:
        gpu = find_gpu(name)
    except UnknownGpuError as error:
        raise ReportgenError(str(error), hint=error.hint) from error
    for key, value in dataclasses.asdict(gpu).items():
        _print(f"{key}: {', '.join(map(str, value)) if isinstance(value, tuple) else value}")


@app.command()
def schema(
    name: Annotated[
        Literal["manifest", "report"], typer.Argument(metavar="NAME", help="manifest or report.")
    ],
) -> None:
    """Print the JSON Schema of manifests or of report.json."""
    from reportgen.manifest import manifest_schema
    from reportgen.report import report_schema
    from reportgen.sections import SECTIONS

    content = manifest_schema() if name == "manifest" else report_schema(SECTIONS)
    _print(json.dumps(content, ensure_ascii=False, indent=2))


@app.command()
def doctor() -> None:
    """Check that all dependencies are installed and compatible."""
    from reportgen.environment import check_environment

    failed = False
    for result in check_environment():
        _print(f"{'ok  ' if result.passed else 'FAIL'}  {result.name}: {result.found}")
        if not result.passed:
            _print(f"      {result.hint}")
            failed = True
    _print(f"ok    {_describe_cache()}")
    raise typer.Exit(1 if failed else 0)


def _describe_cache() -> str:
    """Folder and size of the cache for reports in the default folder."""
    from reportgen.cache import Store, cache_folder, size_limit
    from reportgen.pipeline import DEFAULT_PARENT
    from reportgen.units import format_bytes

    store = Store(cache_folder(DEFAULT_PARENT / "manifest").absolute(), size_limit())
    return f"cache: {format_bytes(store.size())} of {format_bytes(store.limit)} in {store.root}"


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        _print(f"reportgen {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Run the command line and exit with its status; a `ReportgenError` is printed as one line."""
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _terminate)
    try:
        app()
    except ReportgenError as error:
        _print_error(error)
        sys.exit(error.status)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:  # any other is a bug
            raise
        _print_error(OutputError("the disk is full", hint="free disk space and try again"))
        sys.exit(OutputError.status)
    except SystemExit as end:
        printed = isinstance(end, WatchEnded)  # watch prints its own last line
        if isinstance(end.code, int) and end.code in _ENDED and not printed:
            _print_stderr(f"reportgen: {_ENDED[end.code]}; the previous report was not modified")
        raise
    raise AssertionError("typer always exits")


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    # By an exception, so that `finally` blocks run when a scheduler sends SIGTERM.
    sys.exit(128 + number)


def _print_error(error: ReportgenError) -> None:
    """Print `error` and its hint.

    Errors in a manifest have no prefix: they start with file and line, a form that editors link.
    """
    prefix = "" if isinstance(error, ManifestError) else "reportgen: "
    hint = f" ({error.hint})" if error.hint else ""
    for line in f"{error.message}{hint}".splitlines():
        _print_stderr(prefix + line)


def _escape_control_characters(line: str) -> str:
    # Names and messages come from files; their escape sequences must not reach the terminal.
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _formats(text: str) -> tuple[str, ...]:
    from reportgen.outputs import FORMATS

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    hint = f"use one or more of {', '.join(FORMATS)}"
    for name in names:
        if name not in FORMATS:
            raise ReportgenError(f"unknown format {name!r}", hint=hint)
    if not names:
        raise ReportgenError("--format is empty", hint=hint)
    return names


def _sections(names: list[str] | None) -> tuple[str, ...]:
    from reportgen.sections import SECTIONS

    known = [section.name for section in SECTIONS]
    for name in names or ():
        if name not in known:
            raise ReportgenError(f"unknown section {name!r}", hint=f"use one of {', '.join(known)}")
    return tuple(names or ())


def _print_summary(built: Built) -> None:
    from reportgen.report import failures

    for model in built.report.models:
        count = len(model.findings)
        _print_stderr(f"{model.verdict.value:<5} {model.name}: {count} finding{'s' * (count != 1)}")
        for failure in failures(model):
            hint = f" ({failure.failed.hint})" if failure.failed.hint else ""
            _print_stderr(f"      {failure.titles} failed: {failure.failed.error}{hint}")
    for note in built.notes:
        _print_stderr(f"note: {note}")
    _print_stderr(f"wrote {built.output}")


def _history_root(given: Path | None) -> Path:
    """The folder with a history: `given`, `reports`, or the current one for `--output NAME`."""
    for root in (given,) if given else (Path("reports"), Path()):
        if (root / "history" / "nights").is_dir():
            return root
    raise ReportgenError(
        f"no history in {given or 'reports'}",
        hint="run `reportgen build MANIFEST --history` first, or name its folder by --history-dir",
    )


def _check_history(report: Path, history_dir: Path | None) -> None:
    """Check where the history will be written, before minutes of work are spent."""
    from reportgen.history import folder_above, require_own_root

    require_own_root(history_dir or folder_above(report))


def _record_history(report: Path, history_dir: Path | None) -> bool:
    """Add the report to the history; False if that failed, since the report is there anyway."""
    try:
        history_add(report, history_dir)
    except ReportgenError as error:
        _print_error(error)
        return False
    return True


def _print_stderr(line: str) -> None:
    """Print `line`; a closed pipe (`2>&1 | head`) or a full disk does not end the command."""
    with contextlib.suppress(OSError):
        typer.echo(_escape_control_characters(line), err=True)


def _print(text: str, end: str = "\n") -> None:
    """Print `text` on stdout; a reader that has seen enough (`| head`) is no error."""
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout again at exit, which must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _read_report(place: Path) -> Report:
    from reportgen.compare.reading import read_report

    return read_report(place)


def _load_manifest(path: Path) -> Manifest:
    from reportgen.manifest import load_manifest

    return load_manifest(path, rule_codes=_rule_codes)


def _rule_codes() -> frozenset[str]:
    from reportgen.sections import SECTIONS

    return frozenset(rule.code for section in SECTIONS for rule in section.rules)


def _exit_status(built: Built, fail_on: FailOn) -> int:
    from reportgen.findings import Severity
    from reportgen.outcome import Failed

    failing = {
        "error": {Severity.ERROR},
        "warning": {Severity.ERROR, Severity.WARNING},
        "never": set(),
    }[fail_on]
    for model in built.report.models:
        if any(isinstance(section.outcome, Failed) for section in model.sections):
            return 1
        if any(budget.passed is False for budget in model.budgets):
            return 1
        if any(f.severity in failing and f.ignored is None for f in model.findings):
            return 1
    return 0
