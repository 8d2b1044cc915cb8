"""Logs with one JSON object per line: detectron2, mmengine, and loggers of one's own."""

from __future__ import annotations

import json
import math
from collections import Counter

from reportgen.training_logs.growing_file import LineLogReader, TextLine
from reportgen.training_logs.json_scan import json_error
from reportgen.training_logs.log_run import UNKNOWN_TIME, LogRun
from reportgen.training_logs.points import (
    PointLog,
    is_time_name,
    listed,
    number,
    step_name,
    wall_time,
)

_MODES = frozenset({"train", "val", "validation", "valid", "eval", "test"})


class JsonLinesReader(LineLogReader):
    """One file. A row's step is its `step`, `global_step`, `iter` or `epoch`, in this order.

    A row without any takes the step of the row before it; in a log without steps the rows are
    numbered. Rows with `mode: train` or `mode: val` (mmcv) have tags of their own.
    """

    format = "json lines"

    @property
    def runs(self) -> list[LogRun]:
        """As in `LogReader`: one run."""
        return [self._run]

    def _reset(self) -> None:
        self._run = LogRun(
            name=self.name,
            format=self.format,
            files=[self.account.file],
            damage=self.account.damage,
        )
        self._points = PointLog(self._run, self.account.file.name)
        self._step: float | None = None
        self._without_step = 0
        self._ignored: Counter[str] = Counter()

    def _resume(self) -> None:
        """Nothing to undo: a line that is a complete JSON object cannot grow."""

    def _read(self, line: TextLine, content: bytes) -> None:
        text = content.removeprefix(b"\xef\xbb\xbf").strip()
        if not text:
            return
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            self._add_damage(line, json_error(error))
            return
        if not isinstance(row, dict):
            self._add_damage(line, f"a {type(row).__name__} instead of an object")
            return
        # Even without a line feed: a closed object cannot grow.
        self._file.accept(line)
        self.account.file.records += 1
        self._add(row)

    def _add(self, row: dict[str, object]) -> None:
        # The step by its name among numbers only: `"epoch": "last"` is not a step.
        numbers = {key: read for key, value in row.items() if (read := number(value)) is not None}
        name = step_name(tuple(numbers))
        clock, time = self._time(row)
        mode = row.get("mode")
        # mmcv writes both under the same names, with the mode beside them.
        prefix = f"{mode}/" if isinstance(mode, str) and mode in _MODES else ""
        self._ignored.update(row.keys() - numbers.keys() - {clock, "mode" if prefix else None})
        values = [(prefix + k, value) for k, value in numbers.items() if k not in (name, clock)]
        if values:
            self._points.add_row(self._step_of(numbers, name), time, values)

    def _time(self, row: dict[str, object]) -> tuple[str | None, float]:
        """The key of the wall time and the time; None where the row has none."""
        for key, value in row.items():
            if is_time_name(key) and not math.isnan(time := wall_time(value)):
                return key, time
        return None, UNKNOWN_TIME

    def _step_of(self, numbers: dict[str, float], name: str | None) -> float:
        step = numbers[name] if name is not None else math.nan
        if math.isfinite(step):
            self._step = step
        elif self._step is None:
            # Not stored: a log whose first rows lack a step may have steps later.
            return float(self.account.file.records - 1)
        else:
            self._without_step += 1
        return self._step

    def _finish(self) -> None:
        notes = []
        if self._ignored:
            notes.append(f"Non-numeric entries are ignored: {listed(self._ignored)}.")
        if self._without_step:
            notes.append(
                f"{self._without_step:,} rows have no step; they use the step of the row before."
            )
        if self._step is None and self._run.scalars:
            notes.append("The log has no steps; row numbers are used.")
        self._run.notes[:] = notes
