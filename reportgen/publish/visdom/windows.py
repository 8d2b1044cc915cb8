"""Publishes a report to a visdom server: one environment per report, fixed window ids.

A window that already shows the content of the report is not updated, so that its place and size
on the page stay as its readers set them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reportgen.errors import PublishError
from reportgen.metrics import Metric
from reportgen.publish.contents import (
    Contents,
    ModelContents,
    PublishedImage,
    PublishedPlot,
    PublishedRun,
    decimated,
    slug,
)
from reportgen.publish.pictures import read_picture
from reportgen.publish.published import Published, PublishTally
from reportgen.publish.tables import text_items
from reportgen.publish.visdom.client import (
    connect,
    not_visdom_error,
    parse_address,
    parse_json,
)

_SMALLEST_PANE, _LARGEST_PANE = 240, 800  # pixels


def publish(contents: Contents, url: str, env: str | None) -> Published:
    """Bring the environment up to date and have the server save it.

    Raises:
        PublishError: as `publish_to_visdom`.
    """
    address = parse_address(url)
    name = (env or contents.slug).replace("/", "_")  # as the server does
    client = connect(address, name)
    panes = parse_json(client.get_window_data(win=None, env=name), address)
    if not isinstance(panes, dict):
        raise not_visdom_error(address)
    publisher = _Publisher(client=client, contents=contents, panes=panes)
    publisher.publish()
    if name not in parse_json(client.save([name]), address):
        raise PublishError(
            f"the visdom server at {address} did not save the environment {name!r}",
            hint="see the server's log",
        )
    return publisher.tally.published(f"{address}, environment {name}")


@dataclass(slots=True)
class _Publisher:
    """Updates the windows of an environment; `panes` is their content on the server."""

    client: Any
    contents: Contents
    panes: Mapping[str, Any]
    tally: PublishTally = field(default_factory=PublishTally)

    def publish(self) -> None:
        """All models, in the order of the report."""
        try:
            for model in self.contents.models:
                self._model(model)
        except ConnectionError as error:
            raise PublishError(
                f"the connection to the visdom server was lost: {error}",
                hint="publish again: what was sent is not sent twice",
            ) from error

    def _model(self, model: ModelContents) -> None:
        for item in text_items(model, "html"):
            self._text(
                f"reportgen:{model.name}:{item.name}", f"{model.name} {item.title}", item.text
            )
        for metric in model.metrics:
            self._metric(model, metric)
        for plot, traces in plots_of(model):
            self._plot(model, plot, traces)
        for run in model.runs:
            self._images(model, run)
        for graph in model.graphs:
            self._graph(model, graph.kind, graph.svg)

    def _text(self, window: str, title: str, text: str) -> None:
        there = self._content(window) == text
        if not there:
            self.client.text(text, win=window, opts={"title": title})
        self.tally.count("texts", written=not there, already_there=there)

    def _metric(self, model: ModelContents, metric: Metric) -> None:
        """Add the build's point: its x is the time of the build in milliseconds since 1970."""
        window = f"reportgen:{model.name}:{metric.key}"
        # Plotly's date axes count milliseconds.
        x, y = self.contents.built.timestamp() * 1000, float(metric.value or 0)
        points = _points_of(self._content(window), metric.key)
        if any(known == x for known, _ in points):
            self.tally.count("metrics", already_there=1)
            return
        follows = not points or x > max(known for known, _ in points)
        # An older build is inserted by sending the whole trace in order.
        sent = [(x, y)] if follows else sorted([*points, (x, y)])
        self.client.line(
            X=np.array([x for x, _ in sent]),
            Y=np.array([y for _, y in sent]),
            win=window,
            name=metric.key,
            update=None if not points else "append" if follows else "replace",
            opts={
                "title": f"{model.name} {metric.label}",
                "ylabel": f"{'≥ ' * metric.lower_bound}{metric.unit or metric.label}",
                "markers": True,
                "showlegend": False,
                "layoutopts": {"plotly": {"xaxis": {"type": "date", "title": "build"}}},
            },
        )
        self.tally.count("metrics", written=1)

    def _plot(self, model: ModelContents, plot: PublishedPlot, traces: Sequence[PlotTrace]) -> None:
        window = f"reportgen:{model.name}:curves:{plot.key}"
        total = sum(len(trace.points) for trace in traces)
        if [trace.as_shown for trace in traces] == _traces_in(self._content(window)):
            self.tally.count("points", already_there=total)
            return
        points = np.concatenate([trace.points for trace in traces])
        # visdom takes the points of all traces as one array, and their numbers from 1 as labels.
        labels = np.repeat(np.arange(1, len(traces) + 1), [len(t.points) for t in traces])
        self.client.scatter(
            X=points,
            Y=labels,
            win=window,
            opts={
                "title": f"{model.name} {plot.title}",
                "legend": [trace.name for trace in traces],
                "mode": "lines+markers",
                "markersize": 3,
                "xlabel": plot.x,
            },
        )
        self.tally.count("points", written=total)

    def _images(self, model: ModelContents, run: PublishedRun) -> None:
        """One window per tag, with a slider over its steps."""
        for tag, images in run.images_by_tag().items():
            window = f"reportgen:{model.name}:images:{run.name}:{tag}"
            title = " ".join(part for part in (model.name, run.name, tag) if part)
            self._image_history(window, title, list(self._pictures(model, images)))

    def _pictures(
        self, model: ModelContents, images: Sequence[PublishedImage]
    ) -> Iterator[CaptionedImage]:
        for image in images:
            caption = f"step {image.step:g}" + (f": {image.caption}" if image.caption else "")
            try:
                pixels = decode_pixels(read_picture(model.file(image.file)))
                yield CaptionedImage(caption=caption, pixels=pixels)
            except ValueError as error:
                self.tally.note(f"{model.name}: {image.file} {error}")

    def _image_history(self, window: str, title: str, pictures: Sequence[CaptionedImage]) -> None:
        expected = [picture.as_shown for picture in pictures]
        shown = self._content(window) or []
        # The server only appends to an image window, so one that differs is replaced.
        known = len(shown) if shown == expected[: len(shown)] else 0
        if shown and not known:
            self.client.close(win=window)
        for picture in pictures[known:]:
            height, width = picture.pixels.shape[1:]
            self.client.image(
                picture.pixels,
                win=window,
                opts={
                    "title": title,
                    "caption": picture.caption,
                    "store_history": True,
                    "width": min(max(width, _SMALLEST_PANE), _LARGEST_PANE),
                    "height": min(max(height, _SMALLEST_PANE), _LARGEST_PANE),
                },
            )
        self.tally.count("images", written=len(pictures) - known, already_there=known)

    def _graph(self, model: ModelContents, kind: str, file: str) -> None:
        from reportgen.render.drawings import inline_svg

        path = model.file(file)
        if path is None:
            self.tally.note(f"{model.name}: {file} is missing from the report")
            return
        # All panes are parts of one page: ids must differ, and nothing in them may run.
        svg = str(inline_svg(path, f"{slug(model.name)}-{kind}-"))
        window = f"reportgen:{model.name}:graphs:{kind}"
        there = self._content(window) == svg
        if not there:
            self.client.svg(svgstr=svg, win=window, opts={"title": f"{model.name} {kind} graph"})
        self.tally.count("graphs", written=not there, already_there=there)

    def _content(self, window: str) -> Any:
        return self.panes.get(window, {}).get("content")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlotTrace:
    """One line of a plot; `points` is [n, 2]: step and value, NaN for a value not finite."""

    name: str
    points: NDArray[np.float64]

    @property
    def as_shown(self) -> tuple[str, list[float], list[float | None]]:
        """As the server stores it: name, x, y."""
        ys = [None if np.isnan(y) else y for y in self.points[:, 1].tolist()]
        return self.name, self.points[:, 0].tolist(), ys


