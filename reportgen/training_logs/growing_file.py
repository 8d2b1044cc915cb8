"""Files that grow or are rewritten: readers of lines and of whole documents, and damage in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

from reportgen.errors import LogError
from reportgen.training_logs.log_run import Damage, LogFile, LogRun

LONGEST_LINE_BYTES = 64 << 20
"""A longer line counts as damage: no training loop logs that much in one line."""

Change = Literal["same", "grown", "new", "gone"]

# Of the start and the end of what was read: enough to notice a rewritten file, cheap to compare.
_PROBE_BYTES = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class TextLine:
    """One line of a file.

    Attributes:
        size_bytes: with the line's end.
        content: without it; None for a line longer than `LONGEST_LINE_BYTES`.
        complete: whether it ends in a line feed; only the last line of a file may not.
    """

    offset: int
    size_bytes: int
    content: bytes | None
    complete: bool


class FileChanges:
    """Whether a file changed since the last call."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths
        self._stamp: tuple[tuple[int, int, int], ...] | None = None

    def poll(self) -> Change:
        """How the first path changed; the others count as content of the first.

        Returns:
            "new" at first, "grown" after any change, "gone" when a file that was there is not.

        Raises:
            LogError: the file cannot be examined, or never was there.
        """
        try:
            stamp = tuple(_stamp(path, required=path == self._paths[0]) for path in self._paths)
        except FileNotFoundError as error:
            if self._stamp is None:
                raise unreadable(self._paths[0], error) from error
            return "gone"
        except OSError as error:
            raise unreadable(self._paths[0], error) from error
        if stamp == self._stamp:
            return "same"
        # Taken before the file is read: what is appended meanwhile counts as the next change.
        first = self._stamp is None
        self._stamp = stamp
        return "new" if first else "grown"


def _stamp(path: Path, *, required: bool) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        if required:
            raise
        return (0, 0, 0)
    # The inode too: a new file that was renamed over the old one may have the same size.
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def unreadable(path: Path, error: OSError) -> LogError:
    """The error for a file that cannot be opened or read."""
    reason = (error.strerror or type(error).__name__).lower()
    return LogError(f"{path}: cannot be read: {reason}", hint="check the path and its permissions")


class GrowingFile:
    """The lines of a file; each call of `lines` continues where the last one ended.

    Attributes:
        offset: every line before it was yielded for good.
        size_bytes: the end of the last line yielded, an incomplete one included.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0
        self.size_bytes = 0
        self._changes = FileChanges(path)
        self._head = b""
        self._last = b""

    def poll(self) -> Change:
        """As `FileChanges.poll`; "new" also when the file no longer continues what was read."""
        change = self._changes.poll()
        if change == "grown" and not self._continues():
            change = "new"
        if change == "new":
            self.rewind()
        return change

    def rewind(self) -> None:
        """Go back to the start of the file."""
        self.offset = self.size_bytes = 0
        self._head = self._last = b""

    def lines(self) -> Iterator[TextLine]:
        """The lines after `offset`; an incomplete last one is repeated when the file has grown."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                yield from self._lines(stream)
                self._remember(stream)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def accept(self, line: TextLine) -> None:
        """Count an incomplete line as complete: `lines` does not yield it again."""
        self.offset = line.offset + line.size_bytes

    def _lines(self, stream: BinaryIO) -> Iterator[TextLine]:
        while content := stream.readline(LONGEST_LINE_BYTES):
            start, size = self.offset, len(content)
            long = size == LONGEST_LINE_BYTES and not content.endswith(b"\n")
            # A long line is passed over in pieces: it may be a file of zeros of any size.
            while long and (more := stream.readline(1 << 20)):
                size += len(more)
                content = more[-1:]
                long = content != b"\n"
            complete = content.endswith(b"\n")
            too_long = size > LONGEST_LINE_BYTES
            if complete:
                self.offset = start + size
            self.size_bytes = start + size
            yield TextLine(
                offset=start,
                size_bytes=size,
                content=None if too_long else content.rstrip(b"\r\n"),
                complete=complete,
            )
            if not complete:
                return

    def _remember(self, stream: BinaryIO) -> None:
        stream.seek(0)
        self._head = stream.read(min(_PROBE_BYTES, self.offset))
        stream.seek(max(0, self.offset - _PROBE_BYTES))
        self._last = stream.read(min(_PROBE_BYTES, self.offset))

    def _continues(self) -> bool:
        # Loggers rewrite a whole file when a column is added, often to the same size or more, so
        # the size does not distinguish an appended file from a rewritten one.
        try:
            with self.path.open("rb") as stream:
                if stream.read(len(self._head)) != self._head:
                    return False
                stream.seek(self.offset - len(self._last))
                return stream.read(len(self._last)) == self._last
        except OSError as error:
            raise unreadable(self.path, error) from error


