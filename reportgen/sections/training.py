"""Training: status from TensorBoard and visdom logs."""

from __future__ import annotations

from dataclasses import dataclass

from reportgen.chapter import Section, Skipped
from reportgen.study import Subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What the logs say; no reader exists in this version, so there is never one."""


def examine(study: Subject) -> Training | Skipped:
    """Skip: logs are read by a later version of reportgen."""
    if study.has_logs:
        return Skipped(reason="reading training logs is not part of this version of reportgen")
    return Skipped(reason="the manifest names no logs for this model")


SECTION = Section(
    name="training",
    title="Training",
    result=Training,
    examine=examine,
    examine_file=examine,
    rules=(),
)
