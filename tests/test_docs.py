"""Every code block of docs/ runs, every link leads somewhere, and generated pages are current.

All blocks run in this process: a process for each would load torch every time.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper
from typer.testing import CliRunner

from reportgen.cli import app
from reportgen.manifest import load_manifest
from tests.test_readme import MODEL

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(p for p in DOCS.rglob("*.md") if p.name != "rules.md")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def pages_with(*languages: str) -> list[Path]:
    return [page for page in PAGES if any(kind in languages for kind, _ in blocks(page))]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "model.py").write_text(MODEL)
    shutil.copytree(ROOT / "sample_models" / "runs", folder / "runs")
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph), folder / "model.onnx")
    torch.save({"state_dict": {}}, folder / "classifier.ckpt")
    for page, name in [("index.md", "my-model.yaml"), ("chapters/training.md", "training.yaml")]:
        manifest = next(text for kind, text in blocks(DOCS / page) if kind == "yaml")
        (folder / name).write_text(manifest, encoding="utf-8")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", pages_with("python"), ids=name_of)
def test_all_python_blocks_run(page: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    namespace: dict[str, object] = {"__name__": "docs"}
    for kind, text in blocks(page):
        if kind == "python":
            exec(compile(text, str(page), "exec"), namespace)


def commands() -> Iterator[str]:
    """Every command of the pages once, in order."""
    seen = set()
    # the start page builds the report that the other pages use
    for page in sorted(PAGES, key=lambda page: name_of(page) != "index.md"):
        for kind, text in blocks(page):
            for line in text.splitlines() if kind == "console" else ():
                if line not in seen:
                    seen.add(line)
                    yield line


@pytest.mark.slow
def test_all_commands_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    for command in commands():
        program, *arguments = command.split()
        assert program == "reportgen", command
        ran = CliRunner().invoke(app, arguments)
        assert ran.exit_code == 0, f"{command}: {ran.output} {ran.exception}"


def manifests() -> list[str]:
    found = [t for page in PAGES for kind, t in blocks(page) if kind == "yaml"]
    return [text for text in found if text.startswith("version: 1")]


@pytest.mark.parametrize("text", manifests(), ids=lambda text: yaml.safe_load(text)["title"])
def test_all_manifests_are_valid(text: str, project: Path) -> None:
    file = project / "page.yaml"
    file.write_text(text, encoding="utf-8")
    assert load_manifest(file).models


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    return {slug(each) for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_all_links_lead_somewhere(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in _LINK.findall(text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_generated_pages_are_current() -> None:
    spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    for name, text in generate.pages().items():
        assert (DOCS / name).read_text(encoding="utf-8") == text, f"run docs/generate.py: {name}"


def test_every_page_is_in_the_navigation() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed: set[str] = set()
    waiting = list(nav)
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, str):
            listed.add(entry)
        else:
            waiting += entry.values() if isinstance(entry, dict) else entry
    assert listed == {name_of(page) for page in [*PAGES, DOCS / "rules.md"]}


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', html)
        assert [each for each in loaded if "canonical" not in each] == [], page
