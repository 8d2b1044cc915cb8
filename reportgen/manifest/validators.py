"""What must agree between the parts of a manifest: names told apart, dims with sizes.

These checks look at the plain data, not at the finished values, so that they speak even when
something else is wrong in the same model: all complaints come at once. They pass over whatever
has the wrong type, since pydantic complains of that.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from reportgen.cuda_memory.errors import UnknownGpuError
from reportgen.cuda_memory.gpus import find_gpu
from reportgen.manifest.errors import Complaint, KeyPath, line_of
from reportgen.manifest.formatting import did_you_mean, quote
from reportgen.manifest.input_spec import compact_dims, compact_name
from reportgen.manifest.source import LIBRARIES

_LIBRARIES = tuple(f"{library}:" for library in LIBRARIES)

Found = tuple[KeyPath, str]
"""A name and where it stands."""


def inconsistencies(data: Mapping[str, Any], lines: Mapping[KeyPath, int]) -> list[Complaint]:
    """Everything that does not agree in `data`."""
    found = [*_targets(data)]
    models: list[tuple[KeyPath, Any]] = [
        (("models", i), m) for i, m in enumerate(_list(data, "models"))
    ]
    names = [((*path, "name"), m["name"]) for path, m in models if _has_text(m, "name")]
    found += _repeats(names, "model", lines)
    for path, model in models:
        if isinstance(model, dict):
            found += _model(path, model, lines)
    return [Complaint(message=text, path=path, line=line_of(path, lines)) for path, text in found]


def _targets(data: Mapping[str, Any]) -> Iterator[Found]:
    seen: set[str] = set()
    for index, target in enumerate(_list(data, "targets")):
        name = target.get("name") if isinstance(target, dict) else target
        if not isinstance(name, str):
            continue
        path = ("targets", index)
        own_memory = isinstance(target, dict) and "memory" in target
        try:
            known = name if own_memory else find_gpu(name).name
        except UnknownGpuError as error:
            known = name
            yield path, f"unknown GPU {quote(name)}; {error.hint}"
        if known.casefold() in seen:
            yield path, f"GPU {quote(name)} is listed twice"
        seen.add(known.casefold())


def _model(path: KeyPath, model: dict[str, Any], lines: Mapping[KeyPath, int]) -> Iterator[Found]:
    inputs = _list(model, "inputs")
    used = [found for i, spec in enumerate(inputs) for found in _dims((*path, "inputs", i), spec)]
    yield from _needs_source(path, model)
    yield from _needs_inputs(path, model)
    yield from _whole_in_itself(path, model)
    yield from _repeats(_input_names((*path, "inputs"), inputs), "input", lines)
    yield from _sizes(path, model, used)
    yield from _free_dims(path, model, used)


def _needs_source(path: KeyPath, model: dict[str, Any]) -> Iterator[Found]:
    near = did_you_mean("source", [key for key in model if key != "source"])
    if "source" not in model and not model.get("logs") and not near:
        yield (*path, "source"), "is required, unless there are logs to report on"


def _needs_inputs(path: KeyPath, model: dict[str, Any]) -> Iterator[Found]:
    source = model.get("source")
    near = did_you_mean("inputs", [key for key in model if key != "inputs"])
    knows_inputs = isinstance(source, str) and (
        source.endswith((".pt2", ".onnx")) or source.startswith(_LIBRARIES)
    )
    if "inputs" not in model and "source" in model and not knows_inputs and not near:
        words = "is required, unless the source is a library's or a .pt2 or .onnx file"
        yield (*path, "inputs"), words


def _whole_in_itself(path: KeyPath, model: dict[str, Any]) -> Iterator[Found]:
    """A file that is the model has its weights, and nobody calls it with arguments."""
    source = model.get("source")
    if isinstance(source, str) and source.endswith((".pt2", ".onnx")):
        for key in ("arguments", "weights"):
            if model.get(key):
                yield (*path, key), f"does not apply to {quote(source)}, which is a whole model"


def _sizes(path: KeyPath, model: dict[str, Any], used: list[Found]) -> Iterator[Found]:
    """Complain of dims without a size, and of sizes without a dim."""
    given = model.get("dims", {})
    if not isinstance(given, dict):
        return
    for place, dim in used:
        if dim.isidentifier() and dim != "batch" and dim not in given:
            guess = did_you_mean(dim, ["batch", *given]) or f"; add dims: {{{dim}: SIZE}}"
            yield place, f"dim {quote(dim)} has no size{guess}"
    names = {dim for _, dim in used}
    for dim in given:
        if dim == "batch":
            yield (*path, "dims", dim), "the size of batch is the model's key 'batch'"
        elif dim not in names and "inputs" in model:
            yield (*path, "dims", dim), f"no input has this dim{did_you_mean(dim, names)}"


def _free_dims(path: KeyPath, model: dict[str, Any], used: list[Found]) -> Iterator[Found]:
    """Complain of dynamic dims that no input has; a file as source may have dims of its own."""
    options = model.get("onnx")
    names = {dim for _, dim in used}
    if not isinstance(options, dict) or not names:
        return
    for index, dim in enumerate(_list(options, "dynamic")):
        if isinstance(dim, str) and dim not in names:
            place = (*path, "onnx", "dynamic", index)
            yield place, f"no input has dim {quote(dim)}{did_you_mean(dim, names)}"


def _dims(path: KeyPath, spec: object) -> Iterator[Found]:
    """Every symbolic dim written in an input, nested ones included."""
    if isinstance(spec, str):
        yield from ((path, dim) for dim in compact_dims(spec) if dim.isidentifier())
    if not isinstance(spec, dict):
        return
    for index, dim in enumerate(_list(spec, "shape")):
        if isinstance(dim, str):
            yield (*path, "shape", index), dim
    for index, part in enumerate(_list(spec, "items")):
        yield from _dims((*path, "items", index), part)
    parts = spec.get("fields")
    for key, part in parts.items() if isinstance(parts, dict) else ():
        yield from _dims((*path, "fields", key), part)


def _input_names(path: KeyPath, inputs: list[Any]) -> list[Found]:
    found = []
    for index, spec in enumerate(inputs):
        name = compact_name(spec) if isinstance(spec, str) else None
        if name:
            found.append(((*path, index), name))
        elif _has_text(spec, "name"):
            found.append(((*path, index, "name"), spec["name"]))
    return found


def _repeats(names: list[Found], what: str, lines: Mapping[KeyPath, int]) -> Iterator[Found]:
    """Complain of names that are equal, or that a file system may take for equal (models)."""
    first: dict[str, Found] = {}
    for path, name in names:
        key = unicodedata.normalize("NFC", name).casefold() if what == "model" else name
        if key in first:
            earlier, other = first[key]
            same = "" if other == name else f" as {quote(other)} (folders may ignore case)"
            text = f"{what} name {quote(name)} is taken{same} in line {line_of(earlier, lines)}"
            yield path, text
        else:
            first[key] = (path, name)


def _list(mapping: Mapping[str, Any], key: str) -> list[Any]:
    value = mapping.get(key)
    return value if isinstance(value, list) else []


def _has_text(value: object, key: str) -> bool:
    return isinstance(value, dict) and isinstance(value.get(key), str)
