"""The benchmark of counts: its second counter by closed forms, its judge, and its tables."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks are not installed

from benchmarks.counts import Line, check_case, compare, table, torchvision_models
from benchmarks.counts_cases import HUNTED, PUBLISHED, Case, second_count
from benchmarks.counts_cases.second_count import second_macs, second_parameters

TIED = next(case for case in HUNTED if case.name == "tied embedding and head")


class Called(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


@pytest.mark.parametrize(
    ("model", "shapes", "macs"),
    [
        (nn.Linear(8, 4), [(3, 5, 8)], 3 * 5 * 8 * 4),
        (nn.Conv2d(4, 6, 3, groups=2), [(2, 4, 8, 8)], 2 * 36 * 6 * 2 * 9),
        (nn.ConvTranspose2d(3, 1, 2, stride=2), [(1, 3, 2, 2)], 48),
        (nn.LSTM(10, 20, 2), [(5, 3, 10)], 15 * 80 * (10 + 20 + 20 + 20)),
        (nn.MultiheadAttention(8, 2), [(5, 3, 8)] * 3, 3 * (4 * 5 * 64 + 2 * 5 * 5 * 8)),
        (nn.Bilinear(2, 3, 4), [(5, 2), (5, 3)], 5 * 4 * 3 * 3),
        (Called(lambda a, b: torch.einsum("bij,bjk->ik", a, b)), [(2, 3, 4), (2, 4, 5)], 120),
        (Called(lambda a, b: a @ b), [(2, 1, 3, 4), (5, 4, 6)], 2 * 5 * 3 * 4 * 6),
        (Called(lambda x: x.exp().softmax(-1)), [(4, 4)], 0),
    ],
)
def test_the_second_counter_knows_closed_forms(
    model: nn.Module, shapes: list[tuple[int, ...]], macs: int
) -> None:
    arguments = tuple(torch.randn(shape) for shape in shapes)
    assert second_macs(model.eval(), arguments, {}) == macs


def test_the_second_counter_holds_tied_weights_once() -> None:
    assert second_parameters(TIED.model()) == 400


def test_the_second_counter_shares_nothing_with_the_program() -> None:
    tree = ast.parse(Path(second_count.__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    assert not any("reportgen" in ast.unparse(node) for node in imports)
    assert not any("flop_counter" in ast.unparse(node) for node in imports)


def test_a_right_answer_is_called_right_and_a_wrong_one_is_told(tmp_path: Path) -> None:
    assert check_case(TIED, tmp_path).wrong == ()
    doubled = replace(TIED, parameters=800)
    assert check_case(doubled, tmp_path).wrong == ("parameters 400 instead of 800",)


def test_a_crash_is_a_line_of_the_table_and_not_its_end(tmp_path: Path) -> None:
    def fails() -> nn.Module:
        raise ZeroDivisionError("no model")

    broken = Case(name="broken", model=fails, inputs=(), parameters=0, macs=0)
    assert check_case(broken, tmp_path).wrong == ("ZeroDivisionError: ['no model']",)


def test_the_share_counts_what_is_right() -> None:
    lines = [Line(cells=("a",)), Line(cells=("b",), wrong=("x",)), Line(cells=("<c|>",))]
    *_, third, share = table("title", ("name",), lines)
    assert third == "| &lt;c\\|> | right |"
    assert share == "\n2 of 3 right (66.7 %)."


def test_every_case_has_a_name_of_its_own() -> None:
    names = [case.name for case in (*PUBLISHED, *HUNTED)]
    assert len(set(names)) == len(names)


def test_a_published_model_agrees_in_every_figure(tmp_path: Path) -> None:
    asked = next(asked for asked in torchvision_models() if asked.name == "alexnet")
    assert (asked.published_parameters, asked.published_gmacs) == (61_100_840, 0.714)
    line = compare(asked, tmp_path)
    assert (line.wrong, line.reasons) == ((), ())
    assert line.cells[2:] == ("61,100,840", "0.714")
