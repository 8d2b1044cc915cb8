"""The structure, tested: floors, sections that never meet, furniture by one name."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from reportgen.sections import SECTIONS
from reportgen.sections.section import AnySection

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "reportgen"
_MOST_FILES = 15
FLOORS = [
    {"errors", "file_kind", "python_process", "scratch", "units", "visible_text", "cuda_memory"},
    {"charts", "comparable", "metrics", "pdf", "training_logs"},
    {"findings", "manifest", "fonts", "drawing", "viewer", "provenance"},
    {"outcome", "pytree", "error_text", "code_location"},
    {"shards"},
    {"forward_failure", "known_failures"},
    {"example_inputs", "model_state", "sources", "onnx"},
    {"tracing"},
    {"fake_model", "torchinfo_summary"},
    {"dummy_inputs"},
    {"context"},
    {"sections"},
    {"report"},
    {"budgets", "cross_checks", "rule_docs", "environment", "evidence"},
    {"compare"},
    {"render"},
    {"outputs"},
    {"workers"},
    {"cache"},
    {"executors"},
    {"pipeline"},
    {"history", "merging", "watching", "publish", "review", "graph_files"},
    {"progress"},
    {"python_api"},
    {"testing"},
    {"cli", "__init__", "__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def rooms() -> list[str]:
    return sorted(
        path.stem
        for path in PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    )


def files_of(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(file) for file in PACKAGE.rglob("*.py")}


def own_imports(file: Path) -> set[str]:
    """Modules of `reportgen` that `file` imports, wherever in the file, type-only ones included."""
    package = module_name(file) if file.name == "__init__.py" else module_name(file.parent / "x")
    package = package if file.name == "__init__.py" else package.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("reportgen.")}
        elif isinstance(node, ast.ImportFrom):
            found |= set(_imported(node, package))
    return found


def _imported(node: ast.ImportFrom, package: str) -> Iterator[str]:
    parts = package.split(".")
    start = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
    module = ".".join(filter(None, [start, node.module or ""]))
    if module.partition(".")[0] != "reportgen":
        return
    for name in node.names:
        inner = f"{module}.{name.name}"
        yield inner if inner in MODULES else module


def test_the_rooms_are_those_on_the_floors() -> None:
    assert set(rooms()) == set(FLOOR_OF)


@pytest.mark.parametrize("room", [r for r in rooms() if r not in ("__init__", "__main__")])
def test_imports_only_go_down(room: str) -> None:
    for file in files_of(room):
        for name in own_imports(file):
            other = [*name.split("."), "__init__"][1]
            if other != room:
                assert FLOOR_OF[other] <= FLOOR_OF[room], f"{file.name} imports {name}"


def test_no_imports_form_a_cycle() -> None:
    """Type-only imports count: a reader follows them as well."""
    graph = {module_name(file): own_imports(file) for file in PACKAGE.rglob("*.py")}
    graph = {module: others - {module} for module, others in graph.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError with the cycle


def test_no_folder_has_too_many_files() -> None:
    counts = {
        str(folder.relative_to(PACKAGE)): len(list(folder.glob("*.py")))
        for folder in PACKAGE.rglob("*")
        if folder.is_dir()
    }
    assert {folder: number for folder, number in counts.items() if number > _MOST_FILES} == {}


def test_cuda_memory_imports_nothing_from_the_rest() -> None:
    for file in files_of("cuda_memory"):
        names = set(own_imports(file))
        assert {n for n in names if not n.startswith("reportgen.cuda_memory")} == set(), file.name


def test_sections_never_meet() -> None:
    shared = {"reportgen.sections.section"}
    for section in (PACKAGE / "sections").iterdir():
        own = f"reportgen.sections.{section.stem}"
        if section.is_dir() and section.name != "__pycache__":
            for file in section.rglob("*.py"):
                others = {n for n in own_imports(file) if n.startswith("reportgen.sections")}
                assert all(n.startswith(own) for n in others - shared), f"{file}: {others}"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.name)
def test_a_section_is_a_folder_a_template_and_tests_of_its_name(section: AnySection) -> None:
    assert (PACKAGE / "sections" / section.name / "__init__.py").is_file()
    assert (ROOT / "templates" / "sections" / f"{section.name}.html.j2").is_file()
    assert list((ROOT / "tests" / "sections").glob(f"test_{section.name}*.py"))


@pytest.mark.slow
def test_a_new_section_needs_a_folder_a_template_and_one_line(tmp_path: Path) -> None:
    """Adds the section `greeting` to a copy of the package and builds a report with it."""
    for name in ("reportgen", "templates"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "reportgen" / "sections" / "greeting"
    folder.mkdir()
    (folder / "__init__.py").write_text(_GREETING)
    (tmp_path / "templates/sections/greeting.html.j2").write_text("<p>{{ result.text }}</p>\n")
    line = tmp_path / "reportgen" / "sections" / "__init__.py"
    text = line.read_text()
    text = text.replace("import behavior,", "import greeting, behavior,")
    line.write_text(
        text.replace("(\n    layers.SECTION", "(\n    greeting.SECTION,\n    layers.SECTION")
    )
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\ndef make():\n    return nn.Linear(2, 2)\n"
    )
    (tmp_path / "m.yaml").write_text(
        "version: 1\ntitle: New\nbudgets: {greeting.length: 3}\nmodels:\n"
        "  - {name: m, source: 'net.py:make', inputs: [{shape: [batch, 2]}]}\n"
    )
    built = subprocess.run(
        [sys.executable, "-m", "reportgen", "build", "m.yaml", "--section", "greeting",
         "--format", "html,md", "--output", "out", "--quiet"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (tmp_path / "out/report.json").is_file(), built.stderr
    assert built.returncode == 1  # the budget is exceeded
    [model] = json.loads((tmp_path / "out/report.json").read_text())["models"]
    assert model["sections"]["greeting"]["result"] == {"text": "hello"}
    assert [metric["value"] for metric in model["metrics"]] == [5]
    assert [(check["value"], check["passed"]) for check in model["budgets"]] == [(5, False)]
    assert "<p>hello</p>" in (tmp_path / "out/models/m/index.html").read_text()
    assert "Letters" in (tmp_path / "out/summary.md").read_text()


_GREETING = """
from dataclasses import dataclass

