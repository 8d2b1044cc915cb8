"""A changed input is a miss of exactly the sections that depend on it; the rest is a hit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from test_house import PACKAGE, module_name, own_imports

from cache.project import build_in, cache_in, files_in, job_of, write_project
from reportgen.cache import fingerprint, results
from reportgen.manifest import ModelSpec, load_manifest
from reportgen.manifest.values import OnnxOptions
from reportgen.outcome import Done
from reportgen.report import report_schema
from reportgen.sections import SECTIONS
from reportgen.sections.section import LOADING, AnySection
from reportgen.workers import Job
from reportgen.workers.child import load_context, outcome_of

ALL = {section.name for section in SECTIONS}
OF_MODEL = ALL - {"training"}

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Project:
    manifest: Path
    cache: Path
    report: Path
    notes: list[str]

    @property
    def folder(self) -> Path:
        return self.manifest.parent


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project, its report, and a cache with the results."""
    folder = tmp_path_factory.mktemp("project")
    manifest = write_project(folder / "code")
    report, cache = folder / "out", folder / "cache"
    notes = build_in(manifest, report, cache)
    return Project(manifest=manifest, cache=cache, report=report, notes=notes)


def missed(project: Project, work: Path, model: str = "net", **options: object) -> set[str]:
    """The sections of `model` that a build would analyze now."""
    found = cache_in(project.cache).look_up(job_of(project.manifest, work, model, **options))
    return ALL - {section.name for section in found.sections}


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    """`path` with another content, of the same size and time if that is possible."""
    before, state = path.read_bytes(), path.stat()
    try:
        path.write_bytes(content)
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        yield
    finally:
        path.write_bytes(before)


def flipped(path: Path) -> bytes:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    return bytes(content)


def test_everything_was_stored_and_nothing_is_analyzed_again(
    project: Project, tmp_path: Path
) -> None:
    assert project.notes == []
    assert missed(project, tmp_path) == set()
    assert missed(project, tmp_path, "other") == set()


FILES: dict[str, tuple[str, Callable[[Path], bytes], set[str]]] = {
    "a source two imports away": ("parts/deep.py", lambda _: b"SLOPE = 0.2\n", OF_MODEL),
    "a comment in the source": ("net.py", lambda path: path.read_bytes() + b"#\n", OF_MODEL),
    "one bit of the weights": ("weights.safetensors", flipped, OF_MODEL),
    "the configuration": ("config.json", lambda _: b'{"width": 6}', OF_MODEL),
    "the log": ("runs/log.csv", lambda path: path.read_bytes() + b"30,0.1\n", {"training"}),
    "the source of another model": ("other.py", lambda path: path.read_bytes() + b"#\n", set()),
}


@pytest.mark.parametrize("what", FILES)
def test_a_changed_file_is_a_miss_until_it_is_as_before(
    project: Project, tmp_path: Path, what: str
) -> None:
    file, change, sections = FILES[what]
    path = project.folder / file
    with changed(path, change(path)):
        assert missed(project, tmp_path / "1") == sections
    assert missed(project, tmp_path / "2") == set()


@pytest.mark.parametrize(
    ("file", "sections"),
    [
        ("runs/second.csv", {"training"}),  # the folder of the logs was listed
        ("torch.py", OF_MODEL),  # hides an installed module
        ("parts/deep/__init__.py", OF_MODEL),  # hides parts/deep.py
        ("notes.txt", set()),
        ("unrelated.py", set()),
    ],
)
def test_a_new_file_is_a_miss_if_it_may_be_read(
    project: Project, tmp_path: Path, file: str, sections: set[str]
) -> None:
    path = project.folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("step,loss\n1,2\n")
    try:
        assert missed(project, tmp_path) == sections
    finally:
        path.unlink()
        if path.name == "__init__.py":
            shutil.rmtree(path.parent)


@pytest.mark.parametrize("file", ["parts/deep.py", "weights.safetensors"])
def test_a_missing_file_is_a_miss(project: Project, tmp_path: Path, file: str) -> None:
    job = job_of(project.manifest, tmp_path)
    path = project.folder / file
    aside = path.rename(tmp_path / "aside")
    try:
        found = cache_in(project.cache).look_up(job)
    finally:
        aside.rename(path)
    assert {section.name for section in found.sections} == {"training"}


KEYS: dict[str, tuple[str, str, set[str]]] = {
    "opset": ("opset: 20", "opset: 21", {"graphs", "onnx"}),
    "tolerance": ("absolute: 1.0e-3", "absolute: 1.0e-2", {"onnx"}),
    "targets": ("targets: [T4]", "targets: [A100-80GB]", {"layers", "memory"}),
    "batch": ("batch: 2", "batch: 3", OF_MODEL),
    "seed": ("batch: 2", "batch: 2\n    seed: 1", OF_MODEL),
    "optimizer": ("batch: 2", "batch: 2\n    training: {optimizer: sgd}", {"memory"}),
    "loss": ("batch: 2", "batch: 2\n    loss: cross_entropy", {"graphs", "memory"}),
    "log options": (
        "logs: [runs]",
        "logs: [runs]\n    log_options: {reference_lines: [{metric: loss, value: 1, label: x}]}",
        {"training"},
    ),
    "comment": ("batch: 2", "batch: 2\n    comment: another", set()),
    "budget": ("batch: 2", "batch: 2\n    budgets: {parameters: 1M}", set()),
    "limit": ("batch: 2", "batch: 2\n    limits: {seconds: 99}", set()),
    "title": ("title: 두 모델", "title: Other", set()),
    "never": ("batch: 2", "batch: 2\n    cache: {never: true}", ALL),
}


