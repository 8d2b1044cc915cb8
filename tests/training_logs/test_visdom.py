"""visdom environments and client logs."""

from __future__ import annotations

import base64
import gc
import json
import math
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_checks import FILES, assert_accounted, assert_survives, mutated, points, read

from reportgen.errors import LogError
from reportgen.training_logs.log_run import LogRun
from reportgen.training_logs.visdom.client_log import VisdomClientLogReader
from reportgen.training_logs.visdom.environment import VisdomReader
from reportgen.training_logs.visdom.html_text import plain_text

ENVIRONMENT = FILES / "visdom_environment.json"
CLIENT_LOG = FILES / "visdom_client_log.jsonl"
PANES: dict[str, Any] = json.loads(ENVIRONMENT.read_text())["jsons"]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAQAAAAECAIAAAAmkwkpAAAADElEQVR4nGNgIB0AAAA0AAF2Xq7DAAAAAElFTkSuQmCC"
INFINITY, NAN = math.inf, math.nan


def environment(folder: Path, panes: object, **others: object) -> Path:
    file = folder / "env.json"
    file.write_text(json.dumps({"jsons": panes, "reload": {}, **others}))
    return file


def plot(*traces: dict[str, Any], title: str = "t", **layout: object) -> dict[str, Any]:
    content = {"data": list(traces), "layout": layout}
    return {"id": "w", "title": title, "type": "plot", "content": content, "i": 0}


def read_panes(folder: Path, panes: object, **others: object) -> LogRun:
    return read(VisdomReader(environment(folder, panes, **others), ""))


def read_plot(folder: Path, *traces: dict[str, Any], **layout: object) -> LogRun:
    return read_panes(folder, {"w": plot(*traces, **layout)})


# A real environment


def test_curves_of_a_real_environment() -> None:
    run = read(VisdomReader(ENVIRONMENT, ""))

    def stored(pane: str, trace: int) -> list[tuple[float, float]]:
        data = PANES[pane]["content"]["data"][trace]
        return list(zip(data["x"], data["y"], strict=True))

    found = points(run)
    assert found == {
        "single": stored("line1", 0),
        "loss/train": stored("line_append", 0),
        "loss/val": stored("line_append", 1),
        "loss/test": [p for p in stored("line_append", 2) if p[1] is not None],
        "nan": [(0, 1), (1, 2), (2, "nan"), (3, INFINITY), (4, -INFINITY), (5, 3)],
        "nan append": [(0, 1), (1, "nan"), (2, 2), (3, "nan"), (4, INFINITY)],
        "Example Double Y axis/a": stored("dual", 0),
        "Example Double Y axis/b": stored("dual", 1),
        "nolegend/1": stored("nolegend", 0),
        "nolegend/2": stored("nolegend", 1),
        "mask/train": stored("mask", 0),
        "mask/val": [(2, 1.5)],
        "renamed": [(float(i), y) for i, (_, y) in enumerate(stored("line_time", 0))],
    }
    assert list(run.scalars["renamed"].times) == [1.7e9, 1.70001e9, 1.70002e9]
    assert all(math.isnan(time) for time in run.scalars["single"].times)


def test_pictures_of_a_real_environment() -> None:
    run = read(VisdomReader(ENVIRONMENT, ""))
    found = [
        (image.tag, image.step, image.caption, image.width, image.height) for image in run.images
    ]
    assert found == [
        ("img", 0, "cap", 16, 16),
        ("jpg", 0, "", 0, 0),
        ("hist", 0, "step 0", 16, 16),
        ("hist", 1, "step 1", 16, 16),
        ("hist", 2, "step 2", 16, 16),
        ("svg", 0, "", 0, 0),
    ]
    sources = [PANES["image"]["content"], PANES["image_jpg"]["content"]]
    sources += PANES["image_history"]["content"]
    for image, source in zip(run.images, sources, strict=False):
        expected = base64.b64decode(source["src"].split(",")[1])
        assert image.payload.read() == expected
        assert image.payload.size_bytes == len(expected)
    assert run.images[-1].payload.read().decode() == PANES["svg"]["content"]


