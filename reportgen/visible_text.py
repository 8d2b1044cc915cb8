"""Untrusted text with its invisible characters escaped, so that a page can show it."""

from __future__ import annotations

import unicodedata

_KEPT = frozenset("\n\t")


def visible(text: str) -> str:
    """`text` with control and direction-changing characters escaped as `\\u202e`."""
    if text.isprintable():
        return text
    return "".join(_escaped(char) if _is_hidden(char) else char for char in text)


def _is_hidden(char: str) -> bool:
    # control, format (bidirectional marks), surrogate, private use, line and paragraph separators
    return char not in _KEPT and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def _escaped(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\u{{{ord(char):x}}}"
