"""Logged pictures and drawings as PNG, since TensorBoard shows no SVG: WeasyPrint, then Poppler."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from reportgen.fonts import write_font_configuration

MARK = "Source"
"""The text field of the PNG that holds the digest of the SVG it was drawn from."""

_VIEW_BOX = re.compile(r'viewBox="[-\d.]+[ ,]+[-\d.]+[ ,]+([\d.]+)[ ,]+([\d.]+)"')
_SECONDS = 120  # for each of the two programs
_DOTS_PER_INCH = 108  # one and a half pixels for each unit of the view box
_MOST_PIXELS = 6000  # on the longer side
_POINTS_PER_INCH = 72


class CannotDraw(Exception):
    """The drawing cannot be made into a PNG, with the reason."""


def svg_to_png(svg: Path, mark: str) -> bytes:
    """The drawing at 108 dots per inch, or less where it would exceed 6,000 pixels.

    Args:
        svg: a drawing of this package.
        mark: kept in the PNG's text field `MARK`.

    Raises:
        CannotDraw: Poppler is not installed, or one of the programs failed.
    """
    if shutil.which("pdftoppm") is None:
        raise CannotDraw("pdftoppm is not installed: install Poppler (poppler-utils with apt)")
    with tempfile.TemporaryDirectory(prefix="reportgen-png-") as scratch:
        folder = Path(scratch)
        longest = _longest_side(svg)
        child = [sys.executable, "-m", "reportgen.publish.svg_to_pdf", str(svg)]
        _run([*child, str(folder / "graph.pdf")], folder)
        dots_per_inch = min(_DOTS_PER_INCH, _MOST_PIXELS * _POINTS_PER_INCH / longest)
        render = ["pdftoppm", "-png", "-singlefile", "-r", f"{dots_per_inch:.3f}"]
        _run([*render, str(folder / "graph.pdf"), str(folder / "graph")], folder)
        return _marked((folder / "graph.png").read_bytes(), mark)


def _longest_side(svg: Path) -> float:
    try:
        return max(view_box(svg.read_text(encoding="utf-8")))
    except ValueError as error:
        raise CannotDraw(str(error)) from error


def mark_of(png: bytes) -> str:
    """The text field `MARK` of a picture; "" where it has none."""
    try:
        with Image.open(io.BytesIO(png)) as image:
            return str(image.info.get(MARK, ""))
    except (OSError, ValueError, SyntaxError):  # what Pillow raises for damaged files
        return ""


def _run(command: list[str], folder: Path) -> None:
    # Both programs find fonts through fontconfig, and ours need not be installed.
    environment = os.environ | {"FONTCONFIG_FILE": str(write_font_configuration(folder))}
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_SECONDS, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise CannotDraw(f"drawing took longer than the limit of {_SECONDS} s") from None
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CannotDraw(f"{command[0]} failed: {''.join(last)[:200]}")


def view_box(svg: str) -> tuple[float, float]:
    """Width and height of a drawing in the units of its view box.

    Raises:
        ValueError: it has no view box, or an empty one.
    """
    size = _VIEW_BOX.search(svg)
    if size is None or not float(size[1]) * float(size[2]) > 0:
        raise ValueError("the SVG has no viewBox")
    return float(size[1]), float(size[2])


def _marked(png: bytes, mark: str) -> bytes:
    text = PngInfo()
    text.add_text(MARK, mark)
    target = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.save(target, "PNG", pnginfo=text, optimize=True)
    return target.getvalue()


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
