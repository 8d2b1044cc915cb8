"""Where code stands, as `torchvision/models/resnet.py:59`: never a path of this machine."""

from __future__ import annotations

import ast
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath

from reportgen.manifest import Source

_LIBRARIES = tuple(
    Path(sysconfig.get_paths()[name]) for name in ("purelib", "platlib", "stdlib")
)  # site-packages first: it is a folder of the standard library's


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRoot:
    """The folder that paths of the user's files start from.

    Attributes:
        folder: an absolute path.
        prefix: what leads to it from the manifest's folder: `../../`.
    """

    folder: Path
    prefix: str = ""


def source_root(source: Source) -> SourceRoot | None:
    """The manifest's folder, or the one above the package of a `module` source."""
    if source.kind in ("module", "object"):
        return _package_root(source.target)
    if source.kind != "python":
        return None
    target, written = Path(source.target), PurePath(source.text.rpartition(":")[0])
    up = [part for part in written.parts if part == ".."]
    down = [part for part in written.parts if part != ".."]
    if written.is_absolute() or list(target.parts[-len(down) :]) != down:
        return SourceRoot(folder=target.parent)
    return SourceRoot(folder=target.parents[len(down) - 1], prefix="../" * len(up))


def _package_root(module: str) -> SourceRoot | None:
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):  # a module without a spec, such as __main__
        return None
    if spec is None or not spec.origin:
        return None
    origin = Path(spec.origin)
    return SourceRoot(folder=origin.parents[1] if origin.name == "__init__.py" else origin.parent)


def code_location(path: str, line: int, root: SourceRoot | None = None) -> str:
    """`folder/file.py:12`, relative to the library's folder or to `root`; "" for generated code.

    Other files are relative to the folder that Python imports them from.
    """
    if path.startswith("<"):  # such as "<string>" of dataclasses
        return ""
    file = Path(path)
    for folder in _LIBRARIES:
        if file.is_relative_to(folder):
            return f"{file.relative_to(folder).as_posix()}:{line}"
    if root is not None and file.is_relative_to(root.folder):
        return f"{root.prefix}{file.relative_to(root.folder).as_posix()}:{line}"
    for entry in sorted(sys.path, key=len, reverse=True):
        if Path(entry).is_absolute() and file.is_relative_to(entry):
            return f"{file.relative_to(entry).as_posix()}:{line}"
    return f"{file.name}:{line}"


def class_location(kind: type, root: SourceRoot | None = None) -> str:
    """Where a class is defined; "" if its source is not available."""
    path = getattr(sys.modules.get(kind.__module__), "__file__", None)
    line = _lines_of_classes(path).get(kind.__qualname__) if path else None
    return code_location(path, line, root) if path and line else ""


@lru_cache(maxsize=256)  # inspect.getsourcelines would parse the file again for every class
def _lines_of_classes(path: str) -> dict[str, int]:
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    return dict(_classes_in(tree, ""))


def _classes_in(node: ast.AST, prefix: str) -> Iterator[tuple[str, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield f"{prefix}{child.name}", child.lineno
            yield from _classes_in(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _classes_in(child, f"{prefix}{child.name}.<locals>.")
        else:  # a class may stand below an `if`
            yield from _classes_in(child, prefix)
