"""The structure, tested: floors, sections that never meet, furniture by one name."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from reportgen.sections import SECTIONS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "reportgen"
FLOORS = [
    {"errors", "units", "cuda_memory"},
    {"charts", "metrics", "training_logs"},
    {"findings", "manifest", "fonts"},
    {"outcome", "pytree", "error_text"},
    {"example_inputs", "model_state", "sources", "onnx"},
    {"tracing"},
    {"fake_model", "torchinfo_summary"},
    {"dummy_inputs"},
    {"context"},
    {"sections"},
    {"report", "compare"},
    {"budgets", "cross_checks", "environment"},
    {"render", "estimation"},
    {"outputs"},
    {"workers"},
    {"pipeline"},
    {"watching", "publish"},
    {"progress"},
    {"cli"},
    {"__init__", "__main__"},
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


def own_imports(file: Path) -> Iterator[str]:
    """Dotted names below `reportgen` that `file` imports at run time, wherever in the file."""
    yield from _run_time_imports(ast.parse(file.read_text(encoding="utf-8")))


def _run_time_imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (n.name for n in node.names if n.name.startswith("reportgen."))
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("reportgen."):
        yield str(node.module)
    for child in ast.iter_child_nodes(node):
        yield from _run_time_imports(child)


def test_every_room_stands_on_a_floor() -> None:
    assert set(rooms()) <= set(FLOOR_OF)


@pytest.mark.parametrize("room", [r for r in rooms() if r not in ("__init__", "__main__")])
def test_imports_only_go_down(room: str) -> None:
    for file in files_of(room):
        for name in own_imports(file):
            other = name.split(".")[1]
            if other != room:
                assert FLOOR_OF[other] <= FLOOR_OF[room], f"{file.name} imports {name}"


def test_cuda_memory_imports_nothing_from_the_rest() -> None:
    for file in files_of("cuda_memory"):
        names = set(own_imports(file))
        assert {n for n in names if not n.startswith("reportgen.cuda_memory")} == set(), file.name


def test_sections_never_meet() -> None:
    for section in (PACKAGE / "sections").iterdir():
        own = f"reportgen.sections.{section.stem}"
        if section.name in ("__init__.py", "__pycache__"):
            continue
        for file in [section] if section.is_file() else section.rglob("*.py"):
            others = {n for n in own_imports(file) if n.startswith("reportgen.sections")}
            assert all(n.startswith(own) for n in others), f"{file}: {others}"


@pytest.mark.parametrize("section", SECTIONS, ids=lambda s: s.name)
def test_a_section_has_its_template_and_its_tests(section: object) -> None:
    name = section.name  # type: ignore[attr-defined]
    home = Path(sys.modules[section.analyze.__module__].__file__ or "")  # type: ignore[attr-defined]
    room = home.relative_to(PACKAGE / "sections").parts[0].removesuffix(".py")
    assert (ROOT / "templates" / "sections" / f"{name}.html.j2").is_file()
    assert list((ROOT / "tests" / "sections").glob(f"test_{room}*.py"))


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
