"""A manifest for training logs: `reportgen init --logs DIR` prints it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from reportgen.errors import LogError
from reportgen.training_logs.log_run import LogRun
from reportgen.training_logs.log_set import LogSet
from reportgen.units import format_integer

_MOST_TAGS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    text: str
    format: str | None = None

    def matches(self) -> list[Path]:
        path = Path(self.text)
        return [path] if path.exists() else []


def logs_manifest(path: Path) -> str:
    """A manifest whose report holds the training section of the logs at `path` alone.

    Raises:
        LogError: nothing is there, or no log in a known format.
    """
    name = re.sub(r"[^\w.-]", "_", path.resolve().name).strip(".-")[:64] or "training"
    head = [
        "version: 1",
        f"title: {json.dumps(f'Training of {name}', ensure_ascii=False)}",
        "models:",
        f"  - name: {json.dumps(name, ensure_ascii=False)}",
        "    # source: torchvision:resnet50  # the model; `reportgen init SOURCE` finds its inputs",
    ]
    return "\n".join(head) + "\n" + draft_logs(path)


def draft_logs(path: Path) -> str:
    """The keys `logs` and `log_options` of a model, with what was found there as comments.

    Raises:
        LogError: nothing is there, or no log in a known format.
    """
    if not path.exists():
        raise LogError(f"no file or folder {str(path)!r}")
    logs = LogSet(places=(_Place(text=str(path)),))
    logs.update()
    found = logs.runs()
    if not found:
        raise LogError("; ".join(logs.notes) or f"no training logs were found in {str(path)!r}")
    runs = [each.run for each in found]
    tags = sorted({tag for run in runs for tag in run.scalars})
    shown = ", ".join(tags[:_MOST_TAGS]) + (", …" if len(tags) > _MOST_TAGS else "")
    lines = [
        f"    logs: [{json.dumps(str(path), ensure_ascii=False)}]  # {_what(runs)}",
        *([f"    # metrics: {re.sub(r'[^ -~]', '?', shown)}"] if tags else []),
        "    # log_options:",
        "    #   x: step  # or epoch, relative time, wall time, order, or the tag of a metric",
        "    #   planned_steps: 10000  # to see whether a run ended early",
        "    #   directions: {my_score: higher}  # for metrics whose name does not say it",
        "    #   ranges: {val/acc: [0, 1]}  # values outside are reported",
        "    #   reference_lines: [{metric: val/acc, value: 0.1, label: chance}]",
        "    #   average: seed_*  # runs to show as a mean with a band",
    ]
    return "\n".join(lines) + "\n"


def _what(runs: list[LogRun]) -> str:
    formats = ", ".join(sorted({run.format for run in runs}))
    points = sum(len(series) for run in runs for series in run.scalars.values())
    plural = "s" if len(runs) != 1 else ""
    return f"{len(runs)} run{plural}, {formats}, {format_integer(points)} points"
