"""HTML as the plain text that a reader of the page sees."""

from __future__ import annotations

import re
from html.parser import HTMLParser

LONGEST_HTML = 1 << 18
"""Characters of one text that are parsed; a longer one is cut there."""

_INVISIBLE = frozenset({"script", "style", "template", "svg", "audio", "video", "title"})
_LINE_BREAKS = frozenset(
    {"address", "article", "aside", "blockquote", "br", "dd", "div", "dl", "dt", "footer"}
    | {"form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "li", "main", "nav", "ol", "p"}
    | {"pre", "section", "table", "tbody", "thead", "tfoot", "tr", "ul"}
)
_CELLS = frozenset({"td", "th"})
_TAG = re.compile(r"</?[a-zA-Z!]")


def plain_text(html: str) -> str:
    """`html` without tags, scripts and styles; lines where a browser breaks them, cells by tabs.

    Text without any tag keeps its own line breaks: it was logged as plain text.
    """
    cut = html[:LONGEST_HTML]
    suffix = " …" if len(html) > LONGEST_HTML else ""
    parser = _TextExtractor(keep_breaks=_TAG.search(cut) is None)
    parser.feed(cut)
    parser.close()
    return parser.text() + suffix


class _TextExtractor(HTMLParser):
    def __init__(self, *, keep_breaks: bool) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._hidden = 0
        self._verbatim = int(keep_breaks)

    def handle_starttag(self, tag: str, _attributes: object) -> None:
        if tag in _INVISIBLE:
            self._hidden += 1
        elif tag in _CELLS:
            self._parts.append("\t")
        elif tag in _LINE_BREAKS:
            self._parts.append("\n")
        self._verbatim += tag == "pre"

    def handle_startendtag(self, tag: str, _attributes: object) -> None:
        if tag in _LINE_BREAKS:
            self._parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _INVISIBLE:
            self._hidden = max(0, self._hidden - 1)
        elif tag in _LINE_BREAKS and tag != "br":
            self._parts.append("\n")
        # A stray end tag must not turn the rest into running text, or the reverse.
        self._verbatim -= tag == "pre" and self._verbatim > 0

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._parts.append(data if self._verbatim else re.sub(r"\s+", " ", data))

    def text(self) -> str:
        lines = "".join(self._parts).split("\n")
        # A cell's tab stands before it: that of a row's first cell is dropped with the blanks.
        cells = (re.sub(r" *\t *", "\t", line).strip() for line in lines)
        return "\n".join(line for line in cells if line)
