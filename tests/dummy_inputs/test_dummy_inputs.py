"""Inputs of models of one's own are found from their layers, their code, and their errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_spec
from torch import Tensor, nn

from reportgen.dummy_inputs.candidate import Candidate, indices, tensor
from reportgen.dummy_inputs.error_parsing import expected_rank, lower_indices
from reportgen.dummy_inputs.manifest_template import manifest_for_source
from reportgen.dummy_inputs.trial_run import widen_to_vocabulary
from reportgen.errors import ModelError
from reportgen.example_inputs import make_examples
from reportgen.manifest import InputSpec, ModelSpec, load_manifest
from reportgen.sources import load_model

CODE = """
from dataclasses import dataclass
from typing import NamedTuple, Optional
import torch
from torch import Tensor, nn
import torch.nn.functional as F

class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.l, self.e, self.c = nn.Linear(6, 3), nn.Embedding(20, 6), nn.Conv2d(3, 6, 3)

class KeywordOnly(Base):
    def forward(self, *, ids, x): return self.l(self.e(ids).mean(1) + x)
class KeywordScale(Base):
    def forward(self, x, *, scale): return self.l(x) * scale
class OfDict(Base):
    def forward(self, batch): return self.l(batch["features"] + self.e(batch["ids"]).mean(1))
class OfKeywords(Base):
    def forward(self, **batch): return self.l(batch["x"])
class OfList(Base):
    def forward(self, xs: list[Tensor]): return self.l(sum(xs))
class OfTuple(Base):
    def forward(self, pair):
        a, b = pair
        return self.l(a * b)
class Nested(Base):
    def forward(self, data: dict[str, list[Tensor]]):
        return self.l(data["left"][0] + data["right"][1])
class OfText(Base):
    def forward(self, x, mode: str):
        if mode == "plain": return self.l(x)
        raise ValueError("unknown mode")
class OfFlag(Base):
    def forward(self, x: Tensor, flag: bool, times: int, rate: float):
        return self.l(x) * times * rate if flag else self.l(x)
class OfNothing(Base):
    def forward(self, x: Tensor, y: None): return self.l(x) if y is None else y
class Several(Base):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(6 + 6 + 5, 3)
    def forward(self, image, text, table):
        return self.l(torch.cat([self.c(image).mean((2, 3)), self.e(text).mean(1), table], 1))
class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.t = nn.Conv2d(4, 16, 3, padding=1), nn.Linear(1, 16)
    def forward(self, x, t):
        return self.c(x) + self.t(t[:, None].float())[:, :, None, None]
class Noise(nn.Module):
    def __init__(self):
        super().__init__()
        self.l, self.e = nn.Linear(10 + 8, 3), nn.Embedding(4, 8)
    def forward(self, noise, labels): return self.l(torch.cat([noise, self.e(labels)], 1))
