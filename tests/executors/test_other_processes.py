"""Any executor of `concurrent.futures`: same bytes, same cache, files checked."""

from __future__ import annotations

from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from reportgen import load_manifest
from reportgen.cache import open_cache
from reportgen.errors import EnvironmentFault
from reportgen.executors.examine import examine
from reportgen.outcome import Done
from reportgen.pipeline import Built, build

NET = """
from helper import width
from torch import nn

def net():
    return nn.Linear(4, width())
"""
MANIFEST = """
version: 1
title: t
models:
  - {name: m, source: "nets.py:net", inputs: [{shape: [batch, 4]}]}
"""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "nets.py").write_text(NET)
    (folder / "helper.py").write_text("def width():\n    return 2\n")
    (folder / "m.yaml").write_text(MANIFEST)
    return folder / "m.yaml"


def run(manifest: Path, output: str, executor: Executor | None) -> Built:
    """A build with a cache beside the manifest."""
    return build(
        load_manifest(manifest),
        output=manifest.parent / output, sections=("layers",), formats=("html",), timings=False,
        cache=open_cache(manifest.parent / "cache"), executor=executor,
    )  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class Unused(Executor):
    """Nothing is left to analyze."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[bytes]:
        raise AssertionError("submitted")


class Elsewhere(Executor):
    """Runs tasks at once, where files are as `change` makes them."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[bytes]:
        future = Future[bytes]()
        restore = self.change()
        try:
            future.set_result(examine(*args))
        finally:
            restore()
        return future


@pytest.mark.slow
def test_what_another_process_analyzed_is_in_the_cache(manifest: Path) -> None:
    with ProcessPoolExecutor(1) as processes:
        first = run(manifest, "first", processes)
    assert first.notes == ()
    assert isinstance(first.report.models[0].sections[0].outcome, Done)
    second = run(manifest, "second", Unused())
    assert second.report == first.report
    assert content(second.output) == content(first.output)


@pytest.mark.slow
@pytest.mark.parametrize("file", ["nets.py", "m.yaml", "helper.py"])
def test_a_worker_with_another_file_ends_the_build(manifest: Path, file: str) -> None:
    path = manifest.parent / file
    here = path.read_text()

    def change() -> Any:
        path.write_text(here + "# changed\n")
        return lambda: path.write_text(here)

    with pytest.raises(EnvironmentFault) as caught:
        build(
            load_manifest(manifest), output=manifest.parent / "none", sections=("layers",),
            executor=Elsewhere(change),
        )  # fmt: skip
    assert caught.value.message.endswith(f"has another {path}")
    assert not (manifest.parent / "none").exists()
