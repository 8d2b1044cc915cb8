"""The files of the training section: plots as SVG, their points as CSV, charts, and pictures.

Pictures are selected, checked, and large ones are shrunk.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from xml.etree import ElementTree

import numpy as np
from PIL import Image as Pillow

from reportgen.charts.panes import PaneSeries, pane
from reportgen.charts.svg import standalone
from reportgen.errors import LogError
from reportgen.sections.training.result import Chart, Image
from reportgen.training_logs.log_run import LoggedChart, LoggedImage

T = TypeVar("T")

MOST_PER_TAG = 12
MOST_PER_RUN = 96
_LARGEST_PAYLOAD = 32 * 2**20  # bytes of one encoded picture that are decoded at all
_KEPT_AS_IS = 24 * 2**10  # bytes; larger pictures are made smaller, so that pages stay small
_LONGEST_SIDE = 384  # pixels
_MOST_PIXELS = 64 * 10**6  # 190 MB as RGB; a PNG of a few kB can expand to any size
_SUFFIXES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif", b"RIFF": "webp"}
# They run scripts, embed pages, or (animate, set) change an attribute such as href later.
_UNSAFE_ELEMENTS = {"script", "foreignObject", "iframe", "object", "embed", "animate", "set"}
# Without these prefixes ElementTree writes `ns0:svg`, which HTML does not show.
_NAMESPACES = (("", "http://www.w3.org/2000/svg"), ("xlink", "http://www.w3.org/1999/xlink"))
_FOREIGN_URL = re.compile(r"url\(\s*['\"]?[^#'\"\s]")
_REFERENCE = re.compile(r"^\s*(#|data:image/(png|jpeg|gif);)", re.IGNORECASE)
FOLDER = "training"
_LONGEST_SLUG = 60
_MOST_CHARTS = 60
_MOST_PICTURE_BYTES = 2_000_000  # of all pictures of a chapter, which its page holds


@dataclass(frozen=True, kw_only=True, slots=True)
class Normalization:
    """Mean and standard deviation that pictures were normalized with, per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """A picture as a file: its content, its ending and its size in pixels."""

    content: bytes
    suffix: str
    width: int
    height: int


