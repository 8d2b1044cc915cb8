"""Untrusted text with its invisible characters escaped, so that a page can show it."""

from __future__ import annotations

import unicodedata

_KEPT = frozenset("\n\t")


def visible(text: str) -> str:
    """`text` with control and direction-changing characters escaped as `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(_escaped(char) if _is_hidden(char) else char for char in text)


def cut(text: str, limit: int) -> str:
    """`text` with at most `limit` characters, cut between two words and marked with `…`."""
    if len(text) <= limit:
        return text
    head = text[: limit - 1]
    # within a text without spaces, such as a path, there is no better place
    return f"{head.rsplit(' ', 1)[0]} …"[:limit] if " " in head else f"{head}…"


def _is_hidden(char: str) -> bool:
    # control, format (bidirectional marks), surrogate, private use, line and paragraph separators
    return char not in _KEPT and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\u{{{ord(char):x}}}"
