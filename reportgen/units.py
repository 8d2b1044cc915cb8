"""Format bytes, counts, shares and durations as text.

Memory has binary prefixes (1 GiB = 2**30 B), counts have decimal ones (1 M = 10**6).
A share below 1 is never rounded to 100 %, and a share above 0 never to 0 %.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_DECIMAL = ("", " k", " M", " G", " T", " P")
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kKMGTP]?)(i?)[bB]\s*")


def format_bytes(size_bytes: int) -> str:
    """`size_bytes` with a binary prefix and three significant digits: `527.8 MiB`."""
    value, unit = float(size_bytes), 0
    # 1023.95 is displayed as 1,024.0; it becomes 1.0 of the next unit instead
    while abs(value) >= 1023.95 and unit < len(_BINARY) - 1:
        value, unit = value / 1024, unit + 1
    return f"{size_bytes} B" if unit == 0 else f"{value:,.1f} {_BINARY[unit]}"


def format_count(count: float) -> str:
    """`count` with a decimal prefix: `138.4 M`, `15.5 G`; below 10,000 without a prefix."""
    if abs(count) < 10_000:
        return f"{count:,.0f}"
    value, unit = float(count), 0
    # 999.95 is displayed as 1,000.0
    while abs(value) >= 999.95 and unit < len(_DECIMAL) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:,.1f}{_DECIMAL[unit]}"


def format_integer(count: int) -> str:
    """All digits of `count`, with thousands separators: `138,357,544`."""
    return f"{count:,}"


def format_bound(count: int, lower_bound: bool, form: Callable[[int], str] = format_integer) -> str:
    """`816`; `≥ 816` if it is a lower bound, `unknown` if nothing could be counted."""
    if not lower_bound:
        return form(count)
    return f"≥ {form(count)}" if count else "unknown"


def format_share(part: float, whole: float) -> str:
    """`part` of `whole` in percent; `>99.9 %` and `<0.1 %` close to the limits."""
    if whole == 0:
        return "–"
    percent = 100 * part / whole
    if percent >= 99.95 and part < whole:  # would be displayed as 100.0 %
        return ">99.9 %"
    if percent < 0.05 and part > 0:
        return "<0.1 %"
    return f"{percent:.1f} %"


def format_seconds(seconds: float) -> str:
    """A duration: `0.3 µs`, `850 µs`, `12.3 ms`, `4.2 s`, `3 min 05 s`."""
    if 0 < seconds < 0.00001:
        # 5e-8 is the least that is displayed as 0.1 µs
        return f"{seconds * 1e6:.1f} µs" if seconds >= 5e-8 else "<0.1 µs"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)  # rounded first: never `2 min 60 s`
    return f"{minutes} min {rest:02d} s"


def format_milliseconds(value: float) -> str:
    """A time in milliseconds with three digits: `0.8 µs`, `250 µs`, `1.25 ms`, `1,204 ms`."""
    if 0 < value < 1:
        return f"{value * 1000:.0f} µs" if value >= 0.01 else f"{value * 1000:.1f} µs"
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} ms"


def format_in_unit(value: float | None, unit: str) -> str:
    """A figure in the unit of its metric: "bytes", "ms", or anything else for a count."""
    if value is None:
        return "unknown"
    if unit == "bytes":
        return format_bytes(round(value))
    if unit == "ms":
        return format_milliseconds(value)
    return format_count(value)


def format_error(value: float | None) -> str:
    """A numerical error in scientific notation, `1.4e-06`; `not finite` for None."""
    if value is None:
        return "not finite"
    return "0" if value == 0 else f"{value:.1e}"


def format_shape(shape: tuple[int, ...]) -> str:
    """A tensor's shape: `8 × 3 × 224 × 224`; `scalar` for `()`."""
    return " × ".join(map(str, shape)) if shape else "scalar"


def parse_bytes(text: str) -> int:
    """Bytes from `24 GiB`, `512MB` or `100 B`; `GB` is 10**9, `GiB` is 2**30.

    Raises:
        ValueError: invalid text.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a valid size: write it as '24 GiB' or '512 MB'")
    number, prefix, binary = match.groups()
    power = " KMGTP".index(prefix.upper() or " ")
    factor: int = (1024 if binary else 1000) ** power
    return round(float(number) * factor)
