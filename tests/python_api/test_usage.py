"""The typed examples run, and a notebook shows what Python returns."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
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
    "import reportgen, torch, torchvision\nfrom torch import nn\n"
    "model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))",
    "report = reportgen.analyze(model, (2, 3, 8, 8), sections=('layers', 'graphs'))\nreport",
    "print(report)",
    "reportgen.draw(model, (2, 3, 8, 8))",
    "reportgen.summary(torchvision.models.resnet50(), (1, 3, 224, 224), verbose=False)",
    "reportgen.draw(torchvision.models.vgg16(), (1, 3, 224, 224))",
    "with torch.device('meta'):\n    large = torchvision.models.vit_h_14()\n"
    "reportgen.estimate_memory(large, (256, 3, 224, 224), gpu='T4')",
    "reportgen.analyze(large, (1, 3, 224, 224), sections=('layers',))",
    "report.compare(report)",
)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """For each cell what it displays, by media type."""
    folder = tmp_path_factory.mktemp("notebook")
    kernel = folder / "kernels" / "here"  # this Python, whatever kernels are installed
    kernel.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    named = {"argv": command, "display_name": "here", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(named))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in _CELLS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        patch.setenv("PYTHONPATH", str(ROOT))
        nbclient.NotebookClient(book, timeout=300, kernel_name="here").execute(cwd=str(folder))
    return [[output.get("data", output) for output in cell["outputs"]] for cell in book.cells]


@pytest.mark.slow
def test_a_notebook_shows_pages_and_drawings(outputs: list[list[dict[str, Any]]]) -> None:
    bar, page = outputs[1]
    assert bar["text/html"] == ""  # the progress is gone at the end
    assert "Conv2d" in page["text/html"]
    assert "<script" not in page["text/html"]
    assert "other threads run" in outputs[2][0]["text"]
    assert outputs[3][0]["image/svg+xml"].startswith("<svg")
    assert "Nothing changed" in outputs[8][0]["text/markdown"]


@pytest.mark.slow
def test_a_notebook_has_classic_models_and_one_on_meta(
    outputs: list[list[dict[str, Any]]],
) -> None:
    assert "25,557,032" in outputs[4][0]["text/plain"]  # torchvision's own count
    assert "Conv2d" in outputs[5][0]["image/svg+xml"]
    assert "does not fit" in outputs[6][0]["text/plain"]
    assert "632.0 M" in outputs[7][1]["text/html"]
