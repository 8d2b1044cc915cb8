"""`summary`, `draw`, `estimate_memory` and `check_onnx` against counts by other means."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import torchinfo
import torchvision
from torch import nn

import reportgen
from reportgen.errors import ReportgenError
from reportgen.python_api import analyze, questions


class Attention(nn.Module):
    """torchinfo counts neither its functional products nor its shared weight right."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Any) -> Any:
        x = self.embed(ids)
        return self.head(self.attend(x, x, x)[0])


def test_a_summary_has_torchinfos_parameters_of_a_plain_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = torchvision.models.resnet18()
    size = (2, 3, 64, 64)
    found = reportgen.summary(model, input_size=size)
    theirs = torchinfo.summary(model, input_size=size, verbose=0)
    assert found.parameters == theirs.total_params
    assert found.layers.trainable_parameters == theirs.trainable_params
    text = capsys.readouterr().out
    assert text.strip() == str(found)
    first = next(line for line in text.splitlines() if line.startswith("  conv1:"))
    macs = 2 * 64 * 32 * 32 * 3 * 7 * 7
    assert first.split()[-5:] == ["2x3x64x64", "2x64x32x32", "9,408", "yes", f"{macs:,}"]
    assert f"{found.macs:,}" in text
    assert model.training


def test_a_summary_counts_what_torchinfo_does_not() -> None:
    ids = torch.randint(0, 50, (3, 5))
    found = reportgen.summary(Attention(), input_data=ids, verbose=False)
    shared, projections = 50 * 8, 4 * (8 * 8 + 8)
    assert found.parameters == shared + projections
    products = 2 * 5 * 5 * 8  # queries with keys, and weights with values
    assert found.macs == 3 * (5 * 4 * 8 * 8 + products + 5 * 8 * 50)


def test_a_summary_is_cut_at_a_depth() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2))
    whole = str(reportgen.summary(model, (1, 4), verbose=False))
    cut = str(reportgen.summary(model, (1, 4), depth=1, verbose=False))
    assert "ReLU" in whole
    assert "ReLU" not in cut
    assert "Linear(4, 2)" in cut


def test_a_summary_of_a_model_whose_pass_fails_says_where() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 2))
    text = str(reportgen.summary(model, (1, 4), verbose=False))
    assert "The forward pass fails in 1: expected 5 input features, got 4" in text


def test_a_summary_of_a_model_on_meta() -> None:
    with torch.device("meta"):
        model = nn.Linear(100_000, 100_000)
    assert reportgen.summary(model, (1, 100_000), verbose=False).parameters == 10_000_100_000


@pytest.mark.parametrize("kind", ["modules", "autograd", "onnx"])
def test_a_drawing_is_an_svg(kind: Any, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    drawn = reportgen.draw(model, (2, 4), kind=kind)
    root = ElementTree.fromstring(drawn._repr_svg_())
    assert root.tag.endswith("svg")
    assert drawn.width > 10
    assert drawn.height > 10
    assert drawn.save(tmp_path / "graph.svg").read_text() == drawn.svg
    with pytest.raises(ReportgenError, match="only SVG"):
        drawn.save(tmp_path / "graph.png")


def test_a_graph_that_cannot_be_drawn_says_why() -> None:
    with pytest.raises(ReportgenError, match="unknown kind 'module'"):
        reportgen.draw(nn.Linear(4, 3), (2, 4), kind="module")  # type: ignore[arg-type]
    with pytest.raises(ReportgenError, match="forward pass fails") as error:
        reportgen.draw(nn.Linear(4, 3), (2, 5))
    assert error.value.hint


def test_the_memory_of_a_step() -> None:
    model = nn.Linear(1000, 1000, bias=False)
    answer = reportgen.estimate_memory(model, (8, 1000), gpu=("T4", "A100-80GB"))
    assert answer.estimate.at_peak["parameter"] == 4_000_256  # a block of 512 bytes more
    assert [each.fit.gpu for each in answer.gpus] == ["T4", "A100-80GB"]
    assert answer.fits_everywhere
    assert "safe up to" in repr(answer)
    inference = reportgen.estimate_memory(model, (8, 1000), mode="inference")
    assert inference.estimate.peak_allocated_bytes < answer.estimate.peak_allocated_bytes
    with pytest.raises(ReportgenError, match="unknown optimizer 'adm'"):
        reportgen.estimate_memory(model, (8, 1000), optimizer="adm")
    with pytest.raises(ReportgenError, match="unknown zero_grad 'in_place'"):
        reportgen.estimate_memory(model, (8, 1000), zero_grad="in_place")  # type: ignore[arg-type]
    with pytest.raises(ReportgenError, match="unknown GPU 'T5'"):
        reportgen.estimate_memory(model, (8, 1000), gpu="T5")


def test_options_of_a_training_loop_have_the_words_of_a_manifest() -> None:
    model = nn.Linear(1000, 1000, bias=False)
    plain, loop = (
        reportgen.estimate_memory(model, (8, 1000), optimizer="sgd", **options).estimate
        for options in ({}, {"ema": True, "zero_grad": "keep"})
    )
    weight = 4_000_256  # with its block of 512 bytes
    assert loop.peak_allocated_bytes - plain.peak_allocated_bytes >= weight


def squared_error(output: Any) -> Any:
    return nn.functional.mse_loss(output, torch.zeros_like(output))


def test_a_loss_may_be_a_function_of_the_output() -> None:
    model = nn.Linear(1000, 1000, bias=False)
    size = (5000, 1000)
    by_sum = reportgen.estimate_memory(model, size).estimate
    squared = reportgen.estimate_memory(model, size, loss=squared_error).estimate
    output_and_target = 2 * 4 * 5000 * 1000  # which the backward pass of the loss needs
    assert squared.at_peak["saved_activation"] >= output_and_target
    assert by_sum.at_peak["saved_activation"] < output_and_target
    report = reportgen.analyze(model, size, sections=("memory",), loss=squared_error)
    [train] = [each for each in report["memory"].estimates if each.mode == "train"]
    assert train.peak_allocated_bytes == squared.peak_allocated_bytes
    assert "the loss of a training step is squared_error" in report["memory"].assumptions


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.functional.mse_loss])
def test_a_loss_with_a_target_is_named(loss: Any) -> None:
    for function in (reportgen.estimate_memory, reportgen.analyze):
        with pytest.raises(ReportgenError, match="must take one argument") as error:
            function(nn.Linear(4, 2), (8, 4), loss=loss)
        assert "zeros_like(output)" in error.value.hint


class Unexportable(nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.linalg.eig(x)[0]


def test_onnx_is_checked() -> None:
    good = reportgen.check_onnx(nn.Linear(4, 2), (2, 4), opset=18)
    assert good.passed
    assert good.result is not None
    assert good.result.file.opset == 18
    assert good.max_absolute_error is not None
    assert good.max_absolute_error < 1e-5
    assert "agrees with PyTorch in" in str(good)
    bad = reportgen.check_onnx(Unexportable(), (2, 4, 4))
    assert not bad.passed
    assert "eig" in str(bad)


@pytest.mark.parametrize("module", [analyze, questions])
def test_the_examples_in_docstrings_are_true(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