def test_charts_texts_and_tables_of_a_real_environment() -> None:
    run = read(VisdomReader(ENVIRONMENT, ""))
    assert {(c.tag, c.kind, len(c.traces)) for c in run.charts} == {
        ("sc", "scatter", 2),
        ("stem", "scatter", 2),
        ("bar", "bar", 1),
        ("heatmap", "heatmap", 1),
        ("boxplot", "box", 2),
        ("pie", "pie", 1),
    }
    charts = {chart.tag: chart.traces for chart in run.charts}
    assert charts["bar"][0].x == ("a", "b", "c", "d")
    assert charts["bar"][0].y == tuple(PANES["bar"]["content"]["data"][0]["y"])
    assert charts["heatmap"][0].y == ("y1", "y2", "y3", "y4")
    grid = PANES["heatmap"]["content"]["data"][0]["z"]
    assert charts["heatmap"][0].z == tuple(map(tuple, grid))
    assert charts["pie"][0].x == ("a", "b", "c")
    assert charts["pie"][0].y == (19, 26, 55)
    assert [(text.tag, text.text) for text in run.texts] == [("T", "Hello World\nmore")]
    (table,) = run.tables
    assert table.rows == (
        ("Text", "init"), ("lr", "0.1"), ("S", "g"), ("C", "True"), ("B", "go"),
    )  # fmt: skip
    assert run.not_shown == {"sunburst": 1, "video": 1, "embeddings": 1}
    assert run.files[0].records == len(PANES)
    assert not run.damage


# Curves


@pytest.mark.parametrize(
    ("traces", "expected"),
    [
        ([{"x": [0, 1], "y": [None, 1]}], {"t": [(0, "nan"), (1, 1)]}),
        (
            [
                {"x": [0, 1, 2], "y": [1, 2, 3], "name": "a"},
                {"x": [0, 1, 2], "y": [None, 5, None], "name": "b"},
            ],
            {"t/a": [(0, 1), (1, 2), (2, 3)], "t/b": [(1, 5)]},
        ),
        (
            [
                {"x": [0, 1], "y": [1, None], "name": "a"},
                {"x": [0, 1], "y": [2, None], "name": "b"},
            ],
            {"t/a": [(0, 1), (1, "nan")], "t/b": [(0, 2), (1, "nan")]},
        ),
        (
            [
                {"x": [0, 1, 2], "y": [1, 2, None], "name": "a"},
                {"x": [0, 1], "y": [3, 4], "name": "b"},
            ],
            {"t/a": [(0, 1), (1, 2), (2, "nan")], "t/b": [(0, 3), (1, 4)]},
        ),
    ],
    ids=["single trace", "masked", "every trace", "step of one trace only"],
)
def test_null_is_nan_or_no_value(
    tmp_path: Path, traces: list[dict[str, Any]], expected: object
) -> None:
    run = read_plot(tmp_path, *traces)
    assert points(run) == expected
    given = sum(len(trace["x"]) for trace in traces)
    kept = sum(len(series) for series in run.scalars.values())
    assert bool(run.notes) == (given > kept)


@pytest.mark.parametrize(
    ("trace", "tag"),
    [
        ({"name": "1"}, "t"),
        ({}, "t"),
        ({"name": "val"}, "t/val"),
    ],
)
def test_tag_of_a_single_trace(tmp_path: Path, trace: dict[str, Any], tag: str) -> None:
    run = read_plot(tmp_path, {"x": [1], "y": [2], **trace})
    assert list(run.scalars) == [tag]


@pytest.mark.parametrize(
    ("x", "layout", "steps", "times"),
    [
        (["b", "a"], {}, [0, 1], [NAN, NAN]),
        (["2", "3"], {}, [2, 3], [NAN, NAN]),
        ([f"2023-11-14T22:13:{s}+00:00" for s in (20, 30)], {}, [0, 1], [1.7e9, 1.70000001e9]),
        ([1.7e12, 1.70000001e12], {"xaxis": {"type": "date"}}, [0, 1], [1.7e9, 1.70000001e9]),
        ([1.7e12, 1.70000001e12], {}, [1.7e12, 1.70000001e12], [NAN, NAN]),
        (None, {}, [0, 1], [NAN, NAN]),
        ({"dtype": "i2", "bdata": "BQAHAA=="}, {}, [5, 7], [NAN, NAN]),
    ],
    ids=["categories", "numbers as text", "dates", "milliseconds", "large steps", "none", "binary"],
)  # fmt: skip
def test_steps(
    tmp_path: Path, x: object, layout: dict[str, Any], steps: list[float], times: list[float]
) -> None:
    run = read_plot(tmp_path, {"x": x, "y": [1, 2]}, **layout)
    assert list(run.scalars["t"].steps) == steps
    assert list(run.scalars["t"].times) == pytest.approx(times, nan_ok=True)


