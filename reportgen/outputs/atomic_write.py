"""Replace many files together: write to a temporary folder, sync, rename; roll back on failure.

Files are renamed one by one, not by folder: the output folder also contains files of the user and
formats that this build does not write, and it may be a mount point.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from reportgen.errors import OutputError
from reportgen.outputs.stale_files import foreign_file
from reportgen.scratch import process_exists

_HINTS = {
    errno.ENOSPC: "free disk space, or choose another disk with --output",
    errno.EDQUOT: "your disk quota is exceeded: free space, or choose another disk with --output",
    errno.EACCES: "choose a writable folder with --output",
    errno.EPERM: "choose a writable folder with --output",
    errno.EROFS: "the file system is read-only: choose another one with --output",
    errno.ENAMETOOLONG: "choose a shorter path with --output, or shorter model names",
}
_MOST_SINGLE_SYNCS = 100  # one sync of all disks is faster for more files


@dataclass(slots=True)
class Staging:
    """A hidden temporary folder, and the files written to it for `output`, in order."""

    output: Path
    folder: Path
    files: list[str] = field(default_factory=list)
    _added: int = 0

    def write(self, file: str, content: bytes) -> None:
        """Write `content` to `file`, a path relative to the output, and sync it."""
        # "x": two files of one name would be a bug, and the second would replace the first.
        with self._staged_path(file).open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def add(self, source: Path, file: str) -> None:
        """Link or copy `source` to `file`, a path relative to the output, and sync it."""
        target = self._staged_path(file)
        link_or_copy(source, target)
        self._added += 1
        if self._added <= _MOST_SINGLE_SYNCS:
            with target.open("rb+") as stream:
                os.fsync(stream.fileno())

    def publish(self, *, stale: Sequence[str] = ()) -> tuple[Path, ...]:
        """Rename all files into place and delete the `stale` ones; roll back if one fails.

        Previous files are kept on the same disk until the last rename has succeeded.
        """
        done: list[str] = []
        if self._added > _MOST_SINGLE_SYNCS:
            os.sync()
        new_folders = _new_folders(self.output, self.files)
        try:
            for file in [*self.files, *(name for name in stale if name not in self.files)]:
                done.append(
                    file
                )  # first, so that a file that was half replaced is restored as well
                self._replace(file)
        except BaseException:  # Ctrl-C as well
            for file in reversed(done):
                self._restore(file)
            for folder in new_folders:
                with suppress(OSError):
                    folder.rmdir()
            raise
        for folder in {(self.output / name).parent for name in stale}:
            _remove_empty(folder, self.output)
        _sync_folders(self.output, self.files)
        return tuple(self.output / file for file in self.files)

    def _staged_path(self, file: str) -> Path:
        path = self.folder / "new" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        self.files.append(file)
        return path

    def _replace(self, file: str) -> None:
        target, old = self.output / file, self._old(file)
        if target.is_dir() and not target.is_symlink():
            raise OutputError(f"{target} is a folder; the report has a file of this name",
                              hint="remove it, or choose another folder with --output")  # fmt: skip
        if os.path.lexists(target):  # `exists` is false for a broken symlink
            old.parent.mkdir(parents=True, exist_ok=True)
            target.rename(old)
        new = self.folder / "new" / file
        if new.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            new.replace(target)

    def _restore(self, file: str) -> None:
        target, old = self.output / file, self._old(file)
        if os.path.lexists(old):
            old.replace(target)
        # It was not there before; if it is still in "new", the rename has not happened.
        elif file in self.files and not (self.folder / "new" / file).exists():
            target.unlink(missing_ok=True)

    def _old(self, file: str) -> Path:
        return self.folder / "old" / file


def check_output(output: Path) -> None:
    """Check that `output` can be written, before minutes of work are spent.

    Raises:
        OutputError: `output` is a file, an invalid name or not writable.
    """
    try:
        exists, is_folder = output.exists(), output.is_dir()
    except OSError as error:
        raise _as_output_error(error, output) from error
    # The errors of mkdir, "file exists" and "not a directory", do not say which file it is.
    file = output if exists and not is_folder else _file_above(output)
    if file is not None:
        raise OutputError(f"{file} is a file; the report needs a folder",
                          hint="choose another folder with --output")  # fmt: skip
    if exists and (foreign := foreign_file(output)) is not None:
        raise OutputError(
            f"{foreign} exists and is not from reportgen",
            hint="choose another folder with --output, or move the file",
        )
    if exists and not os.access(output, os.W_OK):
        # os.access gives no reason; a read-only disk has a hint of its own.
        number = errno.EROFS if os.statvfs(output).f_flag & os.ST_RDONLY else errno.EACCES
        raise _as_output_error(OSError(number, os.strerror(number), str(output)), output)


def _file_above(output: Path) -> Path | None:
    """The nearest existing parent of `output` if it is a file, else None."""
    nearest = next((each for each in output.parents if each.exists()), None)
    return nearest if nearest is not None and not nearest.is_dir() else None


@contextmanager
def temporary_folder(output: Path) -> Iterator[Path]:
    """A hidden folder on the file system of `output`, deleted at the end.

    Files in it can be renamed or linked into `output`. Folders of processes that were killed are
    deleted first.

    Raises:
        OutputError: `output`, or the folder that would contain it, is not writable.
    """
    check_output(output)
    parent = output.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        parent = staging_parent(output)
        for leftover in parent.glob(".reportgen-[0-9]*-*"):
            if not process_exists(leftover.name.split("-")[1]):
                shutil.rmtree(leftover, ignore_errors=True)
    except OSError as error:
        raise _not_writable(parent, error) from error
    folder = _new_hidden_folder(parent)
    try:
        try:
            folder.mkdir(mode=0o700)  # results are private until they are published
        except OSError as error:
            raise _not_writable(parent, error) from error
        yield folder
    finally:
        _delete(folder)


def _delete(folder: Path) -> None:
    """Delete `folder`; Ctrl-C or SIGTERM meanwhile takes effect afterwards."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@contextmanager
