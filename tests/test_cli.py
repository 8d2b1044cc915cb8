"""The command line: arguments, stdout, stderr and exit status."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import jsonschema
import pikepdf
import pytest
from one_process import run_here

from reportgen.cli.build import print_summary
from reportgen.progress import show_progress
from reportgen.workers import SectionEvent

ROOT = Path(__file__).parents[1]
REPORTGEN = [sys.executable, "-m", "reportgen"]
TINY = """
version: 1
title: Tiny
models:
  - name: tiny
    source: net.py:make
    inputs: [{name: x, shape: [batch, 4]}]
    batch: 2
"""
NET = """from torch import nn
def make(): return nn.Linear(4, 2)
class refuse(nn.Module):
    def forward(self, x): raise ValueError("never")
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(NET)
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def run(*arguments: Any, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*REPORTGEN, *map(str, arguments)],
        cwd=folder, capture_output=True, text=True, check=False, **options,
    )  # fmt: skip


def test_every_command_has_help(tmp_path: Path) -> None:
    listing = run_here("--help", folder=tmp_path)
    assert listing.returncode == 0
    commands = re.findall(r"^  (\w+) ", listing.stdout.split("Commands:")[1], re.MULTILINE)
    known = {"build", "check", "init", "estimate", "rules", "gpus", "schema", "doctor"}
    assert known <= set(commands)
    for command in commands:
        assert "Usage" in run_here(command, "--help", folder=tmp_path).stdout


def test_check_prints_the_number_of_models(manifest: Path) -> None:
    answer = run_here("check", manifest, folder=manifest.parent)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "1 model, no errors" in answer.stdout


def test_help_check_gpus_and_schema_do_not_import_torch(manifest: Path) -> None:
    for arguments in (["--help"], ["check", str(manifest)], ["gpus"], ["schema", "report"]):
        code = (
            "import sys; from reportgen import cli; sys.argv[1:] = " + repr(arguments) + "\n"
            "try: cli.main()\nexcept SystemExit: pass\n"
            "assert 'torch' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def loads_torch(arguments: list[str], words: str) -> Any:
    """A slow case: the command imports torch before it reports the error."""
    return pytest.param(arguments, words, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build", "missing.yaml"], "missing.yaml"),
        (["build", "{manifest}", "--model", "tny"], "unknown model 'tny' (use one of tiny)"),
        (["build", "{manifest}", "--format", "docx"], "unknown format 'docx'"),
        (["build", "{manifest}", "--jobs", "0"], "--jobs"),
        (["build", "{manifest}", "--output", "net.py/sub"], "net.py"),
        (["build", "{manifest}", "--output", "net.py"], "net.py"),
        loads_torch(
            ["estimate", "torchvision:alexnet", "--input", "batch,3,224,224", "--batch", "0"],
            "batch",
        ),
        loads_torch(["estimate", "torchvision:alexnet", "--input", "batch,4,224,224"], "channels"),
        (["estimate", "torchvision:alexnet", "--input", "batch,-3"], "batch,-3"),
        (["estimate", "net.py:make"], "--input"),
        loads_torch(["init", "torchvision:alexnett"], "did you mean 'alexnet'"),
        loads_torch(["init", "net.py:refuse"], "no inputs were found"),
        loads_torch(
            ["estimate", "torchvision:alexnett", "--input", "batch,3"], "did you mean 'alexnet'"
        ),
        (["estimate", "x.py:make", "--input", "batch,3"], "x.py"),
        (["estimate", "net.py:make", "--input", "batch,4", "--optimizer", "adamm"], "adamm"),
        (["estimate", "net.py:make", "--input", "batch,4", "--precision", "fp8"], "fp8"),
        (["estimate", "net.py:make", "--input", "batch,4", "--mode", "both"], "both"),
        (["estimate", "net.py:make", "--input", "batch,4", "--gpu", "T5"], "did you mean T4"),
        loads_torch(
            ["estimate", "net.py:make", "--input", "batch,4", "--measure"], "no CUDA device"
        ),
        (["rules", "XYZ999"], "unknown rule 'XYZ999'"),
        (["gpus", "T5"], "unknown GPU 'T5'"),
        (["schema", "nothing"], "nothing"),
        (["buidl", "{manifest}"], "buidl"),
    ],
)
def test_usage_errors_are_one_line_and_status_2(
    manifest: Path, arguments: list[str], words: str
) -> None:
    filled = [argument.format(manifest=manifest) for argument in arguments]
    answer = run_here(*filled, folder=manifest.parent)
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr
    left = sorted(p.name for p in manifest.parent.iterdir() if p.name != "__pycache__")
    assert left == ["net.py", "tiny.yaml"]


