"""How complaints speak: values quoted on one line, and the nearest name that was perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LONGEST_QUOTE = 60
_LONGEST_GUESS = 80  # difflib takes quadratic time, and nobody mistypes a name of a megabyte


def quote(value: object) -> str:
    """`value` as it stands in a complaint: one line, capped, control characters escaped.

    Scalars look as in YAML (`true`, `null`, `8`), text stands in quotes, collections are named.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    text = str(value) if isinstance(value, int | float) else f"'{one_line(str(value))}'"
    return text if len(text) <= _LONGEST_QUOTE else f"{text[: _LONGEST_QUOTE - 2]}…'"


def one_line(text: str) -> str:
    """`text` with everything unprintable escaped, so that it can neither break a line nor hide."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'inputs'?` when one of `known` is near `name`, else nothing."""
    guess = nearest(name, known)
    return f"; did you mean {quote(guess)}?" if guess else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that looks most like `name`, if any does."""
    if len(name) > _LONGEST_GUESS:
        return None
    by_small = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), by_small, n=1, cutoff=0.6)
    return by_small[close[0]] if close else None
