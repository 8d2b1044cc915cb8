"""Publishing: what TensorBoard and a real visdom server hold afterwards, once and again."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.context import RequestContext
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from reportgen.errors import PublishError
from reportgen.publish import Published, publish_to_tensorboard, publish_to_visdom
from reportgen.publish.contents import ModelContents, PublishedRun, read_contents, slug
from reportgen.publish.event_files import (
    Point,
    Recorded,
    RunFolder,
    TagSeries,
    find_change,
    write_changes,
)
from reportgen.publish.published import PublishedCounts
from reportgen.publish.tables import table
from reportgen.publish.tensorboard import run_folders
from reportgen.publish.visdom.client import parse_address

SUNDAY = "2026-11-22T03:15:00+00:00"
MONDAY, TUESDAY = "2026-11-23T03:15:00+00:00", "2026-11-24T03:15:00+00:00"
SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="60pt" height="40pt" viewBox="0 0 60 40">'
    "<style>rect{fill:light-dark(#fff,#000)}</style><script>alert(1)</script>"
    '<rect id="box" x="5" y="5" width="50" height="30" fill="#ff0000"/></svg>'
)
LOSS = [(0, 2.5), (1, math.nan), (2, math.inf), (3, -math.inf), (4, 0.1)]


def curve(points: list[tuple[float, float]], csv_file: str = "training/loss.csv") -> dict[str, Any]:
    return {
        "points": len(points),
        "steps": [step for step, _ in points],
        "values": [value if math.isfinite(value) else None for _, value in points],
        "times": [1_700_000_000 + int(step) for step, _ in points],
        "csv": csv_file,
        "plot": "loss",
        "smoothed": [],
    }


def write_report(
    folder: Path,
    *,
    built: str = MONDAY,
    accuracy: float | None = 0.5,
    loss: list[tuple[float, float]] = LOSS,
    images: tuple[int, ...] = (0, 5),
    rate: float = 0.1,
) -> Path:
    """A small report: one model, two runs, a curve with NaN, pictures, a graph, findings."""
    files = folder / "models" / "net"
    for name in ("training", "graphs"):
        (files / name).mkdir(parents=True, exist_ok=True)
    with (files / "training" / "loss.csv").open("w", newline="") as target:
        rows = csv.writer(target, lineterminator="\n")
        rows.writerow(("run", "tag", "step", "wall_time", "value"))
        for run in ("a", "b/c"):
            rows.writerows((run, "loss", step, 1.7e9 + step + 0.25, value) for step, value in loss)
    for step in images:
        pixels = np.full((6, 9, 3), step * 10, dtype=np.uint8)
        Image.fromarray(pixels).save(files / "training" / f"x-{step}.png")
    (files / "graphs" / "modules.svg").write_text(SVG)
    runs = [
        {
            "name": name,
            "summary": "healthy: best 0.1 at step 4",
            "scalars": {"loss": curve(loss)},
            "images": [
                {"tag": "x", "step": step, "file": f"training/x-{step}.png", "caption": ""}
                for step in images
            ],
            "tables": [],
            "hyperparameters": {"lr": rate, "nesterov": True, "name": "<sgd>|x", "layers": 3},
        }
        for name in ("a", "b/c")
    ]
    runs[1]["images"] = []
    metric = {"label": "accuracy", "unit": "", "direction": "higher", "exact": False}
    report = {
        "format": 1,
        "title": "My nets: 문장",
        "verdict": "warn",
        "environment": {},
        "timings": {"built": built, "total_seconds": 1.0} if built else {},
        "models": [
            {
                "name": "net",
                "source": "torchvision:resnet18",
                "verdict": "warn",
                "headlines": [{"section": "Training", "sentence": "healthy <b>"}],
                "findings": [
                    {
                        "code": "LAY001",
                        "severity": "warning",
                        "where": "head|fc",
                        "message": "<script>alert(2)</script>",
                        "advice": "use a_b",
                        "ignored": None,
                    }
                ],
                "metrics": [
                    {"key": "training.acc.best", "value": accuracy, **metric},
                    {"key": "layers.parameters", "value": 138_357_545, **metric},
                    {"key": "memory.peak", "value": None, **metric},
                ],
                "sections": {
                    "training": {
                        "status": "done",
                        "result": {
                            "headline": "healthy",
                            "runs": runs,
                            "plots": [{"key": "loss", "title": "loss", "svg": "", "csv": ""}],
                        },
                    },
                    "graphs": {
                        "status": "done",
                        "result": {
                            "modules": {"svg": "graphs/modules.svg", "nodes": 1},
                            "autograd": {"svg": None},
                            "onnx": {"svg": None},
                        },
                    },
                    "memory": {"status": "skipped", "reason": "no"},
                },
            }
        ],
    }
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def loss_of(folder: Path, run: str = "a") -> list[tuple[int, float]]:
    """What TensorBoard's reader makes of the loss of one run."""
    return [(e.step, e.value) for e in reader(folder / TITLE / "net" / run).Scalars("loss")]


