"""SVG elements that charts are made of, and plots that carry their own data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from reportgen.charts.axes import Floats

SANS = "'Report Sans','Report Hangul',sans-serif"
MONO = "'Report Mono','Report Hangul',monospace"
PALETTE = (
    "#2f6fd0", "#d9822b", "#2a9d78", "#9357b5", "#c0443a", "#64748b", "#a8891a", "#1592a8",
)  # fmt: skip
"""Colors of series; they differ in lightness too, for printers without colors."""
INK, MUTED, LINE, BAD = "#14181f", "#5b6472", "#d5dae1", "#b3261e"
"""Colors of text, of secondary text and axes, of grids, and of errors."""

# Widths of a letter in ems: JetBrains Mono has 0.6; Inter averages 0.50 on text and 0.63 on digits.
_MONO_ADVANCE, _SANS_ADVANCE = 0.6, 0.56
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
_DARK = {
    "s0": "#6ba1f0", "s1": "#e9a05a", "s2": "#4fbf9b", "s3": "#b98ad6",
    "s4": "#e5786f", "s5": "#93a1b5", "s6": "#cbb04a", "s7": "#4fbcd0",
}  # fmt: skip
_DARK_RULES = (
    "svg{background:#12161c}.ink{fill:#e4e8ee}.muted{fill:#9ba6b5}.rule{stroke:#2c333e}"
    ".edge{stroke:#9ba6b5}.paper{fill:#12161c}.seam{stroke:#12161c}.bad{fill:#ff8a80}"
    ".alarm{stroke:#ff8a80}.invalid{fill:#3a1a18}.faded{stroke:#475262}.faded-dot{fill:#475262}"
    + "".join(f".{name}{{fill:{shade}}}" for name, shade in _DARK.items())
    + "".join(f".l{name[1]}{{stroke:{shade}}}" for name, shade in _DARK.items())
)
_STYLE = (
    "<style>svg{background:#fff}@media (prefers-color-scheme:dark){" + _DARK_RULES + "}</style>"
)
_HEADING = 26
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
_HEADING_TEXT = re.compile(r'<text x="8" y="-9" class="ink heading"[^>]*>[^<]*</text>')
_METADATA = re.compile(r"<metadata>[^<]*</metadata>")
_SIZE = re.compile(r'viewBox="0 (-?\d+) ([\d.]+) ([\d.]+)" width="[\d.]+" height="[\d.]+"')
# What XML 1.0 forbids even when escaped, and what turns the direction of the text after it.
_UNFIT = re.compile(
    "[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]"
)


def number(value: float) -> str:
    """A coordinate with at most two decimals and no needless zeros."""
    # f"{-0.001:.2f}" is "-0.00"; only then is the sign removed.
    return f"{value:.2f}".rstrip("0").rstrip(".").replace("-0", "0", value > -0.005)


def drawing(width: float, height: float, title: str, body: Iterable[str]) -> Markup:
    """A whole chart; `title` is its text for screen readers."""
    return Markup(  # noqa: S704 - the elements escape their texts
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'viewBox="0 0 {number(width)} {number(height)}" width="{number(width)}" '
        f'height="{number(height)}" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def text(
    x: float, y: float, words: str, *, size: float = 11, anchor: str = "start",
    muted: bool = False, mono: bool = False, turned: bool = False,
) -> str:  # fmt: skip
    """A line of text whose baseline begins, ends or is centered at (`x`, `y`)."""
    turn = f' transform="rotate(-90 {number(x)} {number(y)})"' if turned else ""
    return (
        f'<text x="{number(x)}" y="{number(y)}" font-family="{MONO if mono else SANS}" '
        f'font-size="{number(size)}" text-anchor="{anchor}" class="{"muted" if muted else "ink"}" '
        f'fill="{MUTED if muted else INK}"{turn}>{escape(words)}</text>'
    )


def bar(x: float, y: float, width: float, height: float, series: int, title: str = "") -> str:
    """A filled rectangle in the color of a series; `title` shows when pointed at."""
    inside = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" '
        f'height="{number(height)}" class="s{series}" fill="{color(series)}">{inside}</rect>'
    )


def rule(x1: float, y1: float, x2: float, y2: float, *, dashed: bool = False) -> str:
    """A thin line of a grid or an axis."""
    dash = ' stroke-dasharray="5 3"' if dashed else ""
    return (
        f'<line x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}" '
        f'class="rule" stroke="{MUTED if dashed else LINE}" stroke-width="1"{dash}/>'
    )


def color(series: int) -> str:
    """The printed color of a series."""
    return PALETTE[series % len(PALETTE)]


def mixed_color(first: Sequence[int], second: Sequence[int], share: float) -> str:
    """The color at `share` of the way from `first` to `second`, each red, green and blue."""
    channels = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def dash_attribute(series: int) -> str:
    """The attribute that dashes the line of a series, "" for the first and every fourth after it.

    Lines differ in dashes as well as in color, since they often run together.
    """
    dash = _DASHES[series % len(_DASHES)]
    return f' stroke-dasharray="{dash}"' if dash else ""


def width_of(words: str, size: float, *, mono: bool = False) -> float:
    """About how wide `words` are; East Asian letters take twice the room."""
    # The wide letters of Unicode begin with Hangul Jamo, U+1100.
    ems = sum(2 if ord(char) > 0x1100 else 1 for char in words)
    return ems * size * (_MONO_ADVANCE if mono else _SANS_ADVANCE)


def fitted(words: str, width: float, size: float, *, mono: bool = False) -> str:
    """`words` cut to `width` at the start, since the end of a path says more: `…blocks.3`."""
    if width_of(words, size, mono=mono) <= width:
        return words
    while words and width_of("…" + words, size, mono=mono) > width:
        words = words[1:]
    return "…" + words


def printable(text: str) -> str:
    """`text` for XML: forbidden and direction-changing characters become U+FFFD."""
    return _UNFIT.sub("\ufffd", text)


def plot(
    title: str, width: float, height: float, body: str,
    data: Mapping[str, Any] | None = None, *, kind: str = "chart",
) -> Markup:  # fmt: skip
    """A plot as inline SVG; `data` is embedded for the script of the page.

    Values of `data` are plain, or arrays that `numbers` made; `kind` is the drawing's class.
    """
    name = escape(printable(title))
    embedded = f"<metadata>{_json(data)}</metadata>" if data else ""
    return Markup(  # noqa: S704 - callers escape the texts of `body`
        f'<svg xmlns="http://www.w3.org/2000/svg" class="{kind}" role="img" '
        f'viewBox="0 0 {number(width)} {number(height)}" width="{number(width)}" '
        f'height="{number(height)}"><title>{name}</title>{embedded}{body}</svg>'
    )


def standalone(svg: str) -> str:
    """The inline plot `svg` as a file of its own: with a heading, on light or dark paper.

    Raises:
        ValueError: `svg` was not made by `plot`.
    """
    title = svg[svg.index("<title>") + 7 : svg.index("</title>")]
    heading = (
        f'<text x="8" y="-9" class="ink heading" fill="{INK}" font-family="{SANS}" '
        f'font-size="13" font-weight="600">{title}</text>'
    )
    taller = _resized(svg, -_HEADING)
    end = taller.index(">") + 1
    return f"{_XML}{taller[:end]}{_STYLE}{heading}{taller[end:]}\n"


def inline(file: str) -> Markup:
    """The inline plot in `file`, an SVG written by `standalone`.

    Raises:
        ValueError: `file` was not made by `standalone`.
    """
    svg = file.removeprefix(_XML).rstrip("\n").replace(_STYLE, "", 1)
    svg = _HEADING_TEXT.sub("", svg, count=1)
    return Markup(_resized(svg, 0))  # noqa: S704 - our own file


def _resized(svg: str, top: int) -> str:
    """`svg` with its upper edge moved to `top`."""
    svg = str(svg)  # Markup would escape what is joined to it
    size = _SIZE.search(svg)
    if size is None:
        raise ValueError(f"not a plot of this package: {svg[:80]!r}")
    width, height = size[2], number(float(size[3]) + int(size[1]) - top)
    box = f'viewBox="0 {top} {width} {height}" width="{width}" height="{height}"'
    return svg[: size.start()] + box + svg[size.end() :]


def bare(svg: str) -> Markup:
    """`svg` without its embedded data, for the PDF."""
    return Markup(_METADATA.sub("", svg))  # noqa: S704 - only removes


class _Numbers(str):
    """A JSON array that is already text: the `json` module cannot round floats."""


def numbers(values: Floats, digits: int = 6) -> str:
    """`values` as a JSON array, rounded to `digits` significant digits; NaN is null."""
    # One format string for all values takes two thirds of the time that one for each takes.
    listed = ",".join([f"%.{digits}g"] * len(values)) % tuple(values.tolist())
    return _Numbers(f"[{listed.replace('nan', 'null').replace('e+', 'e')}]")


def text_group(body: str, *, size: float = 10, anchor: str = "start", kind: str = "muted",
               mono: bool = False) -> str:  # fmt: skip
    """A group of `words`, of one kind and size."""
    fill = {"muted": MUTED, "ink": INK, "bad": BAD}[kind]
    return (
        f'<g font-family="{MONO if mono else SANS}" font-size="{size}" text-anchor="{anchor}" '
        f'class="{kind}" fill="{fill}">{body}</g>'
    )


def words(x: float, y: float, text: str) -> str:
    """One line of text in a `text_group`."""
    return f'<text x="{tenth(x)}" y="{tenth(y)}">{escape(printable(text))}</text>'


def tenth(pixel: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{np.round(pixel, 1) + 0.0:g}"  # + 0.0 turns -0.0 into 0.0


def _json(value: Any) -> str:
    """Compact JSON without any character that XML or HTML would read as markup."""
    if isinstance(value, _Numbers):
        return value
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_json(key)}:{_json(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, float):
        return numbers(np.array([value]), 12)[1:-1]  # json.dumps would write NaN, which is no JSON
    plain = json.dumps(value)
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
