"""Folders of event files: TensorBoard's accumulator is the oracle, point for point."""

from __future__ import annotations

import itertools
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard import data_compat
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.util.tensor_util import make_ndarray, make_tensor_proto
from tensorboardX import SummaryWriter as XWriter
from torch.utils.tensorboard import SummaryWriter
from training_logs_events import START, event_of, framed, record, scalar, version, write

from reportgen.errors import LogError
from reportgen.training_logs.log_run import (
    ChartLayout,
    LoggedHistogram,
    LoggedTable,
    LogRun,
    Series,
    Session,
)
from reportgen.training_logs.tensorboard.folder_reader import EventFolderReader
from reportgen.training_logs.tensorboard.tensors import MalformedTensor, tensor_array

PNG = b"\x89PNG\r\n\x1a\n"
KEEP_ALL = dict.fromkeys(
    ("scalars", "images", "histograms", "tensors", "audio", "graph", "compressedHistograms"), 0
)
FUZZ = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(folder: Path) -> EventFolderReader:
    reader = EventFolderReader(folder)
    assert reader.update() is True
    return reader


def only(folder: Path) -> LogRun:
    (run,) = read(folder).runs
    assert_accounted(run)
    return run


def by_name(folder: Path) -> dict[str, LogRun]:
    return {run.name: run for run in read(folder).runs}


def accumulator(folder: Path) -> Any:
    found = EventAccumulator(str(folder), size_guidance=KEEP_ALL, purge_orphaned_data=False)
    return found.Reload()


def points(series: Series) -> list[tuple[float, float, float]]:
    return list(zip(series.times, series.steps, series.values, strict=True))


def values(run: LogRun, tag: str) -> list[float]:
    return run.scalars[tag].values.tolist()


def assert_accounted(run: LogRun) -> None:
    for file in run.files:
        lost = sum(d.size_bytes for d in run.damage if d.file == file.name)
        assert file.read_bytes + lost == file.size_bytes == file.path.stat().st_size


def assert_same_points(run: LogRun, oracle: Any) -> None:
    assert set(run.scalars) == set(oracle.Tags()["scalars"])
    for tag, series in run.scalars.items():
        expected = [(e.wall_time, e.step, e.value) for e in oracle.Scalars(tag)]
        np.testing.assert_array_equal(points(series), expected)


def append(path: Path, *records: bytes) -> None:
    with path.open("ab") as file:
        file.write(b"".join(records))


def tensor_value(tag: str, plugin: str, tensor: Any, **more: Any) -> dict[str, Any]:
    metadata = {"plugin_data": {"plugin_name": plugin}, **more}
    return {"tag": tag, "tensor": tensor, "metadata": metadata}


def one_value(folder: Path, value: dict[str, Any], step: int = 3) -> LogRun:
    write(folder, version(), record(event_of(step, value)))
    return only(folder)


# ---- against TensorBoard's own reader -----------------------------------------------------------


def add_everything(writer: Any) -> None:
    random = np.random.default_rng(0)
    for step in range(30):
        writer.add_scalar("loss/train", 1 / (step + 1), step)
        writer.add_scalar("odd", (math.nan, math.inf, -math.inf)[step % 3], step)
        writer.add_scalar("no step", step)
        if step % 10 == 0:
            writer.add_image("noise", random.random((3, 8, 9)), step)
            writer.add_histogram("weights", random.normal(size=500), step)
            writer.add_histogram("few", random.normal(size=20), step, bins="auto")
            writer.add_histogram("constant", np.full(10, 0.5), step)
    writer.close()


@pytest.mark.parametrize("writer", [SummaryWriter, XWriter])
def test_points_pictures_and_histograms_are_those_of_tensorboard(
    tmp_path: Path, writer: Callable[..., Any]
) -> None:
    add_everything(writer(str(tmp_path)))
    run, oracle = only(tmp_path), accumulator(tmp_path)
    assert_same_points(run, oracle)
    pictures = [(i.time, i.step, i.payload.read(), i.width, i.height) for i in run.images]
    assert pictures == [
        (e.wall_time, e.step, e.encoded_image_string, e.width, e.height)
        for e in oracle.Images("noise")
    ]
    for tag in ("weights", "few", "constant"):
        found = [h for h in run.histograms if h.tag == tag]
        for histogram, event in zip(found, oracle.Histograms(tag), strict=True):
            assert (histogram.time, histogram.step) == (event.wall_time, event.step)
            assert_same_histogram(histogram, event.histogram_value)


