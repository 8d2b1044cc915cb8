"""The tensors and constants in nested inputs, each with what it is called; one of them changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reportgen.manifest import InputSpec

Inputs = tuple[InputSpec, ...]


def parts_of(inputs: Inputs) -> list[tuple[str, InputSpec]]:
    """Every tensor and constant, with its key, or its name, or that of what holds it."""
    return [pair for item in inputs for pair in _below(item.name or "", item)]


def _below(name: str, item: InputSpec) -> Iterator[tuple[str, InputSpec]]:
    if item.items is None and item.fields is None:
        yield name, item
    for part in item.items or ():
        yield from _below(name, part)
    for key, part in (item.fields or {}).items():
        yield from _below(key, part)


def with_part(inputs: Inputs, place: int, part: InputSpec) -> Inputs:
    """`inputs` with `part` as the `place`-th of `parts_of`, called and passed as that one was."""
    count = iter(range(len(parts_of(inputs))))

    def change(item: InputSpec) -> InputSpec:
        if next(count) != place:
            return item
        return part.model_copy(update={"name": item.name, "keyword": item.keyword})

    return every_part(inputs, change)


def every_part(inputs: Inputs, change: Callable[[InputSpec], InputSpec]) -> Inputs:
    """`inputs` with every tensor and constant in them as `change` makes it."""
    return tuple(_changed(item, change) for item in inputs)


def _changed(item: InputSpec, change: Callable[[InputSpec], InputSpec]) -> InputSpec:
    if item.items is not None:
        return item.model_copy(update={"items": every_part(item.items, change)})
    if item.fields is not None:
        fields = {key: _changed(part, change) for key, part in item.fields.items()}
        return item.model_copy(update={"fields": fields})
    return change(item)
