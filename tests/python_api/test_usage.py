"""The typed examples run, and a notebook shows what Python returns."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from torch import nn

from tests.python_api import usage_examples

ROOT = Path(__file__).parents[2]


def test_the_typed_examples_run(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    report = usage_examples.analyze(model, tmp_path)
    assert report.metrics["layers.parameters"] == 15
    usage_examples.ask(model)
    usage_examples.check(model, tmp_path / "report.json")


_CELLS = (
    "import reportgen, torch\nfrom torch import nn\n"
    "model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))",
    "report = reportgen.analyze(model, (2, 3, 8, 8), sections=('layers', 'graphs'))\nreport",
    "print(report)",
    "reportgen.draw(model, (2, 3, 8, 8))",
    "reportgen.summary(model, (2, 3, 8, 8), verbose=False)",
    "with torch.device('meta'):\n    large = nn.Linear(50_000, 50_000)\n"
    "reportgen.estimate_memory(large, (1, 50_000), gpu='T4')",
    "report.compare(report)",
)


@pytest.mark.slow
def test_a_notebook_shows_pages_and_drawings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    kernel = tmp_path / "kernels" / "here"  # this Python, whatever kernels are installed
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    named = {"argv": command, "display_name": "here", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(named))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in _CELLS])
    nbclient.NotebookClient(book, timeout=120, kernel_name="here").execute(cwd=str(tmp_path))
    outputs = [[output.get("data", output) for output in cell["outputs"]] for cell in book.cells]
    bar, page = outputs[1]
    assert bar["text/html"] == ""  # the progress is gone at the end
    assert "Conv2d" in page["text/html"]
    assert "<script" not in page["text/html"]
    assert "other threads run" in outputs[2][0]["text"]
    assert outputs[3][0]["image/svg+xml"].startswith("<svg")
    assert "MACs, batch of 2" in outputs[4][0]["text/plain"]
    assert "does not fit" in outputs[5][0]["text/plain"]
    assert "Nothing changed" in outputs[6][0]["text/markdown"]