def reader(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
    found.Reload()
    return found


def event_files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


TITLE = "my-nets-문장"
ALL = PublishedCounts(metrics=2, points=10, images=2, texts=6, graphs=1)


# The report -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (None, "report.json"),
        ("{", "JSON"),
        ("[]", "format"),
        ('{"format": 2}', "format"),
        ('{"format": 1, "title": 3, "models": []}', "title"),
        ('{"format": 1, "title": "t", "models": [{"name": "a"}]}', "models.0.verdict"),
        (
            '{"format": 1, "title": "t", "models": [], "timings": {"built": "yesterday"}}',
            "timings.built",
        ),
    ],
)
def test_a_report_that_cannot_be_read_is_one_line(
    tmp_path: Path, text: str | None, place: str
) -> None:
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    with pytest.raises(PublishError) as caught:
        read_contents(tmp_path)
    assert place in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_report_without_timings_is_as_old_as_its_file(tmp_path: Path) -> None:
    report = write_report(tmp_path, built="")
    os.utime(report / "report.json", (1_800_000_000, 1_800_000_000.5))
    assert read_contents(report).built.timestamp() == 1_800_000_000


def test_metrics_without_a_value_are_left_out(tmp_path: Path) -> None:
    (model,) = read_contents(write_report(tmp_path, accuracy=math.nan)).models
    assert [metric.key for metric in model.metrics] == ["layers.parameters"]


def test_files_outside_the_model_s_folder_are_not_read(tmp_path: Path) -> None:
    (model,) = read_contents(write_report(tmp_path / "r")).models
    (tmp_path / "secret.csv").write_text("run,tag,step,wall_time,value\na,loss,0,,9\n")
    assert model.file("../../../secret.csv") is None
    assert model.file(str(tmp_path / "secret.csv")) is None
    assert model.file("") is None
    assert model.file("training/loss.csv") is not None


@pytest.mark.parametrize(
    ("title", "name"),
    [("Vision models", "vision-models"), ("a/../b", "a-b"), ("…", "report"), ("문장", "문장")],
)
def test_a_title_becomes_a_name(title: str, name: str) -> None:
    assert slug(title) == name


@pytest.mark.parametrize(("markup", "cell"), [("markdown", r"a\|b \*c\* &lt;"), ("html", "a|b")])
def test_cells_of_tables_show_as_they_are(markup: Any, cell: str) -> None:
    text = table(("x", "y"), [("a|b\n*c* <",)], markup)
    assert cell in text
    assert "<\n" not in text
    assert text.count("y") == 1


# What is new ----------------------------------------------------------------------------------

POINTS = st.lists(
    st.builds(
        Point,
        step=st.integers(0, 5),
        wall_time=st.sampled_from([1.0, 2.0]),
        value=st.sampled_from([b"a", b"b"]),
    ),
    max_size=8,
).map(lambda points: sorted(points, key=lambda point: point.step))


@given(POINTS, POINTS, st.sampled_from(["builds", "changes", "training", "sample"]))
def test_what_was_published_is_not_published_again(
    there: list[Point], points: list[Point], growth: Any
) -> None:
    if growth in ("builds", "changes"):
        points = points[:1]
    series = TagSeries(tag="t", kind="points", growth=growth, metadata=b"", points=points)
    change = find_change(Recorded(metadata=b"", points=there), series)
    steps = [point.step for point in change.all]
    assert steps == sorted(steps)
    if change.appends and change.new:
        assert list(change.all[: len(there)]) == there
    again = find_change(Recorded(metadata=b"", points=list(change.all)), series)
    assert (list(again.new), again.appends) == ([], True)
    if growth == "training":
        for point in points:
            assert point.value in [p.value for p in change.all if p.step == point.step]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    points = [Point(0, 1.0, b""), Point(1, 1.0, b"\xff")]  # the second is no message
    series = TagSeries(tag="t", kind="points", growth="training", metadata=b"", points=points)
    with pytest.raises(DecodeError):
        write_changes(RunFolder(folder=tmp_path), [find_change(None, series)])
    assert list(tmp_path.iterdir()) == []