def assert_same_histogram(found: LoggedHistogram, expected: Any) -> None:
    """Against TensorBoard's conversion of old histograms, whose empty buckets stay apart."""
    histo = {field: getattr(expected, field) for field in ("min", "max", "num", "sum")}
    value = Summary.Value(
        histo={**histo, "bucket_limit": expected.bucket_limit, "bucket": expected.bucket}
    )
    rows = make_ndarray(data_compat.migrate_value(value).tensor)
    filled = [row for row in zip(found.lefts, found.rights, found.counts, strict=True) if row[2]]
    oracle = rows[rows[:, 2] > 0]
    if expected.min < expected.max:
        np.testing.assert_allclose(filled, oracle, rtol=1e-6)
    assert [row[2] for row in filled] == oracle[:, 2].tolist()
    # Without gaps: joined buckets cover what they replace.
    assert found.rights[:-1] == found.lefts[1:]
    assert (found.minimum, found.maximum) == (expected.min, expected.max)
    assert (found.total, found.number) == (expected.sum, expected.num)


def test_a_histogram_keeps_what_it_says_about_values_that_are_not_numbers(tmp_path: Path) -> None:
    with XWriter(str(tmp_path)) as writer:
        writer.add_histogram("n", np.array([1.0, math.nan]), 0)
    (found,) = only(tmp_path).histograms
    assert sum(found.counts) == 1
    assert found.number == 2
    assert math.isnan(found.minimum)
    assert math.isnan(found.maximum)
    assert math.isnan(found.total)
    assert all(map(math.isfinite, (*found.lefts, *found.rights)))


@pytest.mark.parametrize(("limits", "counts"), [([], []), ([0.0, 1.0], [0.0, 0.0]), ([], [1.0])])
def test_a_histogram_of_no_values(tmp_path: Path, limits: list[float], counts: list[float]) -> None:
    histogram = {"bucket_limit": limits, "bucket": counts}
    (found,) = one_value(tmp_path, {"tag": "h", "histo": histogram}).histograms
    assert (found.lefts, found.rights, found.counts) == ((), (), ())


def test_a_renamed_file_is_read_once(tmp_path: Path) -> None:
    path = write(tmp_path, version(), scalar("loss", 0, 1.0), scalar("loss", 1, 0.5))
    reader = read(tmp_path)
    path.rename(path.with_name(path.name + ".1"))
    assert reader.update()
    (run,) = reader.runs
    assert (values(run, "loss"), run.notes) == ([1.0, 0.5], [])


def test_outermost_limits_of_tensorflow_become_the_extremes(tmp_path: Path) -> None:
    limit = 1.7976931348623157e308
    histo = {
        "min": -3.0, "max": 9.0, "num": 6.0, "sum": 1.0,
        "bucket_limit": [-limit, -1, 0, 0.5, 1, limit, limit], "bucket": [0, 2, 0, 0, 1, 3, 0],
    }  # fmt: skip
    (found,) = one_value(tmp_path, {"tag": "h", "histo": histo}).histograms
    assert found.lefts == (-3.0, -1.0, 0.5, 1.0)
    assert found.rights == (-1.0, 0.5, 1.0, 9.0)
    assert found.counts == (2, 0, 1, 3)