@pytest.mark.slow
def test_estimate_prints_text_or_json(manifest: Path) -> None:
    arguments = ["estimate", "net.py:make", "--input", "batch,4", "--batch", "8", "--gpu", "T4"]
    words = run(*arguments, folder=manifest.parent)
    assert words.returncode == 0, words.stderr
    assert words.stderr == ""
    for text in ("allocated", "reserved", "on the device", "T4", "fits"):
        assert text in words.stdout
    data = json.loads(run_here(*arguments, "--json", folder=manifest.parent).stdout)
    assert data["batch"] == 8
    assert data["fits"][0]["gpu"] == "T4"
    assert sum(data["at_peak"].values()) == data["peak_allocated_bytes"]


@pytest.mark.slow
def test_an_estimate_that_does_not_fit_has_status_3(manifest: Path) -> None:
    (manifest.parent / "big.py").write_text(
        "from torch import nn\ndef make(): return nn.Linear(100_000, 100_000)\n"
    )
    answer = run_here(
        "estimate", "big.py:make", "--input", "batch,100000", "--gpu", "T4", "--mode", "inference",
        folder=manifest.parent,
    )  # fmt: skip
    assert answer.returncode == 3, answer.stderr
    assert "does not fit" in answer.stdout


def test_control_characters_from_a_manifest_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(TINY.replace("title: Tiny", 'title: Tiny\n"\\e[31mred": 1'))
    answer = run("check", "m.yaml", folder=tmp_path)
    assert answer.returncode == 2
    assert "\x1b" not in answer.stderr


@pytest.mark.parametrize("name", ["manifest", "report"])
def test_schemas_are_valid_json_schemas(name: str, tmp_path: Path) -> None:
    answer = run_here("schema", name, folder=tmp_path)
    schema = json.loads(answer.stdout)
    assert answer.returncode == 0
    jsonschema.validators.validator_for(schema).check_schema(schema)


def test_rules_explains_every_rule(tmp_path: Path) -> None:
    codes = [line.split()[0] for line in run_here("rules", folder=tmp_path).stdout.splitlines()]
    assert codes
    for code in codes:
        page = run_here("rules", code.lower(), folder=tmp_path)
        assert page.returncode == 0
        assert page.stdout.startswith(code)
        assert "How to fix it:" in page.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """`build --json` of the whole report; `args` is its folder, stderr ends with /proc/self/status.

    The cache stays beside the report for other builds.
    """
    folder = tmp_path_factory.mktemp("built")
    (folder / "net.py").write_text(NET)
    (folder / "tiny.yaml").write_text(TINY)
    code = (
        "import pathlib, sys; from reportgen import cli\n"
        "sys.argv[1:] = ['build', 'tiny.yaml', '--json']\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "status = pathlib.Path('/proc/self/status')\n"
        "if status.exists(): sys.stderr.write(status.read_text())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return subprocess.CompletedProcess(folder, done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_build_writes_all_documented_files_and_prints_progress_on_stderr(
    built: subprocess.CompletedProcess[str],
) -> None:
    output = built.args / "reports" / "tiny"
    names = {str(p.relative_to(output)) for p in output.rglob("*") if p.is_file()}
    assert {
        "index.html", "report.pdf", "report.json", "summary.md", "models/tiny/index.html",
        "models/tiny/model.onnx", "models/tiny/layers.csv", "models/tiny/summary.txt",
        "models/tiny/graphs/modules.svg", "models/tiny/graphs/autograd.svg",
    } <= names  # fmt: skip
    assert built.stdout == (output / "report.json").read_text(encoding="utf-8")
    assert "tiny: layers done" in built.stderr
    left = sorted(p.name for p in (built.args / "reports").iterdir())
    assert left == [".reportgen-cache", "tiny"]


