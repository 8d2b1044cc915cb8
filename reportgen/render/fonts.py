"""The fonts of a page: only the glyphs it uses, as `@font-face` rules with `data:` addresses.

A report reads alike on every machine because it brings its letters: Inter for text, JetBrains Mono
for names out of code, Report Hangul (a renamed NanumGothic) for Korean and what else it covers.
"""

from __future__ import annotations

import base64
import io
import logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

_FEATURES = ["kern", "mark", "mkmk", "ccmp", "locl", "tnum", "zero"]
_TAG = re.compile(r"<[^>]*>")
_ALWAYS = frozenset(map(chr, range(0x20, 0x7F))) | {"•"}  # list markers stand in no text


@dataclass(frozen=True, kw_only=True, slots=True)
class Face:
    """One file of the `fonts` folder and the family and weight it stands for."""

    family: str
    weight: str
    file: str
    everyday: bool  # holds the Latin letters, so every page carries its ASCII


FACES = (
    Face(family="Report Sans", weight="400", file="Inter-Regular.otf", everyday=True),
    Face(family="Report Sans", weight="600", file="Inter-SemiBold.otf", everyday=True),
    Face(family="Report Mono", weight="400", file="JetBrainsMono-Regular.ttf", everyday=True),
    Face(family="Report Hangul", weight="400", file="ReportHangul-Regular.ttf", everyday=False),
    Face(family="Report Hangul", weight="600", file="ReportHangul-Bold.ttf", everyday=False),
)


def font_faces(page: str, folder: Path) -> str:
    """The `@font-face` rules for the characters of `page`; `folder` holds the font files."""
    needed = characters(page) | _ALWAYS
    everyday = needed & covered(folder)
    return "\n".join(
        rule
        for face in FACES
        if (rule := _font_face(folder, face, everyday if face.everyday else needed - everyday))
    )


def characters(page: str) -> frozenset[str]:
    """The characters of a page's text, without its tags."""
    return frozenset(_TAG.sub("", page)) - frozenset("\n\r\t")


@cache
def covered(folder: Path) -> frozenset[str]:
    """The characters that Inter holds."""
    return _characters_of(folder / "Inter-Regular.otf")


@cache
def drawable(folder: Path) -> frozenset[str]:
    """Every character that one of our fonts can draw."""
    return frozenset().union(*(_characters_of(folder / face.file) for face in FACES))


@cache
def _characters_of(path: Path) -> frozenset[str]:
    with TTFont(path, lazy=True) as font:
        return frozenset(map(chr, font.getBestCmap()))


def _font_face(folder: Path, face: Face, wanted: frozenset[str]) -> str:
    held = wanted & _characters_of(folder / face.file)
    if not held:
        return ""
    held |= {" "}  # a line breaker looks for it in the font of the words around it
    data = base64.b64encode(_woff2(folder / face.file, held)).decode("ascii")
    return (
        f"@font-face{{font-family:'{face.family}';font-weight:{face.weight};font-style:normal;"
        f"src:url(data:font/woff2;base64,{data}) format('woff2')}}"
    )


@cache
def _woff2(path: Path, held: frozenset[str]) -> bytes:
    """The glyphs of `held` out of the font at `path`; equal arguments give equal bytes."""
    logging.getLogger("fontTools.subset").setLevel(logging.ERROR)
    options = subset.Options()
    options.layout_features = _FEATURES
    options.hinting = False
    options.desubroutinize = True
    options.recalc_timestamp = False
    options.flavor = "woff2"
    with TTFont(path, recalcTimestamp=False) as font:
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=sorted(map(ord, held)))
        subsetter.subset(font)
        font.flavor = "woff2"
        file = io.BytesIO()
        font.save(file, reorderTables=None)
    return file.getvalue()