def choose_images(images: Sequence[LoggedImage]) -> list[LoggedImage]:
    """At most `MOST_PER_TAG` pictures of every tag and `MOST_PER_RUN` in all: ends and between."""
    by_tag: dict[str, list[LoggedImage]] = {}
    for image in images:
        by_tag.setdefault(image.tag, []).append(image)
    most = max(1, min(MOST_PER_TAG, MOST_PER_RUN // max(1, len(by_tag))))
    return [
        image
        for tag in list(by_tag)[:MOST_PER_RUN]
        for image in spread(sorted(by_tag[tag], key=lambda image: image.step), most)
    ]


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of `items`, the first and the last among them, evenly between."""
    if len(items) <= most:
        return list(items)
    places = np.unique(np.linspace(0, len(items) - 1, most).round().astype(int))
    return [items[place] for place in places] if most > 1 else [items[-1]]


def encode(image: LoggedImage, normalization: Normalization | None) -> Encoded:
    """The picture as a file that a page can hold.

    Raises:
        ValueError: it is not a picture, too large, or unsafe, with the reason.
    """
    if image.payload.size_bytes > _LARGEST_PAYLOAD:
        raise ValueError(
            f"too large: {image.payload.size_bytes:,} bytes, the limit is {_LARGEST_PAYLOAD:,}"
        )
    content = image.payload.read()
    if _is_svg(content):
        return Encoded(content=clean_svg(content), suffix="svg", width=0, height=0)
    try:
        with warnings.catch_warnings():
            # Pillow only warns up to twice its limit of 89 million pixels.
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            with Pillow.open(io.BytesIO(content)) as picture:
                return _encode_pixels(picture, content, normalization)
    # What Pillow raises for damaged files; SyntaxError is that of its PNG reader.
    except (OSError, ValueError, SyntaxError, Warning, Pillow.DecompressionBombError) as error:
        raise ValueError(f"not a readable picture: {error}") from error


def _encode_pixels(
    picture: Pillow.Image, content: bytes, normalization: Normalization | None
) -> Encoded:
    width, height = picture.size
    if width * height > _MOST_PIXELS:
        raise ValueError(f"too large: {width} × {height} pixels, the limit is {_MOST_PIXELS:,}")
    suffix = next((end for magic, end in _SUFFIXES.items() if content.startswith(magic)), None)
    if suffix and len(content) <= _KEPT_AS_IS and normalization is None:
        picture.load()  # opening reads the header only: this finds a truncated file
        return Encoded(content=content, suffix=suffix, width=width, height=height)
    pixels = picture.convert("L" if picture.mode in ("1", "L", "I;16") else "RGB")
    if normalization is not None:
        pixels = denormalize(pixels, normalization)
    if max(width, height) > _LONGEST_SIDE:
        pixels.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return _smallest(pixels, width, height)


def _smallest(pixels: Pillow.Image, width: int, height: int) -> Encoded:
    """PNG, or JPEG where a photograph makes the PNG large."""
    for suffix, options in (("png", {"optimize": True}), ("jpg", {"quality": 85})):
        target = io.BytesIO()
        pixels.save(target, "PNG" if suffix == "png" else "JPEG", **options)
        if target.tell() <= 4 * _KEPT_AS_IS:
            break
    return Encoded(content=target.getvalue(), suffix=suffix, width=width, height=height)


def denormalize(picture: Pillow.Image, normalization: Normalization) -> Pillow.Image:
    """`picture` with `x * std + mean` per channel, for x in 0..1 as it was logged.

    What a logger clipped to 0..1 before it wrote the picture is lost.
    """
    values = np.asarray(picture, dtype=np.float64) / 255
    channels = values.shape[2] if values.ndim == 3 else 1
    mean, std = (
        np.resize(np.array(given, dtype=np.float64), channels)
        for given in (normalization.mean, normalization.std)
    )
    restored = values * std + mean if values.ndim == 3 else values * std[0] + mean[0]
    return Pillow.fromarray((restored.clip(0, 1) * 255).round().astype(np.uint8))


def _is_svg(content: bytes) -> bool:
    head = content[:1000].lstrip(b"\xef\xbb\xbf \t\r\n")
    return head.startswith((b"<svg", b"<?xml", b"<!DOCTYPE svg")) and b"<svg" in content[:5000]


def clean_svg(content: bytes) -> bytes:
    """An SVG document without scripts, event handlers and references to other files.

    Raises:
        ValueError: it is not well-formed, or declares entities.
    """
    text = content.decode("utf-8", errors="replace")
    # Nested entities expand to gigabytes ("billion laughs"), and external ones read files.
    if "<!ENTITY" in text:
        raise ValueError("an SVG that declares entities")
    # matplotlib writes a DOCTYPE with the URL of its DTD, which a page must not load.
    text = re.sub(r"<!DOCTYPE[^>\[]*>", "", text)
    try:
        root = ElementTree.fromstring(text[text.index("<svg") :])  # noqa: S314 - no entities
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f"an SVG that is not well-formed: {error}") from error
    _clean(root)
    for prefix, name in _NAMESPACES:
        ElementTree.register_namespace(prefix, name)
    cleaned: bytes = ElementTree.tostring(root, encoding="utf-8")
    return cleaned


def _clean(element: ElementTree.Element) -> None:
    for child in list(element):
        if _local(child.tag) in _UNSAFE_ELEMENTS:
            element.remove(child)
        else:
            _clean(child)
    # list(): attributes and children are deleted during the loops.
    for name, value in list(element.attrib.items()):
        if _is_unsafe(_local(name), value):
            del element.attrib[name]
    if (
        element.text
        and _local(element.tag) == "style"
        and ("@import" in element.text or _FOREIGN_URL.search(element.text))
    ):
        element.text = ""


def _is_unsafe(name: str, value: str) -> bool:
    """Whether an attribute runs a script or loads something from elsewhere."""
    if name == "href":
        return not _REFERENCE.match(value)
    return name.startswith("on") or bool(_FOREIGN_URL.search(value))


def _local(name: object) -> str:
    # ElementTree writes `{namespace}name`; the tag of a comment is a function.
    return str(name).rpartition("}")[2]


def describe(image: LoggedImage, encoded: Encoded, file: str) -> Image:
    """The `Image` of the result for a picture that was written to `file`."""
    return Image(
        tag=image.tag,
        step=image.step,
        file=file,
        width=encoded.width or image.width,
        height=encoded.height or image.height,
        caption=image.caption,
    )


def slug(text: str) -> str:
    """An ASCII file name for `text`; different texts give different names.

    If characters are replaced, six hexadecimal digits of a hash are appended.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    short = re.sub(r"[^A-Za-z0-9]+", "-", plain).strip("-").lower()[:_LONGEST_SLUG]
    exact = re.sub(r"[/_. ]", "-", text) == short
    # A tag read from a damaged log may hold lone surrogates, which UTF-8 refuses.
    mark = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:6]
    return short if exact and short else f"{short}-{mark}".lstrip("-")


@dataclass(kw_only=True, slots=True)
class CsvCurve:
    """All points of one line of a plot, for its CSV file."""

    run: str
    tag: str
    steps: Sequence[float]
    values: Sequence[float]
    times: Sequence[float]


@dataclass(slots=True)
class SectionFolder:
    """Writes the section's files below `root`/training, each under a unique name."""

    root: Path
    _used: set[str] = field(default_factory=set)
    _picture_bytes: int = 0

    def write_text(self, file: str, text: str) -> str:
        """Write `text` to `file`, relative to `root`; returns `file`."""
        return self._write(file, text.encode("utf-8", errors="replace"))

    def write_csv(self, file: str, lines: Iterable[CsvCurve]) -> str:
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
            # Not csv.writer: numbers need no quotes, and `repr` keeps every digit of them.
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
            # A picture is read from its log only now: the file may be gone (LogError).
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
    return "" if math.isnan(seconds) else repr(seconds)