def test_equal_titles_and_names_stay_apart(tmp_path: Path) -> None:
    curve = {"x": [0], "y": [1], "name": "a"}
    panes = {
        "w1": {**plot(curve, curve), "id": "w1", "title": "loss"},
        "w2": {**plot(curve), "id": "w2", "title": "loss"},
    }
    assert list(read_panes(tmp_path, panes).scalars) == [
        "loss [w1]/a",
        "loss [w1]/a (2)",
        "loss [w2]/a",
    ]


def test_panes_come_in_visdoms_order(tmp_path: Path) -> None:
    panes = {
        name: {"id": name, "title": "", "type": "text", "content": name, "i": order}
        for name, order in (("last", 2), ("first", 0), ("middle", 1))
    }
    assert [t.tag for t in read_panes(tmp_path, panes).texts] == ["first", "middle", "last"]


def test_titles_of_plotly_and_axes(tmp_path: Path) -> None:
    pane = plot(
        {"x": [0.0], "y": [1.0], "mode": "markers"},
        xaxis={"title": {"text": "x"}},
        yaxis={"title": "y"},
    )
    pane["title"] = ""
    pane["content"]["layout"]["title"] = {"text": "T"}
    (chart,) = read_panes(tmp_path, {"w": pane}).charts
    assert (chart.tag, chart.x_title, chart.y_title) == ("T", "x", "y")


@pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "u1"])
def test_binary_arrays_of_plotly(tmp_path: Path, dtype: str) -> None:
    values = np.array([[1, 2, 3], [4, 5, 6]], dtype)
    flat = {"dtype": dtype, "bdata": base64.b64encode(values[0].tobytes()).decode()}
    grid = {"dtype": dtype, "bdata": base64.b64encode(values.tobytes()).decode(), "shape": "2, 3"}
    run = read_plot(tmp_path, {"x": flat, "y": flat}, {"type": "heatmap", "z": grid})
    assert points(run) == {"t/trace": [(1, 1), (2, 2), (3, 3)]}
    assert run.charts[0].traces[0].z == ((1, 2, 3), (4, 5, 6))


def test_histogram_of_plotly_is_binned(tmp_path: Path) -> None:
    values = [0.0, 1.0, 1.5, 4.0]
    (chart,) = read_plot(tmp_path, {"type": "histogram", "x": values}).charts
    counts, edges = np.histogram(values, bins=2)
    assert chart.kind == "bar"
    assert chart.traces[0].x == tuple(edges[:-1])
    assert chart.traces[0].y == tuple(counts)


@pytest.mark.parametrize(
    "trace",
    [
        {"x": 5, "y": [1]},
        {"x": {"dtype": "O", "bdata": ""}, "y": [1]},
        {"x": {"dtype": "f8", "bdata": "!!"}, "y": [1]},
        {"x": {"dtype": "f8", "bdata": "AAAA"}, "y": [1]},
        {"type": "heatmap", "z": [1, 2]},
    ],
)
def test_a_malformed_pane_costs_only_itself(tmp_path: Path, trace: dict[str, Any]) -> None:
    panes = {"bad": plot(trace), "good": PANES["line1"]}
    file = environment(tmp_path, panes)
    run = read(VisdomReader(file, ""))
    assert list(run.scalars) == ["single"]
    (damage,) = run.damage
    stretch = file.read_bytes()[damage.offset : damage.offset + damage.size_bytes]
    assert json.loads(stretch) == panes["bad"]


# Text, pictures


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("a<br>b<p>c</p>d", "a\nb\nc\nd"),
        ("<table><tr><th>a</th><td> b </td></tr><tr><td>1<td>2</tr></table>", "a\tb\n1\t2"),
        ("<ul><li>a</li><li>b</li></ul>", "a\nb"),
        ("<script>alert(1)</script><style>p{}</style>x", "x"),
        ("a &lt;b&gt; &amp; c", "a <b> & c"),
        ("<pre>a  b\n c</pre>", "a  b\nc"),
        ("two\nlines", "two\nlines"),
        ("<b>two\nwords</b>", "two words"),
        ("1 < 2", "1 < 2"),
        ("", ""),
    ],
)  # fmt: skip
def test_plain_text(html: str, text: str) -> None:
    assert plain_text(html) == text


