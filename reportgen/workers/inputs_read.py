"""What a child process reads while it loads and analyzes a model: the inputs of its results.

An audit hook records files that are opened, folders that are listed and names that are imported;
environment variables are recorded when the model's own code reads them. What Python cannot see
(the clock, files that a C++ library opens) is looked for in the sources by `cache.influences`.
"""

from __future__ import annotations

import importlib.util
import os
import site
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from pydantic import BaseModel, ConfigDict

from reportgen.error_text import LIMIT_EVENT

_PACKAGE = str(Path(__file__).parents[1]) + os.sep
_STANDARD_LIBRARY = ("<frozen", sysconfig.get_paths()["stdlib"] + os.sep)
_SYSTEM = ("/proc/", "/sys/", "/dev/")
_NETWORK = frozenset({
    "socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request",
    "http.client.connect",
})  # fmt: skip
_PROGRAMS = frozenset({"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"})
_ENVIRON = ("<frozen os>", "<frozen _collections_abc>", "/os.py", "/_collections_abc.py")
_ALL_VARIABLES = "reads all environment variables"
_LIBRARY_FOLDERS = ("lib", "lib64", "bin", "share", "include")  # of a Python installation


class InputsRead(BaseModel):
    """The inputs of a result, as absolute paths and names.

    Attributes:
        files: opened for reading, also those that do not exist; a module's source, not its `.pyc`.
        listed: folders whose entries were listed.
        searched: folders that were searched for modules.
        imported: last parts of the names of modules that were searched there.
        variables: environment variables that the model's own code read.
        unknown: why there are other inputs, a clause each: "it uses the network".
        limits: which limits of this machine the result depends on: "time", "memory".
    """

    model_config = ConfigDict(frozen=True)

    files: frozenset[str] = frozenset()
    listed: frozenset[str] = frozenset()
    searched: frozenset[str] = frozenset()
    imported: frozenset[str] = frozenset()
    variables: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()
    limits: frozenset[str] = frozenset()

    def __or__(self, other: InputsRead) -> InputsRead:
        return InputsRead(**{name: getattr(self, name) | getattr(other, name) for name in _FIELDS})


_FIELDS = tuple(InputsRead.model_fields)