def test_a_file_of_many_records_and_a_resume_with_purge_step(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(10):
            writer.add_scalar("l", step, step)
    with SummaryWriter(str(tmp_path), purge_step=6) as writer:
        for step in range(6, 12):
            writer.add_scalar("l", -step, step)
    run = only(tmp_path)
    assert_same_points(run, accumulator(tmp_path))
    assert [session.purge_step for session in run.sessions] == [None, 6]
    assert run.scalars["l"].starts == [(0, 0), (10, 1)]


# ---- tensors ------------------------------------------------------------------------------------

NUMPY_TYPES = [
    "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(NUMPY_TYPES),
    shape=st.lists(st.integers(0, 3), max_size=3),
    seed=st.integers(0, 99),
    as_bytes=st.booleans(),
)
def test_tensors_are_those_of_tensorboard(
    kind: str, shape: list[int], seed: int, as_bytes: bool
) -> None:
    array = np.random.default_rng(seed).integers(-90, 90, size=shape).astype(kind)
    tensor = make_tensor_proto(array)
    if as_bytes and array.size:
        for field in ("half", "float", "double", "int", "int64", "bool", "uint32", "uint64"):
            tensor.ClearField(f"{field}_val")
        tensor.tensor_content = array.tobytes()
    np.testing.assert_array_equal(tensor_array(tensor), array.astype(np.float64))
    if kind not in ("u4", "u8"):  # TensorBoard cannot read back what it writes of these
        np.testing.assert_array_equal(tensor_array(tensor), make_ndarray(tensor).astype(float))


def test_bfloat16_and_one_value_for_a_whole_shape() -> None:
    shape = {"dim": [{"size": 2}, {"size": 2}]}
    tensor = TensorProto(dtype=14, tensor_shape=shape, half_val=[0x3FC0, 0xC000])
    assert tensor_array(tensor).tolist() == [[1.5, -2.0], [-2.0, -2.0]]
    tensor = TensorProto(dtype=1, tensor_shape=shape, float_val=[0.5])
    assert tensor_array(tensor).tolist() == make_ndarray(tensor).tolist()


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(dtype=1, tensor_shape={"dim": [{"size": 1 << 40}]}, float_val=[1.0]),
        TensorProto(dtype=1, tensor_shape={"dim": [{"size": -1}]}, float_val=[1.0]),
        TensorProto(dtype=1, tensor_shape={"dim": [{"size": 2}]}),
        TensorProto(dtype=1, tensor_shape={"dim": [{"size": 1}]}, float_val=[1.0, 2.0]),
        TensorProto(dtype=1, tensor_shape={"dim": [{"size": 1}]}, tensor_content=b"abc"),
        TensorProto(dtype=1, tensor_shape={"dim": [{"size": 2}]}, tensor_content=b"abcd"),
        TensorProto(dtype=99, float_val=[1.0]),
        TensorProto(dtype=7, string_val=[b"x"]),
    ],
)
def test_malformed_tensors_are_refused(tensor: Any) -> None:
    with pytest.raises(MalformedTensor):
        tensor_array(tensor)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i4"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_scalars_as_tensors(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    tensor = make_tensor_proto(np.full(shape, 2.5, dtype=kind))
    run = one_value(tmp_path, tensor_value("epoch_loss", "scalars", tensor))
    assert points(run.scalars["epoch_loss"]) == [(START + 3, 3.0, 2.0 if kind == "i4" else 2.5)]


def test_only_the_first_value_of_a_tag_needs_to_name_its_plugin(tmp_path: Path) -> None:
    first = tensor_value("a", "scalars", make_tensor_proto(1.0))
    second = {"tag": "a", "tensor": make_tensor_proto(2.0)}
    write(tmp_path, record(event_of(0, first)), record(event_of(1, second)))
    assert values(only(tmp_path), "a") == [1.0, 2.0]


def test_a_scalar_of_an_unknown_plugin_is_a_scalar_by_its_data_class(tmp_path: Path) -> None:
    value = tensor_value("a", "my_plugin", make_tensor_proto(1.5), data_class=1)
    assert values(one_value(tmp_path, value), "a") == [1.5]


def test_histograms_as_tensors(tmp_path: Path) -> None:
    rows = np.array([[0, 1, 0], [1, 2, 4], [2, 3, 0], [3, 4, 0], [4, 5, 1], [5, 6, 0]], float)
    value = tensor_value("h", "histograms", make_tensor_proto(rows))
    (found,) = one_value(tmp_path, value).histograms
    assert (found.lefts, found.rights, found.counts) == ((1, 2, 4), (2, 4, 5), (4, 0, 1))
    assert math.isnan(found.minimum)


@pytest.mark.parametrize("count", [1, 3])
def test_pictures_as_tensors(tmp_path: Path, count: int) -> None:
    contents = [PNG + bytes([i]) for i in range(count)]
    tensor = make_tensor_proto([b"9", b"8", *contents])
    found = one_value(tmp_path, tensor_value("im", "images", tensor)).images
    assert [image.payload.read() for image in found] == contents
    assert {(image.width, image.height, image.step) for image in found} == {(9, 8, 3.0)}
    assert [i.tag for i in found] == (["im"] if count == 1 else ["im/0", "im/1", "im/2"])


@pytest.mark.parametrize(
    ("strings", "text"),
    [(b"one", "one"), ([b"one"], "one"), ([b"one", b"two"], "one\n\ntwo"), ([b"\xff"], "\ufffd")],
)
def test_texts(tmp_path: Path, strings: Any, text: str) -> None:
    value = tensor_value("note/text_summary", "text", make_tensor_proto(strings))
    (found,) = one_value(tmp_path, value).texts
    assert (found.tag, found.step, found.time, found.text) == ("note", 3.0, START + 3, text)


def test_a_text_of_two_dimensions_is_a_table(tmp_path: Path) -> None:
    tensor = make_tensor_proto(np.array([[b"a", b"b"], [b"c", b"d"]]))
    (found,) = one_value(tmp_path, tensor_value("t", "text", tensor)).tables
    assert found == LoggedTable(tag="t", step=3.0, columns=(), rows=(("a", "b"), ("c", "d")))


