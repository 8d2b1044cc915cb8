"""Errors that the user can fix: a base class with a hint, and its subclasses."""

from __future__ import annotations


class ReportgenError(Exception):
    """An error that the user can fix: a message with the location, and a hint what to do.

    The command line prints it without a traceback and exits with `status`. Every other exception is
    a bug in reportgen and keeps its traceback.
    """

    status = 2

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ManifestError(ReportgenError):
    """The manifest is not valid; `message` has one line per problem."""


class ModelError(ReportgenError):
    """A model cannot be loaded, or its example inputs cannot be made."""


class OutputError(ReportgenError):
    """The report cannot be written to the output folder."""


class EnvironmentFault(ReportgenError):
    """A required library or program is missing or incompatible."""


class LogError(ReportgenError):
    """A training log cannot be read; `message` contains the file name."""


class BaselineError(ReportgenError):
    """The report to compare with cannot be read."""


class ReviewError(ReportgenError):
    """GitHub cannot be reached or refuses, or a repository has no history to compare with."""


class PublishError(ReportgenError):
    """A report cannot be published: it cannot be read, or the destination fails."""


class HistoryError(ReportgenError):
    """The history cannot be read or written, or a report cannot be added to it."""


class NoResultError(ReportgenError):
    """A report has no such result: the section was not analyzed, does not apply or failed."""


class WatchEnded(SystemExit):
    """Ctrl-C or SIGTERM ended `watch`, which has printed a message; `code` is the exit status."""


class SectionError(Exception):
    """A section cannot be analyzed; becomes `Failed` in the report."""

    def __init__(self, error: str, *, hint: str = "", details: tuple[str, ...] = ()) -> None:
        super().__init__(error)
        self.error = error
        self.hint = hint
        self.details = details