class FileAccount:
    """How much of one file was read, and which stretches could not be.

    Attributes:
        file: brought up to date by `close`.
        damage: in the order of the file; neighboring stretches are one.
    """

    def __init__(self, path: Path, name: str, format_name: str) -> None:
        self.file = LogFile(path=path, name=name, format=format_name)
        self.damage: list[Damage] = []

    def add_damage(self, offset: int, size_bytes: int, reason: str) -> None:
        """Record that a stretch could not be read."""
        # A file of another kind would otherwise be damage line by line, a million times.
        if self.damage and self.damage[-1].offset + self.damage[-1].size_bytes == offset:
            last = self.damage.pop()
            offset, size_bytes, reason = last.offset, last.size_bytes + size_bytes, last.reason
        self.damage.append(
            Damage(file=self.file.name, offset=offset, size_bytes=size_bytes, reason=reason)
        )

    def drop_damage_from(self, offset: int) -> None:
        """Drop what was recorded of the file from `offset` on."""
        while self.damage and self.damage[-1].offset + self.damage[-1].size_bytes > offset:
            last = self.damage.pop()
            if last.offset < offset:
                self.add_damage(last.offset, offset - last.offset, last.reason)

    def close(self, size_bytes: int) -> None:
        """Set the file's size and, from the damage, the bytes that were read."""
        self.file.size_bytes = size_bytes
        self.file.read_bytes = size_bytes - sum(stretch.size_bytes for stretch in self.damage)


class FileReader(ABC):
    """Base of the readers of one file, which is read whenever it has changed."""

    format: ClassVar[str]

    def __init__(self, path: Path, name: str, changes: FileChanges | GrowingFile) -> None:
        self.path = path
        self.name = name
        self._changes = changes
        self._deleted = False

    @property
    @abstractmethod
    def runs(self) -> list[LogRun]:
        """As in `LogReader`."""

    def update(self) -> bool:
        """As in `LogReader`."""
        change = self._changes.poll()
        if change == "same" or (change == "gone" and self._deleted):
            return False
        self._deleted = change == "gone"
        if self._deleted:
            # One note per file: a database of many runs would repeat it on each of them.
            for run in self.runs[:1]:
                run.notes.append(f"{self.path.name} was deleted; the points read before are kept.")
        else:
            self._read_changes(change)
        return True

    @abstractmethod
    def _read_changes(self, change: Change) -> None:
        """Read a file that is "new" or has "grown"."""


class LineLogReader(FileReader):
    """Base of the readers of logs that hold one row or message per line."""

    def __init__(self, path: Path, name: str) -> None:
        self._file = GrowingFile(path)
        super().__init__(path, name, self._file)
        self._begin()

    def _read_changes(self, change: Change) -> None:
        if change == "new":
            self._begin()
        else:
            # The last line may have been damage only because it was incomplete.
            self.account.drop_damage_from(self._file.offset)
            self._resume()
        for line in self._file.lines():
            self._read_line(line)
        self.account.close(self._file.size_bytes)
        self._finish()

    def _begin(self) -> None:
        self.account = FileAccount(self.path, self.path.name, self.format)
        self._reset()

    def _read_line(self, line: TextLine) -> None:
        if line.content is None:
            self._add_damage(line, f"line longer than {LONGEST_LINE_BYTES >> 20} MB")
        else:
            self._read(line, line.content)

    def _add_damage(self, line: TextLine, reason: str) -> None:
        suffix = "" if line.complete else " (incomplete last line)"
        self.account.add_damage(line.offset, line.size_bytes, reason + suffix)

    @abstractmethod
    def _reset(self) -> None:
        """Make the runs empty."""

    @abstractmethod
    def _resume(self) -> None:
        """Undo the points of an incomplete last line, which will be read again."""

    @abstractmethod
    def _read(self, line: TextLine, content: bytes) -> None:
        """Add a line to the runs, or record it as damage."""

    @abstractmethod
    def _finish(self) -> None:
        """Bring notes and counts up to date after the last line."""


MAX_DOCUMENT_BYTES = 512 << 20
"""A larger document is refused: it has to be in memory while it is parsed."""


class DocumentReader(FileReader):
    """Reads a log that is a single document, and rereads it whenever it changes."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, name, FileChanges(path))
        self._run = LogRun(name=name, format=self.format)

    @property
    def runs(self) -> list[LogRun]:
        """As in `LogReader`: one run."""
        return [self._run]

    def _read_changes(self, change: Change) -> None:
        del change  # a document is rewritten as a whole: nothing of it can be kept
        account = FileAccount(self.path, self.path.name, self.format)
        run = LogRun(
            name=self.name, format=self.format, files=[account.file], damage=account.damage
        )
        text = read_document(self.path)
        if text and not text.isspace():  # an empty file is one that its writer has only created
            self._decode(text, run, account)
        account.close(len(text))
        # Only now: if the new content is not readable, the run read before stays.
        self._run = run

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
            # Refused before it is read: half a document would look damaged, not too large.
            if path.stat().st_size > MAX_DOCUMENT_BYTES:
                raise LogError(
                    f"{path}: larger than the limit of {MAX_DOCUMENT_BYTES >> 20} MB",
                    hint="split it, or log fewer pictures into it",
                )
            # Bounded all the same: the file may grow while it is read.
            return stream.read(MAX_DOCUMENT_BYTES).decode("latin-1")
    except OSError as error:
        raise unreadable(path, error) from error