# TensorBoard ----------------------------------------------------------------------------------


def test_tensorboard_holds_every_point_and_figure(tmp_path: Path) -> None:
    published = publish_to_tensorboard(write_report(tmp_path / "r"), tmp_path / "tb")
    assert (published.written, published.already_there) == (ALL, PublishedCounts())
    assert published.notes == ()
    run = reader(tmp_path / "tb" / TITLE / "net" / "b" / "c")
    events = run.Scalars("loss")
    assert [e.step for e in events] == [0, 1, 2, 3, 4]
    assert [e.wall_time for e in events] == [1.7e9 + step + 0.25 for step in range(5)]
    np.testing.assert_array_equal(
        np.float32([e.value for e in events]), np.float32([value for _, value in LOSS])
    )
    metrics = reader(tmp_path / "tb" / TITLE)
    (best,) = metrics.Scalars("net/training.acc.best")
    monday = datetime.fromisoformat(MONDAY).timestamp()
    assert (best.step, best.wall_time, best.value) == (20261123, monday, 0.5)


def test_tensorboard_holds_pictures_graphs_and_texts(tmp_path: Path) -> None:
    publish_to_tensorboard(write_report(tmp_path / "r"), tmp_path / "tb")
    builds = reader(tmp_path / "tb" / TITLE)
    (graph,) = builds.Tensors("net/graphs/modules")
    width, height, png = graph.tensor_proto.string_val
    assert (graph.step, width, height) == (20261123, b"90", b"60")  # 60 x 40 points at 108 dpi
    with Image.open(io.BytesIO(png)) as drawn:
        assert drawn.size == (90, 60)
        assert drawn.convert("RGB").getpixel((45, 30)) == (255, 0, 0)
        assert drawn.convert("RGB").getpixel((2, 2)) == (255, 255, 255)
    pictures = reader(tmp_path / "tb" / TITLE / "net" / "a").Tensors("x")
    assert [p.step for p in pictures] == [0, 5]
    source = tmp_path / "r" / "models" / "net" / "training" / "x-5.png"
    assert list(pictures[1].tensor_proto.string_val) == [b"9", b"6", source.read_bytes()]
    (findings,) = builds.Tensors("net/findings")
    text = findings.tensor_proto.string_val[0].decode()
    assert r"head\|fc" in text
    assert "<script>" not in text
    (figures,) = builds.Tensors("net/metrics")
    assert "138,357,545" in figures.tensor_proto.string_val[0].decode()  # exact: a scalar is not


def test_tensorboard_holds_hyperparameters(tmp_path: Path) -> None:
    publish_to_tensorboard(write_report(tmp_path / "r"), tmp_path / "tb")
    run = reader(tmp_path / "tb" / TITLE / "net" / "a")
    content = run.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = HParamsPluginData.FromString(content).session_start_info
    assert session.hparams["lr"].number_value == 0.1
    assert session.hparams["nesterov"].bool_value is True
    assert session.hparams["name"].string_value == "<sgd>|x"
    assert session.start_time_secs == 1.7e9 + 0.25


def test_publishing_twice_writes_no_file(tmp_path: Path) -> None:
    report = write_report(tmp_path / "r")
    publish_to_tensorboard(report, tmp_path / "tb")
    before = event_files(tmp_path / "tb")
    published = publish_to_tensorboard(report, tmp_path / "tb")
    assert (published.written, published.already_there) == (PublishedCounts(), ALL)
    assert event_files(tmp_path / "tb") == before
    assert all("tfevents" in path.name for path in before)


