"""Draws random architectures, half from timm, half from transformers; deterministic by seed."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from zoo_tiny import NO_CLASS, NotTiny, Tiny, tiny_timm, tiny_transformers

_MAX_PER_TIMM_MODULE = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """One architecture of the sweep.

    Attributes:
        name: the model's name in its manifest, unique in the sweep.
        source: the source in the manifest.
        arguments: the arguments that reduce it.
        level: what was reduced.
        parameters: the number of parameters.
    """

    name: str
    source: str
    arguments: dict[str, Any]
    level: str
    parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NotDrawn:
    """An architecture that was drawn but could not be reduced."""

    source: str
    reason: str


def draw(count: int, seed: int) -> tuple[list[Drawn], list[NotDrawn]]:
    """`count` architectures in random order, and those that were drawn but not used."""
    from_timm = _take("timm", timm_order(seed), count // 2, tiny_timm)
    from_transformers = _take(
        "transformers", transformers_order(seed), count - count // 2, tiny_transformers
    )
    drawn = [*from_timm[0], *from_transformers[0]]
    random.Random(seed).shuffle(drawn)
    return drawn, [*from_timm[1], *from_transformers[1]]


def timm_order(seed: int) -> Iterator[str]:
    """timm's model names in random order, at most three per module of timm."""
    import timm
    from timm.models._registry import _model_to_module

    names = sorted(timm.list_models())
    random.Random(f"timm {seed}").shuffle(names)
    yield from _at_most(_MAX_PER_TIMM_MODULE, names, lambda name: str(_model_to_module[name]))


def transformers_order(seed: int) -> Iterator[str]:
    """transformers' model types in random order, one per folder of the library."""
    from transformers.models.auto.configuration_auto import (
        CONFIG_MAPPING_NAMES,
        model_type_to_module_name,
    )

    types = sorted(CONFIG_MAPPING_NAMES)
    random.Random(f"transformers {seed}").shuffle(types)
    yield from _at_most(1, types, lambda kind: str(model_type_to_module_name(kind)))


def _at_most(limit: int, names: list[str], group_of: Callable[[str], str]) -> Iterator[str]:
    taken: Counter[str] = Counter()
    for name in names:
        taken[group_of(name)] += 1
        if taken[group_of(name)] <= limit:
            yield name


def _take(
    library: str, order: Iterator[str], count: int, make: Callable[[str], Tiny]
) -> tuple[list[Drawn], list[NotDrawn]]:
    drawn: list[Drawn] = []
    not_drawn: list[NotDrawn] = []
    while len(drawn) < count and (name := next(order, None)) is not None:
        source = f"{library}:{name}"
        try:
            tiny = make(name)
        except NotTiny as error:
            if str(error) != NO_CLASS:  # parts of other architectures are not counted
                not_drawn.append(NotDrawn(source=source, reason=str(error)))
            continue
        drawn.append(
            Drawn(
                name=re.sub(r"[^a-z0-9]+", "-", source.lower()),
                source=source,
                arguments=tiny.arguments,
                level=tiny.level,
                parameters=tiny.parameters,
            )
        )
    return drawn, not_drawn
