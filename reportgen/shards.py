"""Parts of a build that several machines make, and what `merge` must know about each."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from reportgen.errors import ReportgenError
from reportgen.outcome import Failed

SHARD_FILE = "shard.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """Part `index` of `count`, from 1."""

    index: int
    count: int

    def holds(self, model: str) -> bool:
        """Whether the model belongs to this shard; adding other models does not change it."""
        digest = hashlib.sha256(model.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index - 1

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """The shard that `--shard` names: `2/8`.

    Raises:
        ReportgenError: it is not of this form, or not one of the parts.
    """
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ReportgenError(
            f"--shard {text!r}: expected INDEX/COUNT, such as 2/8",
            hint="indexes are from 1 to COUNT",
        )
    return Shard(index=int(found[1]), count=int(found[2]))


class ShardNote(BaseModel):
    """`shard.json`: what must be equal in all shards of a build, and the shard's own part.

    Attributes:
        models: names of all models of the build, in order.
        chosen: whether they were chosen by `--model`.
        manifest: SHA-256 of the manifest.
        software: `cache.fingerprint.comparable_software`.
        sections: those that were asked for; empty for all.
        timings: whether the report includes measured times.
        baseline: SHA-256 of the report that it was compared with; "" without one.
        not_loaded: models of this shard that could not be loaded, and why.
    """

    model_config = ConfigDict(frozen=True)

    index: int
    count: int
    models: tuple[str, ...]
    chosen: bool = False
    manifest: str
    software: dict[str, str]
    sections: tuple[str, ...] = ()
    timings: bool = True
    baseline: str = ""
    not_loaded: dict[str, Failed] = {}

    @property
    def shard(self) -> Shard:
        """Which part it is."""
        return Shard(index=self.index, count=self.count)


def read_note(folder: Path) -> ShardNote:
    """The note in the folder of a shard.

    Raises:
        ReportgenError: there is none.
    """
    try:
        return ShardNote.model_validate_json((folder / SHARD_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise ReportgenError(
            f"{folder}: not a shard of a report: no valid {SHARD_FILE}",
            hint="build it with `reportgen build MANIFEST --shard INDEX/COUNT`",
        ) from error
