"""Logged pictures as files have them, drawings turned into pixels."""

from __future__ import annotations

from pathlib import Path

from reportgen.publish.svg_to_png import CannotDraw, svg_to_png


def read_picture(path: Path | None) -> bytes:
    """The encoded picture in `path`; an SVG drawing as PNG.

    Raises:
        ValueError: there is no such file, or the drawing cannot be made into a PNG.
    """
    if path is None:
        raise ValueError("is missing from the report")
    if path.suffix != ".svg":
        return path.read_bytes()
    try:
        return svg_to_png(path, "")
    except CannotDraw as error:
        raise ValueError(f"cannot be made into a PNG: {error}") from error