def plots_of(model: ModelContents) -> Iterator[tuple[PublishedPlot, list[PlotTrace]]]:
    """The plots of `model` with a trace for each run and tag; a tag without a plot has its own."""
    plots = {plot.key: plot for plot in model.plots}
    found: dict[str, list[tuple[str, str, PlotTrace]]] = {}
    for run in model.runs:
        for tag, curve in run.scalars.items():
            key = curve.plot or tag
            logged = decimated(curve)
            points = np.column_stack([logged.steps, logged.values])
            if len(points):
                trace = PlotTrace(name="", points=points)
                found.setdefault(key, []).append((run.name, tag, trace))
    for key, entries in found.items():
        several_tags = len({tag for _, tag, _ in entries}) > 1
        several_runs = len(model.runs) > 1
        yield (
            plots.get(key, PublishedPlot(key=key, title=key)),
            [
                PlotTrace(
                    name=_trace_name(run, tag, several_runs, several_tags), points=trace.points
                )
                for run, tag, trace in entries
            ],
        )


def _trace_name(run: str, tag: str, several_runs: bool, several_tags: bool) -> str:
    parts = [run] if several_runs and run else []
    if several_tags or not parts:
        parts.append(tag)
    return " ".join(parts)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CaptionedImage:
    """A picture for an image window; `pixels` is uint8, [channels, height, width]."""

    caption: str
    pixels: NDArray[np.uint8]

    @property
    def as_shown(self) -> dict[str, str]:
        """As visdom's client sends it and the server stores it."""
        from PIL import Image as Pictures

        target = io.BytesIO()
        Pictures.fromarray(self.pixels.transpose(1, 2, 0)).save(target, format="PNG")
        encoded = base64.b64encode(target.getvalue()).decode()
        return {"src": f"data:image/png;base64,{encoded}", "caption": self.caption}


def decode_pixels(content: bytes) -> NDArray[np.uint8]:
    """An encoded picture as uint8, [channels, height, width]: RGB, or RGBA with transparency.

    Raises:
        ValueError: Pillow cannot read it.
    """
    from PIL import Image as Pictures

    try:
        with Pictures.open(io.BytesIO(content)) as picture:
            mode = "RGBA" if picture.has_transparency_data else "RGB"
            return np.asarray(picture.convert(mode), dtype=np.uint8).transpose(2, 0, 1)
    except (OSError, SyntaxError, Pictures.DecompressionBombError) as error:
        raise ValueError("is not a picture that Pillow reads") from error


def _points_of(content: Any, name: str) -> list[tuple[float, float]]:
    """The points of the trace `name` of a plot window."""
    for trace_name, xs, ys in _traces_in(content):
        if trace_name == name:
            return list(zip(xs, ys, strict=False))
    return []


def _traces_in(content: Any) -> list[tuple[str, list[float], list[Any]]]:
    traces = content.get("data", []) if isinstance(content, dict) else []
    return [(str(t.get("name")), t.get("x", []), t.get("y", [])) for t in traces]