@pytest.mark.slow
def test_a_brief_pdf_has_no_chapter_of_a_section(
    built: subprocess.CompletedProcess[str],
) -> None:
    options = ("--format", "pdf", "--quiet", "--pdf", "brief", "--output", "reports/brief")
    answer = run("build", "tiny.yaml", *options, folder=built.args)
    assert answer.returncode == 0, answer.stderr
    titles = {}
    for kind, name in (("full", "tiny"), ("brief", "brief")):
        with (
            pikepdf.open(built.args / "reports" / name / "report.pdf") as pdf,
            pdf.open_outline() as outline,
        ):
            titles[kind] = [part.title for item in outline.root for part in item.children]
    shutil.rmtree(built.args / "reports/brief")
    assert "Layers" in titles["full"]
    assert "Layers" not in titles["brief"]


@pytest.mark.slow
def test_a_failed_section_gives_exit_status_1_and_other_sections_are_built(manifest: Path) -> None:
    (manifest.parent / "net.py").write_text(
        textwrap.dedent(
            """
            import torch
            from torch import nn
            class Decomposing(nn.Module):
                def __init__(self):
                    super().__init__()
                    self.linear = nn.Linear(4, 2)
                def forward(self, x):
                    return torch.linalg.svd(self.linear(x))[1]
            make = Decomposing
            """
        )
    )
    options = ("--section", "layers", "--section", "onnx", "--quiet", "--format", "json")
    answer = run("build", manifest, *options, folder=manifest.parent)
    assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", "")
    report = json.loads((manifest.parent / "reports" / "tiny" / "report.json").read_text())
    sections = report["models"][0]["sections"]
    assert sections["layers"]["status"] == "done"
    assert sections["onnx"]["status"] == "failed"
    assert "net.py:" in sections["onnx"]["error"]


