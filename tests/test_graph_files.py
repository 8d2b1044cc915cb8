"""`reportgen graph`: each format of one small model, parts of it, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pikepdf
import pytest

from reportgen.errors import ReportgenError
from reportgen.graph_files import GraphRequest, write_graph
from reportgen.manifest import parse_shape_argument

MODEL = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)
        self.act = nn.ReLU()
    def forward(self, x):
        return x + self.act(self.fc(x))

def net():
    return nn.Sequential(nn.Linear(4, 8), nn.Sequential(Block(), Block()), nn.Linear(8, 2))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("graph") / "net.py"
    file.write_text(MODEL, encoding="utf-8")
    return f"{file}:net"


def _written(source: str, file: Path, **fields: object) -> bytes:
    inputs = (parse_shape_argument("batch,4"),)
    write_graph(GraphRequest(source=source, inputs=inputs, **fields), file)  # type: ignore[arg-type]
    return file.read_bytes()


def _titles(svg: bytes) -> list[str]:
    root = ElementTree.fromstring(svg)
    return ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]


def test_an_svg_closes_what_is_below_its_depth(source: str, tmp_path: Path) -> None:
    closed = _titles(_written(source, tmp_path / "a.svg", depth=0))
    assert closed.count("Linear") == 2
    assert "Sequential" in closed
    opened = _titles(_written(source, tmp_path / "b.svg", depth=2))
    assert opened.count("Linear") == 4
    assert opened.count("Block") == 2


def test_a_focus_is_one_part_with_what_it_touches(source: str, tmp_path: Path) -> None:
    titles = _titles(_written(source, tmp_path / "a.svg", focus="1.0"))
    assert titles.count("Linear") == 1
    assert "ReLU" in titles
    assert "0" in titles  # the layer before


def test_other_formats_are_what_their_names_say(source: str, tmp_path: Path) -> None:
    dot = _written(source, tmp_path / "a.dot").decode("utf-8")
    assert dot.startswith("digraph")
    assert _written(source, tmp_path / "a.png").startswith(b"\x89PNG")
    _written(source, tmp_path / "a.pdf")
    with pikepdf.open(tmp_path / "a.pdf") as pdf:
        assert len(pdf.pages) == 1
    page = _written(source, tmp_path / "a.html", depth=1).decode("utf-8")
    assert 'id="graph-data"' in page
    assert 'data-depth="1"' in page
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.dot", "a.html", "a.pdf", "a.png"]


def test_the_autograd_graph_has_parameters(source: str, tmp_path: Path) -> None:
    titles = _titles(_written(source, tmp_path / "a.svg", kind="autograd"))
    assert any(title.startswith("AddmmBackward") for title in titles)


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("a.gif", {}, "cannot write 'a.gif': unknown format"),
        ("a.svg", {"focus": "7"}, "no node of the modules graph belongs to '7'"),
        ("net.py/a.svg", {}, "cannot write"),
    ],
)
def test_what_is_wrong_is_one_line(
    source: str, tmp_path: Path, file: str, fields: dict[str, str], message: str
) -> None:
    (tmp_path / "net.py").touch()
    with pytest.raises(ReportgenError, match=message.replace("(", r"\(")):
        _written(source, tmp_path / file, **fields)
