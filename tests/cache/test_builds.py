"""Whatever changed before a build or ended it: its report is that of a build without a cache."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.project import build_in, files_in
from reportgen.outputs import writing

pytestmark = pytest.mark.slow

FORMATS = ("html", "json", "md")
MANIFEST = """
version: 1
title: Logs
models:
  - {name: one, logs: [one]}
  - {name: two, logs: [two/log.csv], comment: second}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two models with training logs alone, which need no torch."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        rows = "".join(f"{step},{1 / step}\n" for step in range(1, 9))
        (tmp_path / name / "log.csv").write_text(f"step,loss\n{rows}")
    (tmp_path / "m.yaml").write_text(MANIFEST)
    return tmp_path / "m.yaml"


def append(folder: Path, pick: random.Random) -> None:
    with (folder / pick.choice(["one", "two"]) / "log.csv").open("a") as log:
        log.write(f"{pick.randrange(10, 99)},{pick.random()}\n")


def add(folder: Path, pick: random.Random) -> None:
    (folder / "one" / f"{pick.choice('abc')}.csv").write_text(f"step,loss\n1,{pick.random()}\n")


def remove(folder: Path, pick: random.Random) -> None:
    (folder / "one" / f"{pick.choice('abc')}.csv").unlink(missing_ok=True)


def damage(folder: Path, pick: random.Random) -> None:
    """Damages one file of the cache."""
    files = sorted(path for path in (folder / "cache").rglob("*") if path.is_file())
    files[pick.randrange(len(files))].write_bytes(b"damaged")


def rename(folder: Path, pick: random.Random) -> None:
    text = (folder / "m.yaml").read_text()
    old, new = pick.choice([("second", "other"), ("other", "second"), ("title: ", "title: New ")])
    (folder / "m.yaml").write_text(text.replace(old, new))


CHANGES: list[Callable[[Path, random.Random], None]] = [append, add, remove, damage, rename]


@pytest.mark.parametrize("seed", range(2))
def test_after_any_changes_a_report_from_the_cache_is_that_of_a_fresh_build(
    manifest: Path, seed: int
) -> None:
    folder, pick = manifest.parent, random.Random(seed)
    options: dict[str, Any] = {"formats": FORMATS}
    build_in(manifest, folder / "cached", folder / "cache", **options)
    for _ in range(2):
        for change in pick.choices(CHANGES, k=3):
            change(folder, pick)
        build_in(manifest, folder / "cached", folder / "cache", **options)
        build_in(manifest, folder / "fresh", None, **options)
        assert files_in(folder / "cached") == files_in(folder / "fresh")


def test_an_interrupted_build_is_continued_and_then_nothing_is_made_again(
    manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, options = manifest.parent, {"formats": FORMATS, "timings": True}

    def interrupt(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writing, "render_index", interrupt)
        with pytest.raises(KeyboardInterrupt):
            build_in(manifest, folder / "out", folder / "cache", **options)
    build_in(manifest, folder / "out", folder / "cache", **options)
    stored, pages = files_in(folder / "cache"), files_in(folder / "out")
    build_in(manifest, folder / "out", folder / "cache", **options)
    assert files_in(folder / "cache") == stored
    again = files_in(folder / "out")
    # its time, which is the same if both builds end in one second
    assert {name for name in pages if again[name] != pages[name]} <= {"report.json"}


def test_models_with_equal_entries_keep_their_own_durations(manifest: Path) -> None:
    """Else the second build shows those of another model, and makes all pages again."""
    manifest.write_text(MANIFEST.replace("logs: [two/log.csv], comment: second", "logs: [one]"))
    folder = manifest.parent

    def seconds(output: str) -> Any:
        build_in(manifest, folder / output, folder / "cache", formats=("json",), timings=True)
        report = json.loads((folder / output / "report.json").read_text())
        return report["timings"]["section_seconds"], report["timings"]["analyzed"]

    assert seconds("first") == seconds("second")
