"""Text that came from outside, made safe to show: in a page, on paper, and in Markdown."""

from __future__ import annotations

import html
import re

from reportgen.visible_text import visible

_MARKDOWN = re.compile(r"[\\`*_{}\[\]<>#+!|~&$]")
# A line break would end the row of a table or the item of a list.
_BREAKS = re.compile(r"\s*[\r\n\t\u2028\u2029\v\f]\s*")


def drawn(text: str, drawable: frozenset[str]) -> str:
    """`text` with every character that no font of ours can draw written out as `\\u{1f600}`."""
    if drawable.issuperset(text):
        return text
    return "".join(
        char if char in drawable or char in "\n\t" else f"\\u{{{ord(char):x}}}" for char in text
    )


def markdown(text: str) -> str:
    """`text` as GitHub's Markdown shows it, without markup, cells, mentions or links of its own.

    A zero-width space follows `@` and `#` and breaks addresses, since GitHub looks for those
    after the Markdown is rendered, where no backslash is left.
    """
    line = _MARKDOWN.sub(r"\\\g<0>", _in_one_line(text))
    return _without_links(line.replace(r"\#", r"\#&#8203;"))


def html_in_markdown(text: str) -> str:
    """The same within an HTML tag, such as `<summary>`, where Markdown has no meaning."""
    return _without_links(html.escape(_in_one_line(text)).replace("#", "#&#8203;"))


def _in_one_line(text: str) -> str:
    return visible(_BREAKS.sub(" ", text)).strip()


def _without_links(line: str) -> str:
    line = line.replace("@", "@&#8203;")
    # GitHub links GH-12 to issue 12, and addresses even without a scheme.
    line = re.sub(r"(?i)\b(GH)-(?=\d)", r"\1&#8203;-", line)
    line = line.replace("://", "&#8203;://")
    return re.sub(r"(?i)\bwww\.", "www&#8203;.", line)


def shortened(text: str, length: int) -> str:
    """`text` cut to `length` characters, its middle replaced by `…`."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