class Positions(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.p = nn.Embedding(100, 16), nn.Parameter(torch.zeros(12, 16))
    def forward(self, ids): return self.e(ids) + self.p[: ids.shape[1]]
class Broadcast(nn.Module):
    def __init__(self):
        super().__init__()
        self.n, self.p = nn.LayerNorm(48), nn.Parameter(torch.zeros(1, 10, 48))
    def forward(self, tokens): return self.n(tokens) + self.p
class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.g = nn.GRU(9, 6, 2, bidirectional=True)
    def forward(self, x, h0): return self.g(x, h0)
class Stateful(nn.Module):
    def __init__(self):
        super().__init__()
        self.g = nn.LSTM(9, 6, batch_first=True)
    def forward(self, x, state): return self.g(x, state)
class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.g = nn.LSTMCell(9, 6)
    def forward(self, x, h, c): return self.g(x, (h, c))
class Bags(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.EmbeddingBag(30, 8)
    def forward(self, text, offsets): return self.e(text, offsets)
class Edges(nn.Module):
    def __init__(self):
        super().__init__()
        self.l = nn.Linear(7, 5)
    def forward(self, x, edge_index):
        source, target = edge_index
        h = self.l(x)
        return torch.zeros_like(h).index_add(0, target, h[source])
class Points(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv1d(3, 16, 1)
    def forward(self, xyz): return self.c(xyz.transpose(1, 2)).amax(-1)
class Raw(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(8, 20))
    def forward(self, x): return F.linear(x, self.w)
def flattened():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(4), nn.Flatten(),
                         nn.Linear(8 * 24 * 24, 5))
def sound_flattened():
    return nn.Sequential(nn.Conv1d(2, 4, 4, 4), nn.Flatten(), nn.Linear(4 * 37, 5))
def half(): return nn.Linear(6, 3).half()
def double(): return nn.Linear(6, 3).double()
def complicated(): return nn.Linear(6, 3, dtype=torch.complex64)
def traced(): return torch.jit.trace(nn.Linear(6, 3), torch.zeros(2, 6))
class Pictured(Several):
    def __init__(self):
        super().__init__()
        del self.l, self.e, self.c
        self.c, self.e, self.l = nn.Conv2d(3, 8, 3), nn.Embedding(40, 8), nn.Linear(8 + 8 + 5, 3)
class Sized(Base):
    def forward(self, x, size: tuple[int, int]): return self.l(x).reshape(-1, *size, 3)
def parallel(): return nn.DataParallel(nn.Bilinear(5, 7, 3))
def packed():
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(6, 3)))

@dataclass
class Data:
    x: Tensor
class OfData(Base):
    def forward(self, data: Data): return self.l(data.x)
class Session:
    def __init__(self): self.x = torch.zeros(2, 6)
class OfSession(Base):
    def forward(self, data: Session): return self.l(data.x)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(folder: Path, factory: str) -> ModelSpec:
    text = manifest_for_source(f"own.py:{factory}")
    (folder / "drafted.yaml").write_text(text)
    (spec,) = load_manifest(folder / "drafted.yaml").models
    return spec


def form(item: InputSpec) -> Any:
    """An input in short: a shape, a constant, or the forms of its parts."""
    if item.value is not None:
        return item.value.value
    if item.items is not None:
        return ("tuple" if item.as_tuple else "list", *map(form, item.items))
    if item.fields is not None:
        return {key: form(part) for key, part in item.fields.items()}
    return item.shape


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("factory", "expected"),
    [
        ("KeywordOnly", [("batch", "tokens"), ("batch", 6)]),
        ("KeywordScale", [("batch", 6), 1.0]),
        ("OfDict", [{"features": ("batch", 6), "ids": ("batch", 16)}]),
        ("OfKeywords", [("batch", 6)]),
        ("OfList", [("list", ("batch", 6), ("batch", 6))]),
        ("OfTuple", [("tuple", ("batch", 6), ("batch", 6))]),
        (
            "Nested",
            [
                {
                    "left": ("list", ("batch", 6), ("batch", 6)),
                    "right": ("list", ("batch", 6), ("batch", 6)),
                }
            ],
        ),
        ("OfText", [("batch", 6), "plain"]),
        ("OfFlag", [("batch", 6), True, 1, 1.0]),
        ("OfNothing", [("batch", 6), None]),
        ("Several", [("batch", 3, "height", "width"), ("batch", "tokens"), ("batch", 5)]),
        ("Denoiser", [("batch", 4, "height", "width"), ("batch",)]),
        ("Noise", [("batch", 10), ("batch",)]),
        ("Positions", [("batch", "tokens")]),
        ("Broadcast", [("batch", 10, 48)]),
        ("Recurrent", [("steps", "batch", 9), (4, "batch", 6)]),
        ("Stateful", [("batch", "steps", 9), ("tuple", (1, "batch", 6), (1, "batch", 6))]),
        ("Cell", [("batch", 9), ("batch", 6), ("batch", 6)]),
        ("Bags", [("batch",), ("batch",)]),
        ("Points", [("batch", "steps", 3)]),
        ("Raw", [("batch", 20)]),
        ("flattened", [("batch", 3, 96, 96)]),
        ("sound_flattened", [("batch", 2, 148)]),
        ("half", [("batch", 6)]),
        ("double", [("batch", 6)]),
        ("complicated", [("batch", 6)]),
        ("traced", [("batch", 6)]),
        ("Pictured", [("batch", 3, "height", "width"), ("batch", "tokens"), ("batch", 5)]),
        ("Sized", [("batch", 6), ("tuple", 1, 1)]),
        ("parallel", [("batch", 5), ("batch", 7)]),
        ("packed", [("batch", 6)]),
    ],
)
def test_inputs_of_every_form_are_found(folder: Path, factory: str, expected: list[Any]) -> None:
    spec = found(folder, factory)
    assert [form(item) for item in spec.inputs] == expected
    for batch in (1, 4):
        model = load_model(spec).model
        with torch.no_grad():
            make_examples(spec, batch, 0).call(model)


