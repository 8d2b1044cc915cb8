"""Hashes of the files that a report was made from."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_WHOLE = 64 << 20  # larger logs are sampled: they may have gigabytes, and grow at their end only
_BLOCK = 1 << 20
_BLOCKS = 64

Role = Literal["manifest", "code", "source", "weights", "data", "log"]


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """A file, or a folder of logs, that the report was made from.

    Attributes:
        role: `code` defines the model's classes, `source` is a .pt2, .onnx or config file.
        name: relative to the manifest's folder; the name alone of a file outside of the repository.
        bytes: its size; of a folder the sum.
        sha256: of its content; of a folder of the names, sizes and hashes of its files.
        sampled: the hash covers the size, and 64 blocks of 1 MiB at equal distances, the first
            and the last included.
    """

    role: Role
    name: str
    bytes: int
    sha256: str
    sampled: bool = False


def hash_file(role: Role, path: Path, name: str) -> InputFile | None:
    """Hash the content of `path`; None if it cannot be read. Logs above 64 MiB are sampled."""
    try:
        size = path.stat().st_size
        sampled = role == "log" and size > _WHOLE
        with path.open("rb") as file:
            digest = (
                _sampled(file.fileno(), size)
                if sampled
                else hashlib.file_digest(file, "sha256").hexdigest()
            )
    except OSError:
        return None
    return InputFile(role=role, name=name, bytes=size, sha256=digest, sampled=sampled)


def _sampled(descriptor: int, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    for block in range(_BLOCKS):
        digest.update(os.pread(descriptor, _BLOCK, (size - _BLOCK) * block // (_BLOCKS - 1)))
    return digest.hexdigest()


def hash_log(path: Path, name: str) -> InputFile | None:
    """Hash a log file, or all files of a folder together; None if nothing can be read."""
    if path.is_file():
        return hash_file("log", path, name)
    below = sorted(each for each in path.rglob("*") if each.is_file())
    found = [hash_file("log", each, each.relative_to(path).as_posix()) for each in below]
    files = [each for each in found if each is not None]
    if not files:
        return None
    lines = "\n".join(f"{each.sha256} {each.bytes} {each.name}" for each in files)
    return InputFile(
        role="log",
        name=name,
        bytes=sum(each.bytes for each in files),
        sha256=hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest(),
        sampled=any(each.sampled for each in files),
    )
