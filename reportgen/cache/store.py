"""Contents by their hash, and records that refer to them, in one folder on disk.

    objects/ab/abcd...      a content, named by its SHA-256
    records/KEY/abcd...     JSON, named by its SHA-256; its modification time is its last use
    digests/                see `Digests`
    lock                    shared by those that write, exclusive for the one that deletes

Several builds may use one folder, and a build may be killed at any time: a file appears whole
under its name or not at all, and each is compared with its name when it is used.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reportgen.cache.digests import Digests, digest_of, write_whole
from reportgen.outputs import link_or_copy

_SMALL = 2**20  # bytes; smaller files are copied: nobody edits the cache through a report
_FICLONE = 0x40049409  # linux/fs.h: a copy that shares its blocks until one side is changed
_MOST_RECORDS = 16  # of one key
_KEPT = 0.9  # of the limit, after a deletion: not every build deletes
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# https://bford.info/cachedir/\n"

Record = dict[str, Any]
"""What a record contains; the digests in its `objects` are of contents in the store."""


@dataclass(frozen=True, slots=True)
class Store:
    """The cache on disk; `limit` is its size in bytes after `evict`."""

    root: Path
    limit: int

    @property
    def digests(self) -> Path:
        """The folder for `Digests`."""
        return self.root / "digests"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Nothing is deleted in this block.

        Raises:
            OSError: the folder cannot be written.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in (("CACHEDIR.TAG", _TAG), (".gitignore", "*\n")):
            if not (self.root / name).exists():
                write_whole(self.root / name, text.encode())
        with (self.root / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)  # released also if this process is killed
            yield

    def add(self, content: bytes) -> str:
        """Store `content` and return its digest."""
        digest = digest_of(content)
        if self.read(digest) is None:
            write_whole(self._object(digest), content)
        return digest

    def add_file(self, path: Path, digests: Digests) -> str:
        """Store the content of `path`, without a copy if it is large, and return its digest."""
        if path.stat().st_size < _SMALL:
            return self.add(path.read_bytes())
        digest = digests.of_file(path)
        target = self._object(digest)
        if not self._is_intact(digest, digests):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            part = target.with_name(f".{digest}-{os.getpid()}")
            part.unlink(missing_ok=True)
            try:
                clone_or_link(path, part)
                with part.open("rb") as stream:
                    os.fsync(stream.fileno())  # its digest is trusted after a power failure too
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
            digests.remember(target, digest)
        return digest

    def read(self, digest: str) -> bytes | None:
        """The content with this digest; None if it is missing or damaged."""
        with suppress(OSError):
            content = self._object(digest).read_bytes()
            return content if digest_of(content) == digest else None
        return None

    def take_file(self, digest: str, target: Path, digests: Digests) -> bool:
        """Make `target` a file with this content; False if it is missing or damaged."""
        with suppress(OSError):
            source = self._object(digest)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.stat().st_size < _SMALL:
                content = self.read(digest)
                if content is not None:
                    target.write_bytes(content)
                return content is not None
            if self._is_intact(digest, digests):
                clone_or_link(source, target)
                return True
        return False

    def add_record(self, key: str, record: Record) -> None:
        """Store `record` under `key`, beside those that are there."""
        content = json.dumps(record, sort_keys=True).encode()
        write_whole(self._folder(key) / digest_of(content), content)
        for _, path in self._newest_first(key)[_MOST_RECORDS:]:
            path.unlink(missing_ok=True)

    def records(self, key: str) -> Iterator[tuple[Path, Record]]:
        """The intact records under `key`, the most recently used first."""
        for _, path in self._newest_first(key):
            record = _read_record(path)
            if record is not None:
                yield path, record

    def size(self) -> int:
        """Bytes of all files."""
        return sum(_size(path) for path in self.root.rglob("*") if path.is_file())

    def evict(self) -> None:
        """Delete what no record refers to, and the records used least recently beyond `limit`.

        Nothing is deleted while another build writes.
        """
        with (self.root / "lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._evict()

    def _evict(self) -> None:
        records = sorted(
            ((path.stat().st_mtime_ns, path) for path in self.root.glob("records/*/*/*")),
            reverse=True,
        )
        kept, size = set[str](), 0
        full = self._size_of_everything(records) > self.limit
        for _, path in records:
            record = _read_record(path)
            new = set(record["objects"]) - kept if record else set[str]()
            size += _size(path) + sum(_size(self._object(digest)) for digest in new)
            if record is None or (full and size > self.limit * _KEPT):
                path.unlink(missing_ok=True)
                size = size if record is None else self.limit + 1  # older ones are not kept either
            else:
                kept |= new
        for path in self.root.glob("objects/*/*"):
            if path.name not in kept:  # also what a killed build left
                path.unlink(missing_ok=True)
        self._forget_digests()

    def _size_of_everything(self, records: list[tuple[int, Path]]) -> int:
        objects = sum(_size(path) for path in self.root.glob("objects/*/*"))
        return objects + sum(_size(path) for _, path in records)

    def _forget_digests(self) -> None:
        # They are small, and written again where they are needed.
        notes = list(self.digests.glob("*"))
        if len(notes) > 10_000:
            shutil.rmtree(self.digests, ignore_errors=True)

    def _is_intact(self, digest: str, digests: Digests) -> bool:
        with suppress(OSError):
            return digests.of_file(self._object(digest), ours=True) == digest
        return False

    def _object(self, digest: str) -> Path:
        return self.root / "objects" / digest[:2] / digest

    def _folder(self, key: str) -> Path:
        return self.root / "records" / key[:2] / key

    def _newest_first(self, key: str) -> list[tuple[int, Path]]:
        found = []
        for path in self._folder(key).glob("*"):
            with suppress(OSError):  # deleted in the meantime
                found.append((path.stat().st_mtime_ns, path))
        return sorted(found, reverse=True)


def _read_record(path: Path) -> Record | None:
    with suppress(OSError, ValueError):
        content = path.read_bytes()
        if digest_of(content) == path.name:
            record = json.loads(content)
            if isinstance(record, dict) and isinstance(record.get("objects"), list):
                return record
    return None


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def clone_or_link(source: Path, target: Path) -> None:
    """Make `target` the content of `source` without a second copy on disk, if possible.

    Raises:
        OSError: `target` exists, or the disk is full.
    """
    try:
        with source.open("rb") as content, target.open("xb") as clone:
            fcntl.ioctl(clone, _FICLONE, content.fileno())
    except FileExistsError:
        raise
    except OSError:  # the file system has no clones, or it is another disk
        target.unlink(missing_ok=True)
        link_or_copy(source, target)