def test_the_next_build_adds_a_point_per_metric(tmp_path: Path) -> None:
    publish_to_tensorboard(write_report(tmp_path / "r"), tmp_path / "tb")
    before = event_files(tmp_path / "tb")
    report = write_report(tmp_path / "r", built=TUESDAY, loss=[*LOSS, (7, 0.05)], accuracy=0.6)
    published = publish_to_tensorboard(report, tmp_path / "tb")
    assert published.written == PublishedCounts(metrics=2, points=2, texts=1)  # texts: the figures
    builds = reader(tmp_path / "tb" / TITLE).Scalars("net/training.acc.best")
    assert [(e.step, e.value) for e in builds] == [(20261123, 0.5), (20261124, np.float32(0.6))]
    assert loss_of(tmp_path / "tb")[-2:] == [(4, np.float32(0.1)), (7, np.float32(0.05))]
    assert before.items() <= event_files(tmp_path / "tb").items()


def test_an_older_build_published_later_takes_its_place(tmp_path: Path) -> None:
    for built, accuracy in ((MONDAY, 0.5), (TUESDAY, 0.6), (SUNDAY, 0.4)):
        report = write_report(tmp_path / "r", built=built, accuracy=accuracy)
        published = publish_to_tensorboard(report, tmp_path / "tb")
    assert published.written.metrics == 2
    builds = reader(tmp_path / "tb" / TITLE).Scalars("net/training.acc.best")
    assert [e.step for e in builds] == [20261122, 20261123, 20261124]
    assert [e.value for e in builds] == [np.float32(v) for v in (0.4, 0.5, 0.6)]
    assert len(list((tmp_path / "tb" / TITLE).glob("*tfevents*"))) == 1


def test_two_builds_of_one_day_are_two_points(tmp_path: Path) -> None:
    publish_to_tensorboard(write_report(tmp_path / "r"), tmp_path / "tb")
    report = write_report(tmp_path / "r", built="2026-11-23T15:00:00+01:00", accuracy=0.7)
    publish_to_tensorboard(report, tmp_path / "tb")
    builds = reader(tmp_path / "tb" / TITLE).Scalars("net/training.acc.best")
    assert [(e.step, e.value) for e in builds] == [(20261123, 0.5), (20261123, np.float32(0.7))]


def test_a_training_repeated_under_its_name_replaces_the_first(tmp_path: Path) -> None:
    publish_to_tensorboard(write_report(tmp_path / "r"), tmp_path / "tb")
    report = write_report(
        tmp_path / "r", built=TUESDAY, loss=[(0, 9.0), (1, 8.0)], images=(0,), rate=0.2
    )
    publish_to_tensorboard(report, tmp_path / "tb")
    assert loss_of(tmp_path / "tb") == [(0, 9.0), (1, 8.0)]
    run = reader(tmp_path / "tb" / TITLE / "net" / "a")
    assert [picture.step for picture in run.Tensors("x")] == [0, 5]  # the same picture at step 0
    content = run.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    session = HParamsPluginData.FromString(content).session_start_info
    assert session.hparams["lr"].number_value == 0.2
    again = publish_to_tensorboard(report, tmp_path / "tb")
    assert again.written == PublishedCounts()


def test_files_of_other_writers_stay(tmp_path: Path) -> None:
    folder = tmp_path / "tb" / TITLE / "net" / "a"
    writer = EventFileWriter(str(folder))
    for step in (0, 1, 5):
        value = Summary.Value(tag="other", simple_value=step)
        writer.add_event(Event(step=step, wall_time=1.0, summary=Summary(value=[value])))
    writer.close()
    before = event_files(folder)
    publish_to_tensorboard(write_report(tmp_path / "r"), tmp_path / "tb")
    publish_to_tensorboard(write_report(tmp_path / "r", loss=[(0, 9.0)]), tmp_path / "tb")
    assert before.items() <= event_files(folder).items()
    assert loss_of(tmp_path / "tb") == [(0, 9.0)]
    assert [e.value for e in reader(folder).Scalars("other")] == [0, 1, 5]


def test_without_csv_files_the_points_of_the_report_are_published(tmp_path: Path) -> None:
    report = write_report(tmp_path / "r")
    (report / "models" / "net" / "training" / "loss.csv").unlink()
    publish_to_tensorboard(report, tmp_path / "tb")
    assert [value for _, value in loss_of(tmp_path / "tb")][::4] == [2.5, np.float32(0.1)]
    complete = write_report(tmp_path / "r")
    publish_to_tensorboard(complete, tmp_path / "tb")
    assert loss_of(tmp_path / "tb")[2:4] == [(2, math.inf), (3, -math.inf)]