@pytest.mark.parametrize("what", KEYS)
def test_a_changed_key_of_the_manifest_is_a_miss_of_the_sections_that_read_it(
    project: Project, tmp_path: Path, what: str
) -> None:
    old, new, sections = KEYS[what]
    text = project.manifest.read_text().replace(old, new)
    assert text != project.manifest.read_text()
    with changed(project.manifest, text.encode()):
        assert missed(project, tmp_path) == sections


def test_another_version_of_a_library_is_a_miss_of_everything(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = fingerprint.installed_packages()
    newer = {name: "other" if name.startswith("numpy-") else had for name, had in installed.items()}
    assert newer != installed
    monkeypatch.setattr(fingerprint, "installed_packages", lambda: newer)
    assert missed(project, tmp_path) == ALL


def test_another_graphviz_is_a_miss_of_everything(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "graphviz_version", lambda: "other")
    assert missed(project, tmp_path) == ALL


@pytest.mark.parametrize(
    ("file", "sections"),
    [
        ("context.py", ALL),
        ("sections/section.py", ALL),
        ("sections/onnx/rules_file.py", {"onnx"}),
        ("sections/training/diagnosis/new.py", {"training"}),
        ("render/figures.py", set()),
        ("templates/base.html.j2", set()),  # part of the package in a wheel
        ("cli.py", set()),
    ],
)
def test_changed_code_is_a_miss_of_the_sections_that_import_it(
    project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    sections: set[str],
) -> None:
    code = {**fingerprint.code_digests(), file: "other"}
    monkeypatch.setattr(results, "code_digests", lambda: code)
    assert missed(project, tmp_path) == sections


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    """Module of this package -> the modules that it imports."""
    return {module_name(file): own_imports(file) for file in PACKAGE.rglob("*.py")}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_the_key_of_a_section_has_every_module_that_its_analysis_imports(
    graph: dict[str, set[str]], section: AnySection
) -> None:
    start = f"reportgen.sections.{section.name}"
    waiting = {name for name in graph if name.startswith(start)} | {"reportgen.workers.child"}
    reached = set[str]()
    while waiting:
        name = waiting.pop()
        reached.add(name)
        # The list of sections imports them all; one of them is analyzed.
        if name not in ("reportgen", "reportgen.sections"):
            waiting |= graph[name] - reached
    keyed = fingerprint.code_of_section(fingerprint.code_digests(), section.name)
    assert reached <= {module_name(PACKAGE / path) for path in keyed if path.endswith(".py")}


def test_variables_are_inputs_if_torch_or_the_model_reads_them(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, sections in (
        ("TORCH_LOGS", ALL),  # torch reads it
        ("NET_BIAS", OF_MODEL),  # net.py reads it
        ("SOME_VARIABLE", set()),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert missed(project, tmp_path / name) == sections


def test_threads_are_inputs_of_what_is_computed(project: Project, tmp_path: Path) -> None:
    # one job has all cores, two have half of them
    computed = {section.name for section in SECTIONS if "threads" in section.reads}
    expected = computed if (os.cpu_count() or 1) > 1 else set()
    assert missed(project, tmp_path, parallel=1) == expected


def test_durations_are_not_taken_from_a_build_without_them(
    project: Project, tmp_path: Path
) -> None:
    assert missed(project, tmp_path, timings=True) == {"onnx"}


def test_another_machine_is_a_miss_of_durations_only(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, output = tmp_path / "cache", tmp_path / "out"
    options: dict[str, Any] = {"timings": True, "formats": ("html", "json"), "models": ("other",)}
    build_in(project.manifest, output, cache, **options)
    timed = json.loads((output / "report.json").read_text())["timings"]
    job = job_of(project.manifest, tmp_path / "work", "other", parallel=1, timings=True)
    found = cache_in(cache).look_up(job)
    assert {section.name for section in found.sections} == ALL
    assert found.analyzed == timed["analyzed"]["other"]
    stored = files_in(cache)
    build_in(project.manifest, output, cache, **options)
    assert files_in(cache) == stored  # no result and no page was made again
    monkeypatch.setattr(results, "describe_machine", lambda: ["other"])
    job = job_of(project.manifest, tmp_path / "again", "other", parallel=1, timings=True)
    assert ALL - {each.name for each in cache_in(cache).look_up(job).sections} == {"onnx"}


def test_the_same_report_byte_for_byte_from_the_cache_and_without_one(
    project: Project, tmp_path: Path
) -> None:
    """All from the cache; then one section of one model and all of another anew.

    The build without a cache has a folder at another depth and analyzes one model after the other.
    """
    build_in(project.manifest, tmp_path / "cached", project.cache)
    assert files_in(tmp_path / "cached") == files_in(project.report)
    log, source = project.folder / "runs/log.csv", project.folder / "other.py"
    with (
        changed(log, log.read_bytes() + b"30,0.01\n"),
        changed(source, source.read_bytes().replace(b"(6, 5", b"(6, 11")),
    ):
        build_in(project.manifest, tmp_path / "mixed", project.cache)
        build_in(project.manifest, tmp_path / "elsewhere" / "fresh", None, jobs=1)
        build_in(project.manifest, tmp_path / "again", project.cache)
    fresh = files_in(tmp_path / "elsewhere" / "fresh")
    assert files_in(tmp_path / "mixed") == fresh
    assert files_in(tmp_path / "again") == fresh
    assert fresh != files_in(project.report)
    assert str(tmp_path).encode() not in b"".join(fresh.values())
    jsonschema.validate(json.loads(fresh["report.json"]), report_schema(SECTIONS))


def test_two_builds_at_once_on_one_cache(project: Project, tmp_path: Path) -> None:
    """Both store the same results; each writes the report of a build without a cache."""
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-P", "-m", "reportgen", "build", str(project.manifest)]
    command += ["--model", "other", "--section", "layers", "--section", "training"]
    command += ["--format", "json", "--no-timings", "--quiet", "--output"]
    builds = [
        subprocess.Popen([*command, str(tmp_path / name)], env=env) for name in ("one", "two")
    ]
    assert [build.wait() for build in builds] == [0, 0]
    subprocess.run([*command, str(tmp_path / "three"), "--no-cache"], env=env, check=True)
    third = files_in(tmp_path / "three")
    assert files_in(tmp_path / "one") == third
    assert files_in(tmp_path / "two") == third


def test_a_damaged_content_is_analyzed_again(project: Project, tmp_path: Path) -> None:
    cache = shutil.copytree(project.cache, tmp_path / "cache")
    damaged = 0
    for path in (cache / "objects").glob("*/*"):
        if path.read_bytes().startswith(b'{"result":{"modules":'):  # the outcome of graphs
            path.write_bytes(path.read_bytes()[:-1])
            damaged += 1
    assert damaged >= 2  # of both models, and of what other tests changed
    copy = Project(manifest=project.manifest, cache=cache, report=project.report, notes=[])
    assert missed(copy, tmp_path / "work") == {"graphs"}


def test_a_missing_file_of_a_section_is_a_miss_that_leaves_no_other_file(
    project: Project, tmp_path: Path
) -> None:
    cache = shutil.copytree(project.cache, tmp_path / "cache")
    summary = (project.report / "models/net/summary.txt").read_bytes()
    for path in (cache / "objects").glob("*/*"):
        if path.read_bytes() == summary:
            path.unlink()
    job = job_of(project.manifest, tmp_path / "work")
    found = cache_in(cache).look_up(job)
    assert ALL - {section.name for section in found.sections} == {"layers"}
    names = {path.name for path in job.folder.rglob("*") if path.is_file()}
    assert {"layers.csv", "summary.txt"} & names == set()


def test_a_cache_that_cannot_be_written_is_a_note(project: Project, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    notes = build_in(
        project.manifest, tmp_path / "out", tmp_path / "cache",
        models=("other",), sections=("layers",), formats=("json",),
    )  # fmt: skip
    assert notes == ["other is not cached: the cache cannot be written: file exists"]
    assert (tmp_path / "out/report.json").is_file()


class RecordingSpec(ModelSpec):
    """A `ModelSpec` that records which of its fields are read."""

    def __getattribute__(self, name: str) -> object:
        if name in ModelSpec.model_fields:
            READ.add(name)
        return super().__getattribute__(name)


class RecordingOnnx(OnnxOptions):
    def __getattribute__(self, name: str) -> object:
        if name in OnnxOptions.model_fields:
            READ.add(f"onnx.{name}")
        return super().__getattribute__(name)


READ: set[str] = set()


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.name)
def test_a_section_declares_every_key_of_the_manifest_that_it_reads(
    project: Project, tmp_path: Path, section: object
) -> None:
    loaded = load_manifest(project.manifest)
    spec = loaded.models[0]
    onnx = RecordingOnnx.model_construct(**dict(spec.onnx))
    recording = RecordingSpec.model_construct(**{**dict(spec), "onnx": onnx})
    job = Job.model_construct(
        spec=recording, targets=loaded.targets, sections=("layers", section.name),
        folder=tmp_path, seconds=600.0, memory_bytes=2**40, threads=1, timings=False,
    )  # fmt: skip
    context = load_context(job)
    READ.clear()
    assert isinstance(outcome_of(section, context), Done)
    declared = section.reads | (LOADING if section.uses_model else frozenset())
    whole = {name.partition(".")[0] for name in declared}
    undeclared = {
        name for name in READ
        if name not in declared and name.partition(".")[0] not in declared
        and not ("." not in name and name in whole)
    }  # fmt: skip
    assert undeclared == set()