def test_summary_prints_each_error_of_failed_sections_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from reportgen.outcome import Failed, SectionOutcome
    from reportgen.pipeline import Built
    from reportgen.report import ModelReport, Report, Verdict

    why = Failed(error="raised ValueError: \x1b[31mred", hint="see net.py")
    model = ModelReport(
        name="net", source="net.py:Net", comment="", seed=0, weights="", verdict=Verdict.FAIL,
        budgets=(), findings=(),
        sections=tuple(SectionOutcome(name=name, title=name.title(), outcome=why) for name in "ab"),
    )  # fmt: skip
    report = Report(title="t", environment={}, timings=None, models=(model,))
    print_summary(Built(report=report, output=Path("out"), files=()))
    assert capsys.readouterr().err.splitlines() == [
        "fail  net: 0 findings",
        "      every section failed: raised ValueError: \\x1b[31mred (see net.py)",
        "wrote out",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (signal.SIGINT, 130, "reportgen: interrupted; the previous report was not modified"),
        (
            signal.SIGTERM,
            143,
            "reportgen: stopped by SIGTERM; the previous report was not modified",
        ),
    ],
)
def test_sigint_and_sigterm_end_a_build_within_two_seconds_and_keep_the_old_report(
    manifest: Path, number: signal.Signals, status: int, words: str
) -> None:
    (manifest.parent / "net.py").write_text(
        NET + "import time; print('asleep', flush=True); time.sleep(600)\n"
    )
    old = manifest.parent / "reports" / "tiny" / "report.json"
    old.parent.mkdir(parents=True)
    old.write_text('{"reportgen": "old"}')
    process = subprocess.Popen(
        [*REPORTGEN, "build", str(manifest)], cwd=manifest.parent, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # a shell ignores SIGINT in background jobs, and tests may run in one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not any("asleep" in log.read_text() for log in old.parent.parent.glob(".*/*/*/.log")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    start = time.monotonic()
    _, err = process.communicate(timeout=20)
    assert time.monotonic() - start < 2
    assert process.returncode == status
    assert words in err.splitlines()
    assert "Traceback" not in err
    assert [str(p.relative_to(manifest.parent)) for p in sorted(manifest.parent.rglob("*"))
            if p.is_file() and "__pycache__" not in p.parts] == [
        "net.py", "reports/tiny/report.json", "tiny.yaml"]  # fmt: skip
    assert old.read_text() == '{"reportgen": "old"}'


@pytest.mark.slow
def test_build_deletes_temporary_folders_of_killed_builds(manifest: Path) -> None:
    left = manifest.parent / "reports" / ".reportgen-999999999-abc"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    options = ("--section", "training", "--format", "md", "--quiet")
    answer = run_here("build", manifest, *options, folder=manifest.parent)
    assert answer.returncode == 0, answer.stderr
    assert not left.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the high-water mark from /proc")
def test_the_parent_of_a_build_stays_small(built: subprocess.CompletedProcess[str]) -> None:
    mark = re.search(r"VmHWM:\s+(\d+) kB", built.stderr)
    assert mark is not None
    assert int(mark[1]) < 300 * 1024


def test_no_color_is_honored(manifest: Path) -> None:
    answer = run("check", manifest, folder=manifest.parent, env=os.environ | {"NO_COLOR": "1"})
    assert "\x1b" not in answer.stdout + answer.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_a_one_line_error() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*REPORTGEN, "schema", "report"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "reportgen: the disk is full (free disk space and try again)\n"


def test_a_closed_stderr_does_not_stop_a_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    calls = 0
    with contextlib.suppress(BrokenPipeError), os.fdopen(write_end, "w") as nobody:
        monkeypatch.setattr(sys, "stderr", nobody)
        with show_progress(["a"], ["layers"], quiet=False) as progress:
            for calls in (1, 2):
                progress("a", "layers", SectionEvent.DONE, float(calls))
    assert calls == 2


# Training logs --------------------------------------------------------------------------------


@pytest.mark.slow
def test_init_writes_a_manifest_for_logs_that_builds(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    rows = "".join(f"{step},{1 / (1 + step)}\n" for step in range(20))
    (tmp_path / "runs" / "metrics.csv").write_text("step,val/loss\n" + rows)
    drafted = run("init", "--logs", "runs", folder=tmp_path)
    assert drafted.returncode == 0, drafted.stderr
    (tmp_path / "m.yaml").write_text(drafted.stdout)
    built = run("build", "m.yaml", "--output", "out", "--format", "json", folder=tmp_path)
    assert built.returncode == 0, built.stderr
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert data["models"][0]["sections"]["training"]["result"]["points"] == 20


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("init",), "init requires SOURCE, --logs DIR, or both"),
        (("init", "--logs", "nowhere"), "no file or folder 'nowhere'"),
        (("init", "--logs", "."), "no training logs were found"),
        (("publish", "."), "either --visdom URL or --tensorboard DIR"),
        (("publish", ".", "--tensorboard", "t"), "report.json"),
        (("publish", ".", "--tensorboard", "t", "--env", "e"), "--env requires --visdom URL"),
        (("build", "tiny.yaml", "--section", "layer"), "unknown section 'layer'"),
    ],
)
def test_usage_errors_of_log_commands_are_one_line(
    manifest: Path, arguments: tuple[str, ...], words: str
) -> None:
    answer = run_here(*arguments, folder=manifest.parent)
    assert (answer.returncode, len(answer.stderr.splitlines())) == (2, 1)
    assert words in answer.stderr
