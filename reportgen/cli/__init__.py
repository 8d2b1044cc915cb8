"""The command line: one file per command, or per group of small ones.

Exit status: 0 without problems; 1 if the report was written, but a section failed, a budget is
exceeded or a finding reaches `--fail-on`; 2 if no report was written; 3 if an estimated step does
not fit; 130 if interrupted.
"""

from __future__ import annotations

import atexit
import errno
import gc
import signal
import sys
from types import FrameType
from typing import Annotated, NoReturn

import typer

from reportgen import __version__
from reportgen.cli import (
    build,
    compare,
    doctor,
    estimate,
    graph,
    history,
    manifests,
    merge,
    publish,
    reference,
    review,
    watch,
)
from reportgen.cli.printing import print_error, print_stderr, print_text
from reportgen.errors import OutputError, ReportgenError, WatchEnded

# A shell reports 128 plus the number of the signal; click ends with 130 on Ctrl-C.
_ENDED = {
    130: "interrupted",
    128 + signal.SIGTERM: "stopped by SIGTERM",
    128 + signal.SIGHUP: "stopped by SIGHUP",
}
# Commands import what they need themselves: --help, check and gpus must not wait for torch.
_COMMANDS = (
    build.build,
    manifests.check,
    manifests.init,
    estimate.estimate,
    graph.graph,
    merge.merge,
    compare.compare,
    watch.watch,
    publish.publish,
    review.annotate,
    review.comment,
    reference.rules,
    reference.gpus,
    reference.schema,
    doctor.doctor,
)

app = typer.Typer(
    name="reportgen",
    help="Analyze PyTorch models and write reports.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich would read a default in brackets, [reports/...], as markup
    pretty_exceptions_enable=False,  # a bug is a plain traceback, to be pasted into an issue
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in _COMMANDS:
    app.command()(command)
app.add_typer(history.history_app, name="history")


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print_text(f"reportgen {__version__}")
        raise typer.Exit


# Between collections. Importing torch makes half a million objects that stay: with Python's own
# figure, 700, it takes a fifth longer.
_NEW_OBJECTS = 20_000


def main() -> NoReturn:
    """Run the command line and exit with its status; a `ReportgenError` is printed as one line."""
    gc.set_threshold(_NEW_OBJECTS)
    atexit.register(_keep_objects)
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        signal.signal(signal.SIGHUP, _terminate)
    try:
        app()
    except ReportgenError as error:
        print_error(error)
        sys.exit(error.status)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:  # any other is a bug
            raise
        print_error(OutputError("the disk is full", hint="free disk space and try again"))
        sys.exit(OutputError.status)
    except SystemExit as end:
        printed = isinstance(end, WatchEnded)  # watch prints its own last line
        if isinstance(end.code, int) and end.code in _ENDED and not printed:
            print_stderr(f"reportgen: {_ENDED[end.code]}; the previous report was not modified")
        raise
    raise AssertionError("typer always exits")


def _keep_objects() -> None:
    # At its end, Python looks for garbage among all objects for 0.2 seconds. It must where torch is
    # imported: Triton prints what is left.
    if "torch" not in sys.modules:
        gc.freeze()


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    # By an exception, so that `finally` blocks run when a scheduler sends SIGTERM.
    sys.exit(128 + number)