from reportgen.metrics import COMPARISON, Metric
from reportgen.sections.section import Section


@dataclass(frozen=True, kw_only=True, slots=True)
class Greeting:
    text: str


def metrics_of(result):
    length = len(result.text)
    return (Metric(key="greeting.length", label="Letters", value=length, table=COMPARISON),)


SECTION = Section(
    name="greeting", title="Greeting", result=Greeting, rules=(), metrics=metrics_of,
    analyze=lambda context: Greeting(text="hello"),
)
"""


def test_rule_codes_are_unique_and_every_rule_is_documented() -> None:
    rules = [rule for section in SECTIONS for rule in section.rules]
    codes = [rule.code for rule in rules]
    assert len(codes) == len(set(codes))
    for rule in rules:
        assert len(rule.documentation) > 40, rule.code
        assert rule.advice, rule.code
        assert not rule.name.startswith(("no-", "check-", "banned-")), rule.code


def test_the_front_door_opens_without_torch() -> None:
    code = (
        "import sys\n"
        "from reportgen import cli, pipeline, sections, outputs, render\n"
        "from reportgen.cuda_memory import gpus\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'torchvision', 'torchinfo'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_template_lines_are_at_most_120_characters_long() -> None:
    long = [
        f"{path.name}:{number}"
        for path in (ROOT / "templates").rglob("*.j2")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > 120
    ]
    assert long == []


def test_nothing_is_called_utils() -> None:
    banned = {"utils", "helpers", "common", "manager", "handler", "data", "info"}
    assert not {path.stem for path in PACKAGE.rglob("*.py")} & banned


def test_no_file_names_a_registry_or_a_path_of_one_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    needles = ["py" + "pi.org", "python" + "hosted", "npm" + "js.org", "/wo" + "rk/main"]
    for name in filter(None, listed):
        path = ROOT / name
        if (
            path.suffix in (".py", ".toml", ".txt", ".md", ".yaml", ".yml", ".j2", "")
            and path.is_file()
        ):
            text = path.read_text(encoding="utf-8", errors="replace")
            assert not [needle for needle in needles if needle in text], name
