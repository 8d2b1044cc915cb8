"""Tables of metrics: Lightning, Keras, ultralytics, timm, Stable-Baselines3, and exports as CSV."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise

from reportgen.errors import LogError
from reportgen.training_logs.growing_file import LineLogReader, TextLine
from reportgen.training_logs.log_run import UNKNOWN_TIME, LogRun
from reportgen.training_logs.points import (
    PointLog,
    finite_number,
    flat_settings,
    is_time_name,
    listed,
    number,
    settings_beside,
    step_name,
    wall_time,
)

_DELIMITERS = ",;\t"
# "nan" is not among them: it is a value that was logged.
_EMPTY = frozenset({"", "none", "null", "na", "n/a", "<na>", "-"})

# Below this many rows, a rising column may still turn out to be something other than the step.
_ROWS_TO_FIND_STEP = 100
_ROWS_HELD = 1000  # rows before the step column is chosen: more would only cost memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """The columns of a table.

    Attributes:
        names: one per column, unique; those of unnamed columns are `column 1` and so on.
        step: index of the step column; None if no column has such a name.
        time: index of the column that may contain wall times.
    """

    delimiter: str
    cells: tuple[str, ...]
    names: tuple[str, ...]
    step: int | None
    time: int | None


def read_header(text: str) -> Header:
    """The header in the first line of a table; cells may be padded with blanks and quoted."""
    # Not csv.Sniffer, which raises for a table with one column.
    delimiter = max(_DELIMITERS, key=text.count)
    cells = tuple(split_row(text, delimiter))
    names = _unique([cell or f"column {place + 1}" for place, cell in enumerate(cells)])
    step = step_name(names)
    time = next((name for name in names if is_time_name(name)), None)
    return Header(
        delimiter=delimiter,
        cells=cells,
        names=names,
        step=None if step is None else names.index(step),
        time=None if time is None else names.index(time),
    )


def split_row(text: str, delimiter: str) -> list[str]:
    """The cells of one line without surrounding blanks.

    Raises:
        csv.Error: a cell is not valid CSV.
    """
    # Hardly any log quotes its cells; splitting is five times as fast as the csv module.
    if '"' not in text:
        return [cell.strip() for cell in text.split(delimiter)]
    row = next(csv.reader([text], delimiter=delimiter, skipinitialspace=True))
    return [cell.strip() for cell in row]


def _unique(names: list[str]) -> tuple[str, ...]:
    # Two columns of one name would be one curve that jumps between them.
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(unique)


def cell_number(cell: str, delimiter: str) -> float | None:
    """A cell as a number; a decimal comma is one only where cells are not separated by commas."""
    if delimiter == ";" and "." not in cell:
        cell = cell.replace(",", ".")
    return number(cell)


class CsvReader(LineLogReader):
    """One file. The step is in the column `step`, `global_step`, `iter` or `epoch`, in this order.

    Without such a column the first column of rising whole numbers is the step, else rows are
    numbered. Empty cells are skipped; `nan` and `inf` are points. The comment lines of
    Stable-Baselines3's monitor give the start time.
    """

    format = "csv"

    @property
    def runs(self) -> list[LogRun]:
        """As in `LogReader`: one run."""
        return [self._run]

    def _reset(self) -> None:
        self._setting_notes: list[str] | None = None
        self._run = LogRun(
            name=self.name,
            format=self.format,
            files=[self.account.file],
            damage=self.account.damage,
        )
        self._points = PointLog(self._run, self.account.file.name)
        self._header: Header | None = None
        self._step_column: int | None = None
        self._columns: list[tuple[str, int]] = []
        self._held: list[tuple[list[str], bool]] | None = None
        self._monitor_start: float | None = None
        self._step = 0.0
        self._rows = 0
        self._without_step = 0
        self._texts: Counter[str] = Counter()
        self._tail: tuple[float, int, Counter[str]] | None = None

    def _resume(self) -> None:
        # With more rows another column may turn out to be the one that only rises.
        unnamed = self._header is not None and self._header.step is None
        if unnamed and self._rows < _ROWS_TO_FIND_STEP:
            self._file.rewind()
            self._begin()
        elif self._tail is not None:
            self._points.undo_provisional()
            self._step, self._without_step, self._texts = self._tail
            self._tail = None
            self._rows -= 1
            self.account.file.records -= 1

    def _read(self, line: TextLine, content: bytes) -> None:
        # A truncated name would become a tag; the line is read again when it is complete.
        if self._header is None and not line.complete:
            return
        try:
            # Excel and PowerShell begin a UTF-8 file with a byte order mark.
            text = content.decode("utf-8-sig" if line.offset == 0 else "utf-8")
            self._read_text(line, text)
        except UnicodeDecodeError:
            self._refuse(line, "not UTF-8")
        except csv.Error as error:
            self._refuse(line, str(error))

    def _refuse(self, line: TextLine, reason: str) -> None:
        if self._header is None:
            raise LogError(
                f"{self.path}: not a table: its first line is {reason}",
                hint="the first line of a CSV log names its columns",
            )
        self._add_damage(line, reason)

    def _read_text(self, line: TextLine, text: str) -> None:
        if not text.strip():
            return
        if "\0" in text:
            self._refuse(line, "NUL bytes")  # what a full disk leaves behind
        elif text.startswith("#"):
            if line.complete:
                self._read_comment(text)
        elif self._header is None:
            self._set_header(line, text)
        else:
            self._read_row(line, split_row(text, self._header.delimiter), self._header)

    def _read_comment(self, text: str) -> None:
        """Stable-Baselines3's monitor begins with `#{"t_start": seconds, "env_id": name}`."""
        try:
            facts = json.loads(text[1:])
        except (ValueError, RecursionError):
            return
        start = number(facts.get("t_start")) if isinstance(facts, dict) else None
        if start is None:
            return
        # A monitor that resumes appends another comment line, with its own start.
        if self._monitor_start is not None:
            self._points.begin_session()
        self._monitor_start = start
        self._run.hyperparameters |= flat_settings(
            {key: value for key, value in facts.items() if key != "t_start"}
        )

    def _set_header(self, line: TextLine, text: str) -> None:
        header = read_header(text)
        # Without a header, nothing states what the columns are.
        if all(cell_number(cell, header.delimiter) is not None for cell in header.cells):
            self._refuse(line, "all numbers")
        self._header = header
        # A monitor has one row per episode and no step: its episode length may happen to rise.
        numbered = header.step is None and self._monitor_start is not None
        self._held = [] if header.step is None and not numbered else None
        self._choose(header.step)

    def _choose(self, step: int | None) -> None:
        """Use the column with index `step` as the step; None numbers the rows."""
        assert self._header is not None  # set with the first line
        self._step_column = step
        # `t` of a monitor is the time of the row; the step is not a metric.
        left_out = {step, self._elapsed_column()}
        names = self._header.names
        self._columns = [(name, i) for i, name in enumerate(names) if i not in left_out]

    def _elapsed_column(self) -> int | None:
        names = self._header.names if self._header else ()
        return names.index("t") if self._monitor_start is not None and "t" in names else None

    def _read_row(self, line: TextLine, cells: list[str], header: Header) -> None:
        width = len(header.names)
        # Some writers end each row, but not the header, with a separator.
        if len(cells) == width + 1 and not cells[-1]:
            cells.pop()
        if len(cells) != width:
            self._add_damage(line, f"{width} cells expected, {len(cells)} found")
        elif tuple(cells) == header.cells:
            # A second process that appended to the file wrote its header again. An incomplete
            # line is read again, and would begin a session twice.
            if line.complete:
                self._points.begin_session()
        elif self._held is not None:
            self._held.append((cells, line.complete))
            if len(self._held) >= _ROWS_HELD:
                self._release(header)
        else:
            self._add_row(cells, header, complete=line.complete)

    def _release(self, header: Header) -> None:
        """Choose the step column from the rows held so far, and add them."""
        held, self._held = self._held or [], None
        # The last number of an incomplete line is cut off: it may seem to fall.
        self._choose(rising_column([cells for cells, complete in held if complete], header))
        for cells, complete in held:
            self._add_row(cells, header, complete=complete)

    def _add_row(self, cells: list[str], header: Header, *, complete: bool) -> None:
        if not complete:
            self._tail = (self._step, self._without_step, self._texts.copy())
        self._set_step(cells, header)
        self._rows += 1
        self.account.file.records += 1
        time, time_column = self._time(cells, header)
        values = []
        for name, place in self._columns:
            cell = cells[place]
            if place == time_column or cell.lower() in _EMPTY:
                continue
            value = cell_number(cell, header.delimiter)
            if value is None:
                self._texts[name] += 1
            else:
                values.append((name, value))
        self._points.add_row(self._step, time, values, provisional=not complete)

    def _set_step(self, cells: list[str], header: Header) -> None:
        if self._step_column is None:
            self._step = float(self._rows)
            return
        step = finite_number(cell_number(cells[self._step_column], header.delimiter))
        if step is not None:
            self._step = step
        else:
            self._without_step += 1

    def _time(self, cells: list[str], header: Header) -> tuple[float, int | None]:
        """The wall time of a row, and the column that holds it."""
        elapsed = self._elapsed_column()
        if self._monitor_start is not None and elapsed is not None:
            seconds = number(cells[elapsed])
            return (self._monitor_start + seconds if seconds is not None else UNKNOWN_TIME), elapsed
        if header.time is None or header.time == self._step_column:
            return UNKNOWN_TIME, None
        time = wall_time(cells[header.time])
        # A column called `time` that holds durations is a metric like any other.
        return time, None if math.isnan(time) else header.time

    def _finish(self) -> None:
        if self._held is not None and self._header is not None:
            self._release(self._header)
        # After the rows: Lightning writes its settings when the first row is logged.
        if self._setting_notes is None:
            beside, self._setting_notes = settings_beside(self.path)
            self._run.hyperparameters = beside | self._run.hyperparameters
        self._run.notes[:] = [*self._setting_notes, *self._own_notes()]

    def _own_notes(self) -> list[str]:
        notes = []
        scalars = self._run.scalars
        # A column of texts is no surprise; a text among numbers is, so its cells are counted.
        without = Counter({name: n for name, n in self._texts.items() if name not in scalars})
        mixed = self._texts - without
        if without:
            notes.append(f"Columns without numbers are ignored: {listed(without)}.")
        if mixed:
            cells = sum(mixed.values())
            notes.append(f"{cells:,} non-numeric cells are ignored, in columns {listed(mixed)}.")
        if self._without_step:
            notes.append(
                f"{self._without_step:,} rows have no step; they use the step of the row before."
            )
        if self._rows and self._step_column is None:
            notes.append("No column contains steps; row numbers are used.")
        return notes


def rising_column(rows: list[list[str]], header: Header) -> int | None:
    """The first column of whole numbers that rise from each row to the next.

    Whole numbers only: an accuracy may rise in every epoch of a short log.
    """
    if len(rows) < 2:
        return None
    for place in range(len(header.names)):
        column = [cell_number(row[place], header.delimiter) for row in rows]
        whole = all(value is not None and value % 1 == 0 for value in column)
        if whole and all(a < b for a, b in pairwise(column)):  # type: ignore[operator]
            return place
    return None
