"""Base of readers for logs that are a single document, reread whenever it changes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from reportgen.errors import LogError
from reportgen.training_logs.growing_file import (
    FileAccount,
    FileChanges,
    deletion_note,
    unreadable,
)
from reportgen.training_logs.log_run import LogRun

MAX_DOCUMENT_BYTES = 512 << 20
"""A larger document is refused: it has to be in memory while it is parsed."""


class DocumentReader(ABC):
    """Reads a log that is a single document, and rereads it whenever it changes."""

    format: ClassVar[str]

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._changes = FileChanges(path)
        self._run = LogRun(name=name, format=self.format)
        self._gone = False

    @property
    def runs(self) -> list[LogRun]:
        """As in `LogReader`: one run."""
        return [self._run]

    def update(self) -> bool:
        """As in `LogReader`."""
        change = self._changes.poll()
        if change == "same":
            return False
        if change == "gone":
            return self._note_deletion()
        self._gone = False
        account = FileAccount(self.path, self.path.name, self.format)
        run = LogRun(
            name=self.name, format=self.format, files=[account.file], damage=account.damage
        )
        text = read_document(self.path)
        if text and not text.isspace():  # an empty file is one that its writer has only created
            self._decode(text, run, account)
        account.close(len(text))
        self._run = run
        return True

    def _note_deletion(self) -> bool:
        if self._gone:
            return False
        self._gone = True
        self._run.notes.append(deletion_note(self.path))
        return True

    @abstractmethod
    def _decode(self, text: str, run: LogRun, account: FileAccount) -> None:
        """Fill `run` from a document that is not empty, one character per byte.

        Raises:
            LogError: it is not a document of this format.
        """


def read_document(path: Path) -> str:
    """The content of a file, one character per byte.

    So an index into the text is an offset in the file, and it takes one byte per character.

    Raises:
        LogError: it cannot be read, or is larger than `MAX_DOCUMENT_BYTES`.
    """
    try:
        with path.open("rb") as stream:
            if path.stat().st_size > MAX_DOCUMENT_BYTES:
                raise LogError(
                    f"{path}: larger than the limit of {MAX_DOCUMENT_BYTES >> 20} MB",
                    hint="split it, or log fewer pictures into it",
                )
            return stream.read(MAX_DOCUMENT_BYTES).decode("latin-1")
    except OSError as error:
        raise unreadable(path, error) from error
