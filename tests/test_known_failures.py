"""The cause of an error is named where torch's message blames something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from reportgen.known_failures import KnownFailure, known_failure


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ids = nn.Embedding(50, 4)
        self.places = nn.ModuleDict({"pos": nn.Embedding(16, 4)})

    def forward(self, ids: Tensor, positions: Tensor, shift: int = 0) -> Tensor:
        return self.ids(ids) + self.places["pos"](positions[:, :9] + shift)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.embedding(x, self.table)


def failure_of(call: Callable[[], object]) -> KnownFailure:
    with pytest.raises(Exception) as caught:
        call()
    found = known_failure(caught.value)
    assert found is not None, caught.value
    return found


def test_an_input_beyond_an_embedding_is_named_with_the_range() -> None:
    ids = torch.zeros(2, 9, dtype=torch.int64)
    found = failure_of(lambda: Tokens()(ids, ids + 19))
    # `+ 0` makes a new tensor, so the input is not what indexes
    assert "an index reaches 19, but the embedding places.pos has 16 rows" in found.text
    assert "(test_known_failures.py:" in found.text
    found = failure_of(lambda: Tokens()(ids + 50, ids))
    assert "input 'ids' reaches 50, but the embedding ids has 50 rows" in found.text
    assert "high: 50" in found.hint
    assert found.by_inputs


def test_a_negative_index_is_named() -> None:
    found = failure_of(lambda: Functional()(torch.tensor([-1, 2])))
    assert "input 'x' is -1, but the embedding table has 5 rows" in found.text
    assert "low: 0" in found.hint


def test_an_index_beyond_a_tensor_is_named() -> None:
    found = failure_of(lambda: torch.ones(4, 2)[torch.tensor([7])])
    assert "index 7 is out of range: dimension 0 of the indexed tensor has size 4" in found.text
    assert not found.by_inputs


@pytest.mark.parametrize("device", ["cuda", "xpu", "mps"])
def test_code_for_a_gpu_is_named(device: str) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU runs it")
    found = failure_of(lambda: torch.ones(2).to(device))
    assert "moves itself to a GPU (test_known_failures.py:" in found.text
    assert "x.device" in found.hint


def test_a_missing_file_of_the_models_code_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = failure_of(lambda: torch.load("pretrained/net.pth"))
    assert "'pretrained/net.pth'" in found.text
    assert "Path(__file__)" in found.hint


def test_other_errors_are_left_to_torch() -> None:
    with pytest.raises(RuntimeError) as caught:
        nn.Linear(3, 2)(torch.ones(4))
    assert known_failure(caught.value) is None
