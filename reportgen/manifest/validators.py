"""Checks across the keys of a manifest: unique names, dims with sizes.

They run on the plain data, not on the validated models, so that they report their problems even if
the same entry has others. Values of the wrong type are skipped: pydantic reports them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from reportgen.cuda_memory.errors import UnknownGpuError
from reportgen.cuda_memory.gpus import find_gpu
from reportgen.manifest.errors import KeyPath, Problem, did_you_mean, line_of, quote
from reportgen.manifest.input_spec import compact_dims, compact_name
from reportgen.manifest.source import LIBRARIES
from reportgen.manifest.values import PEAK_MEMORY

_LIBRARIES = tuple(f"{library}:" for library in LIBRARIES)

Found = tuple[KeyPath, str]
"""The location of a value, and its name or its problem."""


def find_inconsistencies(data: Mapping[str, Any], lines: Mapping[KeyPath, int]) -> list[Problem]:
    """Every contradiction in `data`."""
    found = [*_targets(data), *_budgets_without_metric((), data, data), *_waivers((), data, data)]
    models: list[tuple[KeyPath, Any]] = [
        (("models", i), m) for i, m in enumerate(_list(data, "models"))
    ]
    names = [((*path, "name"), m["name"]) for path, m in models if _has_text(m, "name")]
    found += _repeats(names, "model", lines)
    for path, model in models:
        if isinstance(model, dict):
            found += _model(path, model, lines)
            found += _budgets_without_metric(path, model, data)
            found += _waivers(path, model, data)
    return [Problem(message=text, path=path, line=line_of(path, lines)) for path, text in found]


def find_unknown_rules(
    data: Mapping[str, Any],
    lines: Mapping[KeyPath, int],
    rule_codes: Callable[[], Collection[str]],
) -> list[Problem]:
    """Every code under `ignore` and `waivers` that no rule has: it would accept nothing."""
    models: list[tuple[KeyPath, Mapping[str, Any]]] = [
        (("models", index), model)
        for index, model in enumerate(_list(data, "models"))
        if isinstance(model, dict)
    ]
    named: list[tuple[KeyPath, str]] = [
        ((*path, "ignore", code), code)
        for path, model in models
        if isinstance(model.get("ignore"), dict)
        for code in model["ignore"]
    ]
    named += [
        ((*path, "waivers", index, "rule"), waiver["rule"])
        for path, entry in [((), data), *models]
        for index, waiver in enumerate(_list(entry, "waivers"))
        if _has_text(waiver, "rule")
    ]
    known = rule_codes() if named else ()
    return [
        Problem(
            message=f"there is no rule {quote(code)}{did_you_mean(code, known)}; "
            "`reportgen rules` lists all",
            path=path,
            line=line_of(path, lines),
        )
        for path, code in named
        if code not in known
    ]


def find_unknown_sections(
    data: Mapping[str, Any], lines: Mapping[KeyPath, int], names: Collection[str]
) -> list[Problem]:
    """Every name under `sections` that is not among `names`."""
    return [
        Problem(
            message=f"unknown section {quote(name)}{did_you_mean(name, names)}; "
            f"use one of {', '.join(names)}",
            path=("sections", index),
            line=line_of(("sections", index), lines),
        )
        for index, name in enumerate(_list(data, "sections"))
        if isinstance(name, str) and name not in names
    ]


def _targets(data: Mapping[str, Any]) -> Iterator[Found]:
    seen: set[str] = set()
    for index, target in enumerate(_list(data, "targets")):
        name = target.get("name") if isinstance(target, dict) else target
        if not isinstance(name, str):
            continue
        path = ("targets", index)
        own_memory = isinstance(target, dict) and "memory" in target
        try:
            # find_gpu accepts several spellings of one GPU
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
    yield from _is_complete_file(path, model)
    yield from _repeats(_input_names((*path, "inputs"), inputs), "input", lines)
    yield from _sizes(path, model, used)
    yield from _dynamic_dims(path, model, used)


def _needs_source(path: KeyPath, model: dict[str, Any]) -> Iterator[Found]:
    # a misspelled key is reported as unknown; one problem is enough
    near = did_you_mean("source", [key for key in model if key != "source"])
    if "source" not in model and not model.get("logs") and not near:
        yield (*path, "source"), "is required unless 'logs' is given"


def _needs_inputs(path: KeyPath, model: dict[str, Any]) -> Iterator[Found]:
    source = model.get("source")
    near = did_you_mean("inputs", [key for key in model if key != "inputs"])
    has_own_inputs = isinstance(source, str) and (
        source.endswith((".pt2", ".onnx")) or source.startswith(_LIBRARIES)
    )
    if "inputs" not in model and "source" in model and not has_own_inputs and not near:
        message = "is required unless the source is a library model, a .pt2 or a .onnx file"
        yield (*path, "inputs"), message


def _is_complete_file(path: KeyPath, model: dict[str, Any]) -> Iterator[Found]:
    """Report arguments and weights of a file that already contains the whole model."""
    source = model.get("source")
    if isinstance(source, str) and source.endswith((".pt2", ".onnx")):
        for key in ("arguments", "weights"):
            if model.get(key):
                yield (
                    (*path, key),
                    f"does not apply to {quote(source)}, a file that contains the model",
                )


def _sizes(path: KeyPath, model: dict[str, Any], used: list[Found]) -> Iterator[Found]:
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
            yield (*path, "dims", dim), "set the batch size with the model's key 'batch'"
        # without inputs the source declares them, and their dims are not known yet
        elif dim not in names and "inputs" in model:
            yield (*path, "dims", dim), f"no input has this dim{did_you_mean(dim, names)}"


def _dynamic_dims(path: KeyPath, model: dict[str, Any], used: list[Found]) -> Iterator[Found]:
    """Report dynamic dims that no input has; skipped if the source declares the inputs."""
    options = model.get("onnx")
    names = {dim for _, dim in used}
    if not isinstance(options, dict) or not names:
        return
    for index, dim in enumerate(_list(options, "dynamic")):
        if isinstance(dim, str) and dim not in names:
            place = (*path, "onnx", "dynamic", index)
            yield place, f"no input has dim {quote(dim)}{did_you_mean(dim, names)}"


def _budgets_without_metric(
    path: KeyPath, entry: Mapping[str, Any], data: Mapping[str, Any]
) -> Iterator[Found]:
    """Report the budgets of `entry` that nothing in this manifest can judge."""
    budgets = entry.get("budgets")
    for key in budgets if isinstance(budgets, dict) else ():
        if str(key).startswith(PEAK_MEMORY) and not data.get("targets"):
            yield (*path, "budgets", key), "needs a GPU: add targets, such as targets: [T4]"
        elif key == "latency_ms" and entry.get("onnx") is False:
            message = "is measured on the ONNX file, which onnx: false turns off"
            yield (*path, "budgets", key), message


def _waivers(path: KeyPath, entry: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[Found]:
    """Report the waivers of `entry` for budgets that it does not have."""
    entries = [entry, data] if path else [data, *_list(data, "models")]
    budgets = [each.get("budgets") for each in entries if isinstance(each, dict)]
    known = [str(key) for each in budgets if isinstance(each, dict) for key in each]
    for index, waiver in enumerate(_list(entry, "waivers")):
        if _has_text(waiver, "budget") and waiver["budget"] not in known:
            name = waiver["budget"]
            guess = did_you_mean(name, known) or "; use a key of budgets"
            yield (*path, "waivers", index, "budget"), f"no budget {quote(name)}{guess}"


def _dims(path: KeyPath, spec: object) -> Iterator[Found]:
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
    """Report equal names; names of models are folders, so their case is ignored."""
    first: dict[str, Found] = {}
    for path, name in names:
        # macOS and Windows ignore case, and macOS stores decomposed Unicode
        key = unicodedata.normalize("NFC", name).casefold() if what == "model" else name
        if key in first:
            earlier, other = first[key]
            line = line_of(earlier, lines)
            same = "" if other == name else f" as {quote(other)} (file systems may ignore case)"
            yield path, f"{what} name {quote(name)} is already used on line {line}{same}"
        else:
            first[key] = (path, name)


def _list(mapping: Mapping[str, Any], key: str) -> list[Any]:
    value = mapping.get(key)
    return value if isinstance(value, list) else []


def _has_text(value: object, key: str) -> bool:
    return isinstance(value, dict) and isinstance(value.get(key), str)
