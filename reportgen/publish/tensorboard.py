"""Publishes a report to TensorBoard as event files.

`DIR/<title>/` contains headline metrics, texts and graphs, one step per build date;
`DIR/<title>/<model>/<run>/` contains the training logs of a model.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Pictures
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata

from reportgen.errors import PublishError
from reportgen.metrics import Metric
from reportgen.publish.contents import (
    Contents,
    CurveFiles,
    CurvePoints,
    ModelContents,
    PublishedGraph,
    PublishedImage,
    PublishedRun,
)
from reportgen.publish.event_files import (
    Growth,
    Point,
    RunFolder,
    TagSeries,
    find_change,
    read_run,
    write_changes,
)
from reportgen.publish.pictures import CannotDraw, mark_of, read_picture, svg_to_png
from reportgen.publish.published import Kind, Published, PublishTally
from reportgen.publish.tables import text_items

_LARGEST_STEP = 2**63 - 1  # `Event.step` is an int64
_SHOWN_FORMATS = frozenset({"PNG", "JPEG", "GIF", "BMP"})
# What names of folders must not contain on Windows.
_UNSAFE = re.compile(r'[\x00-\x1f<>:"|?*\\]')


def publish(contents: Contents, folder: Path) -> Published:
    """Write what is not there yet below `folder`.

    Raises:
        PublishError: a file of the report is damaged, or `folder` cannot be read or written to.
    """
    tally = PublishTally()
    top = folder / contents.slug
    try:
        _publish_run(top, _Builds(contents, tally).series, tally)
        for model in contents.models:
            files = CurveFiles(model)
            for run, path in zip(model.runs, run_folders(model), strict=True):
                logs = _Logs(model, run, files, contents.built.timestamp(), tally)
                _publish_run(top / path, logs.series, tally)
    except OSError as error:
        raise PublishError(
            f"cannot publish to {error.filename or folder}: {error.strerror or error}",
            hint="give --tensorboard a folder with write permission",
        ) from error
    return tally.published(str(top))


def run_folders(model: ModelContents) -> list[str]:
    """A folder for each run of `model`, relative to the report's; all differ."""
    found: list[str] = []
    for run in model.runs:
        path = "/".join(_safe(part) for part in (model.name, *run.name.split("/")) if part)
        number = 2
        unique = path
        while unique in found:
            unique, number = f"{path} {number}", number + 1
        found.append(unique)
    return found


def _safe(part: str) -> str:
    # A part of dots alone, such as "..", would lead out of the folder.
    return _UNSAFE.sub("_", part) if part.strip(".") else "_" * len(part)


def _publish_run(
    folder: Path, series_of: Callable[[RunFolder], Iterator[TagSeries]], tally: PublishTally
) -> None:
    run = read_run(folder)
    changes = [
        find_change(run.tags.get(series.tag), series) for series in series_of(run) if series.points
    ]
    write_changes(run, changes)
    for change in changes:
        series = change.series
        new = len(change.new)
        tally.count(series.kind, written=new, already_there=len(series.points) - new)


@dataclass(slots=True)
class _Builds:
    """Metrics, texts and graphs of all models at the date of their build."""

    contents: Contents
    tally: PublishTally

    def series(self, there: RunFolder) -> Iterator[TagSeries]:
        """The series of this build; `there` is what the run has already."""
        for model in self.contents.models:
            for metric in model.metrics:
                yield self._metric(model, metric)
            for item in text_items(model, "markdown"):
                yield self._one(
                    f"{model.name}/{item.name}", "texts", "changes", _TEXT, _text(item.text)
                )
            for graph in model.graphs:
                yield from self._graph(model, graph, there)

    def _metric(self, model: ModelContents, metric: Metric) -> TagSeries:
        unit = f" in {metric.unit}" if metric.unit else ""
        better = f", {metric.direction} is better" if metric.direction != "none" else ""
        bound = ", a lower bound" if metric.lower_bound else ""
        return self._one(
            f"{model.name}/{metric.key}",
            "metrics",
            "builds",
            _scalar_metadata(f"{metric.label}{unit}{bound}{better}"),
            _scalar(float(metric.value or 0)),
        )

    def _graph(
        self, model: ModelContents, graph: PublishedGraph, there: RunFolder
    ) -> Iterator[TagSeries]:
        tag = f"{model.name}/graphs/{graph.kind}"
        svg = model.file(graph.svg)
        if svg is None:
            self.tally.note(f"{model.name}: {graph.svg} is missing from the report")
            return
        digest = hashlib.sha256(svg.read_bytes()).hexdigest()
        recorded = there.tags.get(tag)
        # Drawing takes a second: a graph that is there already is not drawn again.
        value = recorded.points[-1].value if recorded and recorded.points else b""
        if mark_of(_picture_in(value)) != digest:
            try:
                value = _picture(svg_to_png(svg, digest))
            except CannotDraw as error:
                self.tally.note(f"graphs are not published: {error}")
                return
        yield self._one(tag, "graphs", "changes", _IMAGE, value)

    def _one(
        self, tag: str, kind: Kind, growth: Growth, metadata: bytes, value: bytes
    ) -> TagSeries:
        built = self.contents.built
        # A date as step, 20261127: it rises with every day, and sliders and axes show it.
        point = Point(int(f"{built:%Y%m%d}"), built.timestamp(), value)
        return TagSeries(tag=tag, kind=kind, growth=growth, metadata=metadata, points=[point])


