"""Phrases that several probes share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from reportgen.sections.behavior.result import OutputForm
from reportgen.units import format_shape

_SHOWN = 6


def listed(names: Sequence[str], most: int = _SHOWN) -> str:
    """`a, b, c and 12 more`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def joined(words: Sequence[str]) -> str:
    """`1, 2 and 3`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def capitalized(text: str) -> str:
    """The text as the beginning of a sentence; a name in code stays as it is."""
    first = text.partition(" ")[0]
    return text if any(mark in first for mark in "._") else text[:1].upper() + text[1:]


def counted(number: int, word: str) -> str:
    """`1 module`, `2 modules`; a phrase with a verb, "Dropout never drops", stands after `×`."""
    if " " in word:
        return f"{number:,} × {word}"
    return f"{number:,} {word}{'s' * (number != 1)}"


def forms(outputs: Sequence[OutputForm]) -> str:
    """`logits 2 × 10, aux 2 × 10`."""
    return listed([f"{o.key or 'output'} {format_shape(o.shape)}" for o in outputs], 4)


def module_at(model: nn.Module, path: str) -> str:
    """`blocks.0.drop (Dropout)`; the model itself is named in words."""
    if not path:
        return f"the forward of {type(model).__name__} itself"
    return f"{path} ({type(model.get_submodule(path)).__name__})"