def test_steps_that_are_not_whole_become_numbers(tmp_path: Path) -> None:
    report = write_report(tmp_path / "r", loss=[(0.5, 3.0), (1.0, 2.0)])
    published = publish_to_tensorboard(report, tmp_path / "tb")
    assert loss_of(tmp_path / "tb") == [(0, 3.0), (1, 2.0)]
    assert ["'loss'" in note for note in published.notes] == [True]


def test_a_damaged_csv_file_is_one_line(tmp_path: Path) -> None:
    report = write_report(tmp_path / "r")
    (report / "models" / "net" / "training" / "loss.csv").write_text("run\na,loss,x,,1\n")
    with pytest.raises(PublishError, match=r"loss\.csv, line 2"):
        publish_to_tensorboard(report, tmp_path / "tb")


@pytest.mark.slow
def test_a_logged_drawing_is_published_as_pixels(tmp_path: Path) -> None:
    report = write_report(tmp_path / "r", images=())
    data = json.loads((report / "report.json").read_text())
    training = data["models"][0]["sections"]["training"]["result"]
    training["runs"][0]["images"] = [{"tag": "figure", "step": 3, "file": "graphs/modules.svg"}]
    (report / "report.json").write_text(json.dumps(data))
    assert publish_to_tensorboard(report, tmp_path / "tb").written.images == 1
    (figure,) = reader(tmp_path / "tb" / TITLE / "net" / "a").Tensors("figure")
    assert list(figure.tensor_proto.string_val[:2]) == [b"90", b"60"]
    again = publish_to_tensorboard(report, tmp_path / "tb")
    assert (again.written.images, again.already_there.images) == (0, 1)


def test_missing_files_and_programs_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = write_report(tmp_path / "r")
    training = report / "models" / "net" / "training"
    (training / "x-0.png").unlink()
    (training / "x-5.png").write_text("no picture")
    monkeypatch.setenv("PATH", str(tmp_path))
    published = publish_to_tensorboard(report, tmp_path / "tb")
    assert (published.written.images, published.written.graphs) == (0, 0)
    assert len(published.notes) == 3
    assert ["poppler" in note for note in published.notes].count(True) == 1


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tb").write_text("")
    with pytest.raises(PublishError) as caught:
        publish_to_tensorboard(write_report(tmp_path / "r"), tmp_path / "tb")
    assert caught.value.hint


def test_run_names_become_folders_that_differ_and_stay_inside(tmp_path: Path) -> None:
    names = ["", "a", "a/", "../x", "a\\b", "c:d", "a/./b"]
    model = ModelContents(
        name="net", folder=tmp_path, verdict="pass", headlines=(), metrics=(), findings=(),
        runs=tuple(PublishedRun(name=name) for name in names), plots=(), graphs=(),
    )  # fmt: skip
    folders = run_folders(model)
    assert folders == [
        *("net", "net/a", "net/a 2", "net/__/x", "net/a_b", "net/c_d", "net/a/_/b"),
    ]


@pytest.mark.slow
def test_tensorboard_s_python_backend_serves_it(tmp_path: Path) -> None:
    for built in (MONDAY, TUESDAY):
        publish_to_tensorboard(write_report(tmp_path / "r", built=built), tmp_path / "tb")
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(tmp_path / "tb"))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path / "tb"))
    found = provider.read_scalars(
        RequestContext(), experiment_id="", plugin_name="scalars", downsample=1000
    )
    assert [d.step for d in found[TITLE]["net/training.acc.best"]] == [20261123, 20261124]
    assert len(found[f"{TITLE}/net/a"]["loss"]) == 5
    blobs = provider.read_blob_sequences(
        RequestContext(), experiment_id="", plugin_name="images", downsample=10
    )
    assert [d.step for d in blobs[f"{TITLE}/net/a"]["x"]] == [0, 5]


