"""Messages between parent and child process: the job in, progress out."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from reportgen.manifest import ModelSpec, Target


class Job(BaseModel):
    """One model to analyze, and all that a child process requires for it.

    Attributes:
        sections: names of the sections to analyze, in reading order.
        folder: the folder of this model's files.
        seconds: wall-clock limit of each section, and of loading the model.
        memory_bytes: limit on the private memory of the child.
        threads: number of compute threads of the child.
        timings: whether to measure times.
        shares: how many models' shares of the machine it has; no result depends on them.
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
    shares: int = 1

    @property
    def outcomes(self) -> Path:
        """The folder that has two files per finished section."""
        return self.folder / ".outcomes"

    @property
    def code_file(self) -> Path:
        """Where the child lists the user's Python files that the model is made of, as JSON."""
        return self.outcomes / ".code.json"

    def outcome_file(self, section: str) -> Path:
        """The outcome of `section` as JSON; written last."""
        return self.outcomes / f"{section}.json"

    def inputs_file(self, section: str) -> Path:
        """What the child read for `section`, as `InputsRead` in JSON."""
        return self.outcomes / f"{section}.inputs.json"

    def digests_file(self, section: str) -> Path:
        """What `section` was made of, as `cache.inputs.Inputs` in JSON, of another machine."""
        return self.outcomes / f"{section}.digests.json"


class SectionEvent(StrEnum):
    """Start of a section, or its outcome."""

    STARTED = "started"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


SectionCallback = Callable[[str, SectionEvent], None]
"""Called with a section and what happened to it."""

ProgressCallback = Callable[[str, str, SectionEvent, float], None]
"""Called with model, section, event and seconds since the start of the build."""


class Message(BaseModel):
    """One line from the child: the model is loaded or cannot be, or a section begins or ends.

    Attributes:
        message: of a loaded model its example inputs; else why it cannot be loaded.
    """

    model_config = ConfigDict(frozen=True)
    START: ClassVar = b'{"kind":"'  # of every line

    kind: Literal["loaded", "model_error", "begin", "end"]
    section: str = ""
    seconds: float = 0.0
    message: str = ""
    hint: str = ""