@pytest.mark.parametrize("writer", [SummaryWriter, XWriter])
def test_precision_and_recall(tmp_path: Path, writer: Callable[..., Any]) -> None:
    precision, recall = np.array([0.5, 0.75, 1.0]), np.array([1.0, 0.5, 0.25])
    rows = [np.arange(3.0)] * 4
    with writer(str(tmp_path)) as log:
        log.add_pr_curve_raw("pr", *rows, precision, recall, 4, num_thresholds=3)
    (found,) = only(tmp_path).pr_curves
    assert (found.tag, found.step) == ("pr", 4.0)
    assert (found.precision, found.recall) == (tuple(precision), tuple(recall))


@pytest.mark.parametrize("writer", [SummaryWriter, XWriter])
def test_layouts_of_custom_scalars(tmp_path: Path, writer: Callable[..., Any]) -> None:
    layout = {
        "A": {
            "both": ["Multiline", ["loss/.*"]],
            "band": ["Margin", ["value", "low", "high"]],
        }
    }
    with writer(str(tmp_path)) as log:
        log.add_custom_scalars(layout)
    assert only(tmp_path).layouts == [
        ChartLayout(category="A", title="both", tags=("loss/.*",)),
        ChartLayout(category="A", title="band", tags=("value", "low", "high"), margin=True),
    ]


@pytest.mark.parametrize("plugin", ["scalars", "histograms", "images", "text", "pr_curves"])
@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(dtype=1, tensor_shape={"dim": [{"size": 1 << 40}]}, float_val=[1.0]),
        TensorProto(dtype=7, tensor_shape={"dim": [{"size": 3}]}, string_val=[b"1"]),
        TensorProto(),
    ],
)
def test_malformed_values_are_counted(tmp_path: Path, plugin: str, tensor: Any) -> None:
    run = one_value(tmp_path, tensor_value("x", plugin, tensor))
    assert run.not_shown == Counter({f"malformed {plugin}": 1})


# ---- what is named and not shown ----------------------------------------------------------------


def add_unshown(writer: Any) -> None:
    corners = np.zeros((1, 4, 3), dtype=np.float32)
    writer.add_mesh("m", corners, colors=corners.astype(np.uint8), faces=corners[:, :1])
    writer.add_embedding(np.eye(3, dtype=np.float32), tag="emb", global_step=1)
    writer.close()


def test_meshes_and_embeddings_are_counted(tmp_path: Path) -> None:
    add_unshown(SummaryWriter(str(tmp_path)))
    assert only(tmp_path).not_shown == Counter({"mesh": 3, "embedding": 1})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"tag": "v", "image": {"encoded_image_string": b"GIF89a..."}}, "video"),
        ({"tag": "a", "audio": {"encoded_audio_string": b"RIFF"}}, "audio"),
        ({"tag": "e"}, "empty value"),
        ({"tag": "o", "obsolete_old_style_histogram": b"x"}, "obsolete old style histogram"),
        (tensor_value("t", "", make_tensor_proto([1.0, 2.0])), "tensor"),
        (tensor_value("t", "my_plugin", make_tensor_proto([1.0, 2.0])), "my_plugin"),
        (tensor_value("g", "graph_keras_model", make_tensor_proto(b"{}")), "graph"),
        (
            tensor_value("l", "custom_scalars", make_tensor_proto(b"\xff")),
            "malformed custom_scalars",
        ),
        (
            {"metadata": {"plugin_data": {"plugin_name": "hparams", "content": b"\xff"}}},
            "malformed hparams",
        ),
    ],
)
def test_what_is_not_shown_is_counted_by_name(
    tmp_path: Path, value: dict[str, Any], name: str
) -> None:
    assert one_value(tmp_path, value).not_shown == Counter({name: 1})


def test_graphs_and_profiles_are_counted(tmp_path: Path) -> None:
    events = [Event(graph_def=b"g"), Event(tagged_run_metadata={"tag": "step1"}), Event()]
    write(tmp_path, *map(record, events))
    assert only(tmp_path).not_shown == Counter({"graph": 1, "profile": 1})


@pytest.mark.parametrize(
    "tag", ["<script>alert(1)</script>", "a\0b", "한국어/🦊", "", "x" * 10_000]
)
def test_tags_are_kept_as_they_are(tmp_path: Path, tag: str) -> None:
    write(tmp_path, scalar(tag, 1, 0.5))
    assert values(only(tmp_path), tag) == [0.5]


