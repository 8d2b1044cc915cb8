"""What a child reads is recorded, and what cannot be is a reason not to store its results."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from reportgen.cache.digests import Digests
from reportgen.cache.influences import find_influences
from reportgen.cache.inputs import Inputs, NotCacheableError, inputs_of
from reportgen.cache.location import cache_folder, size_limit
from reportgen.errors import ReportgenError
from reportgen.manifest import ModelSpec
from reportgen.workers.inputs_read import InputsRead

_CHILD = """
import sys
from pathlib import Path
from reportgen.workers.inputs_read import Recorder, ignored_folders
recorder = Recorder(ignored=ignored_folders(Path(sys.argv[2])))
recorder.start()
sys.path.insert(0, sys.argv[1])
import model
print(recorder.take().model_dump_json())
"""


def recorded(folder: Path, code: str) -> InputsRead:
    """What is read while `code` is imported from a file in `folder`."""
    (folder / "model.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CHILD, str(folder), str(folder / "results")],
        capture_output=True, text=True, check=True, cwd=folder,
        env={"TMPDIR": str(folder / "scratch"), "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    return InputsRead.model_validate_json(done.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files; temporary files have another one."""
    for name in ("scratch", "results", "logs"):
        (tmp_path / name).mkdir()
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def names(paths: frozenset[str], folder: Path) -> set[str]:
    return {str(Path(path).relative_to(folder)) for path in paths if path.startswith(str(folder))}


@pytest.mark.parametrize(
    ("code", "files"),
    [
        ("open('config.json').read()", {"config.json"}),
        ("import os; os.close(os.open('config.json', os.O_RDONLY))", {"config.json"}),
        ("from pathlib import Path; Path('config.json').read_bytes()", {"config.json"}),
        ("try:\n    open('absent.json')\nexcept OSError:\n    pass", {"absent.json"}),
        ("import sqlite3; sqlite3.connect('runs.db')", {"runs.db"}),
        ("open('out.txt', 'w').write('x')", set()),
        ("open('results/layers.csv', 'w+').read()", set()),
        ("import json, torch.version", set()),
    ],
)
def test_files_that_are_opened_for_reading_are_recorded(
    folder: Path, code: str, files: set[str]
) -> None:
    assert names(recorded(folder, code).files, folder) == {"model.py", *files}


def test_a_module_is_its_source_also_if_python_reads_the_compiled_file(folder: Path) -> None:
    (folder / "layers.py").write_text("WIDTH = 3\n")
    for _ in range(2):  # the second time, from __pycache__
        assert names(recorded(folder, "import layers").files, folder) == {"model.py", "layers.py"}


def test_folders_are_listed_by_the_model_or_searched_for_modules(folder: Path) -> None:
    code = "import os\nos.listdir('logs')\ntry:\n    import absent\nexcept ImportError:\n    pass\n"
    read = recorded(folder, code)
    assert names(read.listed, folder) == {"logs"}
    assert names(read.searched, folder) == {"."}
    assert {"model", "absent"} <= read.imported


def test_variables_are_recorded_where_the_model_reads_them(folder: Path) -> None:
    code = "import os\nos.environ.get('A')\nos.getenv('B')\n'C' in os.environ\n"
    read = recorded(folder, code)
    assert read.variables == {"A", "B", "C"}
    assert read.unknown == frozenset()
    assert recorded(folder, "import os\ndict(os.environ)\n").unknown == {
        "reads all environment variables"
    }


def test_the_network_and_other_programs_are_unknown_inputs(folder: Path) -> None:
    connect = "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9), 1)\n"
    connect += "except OSError:\n    pass\n"
    assert recorded(folder, connect).unknown == {"it uses the network"}
    run = "import subprocess\nsubprocess.run(['true'])\n"
    assert recorded(folder, run).unknown == {"model.py starts another program"}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import time\nx = time.time()\n", ["m.py:2 reads the clock"]),
        ("from time import time as now\nx = now()\n", ["m.py:2 reads the clock"]),
        ("import datetime as d\nd.datetime.now()\n", ["m.py:2 reads the clock"]),
        ("from datetime import date\ndate.today()\n", ["m.py:2 reads the clock"]),
        (
            "import torch\ntorch.jit.load('a')\n",
            ["m.py:2 reads a file through a library that Python cannot observe"],
        ),
        ("import time\ntime.monotonic()\ntime.sleep(0)\n", []),
        ("class A:\n    def time(self): ...\nA().time()\n", []),
        ("not Python", []),
    ],
)
def test_calls_that_no_file_explains_are_found_in_the_source(
    tmp_path: Path, code: str, found: list[str]
) -> None:
    (tmp_path / "m.py").write_text(code)
    assert list(find_influences(tmp_path / "m.py")) == found


