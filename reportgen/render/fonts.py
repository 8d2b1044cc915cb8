"""The fonts of a page: only the glyphs it uses, as `@font-face` rules with `data:` addresses.

A report looks the same on every machine because its fonts are embedded: Inter for text, JetBrains
Mono for names in code, Report Hangul (a renamed NanumGothic) for Korean and what else it covers.

Beside a font with Latin letters lies what most pages embed of it, in base64: `write_common`. As
WOFF2 files, fontconfig would offer them to other programs instead of the whole fonts.
"""

from __future__ import annotations

import base64
import io
import logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock

from reportgen.fonts import templates_dir

# Kerning, marks and compositions; tnum and zero for columns of figures.
_FEATURES = ["kern", "mark", "mkmk", "ccmp", "locl", "tnum", "zero"]
_TAG = re.compile(r"<[^>]*>")
# ASCII, the list marker, which is in no text, and what templates and sections write: most pages
# need no other character. Cutting their fonts takes a fifth of a second each; they are shipped.
_ALWAYS = frozenset(map(chr, range(0x20, 0x7F))) | frozenset("•\xa0±²³µ·¹×÷Δσ–—“”…←→−√∞≤≥⚠")

_CUTTING = Lock()  # two pages that need the same font at once would both cut it


@dataclass(frozen=True, kw_only=True, slots=True)
class Face:
    """One file of the `fonts` folder and its family and weight."""

    family: str
    weight: str
    file: str
    latin: bool  # it has the Latin letters: every page contains its ASCII


FACES = (
    Face(family="Report Sans", weight="400", file="Inter-Regular.otf", latin=True),
    Face(family="Report Sans", weight="600", file="Inter-SemiBold.otf", latin=True),
    Face(family="Report Mono", weight="400", file="JetBrainsMono-Regular.ttf", latin=True),
    Face(family="Report Hangul", weight="400", file="ReportHangul-Regular.ttf", latin=False),
    Face(family="Report Hangul", weight="600", file="ReportHangul-Bold.ttf", latin=False),
)


def font_faces(page: str, folder: Path) -> str:
    """The `@font-face` rules for the characters of `page`; `folder` holds the font files."""
    needed = characters(page) | _ALWAYS
    latin = needed & covered(folder)
    return "\n".join(
        rule
        for face in FACES
        if (rule := _font_face(folder, face, latin if face.latin else needed - latin))
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
    from fontTools.ttLib import TTFont

    with TTFont(path, lazy=True) as font:
        return frozenset(map(chr, font.getBestCmap()))


def _font_face(folder: Path, face: Face, needed: frozenset[str]) -> str:
    present = needed & _characters_of(folder / face.file)
    if not present:
        return ""
    present |= {" "}  # a line breaker needs it in the font of the words around it
    with _CUTTING:
        data = _in_base64(folder / face.file, present)
    return (
        f"@font-face{{font-family:'{face.family}';font-weight:{face.weight};font-style:normal;"
        f"src:url(data:font/woff2;base64,{data}) format('woff2')}}"
    )


@cache
def _in_base64(path: Path, present: frozenset[str]) -> str:
    """What `cut` returns, read from a file if these are the characters of most pages."""
    if present == common(path):
        return common_file(path).read_text(encoding="ascii")
    return base64.b64encode(cut(path, present)).decode("ascii")


def common(path: Path) -> frozenset[str]:
    """The characters that most pages embed of the font at `path`."""
    return _ALWAYS & covered(path.parent) & _characters_of(path)


def common_file(path: Path) -> Path:
    """Where the font at `path` is cut to these."""
    return path.with_suffix(".woff2.base64")


def write_common() -> None:
    """Cut the shipped fonts for most pages; to be called when their characters have changed."""
    for face in FACES:
        if face.latin:
            path = templates_dir() / "fonts" / face.file
            common_file(path).write_bytes(base64.b64encode(cut(path, common(path))))


def cut(path: Path, present: frozenset[str]) -> bytes:
    """The glyphs of `present` out of the font at `path`, as WOFF2: each time the same bytes."""
    # Not needed by most pages.
    from fontTools import subset
    from fontTools.ttLib import TTFont

    logging.getLogger("fontTools.subset").setLevel(logging.ERROR)
    options = subset.Options()
    options.layout_features = _FEATURES
    # Both make a small subset smaller, see `pyftsubset --help`.
    options.hinting = False
    options.desubroutinize = True
    options.flavor = "woff2"
    # A new timestamp would change the bytes.
    with TTFont(path, recalcTimestamp=False) as font:
        subsetter = subset.Subsetter(options)
        subsetter.populate(unicodes=sorted(map(ord, present)))
        subsetter.subset(font)
        file = io.BytesIO()
        subset.save_font(font, file, options)
    return file.getvalue()