@given(st.text(alphabet="<>/!-&;abp \n\"'=scriptdv[]", max_size=200))
def test_plain_text_takes_anything(html: str) -> None:
    assert isinstance(plain_text(html), str)


def test_a_long_text_is_cut() -> None:
    assert len(plain_text("a" * 2_000_000)) < 300_000


def test_svg_beside_text(tmp_path: Path) -> None:
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><text>ü</text></svg>'
    pane = {"id": "w", "title": "", "type": "text", "content": f"before{svg}after"}
    run = read_panes(tmp_path, {"w": pane})
    assert run.images[0].payload.read() == svg.encode()
    assert run.images[0].payload.size_bytes == len(svg.encode())
    assert run.texts[0].text == "beforeafter"


def test_pictures_that_are_not_in_the_log_are_named(tmp_path: Path) -> None:
    content = {"src": "http://host/a.png", "caption": None}
    run = read_panes(tmp_path, {"w": {"id": "w", "type": "image", "content": content}})
    assert run.not_shown == {"picture outside the log": 1}


def test_a_picture_is_not_taken_from_a_rewritten_file(tmp_path: Path) -> None:
    file = environment(tmp_path, {"image": PANES["image"]})
    (image,) = read(VisdomReader(file, "")).images
    file.write_text(file.read_text().replace("iVBOR", "XXXXX"))
    with pytest.raises(LogError):
        image.payload.read()


@pytest.mark.slow
def test_600_pictures_are_not_held(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    history = [
        {"src": "data:image/png;base64," + base64.b64encode(generator.bytes(20_000)).decode()}
        for _ in range(600)
    ]
    pane = {"id": "w", "title": "h", "type": "image_history", "content": history}
    file = environment(tmp_path, {"w": pane})
    assert file.stat().st_size > 15e6
    del pane
    gc.collect()
    tracemalloc.start()
    run = read(VisdomReader(file, ""))
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 1e6
    for place in (0, 1, 299, 599):
        expected = base64.b64decode(history[place]["src"].split(",")[1])
        assert run.images[place].payload.read() == expected


# Files


@pytest.mark.parametrize("name", ["hash_" + "0" * 64 + ".json", "a b#?.json"])
def test_unknown_members_and_file_names(tmp_path: Path, name: str) -> None:
    file = environment(tmp_path, {"line1": PANES["line1"]}, tags={"a": [1]}, name="n")
    file = file.rename(file.with_name(name))
    assert list(read(VisdomReader(file, "run")).scalars) == ["single"]


@pytest.mark.parametrize("panes", [[], [1, 2], "text", None, 5])
def test_jsons_of_the_wrong_kind(tmp_path: Path, panes: object) -> None:
    (damage,) = read_panes(tmp_path, panes).damage
    assert damage.size_bytes == len(json.dumps(panes))


@pytest.mark.parametrize("pane", [None, 5, "text", [], {}, {"type": "text"}, {"content": "x"}])
def test_panes_of_the_wrong_kind(tmp_path: Path, pane: object) -> None:
    run = read_panes(tmp_path, {"bad": pane, "good": PANES["line1"]})
    assert list(run.scalars) == ["single"]
    assert [damage.size_bytes for damage in run.damage] == [len(json.dumps(pane))]


def test_every_truncation_keeps_the_panes_before_it(tmp_path: Path) -> None:
    panes = {name: PANES[name] for name in ("line1", "bar", "mask", "text")}
    content = json.dumps({"jsons": panes, "reload": {}}).encode()
    ends = [content.index(json.dumps(p).encode()) + len(json.dumps(p)) for p in panes.values()]
    file = tmp_path / "env.json"
    for size in range(len('{"jsons": {'), len(content) - 1, 7):
        file.write_bytes(content[:size])
        run = read(VisdomReader(file, ""))
        assert run.files[0].records == sum(end <= size for end in ends)
        assert run.damage
        assert run.damage[-1].offset + run.damage[-1].size_bytes == size


def test_reading_goes_on_behind_a_damaged_pane(tmp_path: Path) -> None:
    panes = {name: PANES[name] for name in ("line1", "bar", "mask")}
    file = environment(tmp_path, panes)
    content = file.read_bytes()
    place = content.index(b"[", content.index(b'"bar"'))
    for junk in (b"\xff\xfe", b'"', b"}}}", b"\0\0"):
        file.write_bytes(content[:place] + junk + content[place + len(junk) :])
        run = read(VisdomReader(file, ""))
        assert set(run.scalars) == {"single", "mask/train", "mask/val"}
        (damage,) = run.damage
        assert damage.offset <= place < damage.offset + damage.size_bytes


def test_the_largest_document_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "env.json"
    with file.open("wb") as stream:
        stream.truncate((512 << 20) + 1)
    with pytest.raises(LogError, match="512 MB"):
        VisdomReader(file, "").update()


@pytest.mark.parametrize("content", [b"{}", b'{"a": 1}', b"[1]", b"\0" * 100, b"text", b'{"jsons'])
def test_what_is_no_environment_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "env.json"
    file.write_bytes(content)
    with pytest.raises(LogError):
        VisdomReader(file, "").update()


def test_deep_nesting_is_survived(tmp_path: Path) -> None:
    file = tmp_path / "env.json"
    deep = b'{"a":' * 100_000
    file.write_bytes(b'{"jsons": {"w": ' + deep + b', "x": ' + json.dumps(PANES["bar"]).encode())
    reader = VisdomReader(file, "")
    reader.update()
    assert_accounted(reader.runs)


def test_changes_are_read_and_a_deleted_file_is_kept(tmp_path: Path) -> None:
    file = environment(tmp_path, {"line1": PANES["line1"]})
    reader = VisdomReader(file, "")
    assert reader.update()
    assert not reader.update()
    environment(tmp_path, {"line1": PANES["line1"], "mask": PANES["mask"]})
    assert reader.update()
    assert len(reader.runs[0].scalars) == 3
    file.unlink()
    assert reader.update()
    assert not reader.update()
    assert len(reader.runs[0].scalars) == 3
    assert reader.runs[0].notes


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="missing"):
        VisdomReader(tmp_path / "missing.json", "").update()


