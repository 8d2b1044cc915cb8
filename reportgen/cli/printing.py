"""What commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import os
import sys

import typer

from reportgen.errors import ManifestError, ReportgenError


def print_text(text: str, end: str = "\n") -> None:
    """Print `text` on stdout; a reader that has seen enough (`| head`) is no error."""
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout again at exit, which must not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_stderr(line: str) -> None:
    """Print `line`; a closed pipe (`2>&1 | head`) or a full disk does not end the command."""
    with contextlib.suppress(OSError):
        typer.echo(escape_control_characters(line), err=True)


def print_error(error: ReportgenError) -> None:
    """Print `error` and its hint.

    Errors in a manifest have no prefix: they start with file and line, a form that editors link.
    """
    prefix = "" if isinstance(error, ManifestError) else "reportgen: "
    hint = f" ({error.hint})" if error.hint else ""
    for line in f"{error.message}{hint}".splitlines():
        print_stderr(prefix + line)


def escape_control_characters(line: str) -> str:
    """`line` with escapes for what a terminal would act on: names and messages come from files."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
