"""What a user can fix: one base class, a few children, each with a hint."""

from __future__ import annotations


class ReportgenError(Exception):
    """Something the user can put right: one line that names the place, and a hint what to do.

    The command line prints it without a traceback and ends with `status`.
    Anything that is not a `ReportgenError` is a bug of ours and keeps its traceback.
    """

    status = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ManifestError(ReportgenError):
    """The manifest is not what the contract says; `message` holds one line per complaint."""


class ModelError(ReportgenError):
    """A model cannot be loaded, or its inputs cannot be made."""


class OutputError(ReportgenError):
    """The report cannot be written where it was asked for."""


class EnvironmentFault(ReportgenError):
    """A library or a program this machine should have is missing or does not fit the others."""


class LogError(ReportgenError):
    """A training log cannot be read; `message` names the file."""


class PublishError(ReportgenError):
    """A report cannot be published: it cannot be read, or the place it should go to fails."""


class WatchEnded(SystemExit):
    """Ctrl-C or SIGTERM ended a watch, which has reported it; `code` is the exit status."""


class SectionError(Exception):
    """Raised by the analysis of a section that cannot be done; becomes `Failed` in the report."""

    def __init__(self, error: str, *, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(error)
        self.error = error
        self.hint = hint
        self.details = details