SMALL = [
    json.dumps({"jsons": {n: PANES[n] for n in names}, "reload": {}}).encode()
    for names in (("line1", "mask"), ("image", "heatmap", "text"), ("properties", "pie", "svg"))
]


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated(SMALL))
def test_mutated_environments(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "mutated.json"
    file.write_bytes(content)
    assert_survives(VisdomReader(file, ""), content)


FIELDS = (
    *("data", "layout", "type", "x", "y", "z", "name", "mode", "title", "xaxis"),
    *("content", "src", "bdata", "dtype", "shape"),
)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(
    content=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(FIELDS),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    kind=st.sampled_from(["plot", "text", "image", "image_history", "properties", "other"]),
)
def test_any_content_of_a_pane(
    tmp_path_factory: pytest.TempPathFactory, content: object, kind: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.json"
    pane = {"id": "w", "title": "", "type": kind, "content": content}
    figure = {"id": "v", "type": "plot", "content": {"data": [content], "layout": content}}
    file.write_text(json.dumps({"jsons": {"w": pane, "v": figure}}))
    assert_survives(VisdomReader(file, ""), file.read_bytes())


# Client logs


def test_a_real_client_log() -> None:
    run = read(VisdomClientLogReader(CLIENT_LOG, ""))
    assert points(run) == {"loss/a": [(0, 1), (1, 2), (2, "nan")]}
    assert [(text.tag, text.text) for text in run.texts] == [("t", "hi")]


def write_log(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """A log written by visdom's client; what it sent."""
    visdom = pytest.importorskip("visdom")
    client = visdom.Visdom(offline=True, log_to_filename=str(file), env="e")
    steps = np.arange(3.0)
    client.line(X=steps, Y=steps**2, win="a", opts={"title": "loss"})
    client.line(X=np.array([3.0]), Y=np.array([np.nan]), win="a", update="append")
    client.line(X=steps, Y=steps, win="a", name="b", update="append")
    client.line(X=steps, Y=steps, win="a", name="c", update="append")
    client.line(X=np.array([4.0]), Y=np.array([np.inf]), win="a", name="b", update="append")
    client.line(X=None, Y=None, win="a", name="c", update="remove")
    client.line(X=steps, Y=np.stack([steps, steps + 1], 1), win="two", opts={"legend": ["p", "q"]})
    client.line(X=steps + 3, Y=np.stack([steps, steps], 1), win="two", update="append")
    client.line(X=steps, Y=-steps, win="two", name="p", update="replace")
    client.line(X=steps, Y=steps, win="missing", update="append")
    client.text("one", win="t")
    client.text("<b>two</b>", win="t", append=True)
    client.heatmap(np.eye(3), win="h")
    client.heatmap(np.ones((1, 3)), win="h", update="appendRow")
    client.heatmap(np.zeros((4, 1)), win="h", update="prependColumn")
    client.heatmap(np.zeros((9, 9)), win="h", update="appendRow")
    client.bar(np.arange(3.0), win="bars")
    client.bar(np.arange(4.0), win="bars")
    client.image(np.full((3, 4, 4), 0.5), win="i", opts={"caption": "c"})
    client.properties([{"type": "text", "name": "n", "value": "v"}], win="p")
    client.update_window_opts("a", {"title": "renamed"})
    client.text("elsewhere", win="t", env="other")
    return [json.loads(line) for line in file.read_text().splitlines()]


def as_server(messages: list[tuple[str, dict[str, Any]]], name: str) -> dict[str, Any]:
    """The panes of environment `name` by visdom's own server code."""
    handlers = pytest.importorskip("visdom.server.handlers.web_handlers")
    utils = pytest.importorskip("visdom.utils.server_utils")
    panes: dict[str, Any] = {}
    for endpoint, message in messages:
        window = message["win"]
        if message["eid"] != name:
            continue
        if endpoint == "events" or (window not in panes and message.get("append")):
            pane = utils.window(json.loads(json.dumps(message)))
            pane["i"] = panes[window]["i"] if window in panes else len(panes)
            panes[window] = pane
        elif window in panes:
            handlers.UpdateHandler.update(panes[window], json.loads(json.dumps(message)))
    return panes


def test_a_client_log_gives_what_the_server_would_save(tmp_path: Path) -> None:
    messages = write_log(tmp_path / "log.jsonl")
    reader = VisdomClientLogReader(tmp_path / "log.jsonl", "")
    reader.update()
    assert [run.name for run in reader.runs] == ["e", "other"]
    assert_accounted(reader.runs)
    saved = read_panes(tmp_path, as_server(messages, "e"))
    replayed = reader.runs[0]
    assert points(replayed) == points(saved)
    assert len(points(saved)) == 5
    assert [(t.tag, t.text) for t in replayed.texts] == [(t.tag, t.text) for t in saved.texts]
    assert replayed.charts == saved.charts
    assert replayed.tables == saved.tables
    pictures = [
        [(i.tag, i.caption, i.payload.read()) for i in run.images] for run in (replayed, saved)
    ]
    assert pictures[0] == pictures[1]
    assert len(pictures[0]) == 1


def test_a_growing_client_log(tmp_path: Path) -> None:
    write_log(tmp_path / "whole.jsonl")
    content = (tmp_path / "whole.jsonl").read_bytes()
    whole = VisdomClientLogReader(tmp_path / "whole.jsonl", "")
    whole.update()
    growing = VisdomClientLogReader(tmp_path / "growing.jsonl", "")
    for end in range(0, len(content) + 400, 400):
        (tmp_path / "growing.jsonl").write_bytes(content[:end])
        growing.update()
        assert_accounted(growing.runs)
    for run, expected in zip(growing.runs, whole.runs, strict=True):
        assert points(run) == points(expected)
        assert run.texts == expected.texts or [t.text for t in run.texts] == [
            t.text for t in expected.texts
        ]
        assert run.charts == expected.charts
        assert not run.damage


def test_image_history_of_an_offline_client_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    lines = [
        ["events", {"win": "i", "eid": "e", "opts": {}, "data": [
            {"type": "image_history",
             "content": {"src": f"data:image/png;base64,{PNG}", "caption": str(step)}}]}]
        for step in range(3)
    ]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")
    images = read(VisdomClientLogReader(file, "")).images
    assert [(image.step, image.caption) for image in images] == [(0, "0"), (1, "1"), (2, "2")]
    assert {image.payload.read() for image in images} == {base64.b64decode(PNG)}


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated([CLIENT_LOG.read_bytes()]))
def test_mutated_client_logs(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "mutated.jsonl"
    file.write_bytes(content)
    os.utime(file)
    assert_survives(VisdomClientLogReader(file, ""), content)
