"""Files put in place together: written aside, synced, renamed, and undone if that fails."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from reportgen.errors import OutputError

_HINTS = {
    errno.ENOSPC: "free some room, or choose another disk with --output",
    errno.EDQUOT: "your quota is used up: free some room, or choose another disk with --output",
    errno.EACCES: "choose a folder that you may write to with --output",
    errno.EPERM: "choose a folder that you may write to with --output",
    errno.EROFS: "the disk is read-only: choose another with --output",
    errno.ENAMETOOLONG: "choose a shorter path with --output, or shorter model names",
}
_REPLACED = ".previous"
_SYNCED_ONE_BY_ONE = 100


@dataclass(slots=True)
class Staging:
    """A hidden folder beside the output, and the files built in it, in order."""

    output: Path
    folder: Path
    files: list[str] = field(default_factory=list)
    _adopted: int = 0

    def write(self, file: str, content: bytes) -> None:
        """Write `content` to `file`, a path relative to the output, and sync it."""
        with self._place_of(file).open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def adopt(self, source: Path, file: str) -> None:
        """Take `source` as `file`, a path relative to the output, and sync it.

        The finished file is linked rather than copied, since an ONNX file has gigabytes; where
        the disk is another one, or knows no links, it is copied.
        """
        place = self._place_of(file)
        link_or_copy(source, place)
        self._adopted += 1
        if self._adopted <= _SYNCED_ONE_BY_ONE:
            with place.open("rb+") as stream:
                os.fsync(stream.fileno())

    def publish(self, *, stale: Sequence[str] = ()) -> tuple[Path, ...]:
        """Rename every file into place, remove the `stale` ones; if one fails, undo them all.

        What stood there before is kept aside, on the same disk, until the last rename is done.
        """
        done: list[str] = []
        if self._adopted > _SYNCED_ONE_BY_ONE:
            os.sync()  # once for thousands of small files, each of which would wait for the disk
        made = _new_folders(self.output, self.files)
        try:
            for file in [*self.files, *(name for name in stale if name not in self.files)]:
                done.append(file)
                self._replace(file)
        except BaseException:
            for file in reversed(done):
                self._restore(file)
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
            raise
        for folder in {(self.output / name).parent for name in stale}:
            _remove_empty(folder, self.output)
        _sync_folders(self.output, self.files)
        return tuple(self.output / file for file in self.files)

    def _place_of(self, file: str) -> Path:
        path = self.folder / "new" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        self.files.append(file)
        return path

    def _replace(self, file: str) -> None:
        target, old = self.output / file, self._old(file)
        if target.is_dir() and not target.is_symlink():
            raise OutputError(f"{target} is a folder; a file of the report belongs there",
                              hint="remove it, or choose another folder with --output")  # fmt: skip
        if os.path.lexists(target):
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
        elif file in self.files and not (self.folder / "new" / file).exists():
            target.unlink(missing_ok=True)

    def _old(self, file: str) -> Path:
        return self.folder / "old" / file


def check_output(output: Path) -> None:
    """Refuse at once what could not be written to after minutes of work.

    Raises:
        OutputError: `output` is a file, no possible name, or a folder that may not be written to.
    """
    try:
        there, is_folder = output.exists(), output.is_dir()
    except OSError as error:
        raise _as_output_error(error, output) from error
    file = output if there and not is_folder else _file_above(output)
    if file is not None:
        raise OutputError(f"{file} is a file; the report needs a folder",
                          hint="choose another folder with --output")  # fmt: skip
    if there and not os.access(output, os.W_OK):
        number = errno.EROFS if os.statvfs(output).f_flag & os.ST_RDONLY else errno.EACCES
        raise _as_output_error(OSError(number, os.strerror(number), str(output)), output)


def _file_above(output: Path) -> Path | None:
    """What stands where a folder above `output` would have to be; None where nothing does."""
    nearest = next((each for each in output.parents if each.exists()), None)
    return nearest if nearest is not None and not nearest.is_dir() else None


@contextmanager
def staging(output: Path) -> Iterator[Staging]:
    """A folder to build in, on the disk of `output`; nothing of it is left behind.

    Raises:
        OutputError: for whatever the system says no to, with a hint what to do.
    """
    check_output(output)
    folder: Path | None = None
    made: list[Path] = []
    try:
        made = _make_folder(output)
        folder = unused_folder(home_of_staging(output))
        folder.mkdir(mode=0o700)
        yield Staging(output=output, folder=folder)
    except OSError as error:
        raise _as_output_error(error, output) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for each in made:  # innermost first; only what stayed empty goes
            with suppress(OSError):
                each.rmdir()


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the file `source`, by a link where the disk knows them."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def unused_folder(home: Path) -> Path:
    """A name in `home` for a hidden folder of this process, which is yet to be made.

    The process in the name: another build beside this one leaves what belongs to the living.
    Known before the folder exists, an interrupt between the two leaves nothing behind.
    """
    return home / f".reportgen-{os.getpid()}-{secrets.token_hex(4)}"


def home_of_staging(output: Path) -> Path:
    """Beside `output`; inside where that is another disk (a mounted volume) or not writable."""
    parent = output.resolve().parent
    if not output.exists():
        return parent
    beside = parent.stat().st_dev == output.stat().st_dev and os.access(parent, os.W_OK)
    return parent if beside else output


def _make_folder(folder: Path) -> list[Path]:
    """Make `folder` and its parents; what was made, innermost first."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _new_folders(output: Path, files: Sequence[str]) -> list[Path]:
    """The folders that publishing `files` will make, the innermost first."""
    wanted = {parent for file in files for parent in (output / file).parents}
    missing = {each for each in wanted if output in each.parents and not each.exists()}
    return sorted(missing, key=lambda each: -len(each.parts))


def _remove_empty(folder: Path, top: Path) -> None:
    """Remove `folder` and its parents below `top` as far as they are empty."""
    while folder != top and top in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _sync_folders(output: Path, files: Sequence[str]) -> None:
    """Make the renames durable; a system that cannot sync a folder does so by itself."""
    for folder in {(output / file).parent for file in files}:
        with suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _as_output_error(error: OSError, output: Path) -> OutputError:
    reason = os.strerror(error.errno).lower() if error.errno else str(error)
    place = error.filename if isinstance(error.filename, str) else output
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        place = output
    return OutputError(
        f"cannot write the report to {place}: {reason}",
        hint=_HINTS.get(error.errno or 0, "choose another folder with --output"),
    )
