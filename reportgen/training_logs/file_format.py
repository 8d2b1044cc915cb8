"""Detects the format of a file by its content; recognizes stores that cannot be read."""

from __future__ import annotations

import csv
import json
import re
import stat
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from reportgen.training_logs import mlflow, trackio
from reportgen.training_logs.csv_log import Header, cell_number, read_header, split_row
from reportgen.training_logs.growing_file import unreadable
from reportgen.training_logs.points import number, step_name
from reportgen.training_logs.sqlite_file import DATABASE_ERRORS, MAGIC, columns_of, open_database
from reportgen.training_logs.tensorboard.frames import HEADER_SIZE, payload_length
from reportgen.training_logs.visdom.client_log import is_message

_FIRST_BYTES = 4096  # enough to recognize a binary file
_HEAD_BYTES = 64 << 10  # of a text file: several rows, of which some may be long
_WHOLE_BYTES = 64 << 20  # a JSON document up to this size is searched for its marker as a whole
_GZIP = b"\x1f\x8b"
_WANDB = b":W&B"
# Regular expressions, not a parser: a document may be 100 MB, and may be cut short.
_ENVIRONMENT = re.compile(rb'"jsons"\s*:\s*[{\[]')
_TRAINER_STATE = re.compile(rb'"log_history"\s*:\s*\[')
# Parts of column names; a table of samples and labels has none of them.
_METRIC = re.compile(
    r"loss|acc|err|f1|auc|\bmap|iou|dice|bleu|rouge|perplexity|ppl|reward|rew\b|score|\blr\b"
    r"|learning_rate|grad_norm|psnr|ssim|val_|train|precision|recall"
)

_WANDB_ADVICE = (
    "a W&B run, whose format is private: upload it with `wandb sync`, then write "
    "`wandb.Api().run(...).history()` to a CSV file and name that file here"
)
_AIM_ADVICE = (
    "an aim repository, whose format is private: write the dataframes of "
    "`aim.Repo(...).query_metrics()` to a CSV file and name that file here"
)
_GZIP_ADVICE = "compressed with gzip, not an event file: unpack it with gunzip first"


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFormat:
    """The format detected from a file's content.

    Attributes:
        name: as in `FORMATS`; "" for none of them.
        sure: False for a table that may be a data set rather than a training log.
        problem: why a recognized store cannot be read, and how to convert it.
    """

    name: str = ""
    sure: bool = True
    problem: str = ""


_UNKNOWN = FileFormat()


def detect_format(path: Path) -> str | None:
    """The format of a file, or "mlflow folder" for the folder of such a run; None if unknown.

    Raises:
        LogError: the file cannot be read.
    """
    return analyze(path).name or None


def unsupported_store(path: Path) -> str | None:
    """Why the store at `path` cannot be read and how to convert it; None for any other path.

    Recognizes W&B (`*.wandb` files, `wandb` folders), aim (`.aim`) and gzipped event files.

    Raises:
        LogError: the file cannot be read.
    """
    return analyze(path).problem or None


