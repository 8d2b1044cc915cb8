"""Models from a class or function in a Python file or an installed package."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from reportgen.errors import ModelError
from reportgen.known_failures import failure_hint, failure_text
from reportgen.manifest import Source
from reportgen.sources.from_torchvision import build
from reportgen.sources.loaded import did_you_mean

_LIBRARIES = ("torchvision", "timm", "transformers", "torch")


def call_factory(source: Source, arguments: dict[str, Any]) -> object:
    """Import the file or module of `source` and call its factory with `arguments`.

    Raises:
        ModelError: the import fails, the name does not exist, or the call fails.
    """
    return build(
        load_object(source.target, source.factory or "", source.text), arguments, source.text
    )


def load_object(target: str, name: str, text: str) -> Any:
    """The class or function `name` (may be dotted) of the file or module `target`.

    Raises:
        ModelError: the import fails, the name does not exist, or is not callable.
    """
    found: Any = _import(target, text)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ModelError(
                f"{text}: {part!r} does not exist",
                hint=did_you_mean(part, dir(found), "use one of its classes or functions"),
            )
        found = getattr(found, part)
    # a module is callable, so it would pass as a factory
    if _is_module(found):
        raise ModelError(
            f"{text}: {name!r} is a model instance, expected a class or function that returns one",
            hint=f"use a function that returns it: def make(): return {name}",
        )
    if not callable(found):
        raise ModelError(
            f"{text}: {name!r} is not callable",
            hint="use a class or a function that returns the model",
        )
    return found


def _is_module(found: object) -> bool:
    torch = sys.modules.get("torch")  # not imported means that nothing can be a module
    return torch is not None and isinstance(found, torch.nn.Module)


def _import(target: str, text: str) -> ModuleType:
    try:
        return _import_file(Path(target)) if target.endswith(".py") else _import_module(target)
    except Exception as error:
        raise ModelError(
            f"{text} cannot be imported: {failure_text(error)}",
            hint=failure_hint(error, _import_hint(error)),
        ) from error
    # SystemExit is not an Exception
    except SystemExit as error:
        raise ModelError(
            f"{text} cannot be imported: it called sys.exit({error.code!r})",
            hint="move code that runs a program under if __name__ == '__main__'",
        ) from error


def _import_file(path: Path) -> ModuleType:
    # with its folder on sys.path, as `python path` does
    _add_to_path(path.parent)
    if depth := _package_depth(path):
        return _import_member(path, depth)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # before execution: dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _add_to_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _package_depth(path: Path) -> int:
    """How many folders above `path` its relative imports need as packages; 0 without any."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # reported by the import
        return 0
    levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    depth = min(max(levels, default=0), len(path.parents) - 1)
    # without relative imports the __init__.py need not run, and may need more than the model
    while depth and (path.parents[depth] / "__init__.py").is_file():
        depth += 1
    return depth


def _import_member(path: Path, depth: int) -> ModuleType:
    """Import `path` as a module of the package `depth` folders above it."""
    _add_to_path(path.parents[depth])
    names = [path.parents[i].name for i in reversed(range(depth))]
    if path.stem != "__init__":
        names.append(path.stem)
    return importlib.import_module(".".join(names))


def _import_module(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")  # like `python -m`, find packages in the current folder
    return importlib.import_module(name)


def _import_hint(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.split(".")[0]
        # "install" only for names unlike these: a misspelled one may be a malicious package
        otherwise = f"install {package!r} into reportgen's environment, or fix the name"
        return did_you_mean(package, _LIBRARIES, otherwise)
    return "the same line fails in plain Python; fix it there"
