"""What parent and child tell each other: the job on the way in, progress on the way out."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from reportgen.manifest import ModelSpec, Target


class Job(BaseModel):
    """One model to analyze, complete: a child needs nothing else.

    Attributes:
        sections: names of the sections to analyze, in reading order.
        folder: where the files of this model's report go.
        seconds: wall-clock limit of each section, and of loading the model.
        memory_bytes: limit of the child's own memory; None for the default share of the machine.
        threads: how many threads the child may compute with.
        timings: whether figures of a clock are wanted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: ModelSpec
    targets: tuple[Target, ...]
    sections: tuple[str, ...]
    folder: Path
    seconds: float
    memory_bytes: int
    threads: int
    timings: bool

    @property
    def outcomes(self) -> Path:
        """Where the child leaves one file per finished section."""
        return self.folder / ".outcomes"


class Step(StrEnum):
    """What happened to a section."""

    STARTED = "started"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


Progress = Callable[[str, str, Step, float], None]
"""Called with model, section, step and seconds since the build began."""


class Message(BaseModel):
    """One line from the child: it begins to load, or a section begins or ends, or it gives up."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["begin", "end", "model_error"]
    section: str = ""
    seconds: float = 0.0
    message: str = ""
    hint: str = ""