@pytest.mark.slow
def test_tensorboard_itself_serves_it(tmp_path: Path) -> None:
    """The program as its users start it, with the data server that is not written in Python."""
    for built in (MONDAY, SUNDAY):
        publish_to_tensorboard(write_report(tmp_path / "r", built=built), tmp_path / "tb")
    port = free_port()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(tmp_path / "tb")]
    address = f"http://127.0.0.1:{port}/data/plugin"
    with running([*command, "--host", "127.0.0.1", "--port", str(port)], port):
        run, tag = TITLE, "net/training.acc.best"
        points = wait_for_json(f"{address}/scalars/scalars?{urlencode({'run': run, 'tag': tag})}")
        assert [(step, value) for _, step, value in points] == [(20261122, 0.5), (20261123, 0.5)]
        query = urlencode({"run": f"{TITLE}/net/a", "tag": "loss"})
        points = wait_for_json(f"{address}/scalars/scalars?{query}")
        assert [value for _, _, value in points][1:4] == ["NaN", "Infinity", "-Infinity"]
        query = urlencode({"run": TITLE, "tag": "net/graphs/modules", "sample": 0})
        picture, _ = wait_for_json(f"{address}/images/images?{query}")
        with urlopen(f"{address}/images/individualImage?{picture['query']}") as answer:
            assert answer.headers["Content-Type"] == "image/png"
            assert answer.read().startswith(b"\x89PNG")


