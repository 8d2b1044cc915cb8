"""The files of the training section: plots as SVG, their points as CSV, pictures, charts."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reportgen.charts.panes import PaneSeries, pane
from reportgen.charts.svg_file import standalone
from reportgen.errors import LogError
from reportgen.sections.training.pictures import Normalization, choose_images, describe, encode
from reportgen.sections.training.result import Chart, Image
from reportgen.training_logs.log_run import LoggedChart, LoggedImage

FOLDER = "training"
_LONGEST_SLUG = 60
_MOST_CHARTS = 60
_MOST_PICTURE_BYTES = 2_000_000  # of all pictures of a chapter, which its page holds


def slug(text: str) -> str:
    """An ASCII file name for `text`; different texts give different names.

    If characters are replaced, six hexadecimal digits of a hash are appended.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    short = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-").lower()[:_LONGEST_SLUG]
    exact = re.sub(r"[/_. ]", "-", text) == short
    mark = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]
    return short if exact and short else f"{short}-{mark}".lstrip("-")


@dataclass(kw_only=True, slots=True)
class CurvePoints:
    """All points of one line of a plot, for its CSV file."""

    run: str
    tag: str
    steps: Sequence[float]
    values: Sequence[float]
    times: Sequence[float]


@dataclass(slots=True)
class ChapterFolder:
    """Writes the section's files below `root`/training, each under a unique name."""

    root: Path
    _used: set[str] = field(default_factory=set)
    _picture_bytes: int = 0

    def write_text(self, file: str, text: str) -> str:
        """Write `text` to `file`, relative to `root`; returns `file`."""
        return self._write(file, text.encode("utf-8", errors="replace"))

    def write_csv(self, file: str, lines: Iterable[CurvePoints]) -> str:
        """Every point of `lines`: run, tag, step, wall time in seconds since 1970, value."""
        target = io.StringIO()
        csv.writer(target, lineterminator="\n").writerow(
            ("run", "tag", "step", "wall_time", "value")
        )
        for line in lines:
            names = io.StringIO()
            # Only characters of the line terminator are quoted; a tag may hold either.
            csv.writer(names, lineterminator="\r\n").writerow((line.run, line.tag))
            start = names.getvalue().removesuffix("\r\n")
            target.writelines(
                f"{start},{_number(step)},{_time(time)},{value!r}\n"
                for step, time, value in zip(line.steps, line.times, line.values, strict=True)
            )
        return self.write_text(file, target.getvalue())

    def write_images(
        self, images: Sequence[LoggedImage], normalization: Normalization | None
    ) -> tuple[tuple[Image, ...], list[str]]:
        """Write a selection of `images`; also returns a sentence for each unreadable one."""
        written, problems = list[Image](), list[str]()
        for image in choose_images(images):
            if self._picture_bytes > _MOST_PICTURE_BYTES:
                problems.append(
                    f"more images are not shown: the limit of {_MOST_PICTURE_BYTES / 1e6:g} MB of "
                    "images per chapter is reached"
                )
                break
            try:
                encoded = encode(image, normalization)
            except (ValueError, OSError, LogError) as error:
                problems.append(f"image {image.tag!r} at step {image.step:g}: {error}")
                continue
            self._picture_bytes += len(encoded.content)
            name = self._unique(f"{FOLDER}/images/{slug(image.tag)}-{image.step:g}", encoded.suffix)
            written.append(describe(image, encoded, self._write(name, encoded.content)))
        return tuple(written), problems

    def write_charts(self, charts: Sequence[LoggedChart]) -> tuple[tuple[Chart, ...], list[str]]:
        """Draw charts that are not curves; also returns a sentence for each that fails."""
        written, problems = list[Chart](), list[str]()
        for chart in charts[:_MOST_CHARTS]:
            try:
                series = [PaneSeries(name=t.name, x=t.x, y=t.y, z=t.z) for t in chart.traces]
                drawn = pane(
                    chart.kind, chart.tag, series, x_title=chart.x_title, y_title=chart.y_title
                )
            except ValueError as error:
                problems.append(f"chart {chart.tag!r}: {error}")
                continue
            name = self._unique(f"{FOLDER}/charts/{slug(chart.tag)}", "svg")
            written.append(
                Chart(
                    tag=chart.tag,
                    kind=chart.kind,
                    svg=self.write_text(name, standalone(str(drawn))),
                )
            )
        if len(charts) > _MOST_CHARTS:
            problems.append(f"{len(charts) - _MOST_CHARTS:,} more charts are not shown")
        return tuple(written), problems

    def _unique(self, stem: str, suffix: str) -> str:
        name, number = f"{stem}.{suffix}", 2
        while name in self._used:
            name, number = f"{stem}-{number}.{suffix}", number + 1
        self._used.add(name)
        return name

    def _write(self, file: str, content: bytes) -> str:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return file


def _number(step: float) -> str:
    return str(int(step)) if step == int(step) else repr(step)


def _time(seconds: float) -> str:
    """A wall time; empty where the log has none."""
    return "" if math.isnan(seconds) else repr(seconds)