# ---- hyperparameters ----------------------------------------------------------------------------

HYPERPARAMETERS = {"lr": 0.125, "batch": 32, "optimizer": "adam", "flag": True}


@pytest.mark.parametrize("writer", [SummaryWriter, XWriter])
def test_hyperparameters_of_a_sub_folder_belong_to_the_run(
    tmp_path: Path, writer: Callable[..., Any]
) -> None:
    with writer(str(tmp_path)) as log:
        log.add_scalar("loss", 1.0, 0)
        log.add_hparams(HYPERPARAMETERS, {"loss": 0.5, "hparam/acc": 0.75})
    run = only(tmp_path)
    assert run.name == ""
    assert run.hyperparameters == HYPERPARAMETERS
    assert values(run, "loss") == [1.0, 0.5]
    assert run.scalars["loss"].starts == [(0, 0), (1, 1)]
    assert values(run, "hparam/acc") == [0.75]
    assert len(run.files) == len(run.sessions) == 2


def test_types_of_hyperparameters(tmp_path: Path) -> None:
    infos = [{"name": "typed", "type": "DATA_TYPE_BOOL"}]
    start = {
        "typed": {"number_value": 1.0},
        "untyped": {"number_value": 1.0},
        "bool": {"bool_value": False},
        "huge": {"number_value": 1e300},
        "nan": {"number_value": math.nan},
        "list": {"list_value": {"values": [{"number_value": 1.5}, {"null_value": 0}]}},
        "nothing": {},
    }
    messages = [
        HParamsPluginData(experiment={"hparam_infos": infos}),
        HParamsPluginData(session_start_info={"hparams": start}),
        HParamsPluginData(session_end_info={}),
    ]
    data = [{"plugin_name": "hparams", "content": m.SerializeToString()} for m in messages]
    write(tmp_path, *(record(event_of(0, {"metadata": {"plugin_data": d}})) for d in data))
    found = only(tmp_path).hyperparameters
    assert math.isnan(float(found.pop("nan")))
    assert found == {
        "typed": True, "untyped": 1, "bool": False, "huge": 1e300, "list": "[1.5, null]",
        "nothing": "null",
    }  # fmt: skip
    assert type(found["typed"]) is bool
    assert type(found["untyped"]) is int


