"""What a report was made from: hashes, commit, machine; against sha256sum and git themselves."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from factories import make_spec

from reportgen import load_manifest
from reportgen.pipeline import build
from reportgen.provenance import commit_of, describe_machine, hash_file, input_files, library_of
from reportgen.provenance.files import hash_log
from reportgen.provenance.git import repository_of
from reportgen.provenance.model_files import name_in
from reportgen.report import report_from_json, report_schema, report_to_data, report_to_json
from reportgen.sections import SECTIONS

NET = """
from torch import nn
from parts import Part


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(Part(), nn.Linear(4, 2))
"""
PART = """
from torch import nn


class Part(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)
"""
MANIFEST = """
version: 1
title: Provenance
models:
  - {name: own, source: "nets.py:Net", inputs: [{name: x, file: x.npy}], batch: 2, logs: [runs]}
"""


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit of one file."""
    git(tmp_path, "init", "-q")
    (tmp_path / "net.py").write_text("x = 1\n")
    git(tmp_path, "add", "net.py")
    git(tmp_path, "commit", "-qm", "one")
    return tmp_path


def test_the_commit_of_a_repository(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_SHA", "0" * 40)  # of a merge that is not checked out, say
    (repository / "models").mkdir()
    found = commit_of(repository / "models")
    assert found is not None
    assert (found.id, found.modified) == (git(repository, "rev-parse", "HEAD"), False)
    (repository / "reports").mkdir()
    (repository / "reports" / "new.txt").write_text("not tracked")
    assert commit_of(repository) == found
    (repository / "net.py").write_text("x = 2\n")
    changed = commit_of(repository)
    assert changed is not None
    assert changed.modified is True


def test_no_hook_of_the_repository_runs(repository: Path) -> None:
    hook = repository / "hook.sh"
    hook.write_text(f"#!/bin/sh\ntouch '{repository}/ran'\n")
    hook.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(hook))
    assert commit_of(repository) is not None
    assert not (repository / "ran").exists()
    git(repository, "status")
    assert (repository / "ran").exists()  # git itself would have run it


def test_without_a_repository_the_commit_is_githubs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_SHA", raising=False)
    assert commit_of(tmp_path) is None
    monkeypatch.setenv("GITHUB_SHA", "ab" * 20)
    found = commit_of(tmp_path)
    assert found is not None
    assert (found.id, found.modified) == ("ab" * 20, None)
    monkeypatch.setenv("GITHUB_SHA", "$(touch x)")
    assert commit_of(tmp_path) is None
    monkeypatch.setenv("PATH", "/nowhere")  # no git
    assert repository_of(tmp_path) is None


def test_a_file_is_hashed_whole_and_a_large_log_in_samples(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"content")
    found = hash_file("weights", path, "file.bin")
    assert found is not None
    assert found.sha256 == hashlib.sha256(b"content").hexdigest()
    assert (found.bytes, found.sampled) == (7, False)
    with path.open("r+b") as file:
        file.truncate(200 << 20)  # sparse
    before = hash_file("log", path, "log")
    assert before is not None
    assert before.sampled
    with path.open("ab") as file:
        file.write(b"one more line")
    after = hash_file("log", path, "log")
    assert after is not None
    assert after.sha256 != before.sha256
    assert hash_file("log", tmp_path / "missing", "missing") is None


def test_a_folder_of_logs_has_one_hash(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.csv").write_text("step,loss\n")
    first = hash_log(tmp_path, "runs")
    assert first is not None
    assert (first.name, first.bytes) == ("runs", 10)
    (tmp_path / "run" / "a.csv").rename(tmp_path / "run" / "b.csv")
    renamed = hash_log(tmp_path, "runs")
    assert renamed is not None
    assert renamed.sha256 != first.sha256


def test_names_outside_of_the_repository_lose_their_folder(tmp_path: Path) -> None:
    root, folder = tmp_path / "repo", tmp_path / "repo" / "models"
    assert name_in(folder, folder / "a" / "net.py", root) == "a/net.py"
    assert name_in(folder, root / "src" / "net.py", root) == "../src/net.py"
    assert name_in(folder, root / "src" / "net.py", None) == "net.py"
    assert name_in(folder, tmp_path / "home" / "net.py", root) == "net.py"


def test_shards_and_external_data_belong_to_their_file(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors", "m.onnx", "m.onnx.data"):
        (tmp_path / name).write_bytes(name.encode())
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "b.safetensors", "y": "a.safetensors"}}))
    onnx = {"kind": "onnx", "target": str(tmp_path / "m.onnx"), "text": "m.onnx"}
    spec = make_spec(weights=index).model_copy(
        update={"source": make_spec().source.model_copy(update=onnx)}
    )
    found = [(file.role, file.name) for file in input_files(spec, (), tmp_path, None)]
    assert found == [
        ("source", "m.onnx"), ("source", "m.onnx.data"), ("weights", index.name),
        ("weights", "a.safetensors"), ("weights", "b.safetensors"),
    ]  # fmt: skip


def test_the_library_of_a_model() -> None:
    import torchvision

    source = make_spec().source
    library = source.model_copy(update={"kind": "torchvision", "target": "resnet18"})
    module = source.model_copy(update={"kind": "module", "target": "torchvision.models"})
    expected = f"torchvision {torchvision.__version__.partition('+')[0]}"
    for each in (library, module):
        found = library_of(make_spec().model_copy(update={"source": each}))
        assert found.partition("+")[0] == expected
    assert library_of(make_spec()) == ""


def test_the_machine_has_no_name() -> None:
    found = describe_machine(2**30)
    assert found.cpu
    assert found.cores >= 1
    assert found.memory_bytes == 2**30


@pytest.mark.slow
def test_a_report_says_what_it_was_made_from(tmp_path: Path) -> None:
    import numpy as np

    (tmp_path / "nets.py").write_text(NET)
    (tmp_path / "parts.py").write_text(PART)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "log.csv").write_text("step,loss\n1,2\n2,1\n")
    np.save(tmp_path / "x.npy", np.ones((2, 4), dtype=np.float32))
    (tmp_path / "m.yaml").write_text(MANIFEST)
    manifest = load_manifest(tmp_path / "m.yaml")
    report = build(
        manifest, output=tmp_path / "out", sections=("layers",), formats=("json",)
    ).report
    (own,) = report.files
    assert (own.role, own.name) == ("manifest", "m.yaml")
    assert own.sha256 == hashlib.sha256(MANIFEST.encode()).hexdigest()
    files = {(file.role, file.name): file for file in report.models[0].files}
    assert set(files) == {
        ("code", "nets.py"), ("code", "parts.py"), ("data", "x.npy"), ("log", "runs")
    }  # fmt: skip
    assert files["code", "parts.py"].sha256 == hashlib.sha256(PART.encode()).hexdigest()
    assert report.timings is not None
    assert report.timings.machine is not None
    assert report_from_json(report_to_json(report), SECTIONS) == report
    data = report_to_data(report)
    import jsonschema

    jsonschema.validate(data, report_schema(SECTIONS))
    # as written before these keys existed
    del data["files"], data["commit"], data["timings"]["machine"]
    for model in data["models"]:
        del model["files"], model["library"]
    old = report_from_json(json.dumps(data), SECTIONS)
    assert (old.files, old.commit) == ((), None)
    assert (old.models[0].files, old.models[0].library) == ((), "")
