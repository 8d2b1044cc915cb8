"""Graphviz at work: text in, SVG and PDF out, within a time limit."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reportgen.errors import SectionError
from reportgen.fonts import write_font_configuration


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphvizLayout:
    """One graph laid out: the SVG and the one-page PDF as graphviz wrote them."""

    svg: bytes
    pdf: bytes


class LayoutError(Exception):
    """Graphviz did not finish in its time, or gave up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Graphviz:
    """The programs, the fonts they use, and a folder for what they write."""

    folder: Path
    environment: dict[str, str]

    def lay_out(self, text: str, *, seconds: float, engine: str = "dot") -> GraphvizLayout:
        """Run `engine` on `text` for at most `seconds`.

        Raises:
            LayoutError: it did not finish, or it failed.
        """
        svg, pdf = self.folder / "out.svg", self.folder / "out.pdf"
        command = [engine, "-q", "-Tsvg", "-o", str(svg), "-Tpdf", "-o", str(pdf)]
        try:
            subprocess.run(
                command,
                input=text.encode("utf-8"),
                env=self.environment,
                capture_output=True,
                timeout=max(seconds, 0.001),
                check=True,
            )
        except subprocess.TimeoutExpired as error:
            raise LayoutError(f"{engine} did not finish in {seconds:.1f} s") from error
        except subprocess.CalledProcessError as error:
            reason = error.stderr.decode("utf-8", "replace").strip().splitlines()[:1]
            raise LayoutError(f"{engine} gave up: {''.join(reason)}") from error
        return GraphvizLayout(svg=svg.read_bytes(), pdf=pdf.read_bytes())


@contextmanager
def graphviz() -> Iterator[Graphviz]:
    """Graphviz with the shipped fonts, for as long as the context lasts.

    Raises:
        SectionError: graphviz is not installed.
    """
    if shutil.which("dot") is None:
        raise SectionError(
            "graphviz's dot is not installed", hint="apt install graphviz, or brew install graphviz"
        )
    with tempfile.TemporaryDirectory(prefix="reportgen-graphs-") as name:
        folder = Path(name)
        configuration = write_font_configuration(folder)
        environment = os.environ | {
            "FONTCONFIG_FILE": str(configuration),
            "SOURCE_DATE_EPOCH": "0",
            "LC_ALL": "C.UTF-8",
        }
        yield Graphviz(folder=folder, environment=environment)


class Deadline:
    """Seconds left of a fixed stretch of time."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self, at_most: float) -> float:
        """How many seconds may be spent now: `at_most`, or what is left."""
        return min(at_most, max(self._end - time.monotonic(), 0.0))
