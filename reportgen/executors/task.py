"""What a worker receives: one model to analyze, as JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from reportgen.workers import Job


class Remote(BaseModel):
    """What a worker outside this process must have as this machine has it.

    Attributes:
        software: `software_digest` of this machine.
        files: path -> SHA-256 of the manifest and the files that it names for this model.
        folder: the current folder, from which a model's code may open files.
        cpu: `cache.fingerprint.describe_machine` of this machine, in JSON.
        started_ns: when the build began, in nanoseconds.
        shared: a folder for large files that all machines see; None without one.
    """

    model_config = ConfigDict(frozen=True)

    software: str
    files: dict[str, str] = {}
    folder: Path
    cpu: str
    started_ns: int
    shared: Path | None = None


class Task(BaseModel):
    """One model to analyze.

    Attributes:
        id: the answer has the same; no two tasks have it.
        job: the model. Its folder is used by a thread of this process, other workers use a
            temporary one.
        remote: for workers outside this process; None for its threads.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    job: Job
    remote: Remote | None = None

    def to_json(self) -> str:
        """As `examine` takes it."""
        # what the manifest leaves out stays left out: an input without a dtype, say
        return self.model_dump_json(exclude_unset=True)