@dataclass(frozen=True, slots=True)
class Recorder:
    """Records the inputs of this process; there is no way to remove an audit hook.

    `ignored` are folders, with their separator, whose files are not inputs: the environment, whose
    versions are part of every key, and the folder of this model's results.
    """

    ignored: tuple[str, ...]
    _found: dict[str, set[str]] = field(default_factory=lambda: {name: set() for name in _FIELDS})

    def start(self) -> None:
        """Record from now on."""
        sys.addaudithook(self._record)
        _watch_variables(self._found, self._is_own_code)

    def take(self) -> InputsRead:
        """What was read since the start, or since the last call."""
        # A copy of each set first: threads of the model may still read files.
        taken = {name: frozenset(self._found[name].copy()) for name in _FIELDS}
        for name, values in taken.items():
            self._found[name] -= values
        return InputsRead(**taken)

    def add(self, read: InputsRead) -> None:
        """Count what a fork of this process read as read by this process."""
        for name in _FIELDS:
            self._found[name] |= getattr(read, name)

    def _record(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not flags & (os.O_WRONLY | os.O_TRUNC | os.O_EXCL):
                self._add("files", path)
        elif event == "import":
            self._import(arguments[0], arguments[2])
        elif event in ("os.listdir", "os.scandir"):
            self._list(arguments[0], sys._getframe(1))
        elif event == "sqlite3.connect" or (
            event == "ctypes.dlopen" and os.sep in str(arguments[0])
        ):
            self._add("files", arguments[0])
        elif event in _NETWORK:
            self._found["unknown"].add("it uses the network")
        elif event == LIMIT_EVENT:
            self._found["limits"].add(arguments[0])
        elif event in _PROGRAMS and (file := self._own_file(sys._getframe(1))):
            self._found["unknown"].add(f"{file} starts another program")

    def _add(self, kind: str, path: Any) -> None:
        if isinstance(path, int) or path is None:  # an open descriptor
            return
        name = _absolute(path)
        if not self._ignores(name):
            self._found[kind].add(_source_of(name) if kind == "files" else name)

    def _ignores(self, path: str) -> bool:
        return f"{path}{os.sep}".startswith(self.ignored)

    def _import(self, name: str, places: list[str] | None) -> None:
        if any(not self._ignores(_absolute(place)) for place in places or ()):
            self._found["imported"].add(name.rpartition(".")[2])

    def _list(self, folder: Any, frame: FrameType) -> None:
        file = frame.f_code.co_filename
        # importlib.metadata and pkgutil list every folder of sys.path to find distributions
        if file.startswith("<frozen importlib") or (
            self._ignores(file) and ("importlib" in file or file.endswith("pkgutil.py"))
        ):
            self._add("searched", "." if folder is None else folder)
        # torch looks for CUDA libraries in every folder of sys.path
        elif self._own_file(frame) or _is_ours(frame):
            self._add("listed", "." if folder is None else folder)

    def _own_file(self, frame: FrameType | None) -> str:
        """The name of the innermost file of the model's own code on the stack; "" without one."""
        while frame is not None:
            if self._is_own_code(frame.f_code):
                return Path(frame.f_code.co_filename).name
            frame = frame.f_back
        return ""

    def _is_own_code(self, code: CodeType) -> bool:
        file = code.co_filename
        return not file.startswith("<") and not self._ignores(_absolute(file))


def _is_ours(frame: FrameType | None) -> bool:
    """Whether the innermost frame outside the standard library is one of this package."""
    while frame is not None and frame.f_code.co_filename.startswith(_STANDARD_LIBRARY):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(_PACKAGE)


def _absolute(path: Any) -> str:
    # Path.resolve would follow links, and is ten times slower; torch opens thousands of files
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100


def _source_of(path: str) -> str:
    """The source of a `.pyc` in `__pycache__`: Python opens it only if the `.pyc` is stale."""
    if path.endswith(".pyc"):
        try:
            return importlib.util.source_from_cache(path)
        except ValueError:  # a module without a source
            return path
    return path


def _watch_variables(found: dict[str, set[str]], is_own_code: Any) -> None:
    """Record reads of `os.environ` whose caller is the model's own code."""
    environ: Any = type(os.environ)
    read, names = environ.__getitem__, environ.__iter__

    def caller() -> CodeType:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename.endswith(_ENVIRON):
            frame = frame.f_back  # os.getenv, Mapping.get
        return frame.f_code if frame else caller.__code__

    def getitem(self: Any, key: str) -> Any:
        if is_own_code(caller()):
            found["variables"].add(key)
        return read(self, key)

    def iterate(self: Any) -> Iterator[str]:
        if is_own_code(caller()):
            found["unknown"].add(_ALL_VARIABLES)
        return names(self)  # type: ignore[no-any-return]

    environ.__getitem__, environ.__iter__ = getitem, iterate


def ignored_folders(results: Path) -> tuple[str, ...]:
    """The environment, the system's own folders, temporary files and the folder `results`."""
    # Not the whole prefix: a project may lie below /usr or beside its own .venv.
    folders = [
        *(Path(_PACKAGE), Path(tempfile.gettempdir()), results, Path(site.getusersitepackages())),
        *map(Path, site.getsitepackages()),
        *map(Path, sysconfig.get_paths().values()),
        *(
            Path(prefix) / name
            for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)
            for name in _LIBRARY_FOLDERS
        ),
    ]
    both = {str(path) for folder in folders for path in (folder.absolute(), folder.resolve())}
    return (*_SYSTEM, *(f"{path}{os.sep}" for path in sorted(both)))