def test_trials_with_different_hyperparameters_stay_runs(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for i in range(3):
            writer.add_hparams({"lr": i / 8}, {"acc": i / 4}, run_name=f"179573284{i}.25")
    runs = by_name(tmp_path)
    assert set(runs) == {"", *(f"179573284{i}.25" for i in range(3))}
    assert runs["1795732842.25"].hyperparameters == {"lr": 0.25}
    assert values(runs["1795732842.25"], "acc") == [0.5]


def test_repeated_hyperparameters_of_one_trial_are_one_run(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for i in range(3):
            writer.add_hparams({"lr": 0.5}, {"acc": i / 4}, run_name=f"179573284{i}.25")
    run = only(tmp_path)
    assert run.hyperparameters == {"lr": 0.5}
    assert values(run, "acc") == [0.0, 0.25, 0.5]


# ---- folders that are one run -------------------------------------------------------------------


@pytest.mark.parametrize("writer", [SummaryWriter, XWriter])
@pytest.mark.parametrize("tag", ["loss", "a/b loss", "a_b"])
def test_families_of_scalars_are_tags_of_their_run(
    tmp_path: Path, writer: Callable[..., Any], tag: str
) -> None:
    home = tmp_path / "exp"
    with writer(str(home)) as log:
        log.add_scalar("other", 9.0, 0)
        for step in range(3):
            log.add_scalars(tag, {"train": step, "val 1": -step}, step)
    run = only(tmp_path)
    stored = tag.replace(" ", "_") if writer is XWriter else tag
    assert run.name == "exp"
    assert set(run.scalars) == {"other", f"{stored}/train", f"{stored}/val 1"}
    assert points(run.scalars[f"{stored}/val 1"])[2][1:] == (2.0, -2.0)
    assert len(run.files) == 3


def test_folders_that_are_not_a_family_stay_runs(tmp_path: Path) -> None:
    write(tmp_path, version())
    write(tmp_path / "loss_a", scalar("loss", 0, 1.0), scalar("acc", 0, 1.0))  # two tags
    write(tmp_path / "loss_", scalar("loss", 0, 1.0))  # no key
    write(tmp_path / "lossy", scalar("loss", 0, 1.0))  # another name
    image = event_of(0, {"tag": "i", "image": {"encoded_image_string": PNG}})
    write(tmp_path / "loss_b", scalar("loss", 0, 1.0), record(image))  # a picture too
    write(tmp_path / "lone" / "x_k", scalar("x", 0, 1.0))  # the nearest run above is the root
    assert set(by_name(tmp_path)) == {"", "loss_a", "loss_", "lossy", "loss_b", "lone/x_k"}


def test_a_family_without_a_run_above_stays_as_it_is(tmp_path: Path) -> None:
    write(tmp_path / "loss_train", scalar("loss", 0, 1.0))
    assert set(by_name(tmp_path)) == {"loss_train"}


def test_two_files_that_each_hold_the_whole_run_are_two_sessions(tmp_path: Path) -> None:
    write(tmp_path, version())
    for second in (1, 2):
        records = [scalar("loss", step, second) for step in range(3)]
        write(tmp_path / "loss_train", *records, name=f"events.out.tfevents.{second}.h")
    run = only(tmp_path)
    assert values(run, "loss/train") == [1.0] * 3 + [2.0] * 3
    assert run.scalars["loss/train"].starts == [(0, 1), (3, 2)]
    assert [s.file for s in run.sessions[1:]] == [
        "loss_train/events.out.tfevents.1.h",
        "loss_train/events.out.tfevents.2.h",
    ]


@pytest.mark.parametrize("name", ["", "model"])
def test_keras_folders_are_one_run(tmp_path: Path, name: str) -> None:
    for part, value in (("train", 1.0), ("validation", 2.0)):
        tensor = tensor_value("epoch_loss", "scalars", make_tensor_proto(value))
        note = tensor_value("note", "text", make_tensor_proto(part.encode()))
        write(tmp_path / name / part, version(), record(event_of(0, tensor, note)))
    run = only(tmp_path)
    assert run.name == name
    assert {tag: s.values.tolist() for tag, s in run.scalars.items()} == {
        "train/epoch_loss": [1.0],
        "validation/epoch_loss": [2.0],
    }
    assert [(t.tag, t.text) for t in run.texts] == [
        ("train/note", "train"),
        ("validation/note", "validation"),
    ]


def test_keras_folders_beside_scalars_of_their_own_stay_runs(tmp_path: Path) -> None:
    write(tmp_path, scalar("loss", 0, 1.0))
    write(tmp_path / "train", scalar("a", 0, 1.0), scalar("b", 0, 1.0))
    write(tmp_path / "validation", scalar("a", 0, 1.0))
    assert set(by_name(tmp_path)) == {"", "train", "validation"}
    write(tmp_path / "x" / "train", scalar("a", 0, 1.0))
    write(tmp_path / "x" / "validation", scalar("b", 0, 1.0))
    assert {"x/train", "x/validation"} <= set(by_name(tmp_path))


# ---- sessions and names -------------------------------------------------------------------------


def test_files_are_read_in_the_order_in_which_they_were_begun(tmp_path: Path) -> None:
    names = [
        "events.out.tfevents.9.host",
        "events.out.tfevents.10.my.host.7.0",
        "events.out.tfevents.10.my.host.7.2.v2",
        "events.out.tfevents.10.my.host.7.10.v2",
        "events.out.tfevents.10.my.host.30.1",
        "prefix.tfevents.11.host.suffix",
    ]
    for i, name in reversed(list(enumerate(names))):
        write(tmp_path, scalar("a", i, float(i)), name=name)
    write(tmp_path, scalar("a", 0, 9.0), name="not_an_event_file.log")
    run = only(tmp_path)
    assert [file.name for file in run.files] == names
    assert values(run, "a") == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert run.scalars["a"].starts == [(i, i) for i in range(6)]


def test_a_second_version_record_and_a_start_begin_a_session(tmp_path: Path) -> None:
    start = Event(wall_time=START, step=4, session_log={"status": SessionLog.START})
    stop = Event(wall_time=START, step=9, session_log={"status": SessionLog.STOP})
    path = write(
        tmp_path,
        version(), scalar("a", 0, 0.0),
        version(), scalar("a", 1, 1.0),
        version(4), record(start), record(stop), scalar("a", 4, 4.0),
    )  # fmt: skip
    run = only(tmp_path)
    assert run.sessions == [
        Session(file=path.name),
        Session(file=path.name),
        Session(file=path.name, purge_step=4),
    ]
    assert run.scalars["a"].starts == [(0, 0), (1, 1), (2, 2)]


def test_one_file_can_be_read_alone(tmp_path: Path) -> None:
    path = write(tmp_path, scalar("a", 0, 1.0))
    write(tmp_path, scalar("b", 0, 1.0), name="other.tfevents.1")
    run = only(path)
    assert (run.name, [file.name for file in run.files]) == ("", [path.name])
    assert set(run.scalars) == {"a"}


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="nowhere"):
        EventFolderReader(tmp_path / "nowhere").update()
    (tmp_path / "notes.txt").write_text("no log")
    with pytest.raises(LogError, match="no event files"):
        EventFolderReader(tmp_path).update()


def test_links_are_followed_once_and_never_upward(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "z_real", scalar("a", 0, 1.0))
    write(tmp_path / "elsewhere", scalar("a", 0, 2.0))
    (root / "a_link").symlink_to(root / "z_real")
    (root / "outside").symlink_to(tmp_path / "elsewhere")
    (root / "z_real" / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    assert set(by_name(root)) == {"outside", "z_real"}


def test_what_is_not_a_file_is_noted_and_not_opened(tmp_path: Path) -> None:
    write(tmp_path, scalar("a", 0, 1.0))
    os.mkfifo(tmp_path / "pipe.tfevents.1")
    (tmp_path / "broken.tfevents.2").symlink_to(tmp_path / "nowhere")
    run = only(tmp_path)
    assert values(run, "a") == [1.0]
    assert [note.split()[0] for note in run.notes] == ["pipe.tfevents.1", "broken.tfevents.2"]


def test_a_name_that_is_no_text_is_made_one(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    write(Path(os.fsdecode(folder)), scalar("a", 0, 1.0))
    assert set(by_name(tmp_path)) == {r"\xff"}


# ---- again and again ----------------------------------------------------------------------------


def test_an_update_reads_what_was_appended(tmp_path: Path) -> None:
    path = write(tmp_path, version(), scalar("a", 0, 0.0))
    reader = read(tmp_path)
    assert reader.update() is False
    late = scalar("a", 1, 1.0)
    append(path, late[:20])
    assert reader.update() is True
    (run,) = reader.runs
    assert values(run, "a") == [0.0]
    assert [d.reason for d in run.damage] == ["incomplete last record"]
    assert_accounted(run)
    append(path, late[20:])
    assert reader.update() is True
    (run,) = reader.runs
    assert values(run, "a") == [0.0, 1.0]
    assert run.damage == []
    assert run.scalars["a"].starts == [(0, 0)]
    assert reader.update() is False


def test_new_files_and_new_runs_are_noticed(tmp_path: Path) -> None:
    write(tmp_path / "one", scalar("a", 0, 1.0), name="x.tfevents.5.h")
    reader = read(tmp_path)
    write(tmp_path / "one", scalar("a", 1, 2.0), name="x.tfevents.6.h")
    write(tmp_path / "two", scalar("a", 0, 3.0))
    assert reader.update() is True
    assert [(run.name, values(run, "a")) for run in reader.runs] == [
        ("one", [1.0, 2.0]),
        ("two", [3.0]),
    ]
    # One that was begun before those that were read: the order of the points is by file.
    write(tmp_path / "one", scalar("a", -1, 0.0), name="x.tfevents.4.h")
    assert reader.update() is True
    assert values(reader.runs[0], "a") == [0.0, 1.0, 2.0]
    assert [session.file for session in reader.runs[0].sessions] == [
        f"one/x.tfevents.{i}.h" for i in (4, 5, 6)
    ]


@pytest.mark.parametrize(
    "content", [[scalar("b", 0, 2.0)], [scalar("b", i, 2.0) for i in range(9)]]
)
def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path, content: list[bytes]) -> None:
    path = write(tmp_path, version(), scalar("a", 0, 1.0), scalar("a", 1, 1.0))
    reader = read(tmp_path)
    path.write_bytes(b"".join(content))
    assert reader.update() is True
    (run,) = reader.runs
    assert {tag: len(series) for tag, series in run.scalars.items()} == {"b": len(content)}
    assert_accounted(run)


def test_what_was_read_of_a_deleted_file_is_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "run", scalar("a", 0, 1.0))
    reader = read(tmp_path)
    shutil.rmtree(tmp_path / "run")
    assert reader.update() is True
    (run,) = reader.runs
    assert values(run, "a") == [1.0]
    assert run.notes == [f"run/{path.name} was deleted; what was read is kept"]
    assert reader.update() is False
    write(tmp_path / "run", scalar("a", 0, 2.0))
    assert reader.update() is True
    assert values(reader.runs[0], "a") == [2.0]
    assert reader.runs[0].notes == []


def test_merged_runs_grow_too(tmp_path: Path) -> None:
    write(tmp_path, version(), scalar("other", 0, 1.0))
    part = write(tmp_path / "loss_train", scalar("loss", 0, 1.0))
    reader = read(tmp_path)
    append(part, scalar("loss", 1, 0.5))
    write(tmp_path / "loss_val", scalar("loss", 0, 2.0))
    assert reader.update() is True
    (run,) = reader.runs
    assert {tag: s.values.tolist() for tag, s in run.scalars.items()} == {
        "other": [1.0],
        "loss/train": [1.0, 0.5],
        "loss/val": [2.0],
    }
    append(part, scalar("another", 0, 0.0))  # no longer a family
    assert reader.update() is True
    assert {run.name for run in reader.runs} == {"", "loss_train"}


@pytest.mark.slow
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_reading_while_files_grow_gives_what_reading_at_once_gives(
    tmp_path: Path, data: st.DataObject
) -> None:
    home = tmp_path / str(next(COUNTER))
    sources = {
        "a/x.tfevents.1": b"".join(scalar("l", i, i) for i in range(4)),
        "a/x.tfevents.2": b"".join(scalar(f"t{i % 2}", i, i) for i in range(4)),
        "a/l_k/x.tfevents.1": b"".join(scalar("l", i, i) for i in range(3)),
        "b/x.tfevents.1": version() + scalar("l", 0, 1.0) + version() + scalar("l", 0, 2.0),
    }
    reader, done = EventFolderReader(home), dict.fromkeys(sources, 0)
    write(home / "a", name="x.tfevents.0")
    while any(done[name] < len(content) for name, content in sources.items()):
        name = data.draw(st.sampled_from([n for n in sources if done[n] < len(sources[n])]))
        end = data.draw(st.integers(done[name] + 1, len(sources[name])))
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        append(home / name, sources[name][done[name] : end])
        done[name] = end
        assert reader.update() is True
        for run in reader.runs:
            assert_accounted(run)
    assert [contents(run) for run in reader.runs] == [contents(run) for run in read(home).runs]


COUNTER = itertools.count()


def contents(run: LogRun) -> Any:
    tags = {tag: sorted(points(series)) for tag, series in run.scalars.items()}
    return run.name, tags, run.sessions, run.damage


# ---- hostile content ----------------------------------------------------------------------------


def hostile_payloads() -> Iterator[bytes]:
    """Serialized events of every kind, to be changed below their checksums."""
    messages = [
        {"tag": "s", "simple_value": 1.0},
        {"tag": "i", "image": {"width": 3, "height": 4, "encoded_image_string": PNG}},
        {"tag": "h", "histo": {"min": 0.0, "max": 1.0, "bucket_limit": [0, 1], "bucket": [1, 2]}},
        tensor_value("a", "scalars", make_tensor_proto(1.0)),
        tensor_value("b", "histograms", make_tensor_proto(np.ones((2, 3)))),
        tensor_value("c", "images", make_tensor_proto([b"1", b"1", PNG, PNG])),
        tensor_value("d", "text", make_tensor_proto([b"x", b"y"])),
        tensor_value("e", "pr_curves", make_tensor_proto(np.ones((6, 3)))),
        tensor_value("f", "custom_scalars", make_tensor_proto(layout_bytes())),
        {"metadata": {"plugin_data": {"plugin_name": "hparams", "content": b"\x1a\x02\x0a\x00"}}},
    ]
    yield from (event_of(1, message).SerializeToString() for message in messages)
    yield event_of(1, *messages).SerializeToString()


def layout_bytes() -> bytes:
    chart = {"title": "t", "multiline": {"tag": ["a"]}}
    layout = layout_pb2.Layout(category=[{"title": "c", "chart": [chart]}])
    content: bytes = layout.SerializeToString()
    return content


PAYLOADS = list(hostile_payloads())


@pytest.mark.slow
@FUZZ
@given(
    payload=st.sampled_from(PAYLOADS),
    changes=st.lists(
        st.tuples(st.integers(0, 1000), st.integers(0, 255), st.booleans()), max_size=5
    ),
)
def test_content_that_passes_its_checksum_can_be_anything(
    tmp_path: Path, payload: bytes, changes: list[tuple[int, int, bool]]
) -> None:
    changed = bytearray(payload)
    for at, byte, is_cut in changes:
        at %= max(1, len(changed))
        changed[at : at + 1] = b"" if is_cut else bytes([byte])
    write(tmp_path, version(), framed(bytes(changed)), scalar("after", 1, 2.0))
    run = only(tmp_path)
    assert values(run, "after")[-1] == 2.0
