"""SHA-256 of files; those of large ones are kept, so that an unchanged file is hashed once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_LARGE = 16 * 2**20  # bytes; a tenth of a second to hash
_TICK = 2_000_000_000  # nanoseconds; a file may change twice in one tick of a coarse file system


def digest_of(content: bytes) -> str:
    """The SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of files. Those of large files are kept in `folder` with size, inode and times."""

    folder: Path
    _known: dict[tuple[str, str], str] = field(default_factory=dict)

    def of_file(self, path: Path, *, ours: bool = False) -> str:
        """The digest of the content of `path`.

        Args:
            path: the file.
            ours: whether it is the cache's own. New links change its ctime, which is then ignored,
                and nobody changes it at the moment.

        Raises:
            OSError: it cannot be read.
        """
        signature = _signature(path, ours=ours)
        key = (str(path), signature)
        if key not in self._known:
            self._known[key] = self._kept(path, signature) or self._hash(path, signature, ours)
        return self._known[key]

    def _hash(self, path: Path, signature: str, ours: bool) -> str:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        state = path.stat()
        settled = ours or time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > _TICK
        if settled and _signature(path, ours=ours) == signature:
            self._keep(path, signature, digest)
        return digest

    def remember(self, path: Path, digest: str) -> None:
        """Keep `digest` as that of `path`, a file of the cache that was just written."""
        signature = _signature(path, ours=True)
        self._known[str(path), signature] = digest
        self._keep(path, signature, digest)

    def _keep(self, path: Path, signature: str, digest: str) -> None:
        if path.stat().st_size >= _LARGE:
            with suppress(OSError):  # it is hashed again the next time
                write_whole(self._note(path), json.dumps([signature, digest]).encode())

    def _kept(self, path: Path, signature: str) -> str | None:
        with suppress(OSError, ValueError):
            if path.stat().st_size >= _LARGE:
                known, digest = json.loads(self._note(path).read_bytes())
                return str(digest) if known == signature else None
        return None

    def _note(self, path: Path) -> Path:
        return self.folder / digest_of(os.fsencode(path.absolute()))


def _signature(path: Path, *, ours: bool) -> str:
    state = path.stat()
    times = (state.st_mtime_ns,) if ours else (state.st_mtime_ns, state.st_ctime_ns)
    return " ".join(map(str, (state.st_size, state.st_ino, *times)))


def write_whole(target: Path, content: bytes) -> None:
    """Write `content` to `target`, which appears whole or not at all.

    Raises:
        OSError: the disk is full, or the folder is not writable.
    """
    part = target.with_name(f".{target.name}-{os.getpid()}-{time.monotonic_ns()}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        part.write_bytes(content)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
