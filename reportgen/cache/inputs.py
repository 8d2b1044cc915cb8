"""The inputs of a result with the digests of their contents, to find out whether one changed."""

from __future__ import annotations

import importlib.machinery
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from reportgen.cache.digests import Digests, digest_of
from reportgen.cache.influences import find_influences
from reportgen.manifest import ModelSpec
from reportgen.workers.inputs_read import InputsRead

_SUFFIXES = tuple(importlib.machinery.all_suffixes())
_DECLARE = (
    "declare what it depends on in the manifest, cache: {depends: [...]}, or cache: {never: true}"
)


class NotCacheableError(Exception):
    """A result must not be stored, and why."""


class Inputs(BaseModel):
    """What a result was made of.

    Attributes:
        files: path -> digest; None if there was no such file.
        listed: folder -> digest of the names in it; None if there was no such folder.
        searched: folder -> its entries that are modules named in `imported`.
        imported: names of modules that were searched.
        variables: environment variable -> digest of its value; None if it was not set.
    """

    model_config = ConfigDict(frozen=True)

    files: dict[str, str | None]
    listed: dict[str, str | None] = {}
    searched: dict[str, tuple[str, ...]] = {}
    imported: frozenset[str] = frozenset()
    variables: dict[str, str | None] = {}

    def are_unchanged(self, digests: Digests) -> bool:
        """Whether everything still has the content that it had; stops at the first change."""
        return (
            all(_digest(path, digests) == known for path, known in self.files.items())
            and all(_listing(folder) == known for folder, known in self.listed.items())
            and all(
                _modules(folder, self.imported) == known for folder, known in self.searched.items()
            )
            and all(_variable(name) == known for name, known in self.variables.items())
        )


def inputs_of(
    read: InputsRead, spec: ModelSpec, started_ns: int, digests: Digests, *, uses_model: bool
) -> Inputs:
    """`read` by the child and what the manifest names, with the contents of now.

    Args:
        read: for one section.
        spec: the manifest's entry of the model.
        uses_model: whether the section depends on more than logs.
        started_ns: when the build began, in nanoseconds; files must not have changed since.
        digests: of files.

    Raises:
        NotCacheableError: a file changed, a limit was reached, or there are unknown inputs.
    """
    if spec.cache.never:
        raise NotCacheableError("the manifest says cache: {never: true}")
    if read.limits:
        raise NotCacheableError(f"a limit on {', '.join(sorted(read.limits))} was reached")
    declared = [each for path in spec.cache.depends or () for each in (path, *path.rglob("*"))]
    named = _files_of_manifest(spec) if uses_model else ()
    files = {*read.files, *named, *(str(e) for e in declared if not e.is_dir())}
    listed = {*read.listed, *(str(each) for each in declared if each.is_dir())}
    if spec.cache.depends is None:
        unknown = [*sorted(read.unknown), *_influences(files)]
        if unknown:
            raise NotCacheableError(f"{unknown[0]}: {_DECLARE}")
    for path in sorted(files | listed):
        if _changed_at(path) >= started_ns:
            raise NotCacheableError(f"{Path(path).name} changed during the build")
    return Inputs(
        files={path: _digest(path, digests) for path in sorted(files)},
        listed={folder: _listing(folder) for folder in sorted(listed)},
        searched={folder: _modules(folder, read.imported) for folder in sorted(read.searched)},
        imported=read.imported if read.searched else frozenset(),
        variables={name: _variable(name) for name in sorted(read.variables)},
    )


def _files_of_manifest(spec: ModelSpec) -> Iterator[str]:
    """Files that the manifest names: some libraries read them without Python's `open`."""
    if spec.weights:
        yield str(spec.weights)
    if spec.source.kind in ("python", "pt2", "onnx"):
        yield spec.source.target


def _influences(files: Iterable[str]) -> Iterator[str]:
    for path in sorted(files):
        if path.endswith(".py"):
            yield from find_influences(Path(path))


def _changed_at(path: str) -> int:
    with suppress(OSError):
        state = os.stat(path)  # noqa: PTH116 - thousands of paths
        return max(state.st_mtime_ns, state.st_ctime_ns)
    return 0


def _digest(path: str, digests: Digests) -> str | None:
    with suppress(OSError):
        return digests.of_file(Path(path))
    return None


def _listing(folder: str) -> str | None:
    with suppress(OSError):
        found = {*os.listdir(folder)} - {"__pycache__"}  # noqa: PTH208
        names = "\0".join(sorted(found))
        return digest_of(names.encode(errors="surrogateescape"))
    return None


def _variable(name: str) -> str | None:
    # Not the value itself: it may be a password.
    value = os.environ.get(name)
    return None if value is None else digest_of(value.encode(errors="surrogateescape"))


def _modules(folder: str, names: frozenset[str]) -> tuple[str, ...]:
    """The entries of `folder` for modules with these names: a new one may hide an older one."""
    with suppress(OSError):
        entries = os.scandir(folder)
        with entries:
            return tuple(sorted(entry.name for entry in entries if _module_name(entry) in names))
    return ()


def _module_name(entry: os.DirEntry[str]) -> str:
    """The module that a folder's entry is; "" for others."""
    with suppress(OSError):
        if entry.is_dir():
            return entry.name if Path(entry.path, "__init__.py").is_file() else ""
    return entry.name.partition(".")[0] if entry.name.endswith(_SUFFIXES) else ""
