"""Decodes the values of event files: pictures, histograms, texts; counts all other kinds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from reportgen.training_logs.log_run import (
    LoggedHistogram,
    LoggedImage,
    LoggedPrCurve,
    LoggedTable,
    LoggedText,
    LogRun,
)
from reportgen.training_logs.tensorboard.event_file import EventFile
from reportgen.training_logs.tensorboard.plugin_messages import HyperparameterMessages, read_layouts
from reportgen.training_logs.tensorboard.tensors import (
    MalformedTensor,
    tensor_array,
    tensor_scalar,
    tensor_strings,
)

TEXT_SUFFIX = "/text_summary"
"""What `add_text` appends to the tag."""

_SCALAR_CLASS = 1  # DATA_CLASS_SCALAR
_SHORT_NAME = 100  # the name of a plugin comes from the file, and may be anything
_MAX_POOL = 100_000

# Plugins of the graph dashboard, and what the report calls their records.
_NAMES = {
    "graphs": "graph",
    "graph_keras_model": "graph",
    "graph_run_metadata": "profile",
    "graph_run_metadata_graph": "profile",
    "graph_tagged_run_metadata": "profile",
}

_Decoder = Callable[[Any], None]


class _EventOrigin(NamedTuple):
    step: float
    time: float
    session: int
    file: EventFile


class ValueDecoder:
    """Adds the values of events to one run: every value is shown or counted in `not_shown`."""

    def __init__(self, run: LogRun) -> None:
        self._run = run
        self._at: _EventOrigin
        self._plugins: dict[str, str] = {}
        self._hyperparameters = HyperparameterMessages()
        self._pool: dict[float, float] = {}
        self._kinds: dict[str | None, _Decoder] = {
            "simple_value": self._scalar,
            "image": self._image,
            "histo": self._histogram,
            "tensor": self._tensor,
            None: self._without_value,
        }
        self._tensors: dict[str, _Decoder] = {
            "scalars": self._tensor_scalar,
            "histograms": self._tensor_histogram,
            "images": self._tensor_images,
            "text": self._tensor_text,
            "pr_curves": self._pr_curve,
            "custom_scalars": self._layout,
        }

    def add(self, value: Any, event: Any, file: EventFile, session: int) -> None:
        """Add one `Summary.Value` of `event`, the event that `file` returned last."""
        self._at = _EventOrigin(float(event.step), event.wall_time, session, file)
        kind = value.WhichOneof("value")
        decoder = self._kinds.get(kind)
        if decoder is None:
            self._count(str(kind).replace("_", " "))
        else:
            decoder(value)

    def _count(self, name: str) -> None:
        self._run.not_shown[name[:_SHORT_NAME]] += 1

    def _plugin(self, value: Any) -> str:
        # Only the first value of a tag needs to name it, as in TensorBoard's accumulator.
        plugin: str = value.metadata.plugin_data.plugin_name
        return self._plugins.setdefault(value.tag, plugin) or plugin

    def _scalar(self, value: Any) -> None:
        self._add_point(value.tag, value.simple_value)

    def _add_point(self, tag: str, number: float) -> None:
        at = self._at
        self._run.series(tag).append(at.step, number, at.time, at.session)

    def _image(self, value: Any) -> None:
        image = value.image
        self._add_image(value.tag, image.encoded_image_string, image.width, image.height)

    def _add_image(self, tag: str, encoded: bytes, width: int, height: int) -> None:
        if encoded.startswith(b"GIF8"):  # only `add_video` writes GIFs
            self._count("video")
            return
        image = LoggedImage(
            tag=tag,
            step=self._at.step,
            time=self._at.time,
            payload=self._at.file.payload(encoded),
            width=max(0, width),
            height=max(0, height),
        )
        self._run.images.append(image)

    def _histogram(self, value: Any) -> None:
        histo = value.histo
        # torch puts an empty bucket before the first, for its left edge; the minimum is that edge.
        counts = list(histo.bucket)
        rights = list(histo.bucket_limit)[: len(counts)]
        counts = counts[: len(rights)]
        lefts = (
            [histo.min if math.isfinite(histo.min) else rights[0], *rights[:-1]] if rights else []
        )
        first, last = _occupied(counts)
        lefts, rights, counts = lefts[first:last], rights[first:last], counts[first:last]
        _tighten(lefts, rights, histo.min, histo.max)
        histogram = self._bucketed(
            value.tag, lefts, rights, counts,
            minimum=histo.min, maximum=histo.max, total=histo.sum, number=histo.num,
        )  # fmt: skip
        self._run.histograms.append(histogram)

    def _bucketed(
        self,
        tag: str,
        lefts: list[float],
        rights: list[float],
        counts: list[float],
        **statistics: float,
    ) -> LoggedHistogram:
        lefts, rights, counts = _joined(lefts, rights, counts)
        return LoggedHistogram(
            tag=tag,
            step=self._at.step,
            time=self._at.time,
            lefts=self._pooled(lefts),
            rights=self._pooled(rights),
            counts=self._pooled(counts),
            **statistics,
        )

    def _pooled(self, values: list[float]) -> tuple[float, ...]:
        """Equal numbers as one object: histograms of a run share their limits and most counts."""
        # 600 buckets at 1,000 steps are 1.8 million floats of 24 bytes, of which few differ.
        if len(self._pool) > _MAX_POOL:
            self._pool.clear()
        pool = self._pool.setdefault
        return tuple([pool(value, value) for value in values])

    def _without_value(self, value: Any) -> None:
        # `add_hparams` writes no value, only metadata; torch's `add_video` without moviepy neither.
        if value.metadata.plugin_data.plugin_name != "hparams":
            self._count("empty value")
            return
        try:
            content = value.metadata.plugin_data.content
            self._run.hyperparameters.update(self._hyperparameters.read(content))
        except ValueError:
            self._count("malformed hparams")

    def _tensor(self, value: Any) -> None:
        plugin = self._plugin(value)
        decoder = self._tensors.get(plugin)
        # The data class says how to read the tensor of a plugin that is not known here.
        if decoder is None and value.metadata.data_class == _SCALAR_CLASS:
            decoder = self._tensor_scalar
        if decoder is None:
            self._count(_NAMES.get(plugin, plugin or "tensor"))
            return
        try:
            decoder(value)
        except MalformedTensor:
            self._count(f"malformed {plugin}")

    def _tensor_scalar(self, value: Any) -> None:
        self._add_point(value.tag, tensor_scalar(value.tensor))

    def _tensor_histogram(self, value: Any) -> None:
        buckets = tensor_array(value.tensor)
        if buckets.ndim != 2 or buckets.shape[1] != 3:
            raise MalformedTensor
        first, last = _occupied(buckets[:, 2].tolist())
        columns = buckets[first:last].T.tolist()
        self._run.histograms.append(self._bucketed(value.tag, *columns))

    def _tensor_images(self, value: Any) -> None:
        strings, shape = tensor_strings(value.tensor)
        if len(shape) != 1 or len(strings) < 2:
            raise MalformedTensor
        # TensorFlow's image summary: width and height as text, then the encoded images.
        width, height = _pixels(strings[0]), _pixels(strings[1])
        several = len(strings) > 3
        for i, encoded in enumerate(strings[2:]):
            tag = f"{value.tag}/{i}" if several else value.tag
            self._add_image(tag, encoded, width, height)

    def _tensor_text(self, value: Any) -> None:
        strings, shape = tensor_strings(value.tensor)
        texts = [string.decode("utf-8", errors="replace") for string in strings]
        tag, step = value.tag.removesuffix(TEXT_SUFFIX), self._at.step
        if len(shape) > 1:
            width = max(1, shape[-1])
            rows = tuple(tuple(texts[i : i + width]) for i in range(0, len(texts), width))
            self._run.tables.append(LoggedTable(tag=tag, step=step, columns=(), rows=rows))
        else:
            text = LoggedText(tag=tag, step=step, time=self._at.time, text="\n\n".join(texts))
            self._run.texts.append(text)

    def _pr_curve(self, value: Any) -> None:
        rows = tensor_array(value.tensor)
        if rows.ndim != 2 or rows.shape[0] != 6:
            raise MalformedTensor
        # Rows: true and false positives, true and false negatives, precision, recall.
        curve = LoggedPrCurve(
            tag=value.tag,
            step=self._at.step,
            time=self._at.time,
            precision=tuple(rows[4].tolist()),
            recall=tuple(rows[5].tolist()),
        )
        self._run.pr_curves.append(curve)

    def _layout(self, value: Any) -> None:
        strings, _ = tensor_strings(value.tensor)
        try:
            layouts = [layout for string in strings for layout in read_layouts(string)]
        except ValueError as error:
            raise MalformedTensor from error
        # Each writer of a run repeats its layout.
        known = self._run.layouts
        known.extend(layout for layout in layouts if layout not in known)


def _pixels(text: bytes) -> int:
    # Ten digits exceed any image, and int() refuses text of more than 4,300 digits.
    return int(text) if text.isdigit() and len(text) < 10 else 0


def _occupied(counts: list[float]) -> tuple[int, int]:
    """The first bucket that is not empty, and the one after the last."""
    filled = [i for i, count in enumerate(counts) if count]
    return (filled[0], filled[-1] + 1) if filled else (0, 0)


def _tighten(lefts: list[float], rights: list[float], minimum: float, maximum: float) -> None:
    """Move the outer edges to the extremes of the data, where that leaves a width.

    The outermost limits of TensorFlow's histograms are the largest double.
    """
    if not lefts:
        return
    if math.isfinite(minimum) and minimum < rights[0]:
        lefts[0] = minimum
    if math.isfinite(maximum) and maximum > lefts[-1]:
        rights[-1] = maximum


def _joined(
    lefts: list[float], rights: list[float], counts: list[float]
) -> tuple[list[float], list[float], list[float]]:
    """Neighboring empty buckets as one: torch's 607 default buckets are mostly empty."""
    if not counts:  # a histogram of no values
        return [], [], []
    kept = [
        i
        for i, count in enumerate(counts)
        if count or not i or counts[i - 1] or lefts[i] != rights[i - 1]
    ]
    ends = [*(i - 1 for i in kept[1:]), len(counts) - 1]
    return [lefts[i] for i in kept], [rights[i] for i in ends], [counts[i] for i in kept]
