"""The files that one model is made from, as its manifest entry names them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

from reportgen.manifest import InputSpec, ModelSpec, split_array_path
from reportgen.manifest.source import LIBRARIES
from reportgen.provenance.files import InputFile, Role, hash_file, hash_log

_FILES = ("pt2", "onnx")  # sources that are files themselves


def library_of(spec: ModelSpec) -> str:
    """The library that defines the model, with its version: `torchvision 0.29.2`; else ""."""
    if spec.source.kind in LIBRARIES:
        packages: tuple[str, ...] = (spec.source.kind,)
    elif spec.source.kind in ("module", "object"):
        packages = tuple(metadata.packages_distributions().get(_top(spec.source.target), ()))
    else:
        packages = ()
    return ", ".join(f"{name} {metadata.version(name)}" for name in packages)


def _top(module: str) -> str:
    return module.partition(".")[0]


def manifest_files(path: Path) -> tuple[InputFile, ...]:
    """The hash of the manifest; nothing if it is gone by now."""
    found = hash_file("manifest", path, path.name)
    return (found,) if found is not None else ()


def input_files(
    spec: ModelSpec, code: Iterable[Path], folder: Path, root: Path | None
) -> tuple[InputFile, ...]:
    """Hashes of everything that the model is made from; what cannot be read is left out.

    Args:
        spec: the model's manifest entry.
        code: the user's Python files that were imported for it.
        folder: of the manifest.
        root: of the repository; None without one.
    """
    named = [(role, path, name_in(folder, path, root)) for role, path in _named(spec, code)]
    files = [hash_file(role, path, name) for role, path, name in named]
    logs = [hash_log(path, name_in(folder, path, root)) for p in spec.logs for path in p.matches()]
    # a file may be named twice
    found = {(file.role, file.name): file for file in (*files, *logs) if file is not None}
    return tuple(found.values())


def named_files(spec: ModelSpec) -> tuple[Path, ...]:
    """The files that a manifest entry names, training logs excepted."""
    return tuple(path for _, path in _named(spec, ()))


def _named(spec: ModelSpec, code: Iterable[Path]) -> Iterator[tuple[Role, Path]]:
    # if loading failed, nothing is known to be imported but what the manifest names
    own = spec.source.target if spec.source.kind == "python" else None
    for file in (*code, *map(Path, filter(None, (own, spec.loss.target)))):
        yield "code", file
    for file in _source_files(spec):
        yield "source", file
    for file in _with_contents(spec.weights) if spec.weights else ():
        yield "weights", file
    for each in spec.inputs:
        for file in _arrays(each):
            yield "data", file


def _source_files(spec: ModelSpec) -> tuple[Path, ...]:
    if spec.source.kind in _FILES:
        return _with_contents(Path(spec.source.target))
    config = spec.source.factory if spec.source.kind == "transformers" else None
    return (Path(config),) if config else ()


def _with_contents(path: Path) -> tuple[Path, ...]:
    """`path`, and the files that hold its tensors: the shards of an index, external data."""
    if path.suffix == ".json":
        return (path, *(path.parent / name for name in _shards(path)))
    if path.suffix == ".onnx":  # model.onnx.data, model.onnx_data
        return tuple(sorted(each for each in path.parent.glob(f"{path.name}*") if each.is_file()))
    return (path,)


def _shards(index: Path) -> list[str]:
    try:
        data = json.loads(index.read_bytes())
        return sorted({str(name) for name in data["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []  # a config.json, or an index that loading complains about


def _arrays(spec: InputSpec) -> Iterator[Path]:
    if spec.file is not None:
        yield split_array_path(spec.file)[0]
    for part in spec.parts:
        yield from _arrays(part)


def name_in(folder: Path, path: Path, root: Path | None) -> str:
    """The name of `path` for a report whose manifest lies in `folder` of the repository `root`."""
    if path.is_relative_to(folder):  # before links are followed: a cache may lie behind them
        return path.relative_to(folder).as_posix()
    folder, path = folder.resolve(), path.resolve()
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    inside = root is not None and path.is_relative_to(root) and folder.is_relative_to(root)
    # folders outside of the repository may contain the user's name
    return Path(os.path.relpath(path, folder)).as_posix() if inside else path.name