@pytest.mark.slow
def test_publishing_to_tensorboard_imports_no_framework(tmp_path: Path) -> None:
    write_report(tmp_path / "r")
    code = (
        "import sys\nfrom pathlib import Path\nfrom reportgen.publish import *\n"
        "publish_to_tensorboard(Path('r'), Path('tb'))\n"
        "assert not {'torch', 'tensorflow', 'visdom'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


# visdom ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    url: str
    folder: Path

    def windows(self, env: str) -> dict[str, Any]:
        """What the server saved of an environment."""
        found = json.loads((self.folder / f"{env}.json").read_text())["jsons"]
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server on loopback. Its own `main` would first fetch scripts from the network."""
    folder, port = tmp_path_factory.mktemp("visdom"), free_port()
    command = [sys.executable, "-c", "from visdom.server.run_server import main; main()"]
    command += ["-port", str(port), "-env_path", f"{folder}/", "-bind_local"]
    with running([*command, "-logging_level", "40"], port):
        yield Server(url=f"http://127.0.0.1:{port}", folder=folder)


@pytest.mark.slow
def test_visdom_holds_the_report(tmp_path: Path, server: Server) -> None:
    published = publish_to_visdom(write_report(tmp_path), server.url, None)
    assert published.written == PublishedCounts(metrics=2, points=10, images=2, texts=4, graphs=1)
    windows = server.windows(TITLE)
    (trace,) = windows["reportgen:net:layers.parameters"]["content"]["data"]
    monday = datetime.fromisoformat(MONDAY).timestamp() * 1000
    assert (trace["x"], trace["y"]) == ([monday], [138_357_545])
    assert (
        windows["reportgen:net:layers.parameters"]["content"]["layout"]["xaxis"]["type"] == "date"
    )
    first, second = windows["reportgen:net:curves:loss"]["content"]["data"]
    assert (first["name"], second["name"]) == ("a", "b/c")
    assert first["y"] == [2.5, None, None, None, 0.1]
    pictures = windows["reportgen:net:images:a:x"]["content"]
    assert [picture["caption"] for picture in pictures] == ["step 0", "step 5"]
    _, _, encoded = pictures[1]["src"].partition("base64,")
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((9, 6), (50, 50, 50))
    assert windows["reportgen:net:graphs:modules"]["content"].startswith("<svg ")
    assert "<td>nesterov" in windows["reportgen:net:hyperparameters"]["content"].replace(
        ' valign="top"', ""
    )
    texts = [str(w["content"]) for w in windows.values() if w["type"] == "text"]
    assert not [text for text in texts if "<script" in text or "<b>" in text.split("</p>", 1)[-1]]


@pytest.mark.slow
def test_visdom_twice_sends_nothing(tmp_path: Path, server: Server) -> None:
    report = write_report(tmp_path)
    publish_to_visdom(report, server.url, "twice")
    before = server.windows("twice")
    published = publish_to_visdom(report, server.url, "twice")
    assert published.written == PublishedCounts()
    assert published.already_there == PublishedCounts(
        metrics=2, points=10, images=2, texts=4, graphs=1
    )
    assert server.windows("twice") == before  # contentID, which every change renews, included


@pytest.mark.slow
def test_visdom_gets_a_point_per_build_in_the_order_of_builds(
    tmp_path: Path, server: Server
) -> None:
    for built, accuracy in ((MONDAY, 0.5), (TUESDAY, 0.6), (SUNDAY, 0.4), (TUESDAY, 0.6)):
        report = write_report(tmp_path, built=built, accuracy=accuracy)
        published = publish_to_visdom(report, server.url, "builds/a")
    assert published.written == PublishedCounts(texts=1)  # the figures of the build
    (trace,) = server.windows("builds_a")["reportgen:net:training.acc.best"]["content"]["data"]
    times = [datetime.fromisoformat(day).timestamp() * 1000 for day in (SUNDAY, MONDAY, TUESDAY)]
    assert (trace["x"], trace["y"]) == (times, [0.4, 0.5, 0.6])


@pytest.mark.slow
def test_visdom_windows_change_only_where_the_report_did(tmp_path: Path, server: Server) -> None:
    publish_to_visdom(write_report(tmp_path), server.url, "changes")
    before = server.windows("changes")
    report = write_report(tmp_path, loss=[*LOSS, (5, 0.2)], images=(0, 5, 9))
    published = publish_to_visdom(report, server.url, "changes")
    assert published.written == PublishedCounts(points=12, images=1)
    after = server.windows("changes")
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"reportgen:net:curves:loss", "reportgen:net:images:a:x"}
    assert after["reportgen:net:curves:loss"]["content"]["data"][0]["x"] == [0, 1, 2, 3, 4, 5]
    history = after["reportgen:net:images:a:x"]["content"]
    assert history[:2] == before["reportgen:net:images:a:x"]["content"]
    publish_to_visdom(write_report(tmp_path, images=(9,)), server.url, "changes")
    assert server.windows("changes")["reportgen:net:images:a:x"]["content"] == history[2:]


@pytest.mark.parametrize("answer", [b"<html>hello", b"[1]", None])
def test_another_server_is_named(tmp_path: Path, answer: bytes | None) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(PublishError) as caught:
            publish_to_visdom(write_report(tmp_path), f"http://127.0.0.1:{other.server_port}", None)
        other.shutdown()
    assert str(other.server_port) in caught.value.message
    assert caught.value.hint


def test_no_server_is_one_line_without_the_password(tmp_path: Path) -> None:
    port = free_port()
    with pytest.raises(PublishError) as caught:
        publish_to_visdom(write_report(tmp_path), f"http://me:secret@127.0.0.1:{port}", None)
    assert f"127.0.0.1:{port}" in caught.value.message
    assert "secret" not in caught.value.message + caught.value.hint


def test_without_the_package_the_way_to_install_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "visdom", None)  # as if it were not installed
    with pytest.raises(PublishError) as caught:
        publish_to_visdom(write_report(tmp_path), "localhost", None)
    assert "reportgen[visdom]" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("localhost", ("http", "localhost", 8097, "", None)),
        ("http://host:81/base/", ("http", "host", 81, "/base", None)),
        ("https://a%40b:p@host", ("https", "host", 443, "", "a@b")),
        ("http://[::1]:9", ("http", "::1", 9, "", None)),
    ],
)
def test_addresses(url: str, parts: tuple[object, ...]) -> None:
    found = parse_address(url)
    assert (found.scheme, found.host, found.port, found.path, found.user) == parts


@pytest.mark.parametrize("url", ["ftp://x", "http://[::1", "http://h:99999", "http://", ""])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(PublishError):
        parse_address(url)


def test_the_outcome_is_a_line_and_a_line_per_note() -> None:
    some = Published(
        target="x",
        written=PublishedCounts(metrics=1),
        already_there=PublishedCounts(points=1200),
        notes=("n",),
    )
    assert list(some.lines()) == [
        "published to x: 1 metric; already there: 1,200 points",
        "note: n",
    ]
    none = Published(target="x", written=PublishedCounts(), already_there=PublishedCounts())
    assert list(none.lines()) == ["published to x: nothing new"]


# Programs -------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """`command` until the block ends; entered when it listens on `port`, within 30 s."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 30
        while not _listens(port):
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_for_json(url: str) -> list[Any]:
    """The first answer to `url` that is not empty, within 30 s."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with urlopen(url) as answer:
                if found := json.load(answer):
                    assert isinstance(found, list)
                    return found
        except HTTPError:
            pass  # the run is not loaded yet
        time.sleep(0.2)
    raise AssertionError(url)
