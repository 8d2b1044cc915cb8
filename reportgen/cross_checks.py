"""Two independent counts of each headline figure: do they agree, and if not, where they part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from reportgen.outcome import Done, SectionOutcome
from reportgen.report import Count, CrossCheck
from reportgen.sections.layers import Layers
from reportgen.sections.onnx import NodeCost, OnnxExport, StoredParameters

_NAMED = 3  # parameters or modules told by name


def cross_check(sections: Iterable[SectionOutcome]) -> tuple[CrossCheck, ...]:
    """The checks that the sections of one model allow; none without its layers."""
    results: dict[str, Any] = {
        section.name: section.outcome.result
        for section in sections
        if isinstance(section.outcome, Done)
    }
    layers: Layers | None = results.get("layers")
    onnx: OnnxExport | None = results.get("onnx")
    if layers is None or layers.method == "file":
        return ()
    return (
        _parameters(layers, onnx.stored if onnx else None),
        _macs(layers, onnx.cost if onnx else None),
    )


def _parameters(layers: Layers, stored: StoredParameters | None) -> CrossCheck:
    counts = [
        Count(by="the model's tensors, each once", value=layers.parameters),
        Count(by="rows of the layer table", value=layers.parameters_of_rows),
    ]
    differences, notes = [layers.parameters - layers.parameters_of_rows], list[str]()
    if differences[0]:
        notes.append(f"the rows miss {differences[0]:,}")
    if stored is not None:
        counts.append(Count(by="found in the ONNX file", value=stored.found))
        idle = set(layers.never_ran)
        folded = [name for name in stored.absent if name not in idle]
        notes += _between(stored, len(stored.absent) - len(folded), folded)
        accounted = stored.found + stored.merged + stored.zero + stored.absent_elements
        differences.append(layers.parameters - accounted)
        if differences[1]:
            notes.append(f"{differences[1]:,} are unaccounted for")
    return CrossCheck(
        figure="parameters",
        counts=tuple(counts),
        agree=not any(differences),
        note="; ".join(notes),
    )


def _between(stored: StoredParameters, idle: int, folded: list[str]) -> Iterator[str]:
    if stored.merged:
        yield f"{stored.merged:,} of batch norms are multiplied into the layer before"
    if stored.zero:
        yield f"{stored.zero:,} are zeros that the exporter leaves out"
    if idle:
        yield f"{idle:,} parameter tensors never run"
    if folded:
        more = f" and {len(folded) - _NAMED:,} more" if len(folded) > _NAMED else ""
        names = ", ".join(folded[:_NAMED])
        yield f"the exporter computed beforehand with {names}{more}"


def _macs(layers: Layers, cost: NodeCost | None) -> CrossCheck:
    counts = [
        Count(by="torch's operators", value=layers.macs),
        Count(by="rows of the layer table", value=layers.macs_of_rows),
    ]
    notes = list[str]()
    agree: bool | None = layers.macs == layers.macs_of_rows
    if not agree:
        notes.append(f"the rows miss {layers.macs - layers.macs_of_rows:,}")
    if cost is not None and cost.batch != layers.batch:
        notes.append(f"the ONNX file has its batch fixed at {cost.batch}")
    elif cost is not None:
        counts.append(Count(by="nodes of the ONNX file", value=cost.macs))
        if cost.macs != layers.macs:
            left_out = cost.uncounted if cost.macs < layers.macs else layers.uncounted
            agree = None if agree and left_out else False
            notes.append(_where_they_part(layers, cost))
        notes += [f"{name} in the file: {why}" for name, why in sorted(cost.uncounted.items())]
    return CrossCheck(figure="macs", counts=tuple(counts), agree=agree, note="; ".join(notes))


def _where_they_part(layers: Layers, cost: NodeCost) -> str:
    """The deepest module below which the whole difference lies."""
    difference = cost.macs - layers.macs
    place, deeper = "", True
    while deeper:
        deeper = False
        for layer in layers.layers:
            apart = _inside(cost, layer.path) - layer.macs
            if _is_child(layer.path, place) and apart == difference:
                place, deeper = layer.path, True
                break
    word = "more" if difference > 0 else "fewer"
    where = f", all of it in {place}" if place else ""
    return f"the file has {abs(difference):,} {word}{where}"


def _is_child(path: str, parent: str) -> bool:
    start = f"{parent}." if parent else ""
    return path.startswith(start) and bool(path[len(start) :]) and "." not in path[len(start) :]


def _inside(cost: NodeCost, path: str) -> int:
    return sum(
        macs
        for module, macs in cost.modules.items()
        if module == path or module.startswith(f"{path}.")
    )
