"""The documentation is true: every block and command runs, every link leads somewhere.

README and docs/ share one folder, in which their commands run in order in this process: a process
for each would load torch every time.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any

import click
import dask.config
import numpy as np
import onnx
import pytest
import torch
import yaml
from distributed.cli import dask_scheduler, dask_worker
from model_of_readme import MODEL, MyModel
from one_process import analyzed_here, run_here
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quantize_dynamic
from PIL import Image
from typer.main import get_command

from reportgen import cli
from reportgen.manifest import load_manifest
from reportgen.report import report_schema
from reportgen.sections import SECTIONS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
# README first: its commands write files that other pages use
PAGES = [README, DOCS / "index.md", *sorted({*DOCS.rglob("*.md")} - {DOCS / "index.md"})]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"\s*(```|~~~)(.*)")


def script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


GENERATED = script("generate").pages()


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page; `check` is which test of this file covers it."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    @property
    def check(self) -> str:
        if self.page.parent != ROOT and name_of(self.page) in GENERATED:
            return "generated"
        if self.language != "yaml":
            known = {"python": "run", "console": "run", "text": "output", "sh": "parsed"}
            return known.get(self.language, "none")
        if self.text.startswith("version: 1"):
            return "manifest"
        keys = set(yaml.load(self.text, yaml.BaseLoader))
        if keys <= {"budgets", "waivers"}:
            return "part of a manifest"
        return "workflow" if "jobs" in keys else "hooks" if keys == {"repos"} else "none"


def name_of(page: Path) -> str:
    return page.name if page == README else page.relative_to(DOCS).as_posix()


def blocks_of(page: Path) -> Iterator[Block]:
    start, language, lines = 0, "", list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = _FENCE.fullmatch(line)
        if fence and not start:
            start, language, lines = number, fence[2].strip(), []
        elif fence:
            yield Block(page, start, language, "".join(f"{each}\n" for each in lines))
            start = 0
        else:
            lines.append(line)
    assert not start, f"{page}:{start}: the block does not end"


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def checked(check: str, *languages: str) -> list[Block]:
    chosen = [block for block in BLOCKS if block.check == check]
    return [block for block in chosen if not languages or block.language in languages]


def test_every_block_is_covered_by_a_test() -> None:
    assert [block.place for block in BLOCKS if block.check == "none"] == []
    assert {block.check for block in BLOCKS} == {
        "generated", "run", "output", "parsed", "manifest", "part of a manifest", "workflow",
        "hooks",
    }  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages name."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "model.py").write_text(MODEL)
    shutil.copytree(ROOT / "sample_models" / "runs", folder / "runs")
    write_onnx(folder / "model.onnx")
    quantize_dynamic(folder / "model.onnx", folder / "quantized.onnx")
    torch.save(lightning_checkpoint(), folder / "classifier.ckpt")
    manifests = checked("manifest")
    for name, block in zip(("my-model.yaml", "training.yaml"), manifests, strict=False):
        (folder / name).write_text(block.text, encoding="utf-8")
    return folder


def write_onnx(file: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in "xy"]
    weight = numpy_helper.from_array(np.eye(64, dtype=np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), file)


def lightning_checkpoint() -> dict[str, Any]:
    """What `Trainer.save_checkpoint` writes for a module with `self.model` and a weighted loss."""
    state = {f"model.{key}": value for key, value in MyModel(64).state_dict().items()}
    return {
        "epoch": 3,
        "global_step": 12,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {**state, "criterion.weight": torch.ones(10)},
        "optimizer_states": [],
        "lr_schedulers": [],
        "hyper_parameters": {"width": 64, "lr": 1e-3},
    }


def commands() -> Iterator[str]:
    """Every command of the pages once, in order, without comments."""
    lines = [line for block in checked("run", "console") for line in block.text.splitlines()]
    yield from dict.fromkeys(line.partition("#")[0].strip() for line in lines)


@pytest.fixture(scope="module")
def results(project: Path) -> dict[str, CompletedProcess[str]]:
    """What each command prints, and its exit status; those of make are in `test_readme.py`."""
    return {each: run(each, project) for each in commands() if not each.startswith("make ")}


def run(command: str, folder: Path) -> CompletedProcess[str]:
    words, _, file = command.partition(" > ")
    program, *arguments = words.split()
    assert program == "reportgen", command
    if arguments[0] == "watch":
        return run_until_interrupted(arguments, folder)
    ran = run_here(*arguments, folder=folder)
    if file:
        (folder / file).write_text(ran.stdout, encoding="utf-8")
    return ran


def run_until_interrupted(arguments: list[str], folder: Path) -> CompletedProcess[str]:
    """A watch command that gets Ctrl-C once it prints "watching"."""
    process = subprocess.Popen(
        [sys.executable, "-m", "reportgen", *arguments],
        cwd=folder, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stderr is not None
    assert any("watching" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    return CompletedProcess(arguments, process.returncode, "", printed)


@pytest.mark.slow
def test_all_commands_run(results: dict[str, CompletedProcess[str]]) -> None:
    assert len(results) > 20
    for command, ran in results.items():
        expected = 130 if command.startswith("reportgen watch") else 0
        assert ran.returncode == expected, f"{command}: {ran.stdout} {ran.stderr}"


@pytest.mark.slow
def test_shown_output_is_that_of_the_command_before(
    results: dict[str, CompletedProcess[str]],
) -> None:
    for output in checked("output"):
        before = BLOCKS[BLOCKS.index(output) - 1]
        assert results[before.text.strip()].stdout == output.text, output.place


@pytest.mark.slow
def test_the_readme_lists_what_a_build_writes(
    project: Path, results: dict[str, CompletedProcess[str]]
) -> None:
    listed = re.findall(r"^\| `([^<`]+)` ", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(listed) == 4
    for name in listed:
        assert (project / "my-report" / name).is_file()


PYTHON_PAGES = list(dict.fromkeys(block.page for block in checked("run", "python")))


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name_of)
def test_all_python_blocks_run(page: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    namespace: dict[str, object] = {"__name__": "docs"}
    for block in checked("run", "python"):
        if block.page == page:
            exec(compile(block.text, block.place, "exec"), namespace)


def write_manifest(text: str, folder: Path) -> Path:
    file = folder / "page.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.slow
@pytest.mark.parametrize("block", checked("manifest"), ids=lambda block: block.place)
def test_all_manifests_build(block: Block, project: Path) -> None:
    file, output = write_manifest(block.text, project), project / "page-report"
    sections = ["--section", "layers", "--section", "training"]
    with analyzed_here():
        ran = run_here(
            "build", file, "--output", output, "--format", "json", *sections, folder=project
        )
    assert ran.returncode == 0, ran.stderr
    report = (output / "report.json").read_text(encoding="utf-8")
    if "classifier.ckpt" in block.text:
        assert "without their prefix 'model.'; not used: 'criterion.weight'" in report


def test_all_parts_of_manifests_are_valid(project: Path) -> None:
    whole = checked("manifest")[0].text
    for page in {block.page for block in checked("part of a manifest")}:
        parts = [block.text for block in checked("part of a manifest") if block.page == page]
        assert load_manifest(write_manifest(whole + "".join(parts), project)).models


def tool(*command: str | Path) -> CompletedProcess[str]:
    """A linter of this environment."""
    program, *arguments = command
    path = Path(sys.executable).parent / program
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("block", checked("workflow"), ids=lambda block: block.place)
def test_all_workflows_are_valid(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "workflow.yml"
    file.write_text(block.text, encoding="utf-8")
    assert tool("actionlint", "-no-color", file).stdout == ""
    schema = "vendor.github-workflows"
    checked_file = tool("check-jsonschema", "--builtin-schema", schema, file)
    assert checked_file.returncode == 0, checked_file.stdout
    inputs = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["inputs"]
    jobs = yaml.load(block.text, yaml.BaseLoader)["jobs"].values()
    own = [step for job in jobs for step in job["steps"] if "/reportgen@" in step.get("uses", "")]
    assert own
    assert all(step["with"].keys() <= inputs.keys() for step in own)


def test_all_hooks_exist() -> None:
    offered = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    for block in checked("hooks"):
        [repository] = yaml.safe_load(block.text)["repos"]
        assert {each["id"] for each in repository["hooks"]} <= {each["id"] for each in offered}


COMMANDS: dict[str, click.Command] = get_command(cli.app).commands  # type: ignore[attr-defined]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def check_shell_line(line: str) -> None:
    """Parse a command that a test cannot run: it installs, serves or posts something."""
    match list(dropwhile(re.compile(r"[A-Z_]+=").match, shlex.split(line))):
        case ["pip", "install", requirement]:
            assert re.fullmatch(r"reportgen(\[\w+\])?", requirement)
        case ["reportgen", command, *arguments]:
            COMMANDS[command].make_context(command, arguments)
        case ["dask", ("scheduler" | "worker") as program, *arguments]:
            mains = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}
            mains[program].make_context(program, arguments)
        case ["export", *_]:
            for key in re.findall(r"DASK_(\w+)=", line):
                dask.config.get(key.replace("__", ".").lower())
        case _:
            raise AssertionError(f"no check of {line}")


@pytest.mark.parametrize("block", checked("parsed"), ids=lambda block: block.place)
def test_all_other_commands_parse(block: Block) -> None:
    for line in block.text.splitlines():
        check_shell_line(line)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_options_and_extras_in_sentences_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"reportgen\[(\w+)\]", text)) <= EXTRAS.keys()
    for command, rest in re.findall(r"`reportgen ([a-z]+)([^`]*)`", text):
        options = set(re.findall(r"(?<!\S)--[a-z-]+", rest))
        found = COMMANDS[command]
        children = getattr(found, "commands", {}).values()
        known = {name for each in (found, *children) for p in each.params for name in p.opts}
        assert options <= known, f"reportgen {command}{rest}"


def property_names(schema: Any) -> Iterator[str]:
    """The names of all keys that a JSON Schema describes."""
    for key, value in schema.items() if isinstance(schema, dict) else ():
        if key == "properties":
            yield from value
        yield from property_names(value)
    for each in schema if isinstance(schema, list) else ():
        yield from property_names(each)


def test_the_json_keys_for_assistants_exist() -> None:
    """Every word in the first table that is no value of `verdict`, `status` or NAME."""
    keys = set(property_names(report_schema(SECTIONS)))
    known = keys | {"pass", "warn", "fail", "done", "skipped", "failed"}
    text = (DOCS / "agents.md").read_text(encoding="utf-8")
    rows = [
        line for line in text.splitlines() if re.match(r"\| `\S*(verdict|models|sections)", line)
    ]
    assert len(rows) == 8
    for row in rows:
        words = " ".join(re.findall(r"`([^`]+)`", row))
        assert {*re.findall(r"[a-z_]\w+", words)} <= known, row


@pytest.mark.slow
def test_the_keys_of_a_comparison_for_assistants_exist(
    results: dict[str, CompletedProcess[str]],
) -> None:
    text = (DOCS / "agents.md").read_text(encoding="utf-8")
    command = "reportgen compare my-report new-report --format json"
    [model] = json.loads(results[command].stdout)["models"]
    for path in re.findall(r"`models\[\]\.([\w.\[\]]+)`", text.partition(command)[2]):
        value = model
        for key in path.replace("[]", "").split("."):
            value = value[key]


@pytest.mark.parametrize("section", [section.name for section in SECTIONS])
def test_every_part_of_a_chapter_is_described(section: str) -> None:
    page = (DOCS / "chapters" / f"{section}.md").read_text(encoding="utf-8")
    for template in (ROOT / "templates/sections").glob(f"{section}*.html.j2"):
        headings = re.findall(r"<h3>([^<{]+)", template.read_text(encoding="utf-8"))
        missing = [each for each in headings if each.removesuffix(" of ").strip() not in page]
        assert missing == [], template.name


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    ids = re.findall(r'<a id="([^"]+)"', text)
    return {*ids, *(slug(each) for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE))}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_all_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for block in blocks_of(page):
        text = text.replace(block.text, "")
    pictures = {DOCS / "images" / f"{each.name}.png" for each in script("screenshots").PICTURES}
    for link in _LINK.findall(text):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target in pictures or target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_generated_pages_are_current() -> None:
    for name, text in GENERATED.items():
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
    assert listed == {name_of(page) for page in PAGES if page != README}


@pytest.fixture(scope="module")
def pictures(
    project: Path, results: dict[str, CompletedProcess[str]], tmp_path_factory: Any
) -> Path:
    """Pictures of pages that the commands wrote, under the names of the sample report's models."""
    report, folder = project / "sample", tmp_path_factory.mktemp("images")
    shutil.copytree(project / "my-report", report)
    shutil.copytree(report / "models/my-model", report / "models/resnet50")
    training = project / "training-report/models/classifier"
    shutil.copytree(training, report / "models/lstm_classifier")
    script("screenshots").take_pictures(report, folder)
    return folder


@pytest.mark.slow
def test_all_pictures_are_taken_and_light(pictures: Path) -> None:
    names = [each.name for each in script("screenshots").PICTURES]
    assert {file.stem for file in pictures.iterdir()} == set(names)
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for file in pictures.iterdir():
        assert f"images/{file.name}" in shown
        assert file.stat().st_size < 80_000
        image = Image.open(file)
        assert image.width < 1200
        assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 10  # not blank


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing(pictures: Path, tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs", ignore=shutil.ignore_patterns("images"))
    shutil.copytree(pictures, tmp_path / "docs/images")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    ran = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    site = tmp_path / "build/docs"
    assert (site / "images/start.png").is_file()
    for page in site.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', html)
        assert [each for each in loaded if "canonical" not in each] == [], page