def spec_with(**options: object) -> ModelSpec:
    source = {"kind": "module", "target": "a", "factory": "b", "text": "a:b"}
    return ModelSpec.model_validate({"name": "m", "source": source, "cache": options})


def inputs(read: InputsRead, folder: Path, started_ns: int | None = None, **options: object):
    started_ns = time.time_ns() + 10**9 if started_ns is None else started_ns
    return inputs_of(
        read, spec_with(**options), started_ns, Digests(folder / "digests"), uses_model=True
    )


def test_unknown_inputs_are_not_stored_unless_the_manifest_declares_them(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("import time\nx = time.time()\n")
    (tmp_path / "data").mkdir()
    read = InputsRead(files=frozenset({str(tmp_path / "m.py")}))
    with pytest.raises(NotCacheableError, match=r"m\.py:2 reads the clock: declare"):
        inputs(read, tmp_path)
    declared = inputs(read, tmp_path, depends=[tmp_path / "data"])
    assert declared.are_unchanged(Digests(tmp_path / "digests"))
    (tmp_path / "data" / "new.csv").write_text("1")
    assert not declared.are_unchanged(Digests(tmp_path / "digests"))


def test_limits_and_never_are_not_overridden(tmp_path: Path) -> None:
    with pytest.raises(NotCacheableError, match="a limit on time was reached"):
        inputs(InputsRead(limits=frozenset({"time"})), tmp_path, depends=[])
    with pytest.raises(NotCacheableError, match="never: true"):
        inputs(InputsRead(), tmp_path, never=True)


def test_a_file_that_changes_during_the_build_is_not_stored(tmp_path: Path) -> None:
    started = time.time_ns()
    time.sleep(0.02)
    (tmp_path / "log.csv").write_text("1")
    read = InputsRead(files=frozenset({str(tmp_path / "log.csv")}))
    with pytest.raises(NotCacheableError, match=r"log\.csv changed during the build"):
        inputs(read, tmp_path, started)


def test_an_absent_file_is_an_input(tmp_path: Path) -> None:
    known = inputs(InputsRead(files=frozenset({str(tmp_path / "absent")})), tmp_path)
    assert known.files == {str(tmp_path / "absent"): None}
    assert known.are_unchanged(Digests(tmp_path / "digests"))
    (tmp_path / "absent").write_text("")
    assert not known.are_unchanged(Digests(tmp_path / "digests"))


def test_the_value_of_a_variable_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    known = inputs(InputsRead(variables=frozenset({"TOKEN"})), tmp_path)
    assert "secret" not in known.model_dump_json()
    assert known.are_unchanged(Digests(tmp_path))
    monkeypatch.delenv("TOKEN")
    assert not Inputs.model_validate_json(known.model_dump_json()).are_unchanged(Digests(tmp_path))


def test_the_cache_is_beside_the_report_or_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder(tmp_path / "reports" / "m") == tmp_path / "reports" / ".reportgen-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder(tmp_path / "m") == tmp_path / ".reportgen-cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert cache_folder(tmp_path / "m") == tmp_path / "home" / "reportgen"


def test_the_size_limit_is_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPORTGEN_CACHE_SIZE", raising=False)
    assert size_limit() == 5 * 2**30
    monkeypatch.setenv("REPORTGEN_CACHE_SIZE", "300 MB")
    assert size_limit() == 300_000_000
    monkeypatch.setenv("REPORTGEN_CACHE_SIZE", "much")
    with pytest.raises(ReportgenError, match="expected a size"):
        size_limit()
