"""The few SVG elements that charts are made of."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape

SANS = "'Report Sans','Report Hangul',sans-serif"
MONO = "'Report Mono','Report Hangul',monospace"
PALETTE = (
    "#2f6fd0", "#d9822b", "#2a9d78", "#9357b5", "#c0443a", "#64748b", "#a8891a", "#1592a8",
)  # fmt: skip
"""Colors of series; told apart by lightness too, so that they survive a gray printer."""
_INK, _MUTED, _LINE = "#14181f", "#5b6472", "#d5dae1"
_MONO_ADVANCE, _SANS_ADVANCE = 0.6, 0.56  # widths of a letter, in ems; wide ones count double


def number(value: float) -> str:
    """A coordinate with at most two decimals and no needless zeros."""
    return f"{value:.2f}".rstrip("0").rstrip(".").replace("-0", "0", value > -0.005)


def drawing(width: float, height: float, title: str, body: Iterable[str]) -> Markup:
    """A whole chart; `title` is what a screen reader says of it."""
    return Markup(  # noqa: S704 - the elements above escape whatever text they are given
        f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
        f'viewBox="0 0 {number(width)} {number(height)}" width="{number(width)}" '
        f'height="{number(height)}" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(body)}</svg>"
    )


def text(
    x: float, y: float, words: str, *, size: float = 11, anchor: str = "start",
    muted: bool = False, mono: bool = False, turned: bool = False,
) -> str:  # fmt: skip
    """A line of text whose baseline begins, ends or is centerd at (`x`, `y`)."""
    turn = f' transform="rotate(-90 {number(x)} {number(y)})"' if turned else ""
    return (
        f'<text x="{number(x)}" y="{number(y)}" font-family="{MONO if mono else SANS}" '
        f'font-size="{number(size)}" text-anchor="{anchor}" class="{"muted" if muted else "ink"}" '
        f'fill="{_MUTED if muted else _INK}"{turn}>{escape(words)}</text>'
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
        f'class="rule" stroke="{_MUTED if dashed else _LINE}" stroke-width="1"{dash}/>'
    )


def color(series: int) -> str:
    """The printed color of a series."""
    return PALETTE[series % len(PALETTE)]


def width_of(words: str, size: float, *, mono: bool = False) -> float:
    """About how wide `words` are; East Asian letters take twice the room."""
    ems = sum(2 if ord(char) > 0x1100 else 1 for char in words)
    return ems * size * (_MONO_ADVANCE if mono else _SANS_ADVANCE)


def fitted(words: str, width: float, size: float, *, mono: bool = False) -> str:
    """`words` cut to `width` from the left, since the end of a path tells more: `…blocks.3`."""
    if width_of(words, size, mono=mono) <= width:
        return words
    while words and width_of("…" + words, size, mono=mono) > width:
        words = words[1:]
    return "…" + words
