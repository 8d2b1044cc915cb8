"""Places in a page for paper that are filled after its layout."""

from __future__ import annotations

from dataclasses import dataclass

TILE = "tile:"
"""An element's id that starts so is the place of a tile; the rest is its quoted file name."""

SHEET = "sheet:"
"""An element's id that starts so is the place of a chapter's page; the rest is `chapter-page`."""


def is_place(name: str) -> bool:
    """Whether an element's id is that of a place, which no link refers to."""
    return name.startswith((TILE, SHEET))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """A page of a chapter in print, which is laid out by itself; `anchors` are ids on it."""

    landscape: bool
    anchors: tuple[str, ...]
