"""Subprocess that converts an SVG file to a one-page PDF: `python -m ... SVG PDF`.

WeasyPrint runs in a process of its own, so that a drawing that takes too long can be stopped.
"""

from __future__ import annotations

import base64
import re
import sys
from pathlib import Path
from typing import Any

import weasyprint
from weasyprint.urls import URLFetcher

from reportgen.publish.pictures import view_box

# It sets colors for dark pages by functions that WeasyPrint lacks; elements have the light ones.
_STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)


def svg_to_pdf(svg: str) -> bytes:
    """The drawing as a PDF page of its own size, where one unit of its view box is one point.

    Raises:
        ValueError: the drawing has no view box.
    """
    width, height = view_box(svg)
    encoded = base64.b64encode(_STYLE.sub("", svg).encode()).decode()
    page = (
        f"<style>@page{{size:{width}pt {height}pt;margin:0}}body{{margin:0}}"
        f"img{{display:block;width:{width}pt;height:{height}pt}}</style>"
        f'<img alt="graph" src="data:image/svg+xml;base64,{encoded}">'
    )
    data_only = URLFetcher(allowed_protocols=("data",))  # an SVG may name files and addresses
    pdf: Any = weasyprint.HTML(string=page, url_fetcher=data_only).write_pdf()
    return bytes(pdf)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_bytes(svg_to_pdf(source.read_text(encoding="utf-8")))
