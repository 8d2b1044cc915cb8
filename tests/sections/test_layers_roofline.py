"""Bytes moved, arithmetic intensity, and the least time that a card could take."""

from __future__ import annotations

import pytest
import torch
from layer_models import Examine, Function, tensor
from torch import nn

from reportgen.cuda_memory.gpus import find_gpu

WIDE = 2048  # a square product of this width is bound by arithmetic, an addition by memory


def test_a_product_takes_its_flops_at_the_rated_speed(look: Examine) -> None:
    gpu = find_gpu("T4")
    result = look(nn.Linear(WIDE, WIDE, bias=False), tensor(WIDE), batch=WIDE, targets=("T4",))
    (line,) = result.rooflines
    assert line.forward is not None
    assert gpu.fp32_flops_per_second is not None
    seconds = 2 * WIDE**3 / gpu.fp32_flops_per_second
    assert line.forward.seconds == pytest.approx(seconds)
    assert line.forward.samples_per_second == pytest.approx(WIDE / seconds)
    assert (line.forward.memory_bound_share, line.memory_bound_layers) == (0.0, 0)
    assert line.forward_backward is not None
    assert line.forward_backward.seconds == pytest.approx(2 * seconds, rel=0.01)


def test_an_addition_takes_its_bytes_at_the_rated_bandwidth(look: Examine) -> None:
    gpu = find_gpu("T4")
    result = look(Function(lambda _, x: x + 1), tensor(WIDE), batch=WIDE, targets=("T4",))
    assert result.operator_bytes == 2 * 4 * WIDE**2
    assert (result.flops_per_byte, result.macs) == (0.0, 0)
    (line,) = result.rooflines
    assert line.forward is not None
    assert gpu.bandwidth_bytes_per_second is not None
    seconds = 2 * 4 * WIDE**2 / gpu.bandwidth_bytes_per_second
    assert line.forward.seconds == pytest.approx(seconds)
    assert line.forward.memory_bound_share == 1.0
    assert line.forward_backward is None
    assert [layer.bound for layer in line.slowest] == ["memory"]


def test_a_small_operator_takes_at_least_its_launch(look: Examine) -> None:
    result = look(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), tensor(2), targets=("H200",))
    (line,) = result.rooflines
    assert line.forward is not None
    assert line.forward.seconds_with_launch_overhead == pytest.approx(2 * 5e-6)
    assert line.forward.seconds < 1e-9


def test_bfloat16_runs_at_the_bfloat16_rate(look: Examine) -> None:
    model = nn.Linear(WIDE, WIDE, bias=False).to(torch.bfloat16)
    given = tensor(WIDE, dtype="bfloat16")
    result = look(model, given, batch=WIDE, targets=("A100-80GB", "T4"))
    ampere, turing = result.rooflines
    rate = find_gpu("A100-80GB").bf16_flops_per_second
    assert ampere.forward is not None
    assert rate is not None
    assert ampere.forward.seconds == pytest.approx(2 * WIDE**3 / rate)
    assert turing.forward is None
    assert turing.reason == "the bfloat16 rate of T4 is unknown"


def test_a_float32_convolution_runs_at_the_tf32_rate_where_there_is_one(look: Examine) -> None:
    """torch's default; an H200 took 4.2 ms for VGG-16 at batch 16, 7.4 ms being the fp32 bound."""
    model = nn.Conv2d(512, 512, 3, padding=1, bias=False)
    result = look(model, tensor(512, 32, 32), batch=8, targets=("A100-80GB", "T4"))
    flops = 2 * 8 * 32 * 32 * 512 * 512 * 9
    rates = find_gpu("A100-80GB").tf32_flops_per_second, find_gpu("T4").fp32_flops_per_second
    for line, rate in zip(result.rooflines, rates, strict=True):
        assert rate is not None
        assert line.forward is not None
        assert line.forward.seconds == pytest.approx(flops / rate)
        assert line.forward_backward is not None
        assert line.forward_backward.seconds == pytest.approx(2 * flops / rate, rel=0.01)


def test_an_unknown_gpu_has_no_rates(look: Examine) -> None:
    (line,) = look(nn.Linear(4, 4), tensor(4), targets=("lab-card",)).rooflines
    assert (line.gpu, line.forward, line.slowest) == ("lab-card", None, ())
    assert line.reason == "unknown rates: the GPU is not in the catalog"


def test_double_precision_has_no_rate(look: Examine) -> None:
    given = tensor(4, dtype="float64")
    (line,) = look(nn.Linear(4, 4).double(), given, targets=("T4",)).rooflines
    assert (line.forward, line.reason) == (None, "the float64 rate of T4 is unknown")


def test_shares_of_layers_are_of_the_whole_pass(look: Examine) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    (line,) = look(model, tensor(64), batch=32, targets=("T4",)).rooflines
    assert sum(layer.share for layer in line.slowest) == pytest.approx(1.0)
    assert {layer.path for layer in line.slowest} == {"0", "1", "2"}
    assert line.working_layers == 3


def test_layers_of_equal_time_stand_in_the_order_of_their_numbers(look: Examine) -> None:
    model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(12)])
    [line] = look(model, tensor(8), targets=("T4",)).rooflines
    assert [layer.path for layer in line.slowest] == [str(n) for n in range(10)]


def test_ideal_bytes_are_weights_inputs_and_outputs_once(look: Examine) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    model.register_module("unused", nn.Identity())
    result = look(model, tensor(4), batch=3)
    assert result.ideal_bytes == 4 * (40 + 18 + 3 * 4 + 3 * 2)
    assert result.ideal_flops_per_byte == pytest.approx(result.flops / result.ideal_bytes)
    first = 8 + 32 + 12 + 24  # bias, weight, input, output
    assert result.operator_bytes == 4 * (first + 2 * 24 + 2 + 16 + 24 + 6)


def test_of_a_table_only_the_rows_that_are_looked_up_are_read(look: Examine) -> None:
    result = look(nn.Embedding(10_000, 8), tensor(5, dtype="int64", high=10))
    assert result.operator_bytes == 5 * 8 + 2 * 5 * 8 * 4


def test_an_expanded_tensor_is_read_once_and_a_view_moves_nothing(look: Examine) -> None:
    model = Function(lambda _, x: x[:1].expand(100, 8).reshape(100, 2, 4) + x.view(1, 2, 4))
    result = look(model, {"shape": [1, 8]})
    assert result.operator_bytes == 4 * (8 + 8 + 800)
