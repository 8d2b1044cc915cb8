"""Shards of a build, merged, are the report of one build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen import load_manifest
from reportgen.compare.reading import read_report
from reportgen.errors import ModelError, ReportgenError
from reportgen.merging import merge
from reportgen.pipeline import build
from reportgen.shards import Shard, ShardNote, parse_shard

NETS = """
from torch import nn

def net(width):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 2))

def broken():
    raise ValueError("no such checkpoint")
"""
MANIFEST = """
version: 1
title: Four
targets: [T4]

budgets: {parameters: 100}
models:
  - {name: narrow, source: nets.py:net, arguments: {width: 3}, inputs: [{shape: [batch, 3, 4]}]}
  - {name: wide, source: nets.py:net, arguments: {width: 9}, inputs: [{shape: [batch, 3, 4]}]}
  - {name: run, logs: run.csv}
  - {name: broken, source: nets.py:broken, inputs: [{shape: [batch, 3, 4]}]}
"""

SECTIONS = ("layers", "graphs", "training")


@given(name=st.text(), count=st.integers(1, 50))
def test_each_model_is_in_exactly_one_shard(name: str, count: int) -> None:
    shards = [Shard(index=index, count=count) for index in range(1, count + 1)]
    assert sum(shard.holds(name) for shard in shards) == 1


def test_shards_have_about_equal_sizes() -> None:
    shards = [Shard(index=index, count=8) for index in range(1, 9)]
    sizes = [sum(shard.holds(f"model-{i}") for i in range(4000)) for shard in shards]
    assert sum(sizes) == 4000
    assert min(sizes) > 420
    assert max(sizes) < 580  # 500 ± 3.8 standard deviations


@pytest.mark.parametrize("text", ["", "2", "0/3", "4/3", "1/0", "a/b", "1/2/3", "-1/3", "1.5/3"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ReportgenError, match="expected INDEX/COUNT, such as 2/8"):
        parse_shard(text)


def test_a_shard_is_parsed() -> None:
    assert parse_shard("3/8") == Shard(index=3, count=8)


def note(folder: Path, index: int, **changes: Any) -> Path:
    """The folder of a shard, as far as it is read before the shards are known to fit together."""
    place = folder / f"s{index}"
    place.mkdir()
    values: dict[str, Any] = {
        "index": index, "count": 3, "models": ("a", "b"), "manifest": "0" * 64,
        "software": {"torch": "2.15.0", "numpy": "2.4.6"},
    }  # fmt: skip
    text = ShardNote(**values | changes).model_dump_json()
    (place / "shard.json").write_text(text)
    return place


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"manifest": "1" * 64}, "different manifests"),
        ({"software": {"torch": "2.14.0", "numpy": "2.4.6"}}, "torch 2.15.0 and 2.14.0"),
        ({"software": {"torch": "2.15.0"}}, "numpy 2.4.6 and none"),
        ({"count": 4}, "shard 1/3 and shard 2/4"),
        ({"sections": ("layers",)}, "other --section"),
        ({"models": ("a",), "chosen": True}, "other --model"),
        ({"timings": False}, "one with --no-timings"),
        ({"baseline": "1" * 64}, "other --baseline"),
    ],
)
def test_shards_of_different_builds_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folders = [note(tmp_path, 1), note(tmp_path, 2, **changes), note(tmp_path, 3)]
    with pytest.raises(ReportgenError) as caught:
        merge(folders, output=tmp_path / "out")
    assert caught.value.message == f"{folders[0]} and {folders[1]}: {message}"
    assert not (tmp_path / "out").exists()


def test_missing_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(ReportgenError, match=r"^shards 1, 3 of 3 are missing$"):
        merge([note(tmp_path, 2)], output=tmp_path / "out")


def test_a_shard_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    one = note(tmp_path, 1)
    other = shutil.copytree(one, tmp_path / "copy")
    with pytest.raises(ReportgenError) as caught:
        merge([one, other], output=tmp_path / "out")
    assert caught.value.message == f"shard 1/3 is in {one} and in {other}"


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"index": 1'])
def test_a_folder_without_a_note_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "shard.json").write_bytes(content)
    with pytest.raises(ReportgenError, match="not a shard of a report"):
        merge([tmp_path], output=tmp_path / "out")


def test_another_baseline_is_refused(tmp_path: Path) -> None:
    folders = [note(tmp_path, index, baseline="1" * 64) for index in (1, 2, 3)]
    with pytest.raises(ReportgenError, match=r"^the shards were built with another --baseline$"):
        merge(folders, output=tmp_path / "out")


def test_if_no_shard_could_load_a_model_there_is_no_report(tmp_path: Path) -> None:
    failed = {"error": "no module", "hint": "install it"}
    folders = [
        note(tmp_path, index, not_loaded={name: failed} if name else {})
        for index, name in ((1, "b"), (2, ""), (3, "a"))
    ]
    for folder in folders:
        (folder / "report.json").write_text(EMPTY)
    with pytest.raises(ModelError) as caught:
        merge(folders, output=tmp_path / "out")
    assert caught.value.message == "model 'a': no module\nmodel 'b': no module"


EMPTY = json.dumps(
    {"format": 1, "title": "t", "verdict": "pass", "environment": {}, "timings": {}, "models": []}
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest; `whole`, and its three shards `1`, `2` and `3`."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "nets.py").write_text(NETS)
    (folder / "run.csv").write_text("step,loss\n0,2.5\n1,1.5\n2,1.0\n")
    (folder / "four.yaml").write_text(MANIFEST)
    loaded = load_manifest(folder / "four.yaml")
    build(loaded, output=folder / "whole", timings=False, jobs=2, sections=SECTIONS)
    for index in (1, 2, 3):
        build(
            loaded, output=folder / str(index), timings=False, jobs=2, formats=(),
            shard=Shard(index=index, count=3), sections=SECTIONS,
        )  # fmt: skip
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.slow
def test_the_merged_report_is_the_whole_one_byte_for_byte(project: Path) -> None:
    built = merge([project / "3", project / "1", project / "2"], output=project / "merged")
    assert content(project / "merged") == content(project / "whole")
    assert built.report == read_report(project / "whole")


@pytest.mark.slow
def test_a_file_that_was_not_copied_is_named(project: Path, tmp_path: Path) -> None:
    folders = [shutil.copytree(project / str(i), tmp_path / str(i)) for i in (1, 2, 3)]
    [drawing, *_] = sorted(tmp_path.glob("*/models/narrow/graphs/*.svg"))
    drawing.unlink()
    with pytest.raises(ReportgenError) as caught:
        merge(folders, output=tmp_path / "merged")
    assert caught.value.message == f"{drawing} is missing"
    assert not (tmp_path / "merged").exists()


@pytest.mark.slow
def test_a_later_build_deletes_what_only_shards_have(project: Path, tmp_path: Path) -> None:
    loaded = load_manifest(project / "four.yaml")
    folder = shutil.copytree(project / "1", tmp_path / "1")
    build(
        loaded,
        output=folder,
        timings=False,
        jobs=2,
        models=("run",),
        formats=(),
        sections=("layers",),
    )
    assert sorted(content(folder)) == ["report.json"]