@dataclass(slots=True)
class _Logs:
    """Curves, pictures and hyperparameters of one training run."""

    model: ModelContents
    run: PublishedRun
    files: CurveFiles
    built: float  # seconds since 1970, for points whose log has no times
    tally: PublishTally

    def series(self, _: RunFolder) -> Iterator[TagSeries]:
        """The series of the run."""
        start = math.inf
        for tag, curve in self.run.scalars.items():
            logged = self.files.read(self.run.name, tag, curve)
            start = min([start, *logged.wall_times[:1]])
            yield TagSeries(
                tag=tag,
                kind="points",
                growth="training" if logged.complete else "sample",
                metadata=_scalar_metadata(""),
                points=self._points(tag, logged),
            )
        yield from self._images()
        if self.run.hyperparameters:
            yield self._hyperparameters(start if start < math.inf else 0.0)

    def _points(self, tag: str, logged: CurvePoints) -> list[Point]:
        steps = self._whole(tag, logged.steps)
        # Logs need not be in order, but steps of an event file are.
        found = [
            Point(step, time if math.isfinite(time) else self.built, _scalar(value))
            for step, time, value in zip(steps, logged.wall_times, logged.values, strict=True)
        ]
        return sorted(found, key=lambda point: point.step)

    def _whole(self, tag: str, steps: Sequence[float]) -> list[int]:
        """Steps as TensorBoard can store them: whole, or the points' numbers from 0."""
        if all(abs(step) < _LARGEST_STEP and step == int(step) for step in steps):
            return [int(step) for step in steps]
        self.tally.note(
            f"{self.model.name}: {tag!r} has fractional or too large steps; "
            "in TensorBoard its points are numbered from 0"
        )
        return list(range(len(steps)))

    def _images(self) -> Iterator[TagSeries]:
        for tag, images in self.run.images_by_tag().items():
            # One tag belongs to one plugin: a picture may share its tag with a curve.
            name = f"{tag}/image" if tag in self.run.scalars else tag
            steps = self._whole(tag, [image.step for image in images])
            points = [
                Point(step, self.built, value)
                for step, image in zip(steps, images, strict=True)
                if (value := self._picture(image))
            ]
            yield TagSeries(
                tag=name, kind="images", growth="training", metadata=_IMAGE, points=points
            )

    def _picture(self, image: PublishedImage) -> bytes | None:
        try:
            return _picture(read_picture(self.model.file(image.file)))
        except ValueError as error:
            self.tally.note(f"{self.model.name}: {image.file} {error}")
            return None

    def _hyperparameters(self, start: float) -> TagSeries:
        session = SessionStartInfo(start_time_secs=start)
        for name, value in sorted(self.run.hyperparameters.items()):
            if isinstance(value, bool):
                session.hparams[name].bool_value = value
            elif isinstance(value, str):
                session.hparams[name].string_value = value
            else:
                session.hparams[name].number_value = value
        # Equal hyperparameters must give equal bytes, and protobuf's maps have no order.
        content = HParamsPluginData(session_start_info=session).SerializeToString(
            deterministic=True
        )
        plugin = SummaryMetadata.PluginData(
            plugin_name=hparams_metadata.PLUGIN_NAME, content=content
        )
        return TagSeries(
            tag=hparams_metadata.SESSION_START_INFO_TAG,
            kind="texts",
            growth="training",
            metadata=SummaryMetadata(plugin_data=plugin).SerializeToString(),
            points=[Point(0, start, _tensor(hparams_metadata.NULL_TENSOR))],
        )


def _scalar_metadata(description: str) -> bytes:
    return bytes(scalar_metadata.create_summary_metadata("", description).SerializeToString())


_TEXT = bytes(text_metadata.create_summary_metadata("", "").SerializeToString())
_IMAGE = bytes(image_metadata.create_summary_metadata("", "").SerializeToString())


def _scalar(value: float) -> bytes:
    # float32: TensorBoard's data server shows no tensors in double precision.
    return bytes(Summary.Value(simple_value=value).SerializeToString())


def _text(text: str) -> bytes:
    shape = TensorShapeProto()
    return _tensor(TensorProto(dtype=DT_STRING, tensor_shape=shape, string_val=[text.encode()]))


def _tensor(tensor: TensorProto) -> bytes:
    return bytes(Summary.Value(tensor=tensor).SerializeToString())


def _picture(content: bytes) -> bytes:
    """The value of TensorBoard's image plugin: width and height as text, then the picture.

    Raises:
        ValueError: `content` is no picture that Pillow reads.
    """
    try:
        with Pictures.open(io.BytesIO(content)) as picture:
            width, height = picture.size
            if picture.format not in _SHOWN_FORMATS:
                target = io.BytesIO()
                picture.convert("RGBA").save(target, "PNG")
                content = target.getvalue()
    except (OSError, SyntaxError, Pictures.DecompressionBombError) as error:
        raise ValueError("is not a PNG, JPEG, GIF, BMP or WebP picture") from error
    return _tensor(
        TensorProto(
            dtype=DT_STRING,
            tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=3)]),
            string_val=[str(width).encode(), str(height).encode(), content],
        )
    )


def _picture_in(value: bytes) -> bytes:
    strings = Summary.Value.FromString(value).tensor.string_val
    return bytes(strings[2]) if len(strings) == 3 else b""
