"""What the name of an argument says of it, in the words that people use in their models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from reportgen.dummy_inputs.candidate import constant, filled, indices, tensor
from reportgen.dummy_inputs.from_layers import LENGTH, ones
from reportgen.manifest import InputSpec

NODES, EDGES = 16, 32
GRAPH_DIMS = {"nodes": NODES, "edges": EDGES}
_FEWEST_NODES = 4  # every edge joins some of the first, so that fewer nodes run as well
_SAMPLES = 16_000

Tables = list[int]
"""How many rows each embedding of the model has."""


def joins_nodes(name: str) -> bool:
    """Whether an argument lists the edges of a graph, each by its two nodes."""
    return re.fullmatch(r"edge_?(index|indices|list)|edges", name.lower()) is not None


def options_of_name(name: str, tables: Tables) -> list[InputSpec]:
    """What an argument called `name` usually is; [] for a name that says nothing."""
    for pattern, make in _BY_NAME:
        if re.fullmatch(pattern, name.lower()):
            return list(make(tables))
    return []


def prefers(name: str) -> Callable[[InputSpec], bool] | None:
    """Which of any proposals suit the name best; None for a name that says nothing."""
    lowered = name.lower()
    if re.fullmatch(_INDICES, lowered):
        return lambda item: item.dtype == "int64"
    if re.fullmatch(_PICTURES, lowered):
        return lambda item: len(item.shape or ()) == 4
    if re.fullmatch(_SEQUENCES, lowered):
        return lambda item: len(item.shape or ()) == 3
    return None


def is_state(name: str) -> bool:
    """Whether an argument holds the state of a recurrent layer."""
    return (
        re.fullmatch(r"([hc]_?[0nx]?|hc|hiddens?|(\w+_)?states?|memory)", name.lower()) is not None
    )


_INDICES = r".*(ids|tokens|index|indices|idx)|text|words?|src|tgt|source|target|sentences?|query"
_PICTURES = r"images?|imgs?|pictures?|pixels?|pixel_values|frames?|photos?"
_SEQUENCES = r"sequences?|seq|embeddings?|embeds?|.*_embeds|hidden_states"


def _masks(_: Tables) -> Iterator[InputSpec]:
    yield ones("batch", LENGTH)
    yield tensor(None, "batch", LENGTH, dtype="bool")
    yield tensor(None, LENGTH, LENGTH, dtype="bool")
    yield tensor(None, "batch", 1, 224, 224)


def _times(_: Tables) -> Iterator[InputSpec]:
    yield indices(None, "batch", count=1000)
    yield tensor(None, "batch", low=0.0, high=1.0)
    yield tensor(None, "batch", 1, low=0.0, high=1.0)


def _labels(tables: Tables) -> Iterator[InputSpec]:
    for count in sorted(tables) or [2]:
        yield indices(None, "batch", count=count)


def _offsets(_: Tables) -> Iterator[InputSpec]:
    yield filled(None, "batch", value=0)


def _lengths(_: Tables) -> Iterator[InputSpec]:
    yield filled(None, "batch", value=LENGTH)


def _sound(_: Tables) -> Iterator[InputSpec]:
    yield tensor(None, "batch", _SAMPLES)
    yield tensor(None, "batch", 1, _SAMPLES)


def _factors(_: Tables) -> Iterator[InputSpec]:
    yield constant(None, 1.0, keyword=False)


def _counts(_: Tables) -> Iterator[InputSpec]:
    yield constant(None, 1, keyword=False)
    yield constant(None, 2, keyword=False)


def _edges(_: Tables) -> Iterator[InputSpec]:
    yield indices(None, 2, "edges", count=_FEWEST_NODES)


def _of_edges(_: Tables) -> Iterator[InputSpec]:
    yield tensor(None, "edges", low=0.0, high=1.0)
    yield tensor(None, "edges", 1)


def _adjacency(_: Tables) -> Iterator[InputSpec]:
    yield tensor(None, "nodes", "nodes", low=0.0, high=1.0)


_BY_NAME: tuple[tuple[str, Callable[[Tables], Iterator[InputSpec]]], ...] = (
    (r".*mask", _masks),
    (r"t|times?|time_?steps?|sigmas?|noise_levels?", _times),
    (r"y|(class_?)?labels?|class(es)?|class_id|targets?|cond", _labels),
    (r"(.*_)?scale|temperature|alpha|beta|gamma|eps(ilon)?|rate", _factors),
    (r"k|n|top_?k|(num|n)_\w+|max_\w+", _counts),
    (r"offsets?", _offsets),
    (r"(.*_)?(lengths?|lens)", _lengths),
    (r"wave(form)?s?|audios?|speech|sound|signals?", _sound),
    (r"edge_?(index|indices|list)|edges", _edges),
    (r"edge_(attrs?|weights?|features?)", _of_edges),
    (r"adj(acency)?(_matrix)?", _adjacency),
)