def test_the_inputs_of_a_model_are_deterministic(folder: Path) -> None:
    assert found(folder, "Noise") == found(folder, "Noise")


def test_edge_indices_are_below_the_number_of_nodes(folder: Path) -> None:
    spec = found(folder, "Edges")
    nodes, edges = spec.inputs
    assert (nodes.shape, edges.shape) == (("nodes", 7), (2, "edges"))
    assert edges.high is not None
    assert edges.high <= spec.dims["nodes"]


@pytest.mark.parametrize(("factory", "kind"), [("OfData", "Data"), ("OfSession", "Session")])
def test_an_argument_of_a_custom_class_is_an_error_with_a_hint(
    folder: Path, factory: str, kind: str
) -> None:
    with pytest.raises(ModelError, match=f"a {kind} for 'data'") as caught:
        manifest_for_source(f"own.py:{factory}")
    assert "returns a module" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "rank"),
    [
        ("Dimension out of range (expected to be in range of [-3, 2], but got 3)", 4),
        ("Dimension out of range (expected to be in range of [-2, 1], but got -3)", 3),
        ("too many values to unpack (expected 4)", 4),
        ("not enough values to unpack (expected 3, got 2)", 3),
        ("Expected 3D (unbatched) or 4D (batched) input to conv2d, but got input of size", 4),
        ("mat1 and mat2 shapes cannot be multiplied (1x3 and 4x5)", None),
    ],
)
def test_the_expected_rank_is_parsed_from_an_error(words: str, rank: int | None) -> None:
    assert expected_rank(RuntimeError(words)) == rank


def test_lower_indices_proposes_the_next_smaller_table_then_fewer_indices() -> None:
    ids, x = indices("ids", "batch", 16, count=100), tensor("x", "batch", 6)
    first, fewer = lower_indices((ids, x), [30, 100, 400])
    assert (first[0].high, first[1]) == (30, x)
    assert (fewer[0].shape, fewer[1]) == (("batch", 8), x)


def test_lower_indices_keeps_the_lower_bound() -> None:
    mask = tensor("mask", "batch", 16, dtype="int64", low=4, high=5)
    assert [one[0].high for one in lower_indices((mask,), [3])] == [5, 5]


# Whole tables ---------------------------------------------------------------------------------


class Words(nn.Module):
    """Looks words up in one table, types in a smaller one, and counts with a third number."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.types = nn.Embedding(500, 4), nn.Embedding(3, 4)
        self.unused = nn.Embedding(900, 4)

    def forward(self, words: Tensor, types: Tensor, steps: Tensor) -> Tensor:
        found: Tensor = self.words(words) + self.types(types)
        return found * steps[:, None, None]


def test_the_range_of_indices_is_widened_to_the_embedding() -> None:
    narrow = [tensor(n, "batch", 6, dtype="int64", high=2) for n in ("words", "types")]
    steps = tensor("steps", "batch", dtype="int64", high=10)
    spec = make_spec(batch=2)
    found = widen_to_vocabulary(Words(), spec, Candidate(inputs=(*narrow, steps)), 2)
    assert [item.high for item in found.inputs] == [500, 3, 10]