def analyze(path: Path) -> FileFormat:
    """Detect the format of a file or a folder by its content.

    Raises:
        LogError: it cannot be read.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return _detect_folder(path)
        if not stat.S_ISREG(status.st_mode):
            return _UNKNOWN  # opening a pipe would wait for its writer
        detected = _detect_file(path, status.st_size, status.st_mtime_ns)
        return _detect_database(path) if detected is None else detected
    except OSError as error:
        raise unreadable(path, error) from error


def _detect_folder(path: Path) -> FileFormat:
    if path.name == ".aim":
        return FileFormat(problem=_AIM_ADVICE)
    if path.name == "wandb" and any(_is_wandb_run(entry) for entry in path.iterdir()):
        return FileFormat(problem=_WANDB_ADVICE)
    return FileFormat(name="mlflow folder") if _is_mlflow_run(path) else _UNKNOWN


def _is_wandb_run(folder: Path) -> bool:
    return folder.name.startswith(("run-", "offline-run-")) and folder.is_dir()


# A watch searches its folders again and again; size and time are the key of an unchanged file.
@lru_cache(maxsize=20_000)
def _detect_file(path: Path, _size: int, _changed: int) -> FileFormat | None:
    """The format; None for a database, whose tables may change without the file."""
    with path.open("rb") as stream:
        head = stream.read(_FIRST_BYTES)
        # By name even if damaged or empty: its reader reports the damage, and it may grow.
        if "tfevents" in path.name and not head.startswith(_GZIP):
            return FileFormat(name="tensorboard")
        if head.startswith(MAGIC):
            return None
        if b"\0" not in head:  # pictures and weights need not be read further
            head += stream.read(_HEAD_BYTES - _FIRST_BYTES)
    if path.suffix == ".wandb" or head.startswith(_WANDB):
        return FileFormat(problem=_WANDB_ADVICE)
    if head.startswith(_GZIP):
        events = "tfevents" in path.name or _holds_events(head)
        return FileFormat(problem=_GZIP_ADVICE) if events else _UNKNOWN
    if _is_event_header(head):
        return FileFormat(name="tensorboard")
    return _detect_text(path, head)


def _holds_events(head: bytes) -> bool:
    # Not gzip.decompress, which needs the whole file; wbits 31 means a gzip header.
    try:
        return _is_event_header(zlib.decompressobj(wbits=31).decompress(head, 64))
    except zlib.error:
        return False


def _is_event_header(head: bytes) -> bool:
    return payload_length(head[:HEADER_SIZE]) is not None


def _detect_database(path: Path) -> FileFormat:
    try:
        with open_database(path) as connection:
            columns = columns_of(connection, "metrics")
    except DATABASE_ERRORS as error:
        return FileFormat(problem=f"a SQLite database that cannot be read: {error}")
    if columns >= mlflow.METRIC_COLUMNS:
        return FileFormat(name="mlflow")
    return FileFormat(name="trackio") if columns >= trackio.METRIC_COLUMNS else _UNKNOWN


def _detect_text(path: Path, head: bytes) -> FileFormat:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    # NUL bytes after the first line are what a full disk or a power cut leaves in a log.
    if not text or b"\0" in text.partition(b"\n")[0]:
        return _UNKNOWN
    if text.startswith(b"["):
        return FileFormat(name="visdom client log") if _is_client_log(path, head) else _UNKNOWN
    if text.startswith(b"{"):
        return _detect_json(path, head)
    return _detect_table(head)


def _first_line(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.readline(_WHOLE_BYTES).removeprefix(b"\xef\xbb\xbf")


def _is_client_log(path: Path, head: bytes) -> bool:
    """Whether one of the first lines is a message; the first may be longer than `head`."""
    lines = [_first_line(path), *head.split(b"\n")[1:50]]
    return any(is_message(_parsed(line)) for line in lines)


def _parsed(text: bytes) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _detect_json(path: Path, head: bytes) -> FileFormat:
    markers = ((_ENVIRONMENT, "visdom"), (_TRAINER_STATE, "hf trainer state"))
    for pattern, format_name in markers:
        if pattern.search(head):
            return FileFormat(name=format_name)
    if _is_json_lines(_first_line(path), head):
        return FileFormat(name="json lines")
    # Coming versions of visdom may write tags and histories before the panes.
    if len(head) == _HEAD_BYTES and path.stat().st_size <= _WHOLE_BYTES:
        content = path.read_bytes()
        return next((FileFormat(name=f) for p, f in markers if p.search(content)), _UNKNOWN)
    return _UNKNOWN


def _is_json_lines(first: bytes, head: bytes) -> bool:
    """Whether lines are objects with numbers: two of them, or one with a step."""
    lines = [first, *head.split(b"\n")[1:50]]
    rows = [row for row in map(_parsed, filter(bytes.strip, lines)) if isinstance(row, dict)]
    numbers = [[key for key, value in row.items() if number(value) is not None] for row in rows]
    if not rows or not isinstance(_parsed(first), dict):
        return False
    # A single object may be any JSON file, such as a config, unless it has a step.
    if sum(map(bool, numbers)) >= 2:
        return True
    return len(numbers[0]) >= 2 and step_name(tuple(numbers[0])) is not None


def _detect_table(head: bytes) -> FileFormat:
    """A header and rows of numbers; sure if a column is named like a step or a metric."""
    lines = _lines(head)
    monitor = bool(lines) and lines[0].startswith("#{")
    lines = [line for line in lines if not line.startswith("#")]
    if not lines:
        return _UNKNOWN
    try:
        header = read_header(lines[0])
        numeric = _numeric_rows(lines, header)
    except csv.Error:
        return _UNKNOWN
    if len(header.names) < 2:
        return _UNKNOWN
    if any(cell_number(cell, header.delimiter) is not None for cell in header.cells):
        return _UNKNOWN  # rows of numbers without names
    # A data set, too, is a header and numbers.
    looks_logged = bool(_METRIC.search(" ".join(header.names).lower()))
    if len(lines) == 1 and header.step is not None and looks_logged:
        return FileFormat(name="csv", sure=False)  # a training that has logged nothing yet
    if numeric < (1 if header.step is not None or monitor else 2):
        return _UNKNOWN
    return FileFormat(name="csv", sure=header.step is not None or looks_logged or monitor)


def _lines(head: bytes) -> list[str]:
    """The first lines with content; the last one is left out where it may be cut off."""
    try:
        text = head.decode("utf-8-sig")
    except UnicodeDecodeError:
        # `head` may end inside a character, or a line be damaged: complete lines are enough.
        text = head[: head.rfind(b"\n") + 1].decode("utf-8-sig", "replace")
    lines = text.splitlines()
    if len(head) == _HEAD_BYTES:
        lines = lines[:-1]
    return [line for line in lines[:200] if line.strip()]


def _numeric_rows(lines: list[str], header: Header) -> int:
    """How many rows have as many cells as the header and a number in one of them."""
    rows = (split_row(line, header.delimiter) for line in lines[1:])
    return sum(
        len(row) == len(header.names)
        and any(cell_number(cell, header.delimiter) is not None for cell in row)
        for row in rows
    )


def _is_mlflow_run(folder: Path) -> bool:
    meta = folder / "meta.yaml"
    try:
        if not meta.is_file() or not (folder / "metrics").is_dir():
            return False
        with meta.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError:
        return False
    return b"run_id:" in head or b"run_uuid:" in head