def staging(output: Path) -> Iterator[Staging]:
    """A `Staging` for `output`; its temporary folder is deleted at the end.

    Raises:
        OutputError: for any `OSError` in the block, with a hint.
    """
    check_output(output)
    folder: Path | None = None
    created: list[Path] = []
    try:
        created = _create_folder(output)
        folder = _new_hidden_folder(staging_parent(output))
        folder.mkdir(mode=0o700)
        yield Staging(output=output, folder=folder)
    except OSError as error:
        raise _as_output_error(error, output) from error
    finally:
        if folder is not None:
            _delete(folder)
        for each in created:  # innermost first; folders with files stay
            with suppress(OSError):
                each.rmdir()


def link_or_copy(source: Path, target: Path) -> None:
    """Hard-link `source` to `target`; copy it if the file system does not support that.

    ONNX files have gigabytes, so a link saves time and space.
    """
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _new_hidden_folder(parent: Path) -> Path:
    """An unused path in `parent`. The caller creates the folder inside its `try` block.

    The name contains the process id, so that other builds do not delete it while this one runs.
    """
    return parent / f".reportgen-{os.getpid()}-{secrets.token_hex(4)}"


def staging_parent(output: Path) -> Path:
    """The parent of `output`, or `output` if its parent is on another disk or not writable."""
    parent = output.resolve().parent
    if not output.exists():
        return parent
    # A rename across disks is not possible.
    beside = parent.stat().st_dev == output.stat().st_dev and os.access(parent, os.W_OK)
    return parent if beside else output


def _create_folder(folder: Path) -> list[Path]:
    """Create `folder` and its parents; return those that were missing, innermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _new_folders(output: Path, files: Sequence[str]) -> list[Path]:
    """Folders that must be created for `files`, innermost first."""
    parents = {parent for file in files for parent in (output / file).parents}
    missing = {each for each in parents if output in each.parents and not each.exists()}
    return sorted(missing, key=lambda each: -len(each.parts))


def _remove_empty(folder: Path, top: Path) -> None:
    """Delete `folder` and its parents below `top` while they are empty."""
    while folder != top and top in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _sync_folders(output: Path, files: Sequence[str]) -> None:
    # fsync of a file does not make its name durable; some file systems cannot sync folders.
    for folder in {(output / file).parent for file in files}:
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _as_output_error(error: OSError, output: Path) -> OutputError:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    path = error.filename if isinstance(error.filename, str) else output
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        path = output  # the file that did not fit lies in the temporary folder
    return OutputError(
        f"cannot write the report to {path}: {reason}",
        hint=_HINTS.get(error.errno or 0, "choose another folder with --output"),
    )


def _not_writable(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write to {str(folder)!r}: {(error.strerror or str(error)).lower()}",
        hint="choose another folder with --output",
    )
