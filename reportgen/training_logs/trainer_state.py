"""The `trainer_state.json` of the Hugging Face Trainer: one object per logging step.

A truncated file yields every row before the cut.
"""

from __future__ import annotations

from collections import Counter

from reportgen.errors import LogError
from reportgen.training_logs.growing_file import DocumentReader, FileAccount
from reportgen.training_logs.json_scan import Entry, Gap, JsonMember, JsonScan
from reportgen.training_logs.log_run import UNKNOWN_TIME, LogRun
from reportgen.training_logs.points import PointLog, finite_number, flat_settings, listed, number

# Fields of transformers.TrainerState that are settings; the others are progress and callbacks.
_SETTINGS = (
    "train_batch_size",
    "num_train_epochs",
    "max_steps",
    "logging_steps",
    "eval_steps",
    "save_steps",
)


class TrainerStateReader(DocumentReader):
    """One file. Points are at `step`; the epoch is a scalar like the others."""

    format = "hf trainer state"

    def _decode(self, text: str, run: LogRun, account: FileAccount) -> None:
        scan = JsonScan(text, "log_history", "[", _is_row)
        rows = _HistoryRows(run, account.file.name)
        for part in scan.parts():
            if isinstance(part, Gap):
                account.add_damage(part.start, part.end - part.start, part.reason)
            elif isinstance(part, JsonMember):
                _add_member(part, run, account)
            elif isinstance(part.value, dict):
                rows.add(part.value)
                account.file.records += 1
            else:
                _add_damage(part, account, "a row of log_history is not an object")
        if not scan.found_container:
            raise LogError(f"{self.path}: not a trainer state: it has no list 'log_history'")
        run.notes += rows.notes()


def _is_row(value: object) -> bool:
    return isinstance(value, dict) and ("step" in value or "epoch" in value)


def _add_damage(part: JsonMember | Entry, account: FileAccount, reason: str) -> None:
    account.add_damage(part.start, part.end - part.start, reason)


def _add_member(member: JsonMember, run: LogRun, account: FileAccount) -> None:
    if member.key == "log_history":
        _add_damage(member, account, "log_history is not a list")
    elif member.key == "max_steps":
        steps = finite_number(member.value)
        # 0 until the Trainer has computed it; a damaged file may hold any number.
        run.planned_steps = int(steps) if steps is not None and 0 < steps < 1e15 else None
    if member.key in _SETTINGS and isinstance(member.value, str | int | float | bool):
        run.hyperparameters[member.key] = member.value
    elif member.key == "trial_params" and isinstance(member.value, dict):
        run.hyperparameters |= flat_settings(member.value)


class _HistoryRows:
    def __init__(self, run: LogRun, file: str) -> None:
        self._points = PointLog(run, file)
        self._step = 0.0
        self._ignored: Counter[str] = Counter()

    def add(self, row: dict[str, object]) -> None:
        step = finite_number(row.get("step"))
        # A row without a step is the summary that some versions write at the end.
        self._step = self._step if step is None else step
        numbers = {key: read for key, value in row.items() if (read := number(value)) is not None}
        # A list or a text among the metrics, such as a confusion matrix.
        self._ignored.update(row.keys() - numbers.keys())
        numbers.pop("step", None)
        if numbers:
            # The Trainer logs no wall times.
            self._points.add_row(self._step, UNKNOWN_TIME, list(numbers.items()))

    def notes(self) -> list[str]:
        if not self._ignored:
            return []
        return [f"Non-numeric entries are ignored: {listed(self._ignored)}."]
