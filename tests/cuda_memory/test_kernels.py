"""Recurrent layers, workspaces, embeddings and library figures as on CUDA."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reportgen.cuda_memory import MemoryEstimator, Request, Step, find_gpu, user_gpu
from reportgen.cuda_memory.cudnn import (
    FORWARD,
    INPUT_GRADIENT,
    WEIGHT_GRADIENT,
    Convolution,
    cudnn_version,
    cudnn_workspace_bytes,
)
from reportgen.cuda_memory.library_workspaces import Platform, library_figures, request_bytes
from reportgen.cuda_memory.tracing import autocast
from reportgen.cuda_memory.tracing.autocast import LOWER

MIB = 1 << 20
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def platform(card: str, torch_version: tuple[int, int] = (2, 11)) -> Platform:
    return Platform(
        gpu=find_gpu(card), precision="fp32", channels_last=False, torch_version=torch_version
    )


@pytest.mark.parametrize(
    ("card", "version", "size"),
    [
        ("A100", (2, 6), 8519680),
        ("H100", (2, 6), 32 * MIB),
        ("B200", (2, 6), 8519680),
        ("B200", (2, 12), 32 * MIB),
        ("RTX 5090", (2, 12), 32 * MIB),
    ],
)
def test_the_cublas_workspace_depends_on_the_card_and_on_blackwell_on_the_version(
    card: str, version: tuple[int, int], size: int
) -> None:
    assert request_bytes(Request(rule="cublas"), platform(card, version)) == size


def test_cublaslt_scratch_is_per_call_up_to_2_8_kept_in_2_9_and_shared_since_2_11() -> None:
    call, kept = Request(rule="cublaslt_call"), Request(rule="cublaslt_kept")
    found = [
        (
            request_bytes(call, platform("A100", version)),
            request_bytes(kept, platform("A100", version)),
        )
        for version in ((2, 8), (2, 9), (2, 11))
    ]
    assert found == [(MIB, 0), (0, MIB), (0, 0)]


def test_forward_and_backward_threads_have_a_cublas_workspace_each() -> None:
    def inputs(batch: int) -> Inputs:
        return (torch.empty(batch, 8),), {}

    for mode, count in (("inference", 1), ("train", 2)):
        step = Step(mode=mode, loss="sum")
        trace = MemoryEstimator(nn.Linear(8, 8), inputs, step).trace(4)
        requests = [a.request.rule for a in trace.allocations if a.request is not None]
        assert requests.count("cublas") == count


def test_only_many_embedding_indices_need_sort_scratch() -> None:
    few = Request(rule="embedding_backward", numbers=(3072, 1000, 64, 8))
    many = Request(rule="embedding_backward", numbers=(4096, 1000, 64, 8))
    assert request_bytes(few, platform("A100")) == 0
    assert request_bytes(many, platform("A100")) == 5 * 8 * 4096 + 4 * (409 + 1000) * 64


def convolution(kind: int, **changes: Any) -> Convolution:
    facts: dict[str, Any] = {
        "kind": kind,
        "x": (128, 64, 224, 224),
        "weight": (64, 64, 3, 3),
        "y": (128, 64, 224, 224),
        "stride": (1, 1),
        "padding": (1, 1),
        "dilation": (1, 1),
        "element_bytes": 4,
        "bfloat16": False,
        "channels_last": False,
        "tf32": True,
    }
    return Convolution(**{**facts, **changes})


needs_cudnn = pytest.mark.skipif(cudnn_version() is None, reason="cuDNN 9.8 or later is not here")


@needs_cudnn
def test_cudnn_copies_both_operands_of_a_gradient_into_its_own_layout() -> None:
    x, weight, y = convolution(FORWARD).operand_bytes
    for kind in (INPUT_GRADIENT, WEIGHT_GRADIENT):
        found = cudnn_workspace_bytes(convolution(kind), find_gpu("A100"))
        assert found is not None
        assert x + y <= found < 1.05 * (x + y + weight)


@needs_cudnn
def test_channels_last_operands_need_a_smaller_workspace() -> None:
    plain = cudnn_workspace_bytes(convolution(INPUT_GRADIENT), find_gpu("A100"))
    found = cudnn_workspace_bytes(convolution(INPUT_GRADIENT, channels_last=True), find_gpu("A100"))
    assert plain is not None
    assert found is not None
    assert found < plain


def test_cudnn_is_not_queried_for_gpus_before_volta() -> None:
    assert cudnn_workspace_bytes(convolution(FORWARD), find_gpu("P100")) is None


def numbers_of(asked: Convolution) -> tuple[int, ...]:
    return (
        asked.kind, asked.element_bytes, int(asked.bfloat16), 2, *asked.x, *asked.weight, *asked.y,
        *asked.stride, *asked.padding, *asked.dilation,
    )  # fmt: skip


def test_a_depthwise_fp32_convolution_takes_no_workspace() -> None:
    asked = convolution(FORWARD, weight=(64, 1, 3, 3))
    request = Request(rule="convolution", numbers=numbers_of(asked))
    assert request_bytes(request, platform("A100")) == 0


def test_a_pointwise_convolution_takes_no_workspace() -> None:
    asked = convolution(FORWARD, weight=(64, 64, 1, 1), padding=(0, 0))
    request = Request(rule="convolution", numbers=numbers_of(asked))
    assert request_bytes(request, platform("A100")) == 0


H200 = user_gpu("H200", 150109945856, compute_capability=(9, 0), multiprocessors=132)


@pytest.mark.parametrize(
    ("sums", "terms", "measured_mib"),
    [
        (768, 6304, 38.0), (3072, 6304, 132.0), (2304, 6304, 111.38), (10000, 4096, 131.84),
        (30522, 2048, 22.36), (96, 100352, 18.38), (384, 100352, 132.0), (288, 100352, 99.0),
        (576, 25088, 110.25), (192, 25088, 36.75), (512, 4096, 16.0), (768, 2048, 12.5),
        (3072, 1568, 38.0), (1536, 6272, 74.0), (384, 6272, 18.81),
    ],
)  # fmt: skip
def test_a_sum_over_rows_exchanges_what_was_measured_on_an_h200(
    sums: int, terms: int, measured_mib: float
) -> None:
    """The allocator's block may be larger by up to 1 MiB: it does not split the rest off."""
    found = request_bytes(
        Request(rule="reduction", numbers=(sums, terms, 4)), replace(platform("A100"), gpu=H200)
    )
    assert found / 2**20 <= measured_mib + 0.01
    assert found / 2**20 == pytest.approx(measured_mib, abs=1.0)


@pytest.mark.parametrize(
    ("kind", "options", "measured_bytes"),
    [
        ("LSTM", {}, 92537088),
        ("GRU", {}, 109314304),
        ("LSTM", {"proj_size": 128}, 113312000),
        ("LSTM", {"bidirectional": True}, 185598208),
    ],
)
def test_the_reserve_of_a_recurrent_layer_is_what_was_measured_on_an_h200(
    kind: str, options: dict[str, Any], measured_bytes: int
) -> None:
    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = getattr(nn, kind)(
                512, 512, num_layers=2, batch_first=True, dropout=0.1, **options
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x)[0]

    def inputs(batch: int) -> Inputs:
        return (torch.empty(batch, 128, 512),), {}

    step = Step(mode="train", loss="sum", iterations=1)
    trace = MemoryEstimator(Body(), inputs, step, H200).trace(32)
    kept = [a.size_bytes for a in trace.allocations if a.category == "saved_activation"]
    assert max(kept) == pytest.approx(measured_bytes, rel=0.01)


def test_cross_entropy_under_autocast_keeps_its_log_softmax_in_low_precision() -> None:
    """Seen on an H200: CUDA's lists do not name the loss, only the parts that it calls."""
    step = Step(mode="train", precision="amp-bf16", iterations=1)
    model = nn.Linear(64, 1000)
    trace = MemoryEstimator(model, lambda b: ((torch.empty(b, 64),), {}), step, H200).trace(256)
    sizes = [a.size_bytes for a in trace.allocations if a.op == "_log_softmax.default"]
    assert sizes == [256 * 1000 * 2]


def test_the_gradient_of_a_plain_sum_is_copied_for_the_matrix_product() -> None:
    step = Step(mode="train", loss="sum", iterations=1)
    model = nn.Linear(1024, 4096, bias=False)
    trace = MemoryEstimator(model, lambda b: ((torch.empty(b, 1024),), {}), step, H200).trace(512)
    scratch = [a.size_bytes for a in trace.allocations if a.category == "temporary"]
    assert 512 * 4096 * 4 in scratch


def test_every_library_figure_has_a_source_and_an_ordered_range() -> None:
    def check(entry: Any) -> None:
        if not isinstance(entry, dict):
            return
        if "nominal" in entry:
            assert entry["low"] <= entry["nominal"] <= entry["high"]
            assert entry["provenance"]
        for value in entry.values():
            check(value)

    check(library_figures())


class Recurrent(nn.Module):
    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        self.body = getattr(nn, kind)(32, 64, num_layers=2, batch_first=True, **options)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)[0]


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 5), ("GRU", 6), ("RNN", 1)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers_are_one_cudnn_call_with_a_reserve(
    kind: str, gates: int, bidirectional: bool
) -> None:
    def inputs(batch: int) -> Inputs:
        return (torch.empty(batch, 50, 32),), {}

    model = Recurrent(kind, bidirectional=bidirectional)
    step = Step(mode="train", loss="sum", iterations=1)
    trace = MemoryEstimator(model, inputs, step).trace(8)
    reserve = gates * 2 * (1 + bidirectional) * 50 * 8 * 64 * 4
    assert reserve in [a.size_bytes for a in trace.allocations]
    weights = sum(p.numel() for p in model.parameters()) * 4
    gradients = [a.size_bytes for a in trace.allocations if a.category == "gradient"]
    assert gradients == [weights]


def test_a_recurrent_layer_under_autocast_runs_in_low_precision() -> None:
    def inputs(batch: int) -> Inputs:
        return (torch.empty(batch, 50, 32),), {}

    step = Step(mode="train", loss="sum", iterations=1, precision="amp-fp16")
    trace = MemoryEstimator(Recurrent("LSTM"), inputs, step).trace(8)
    assert 5 * 2 * 50 * 8 * 64 * 2 in [a.size_bytes for a in trace.allocations]


def test_the_operators_of_torch_are_restored_after_a_trace() -> None:
    x = torch.ones(2, 4, 8, 16)
    before = torch.nn.functional.scaled_dot_product_attention(x, x, x)
    step = Step(mode="train", loss="sum", precision="amp-bf16")
    MemoryEstimator(nn.Linear(8, 8), lambda b: ((torch.empty(b, 8),), {}), step).trace(2)
    assert torch.equal(torch.nn.functional.scaled_dot_product_attention(x, x, x), before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16
        assert torch.nn.functional.layer_norm(torch.ones(2, 2).bfloat16(), (2,)).dtype is (
            torch.bfloat16
        )


def test_the_autocast_lists_name_operators_that_exist() -> None:
    assert all(hasattr(torch.ops.aten, name) for name in LOWER if name != "chain_matmul")


_NOT_OURS = {
    "_convolution", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell",
    "_scaled_dot_product_flash_attention",
}  # fmt: skip
"""Run inside other operators, which are cast already, or on CUDA tensors only."""


@pytest.mark.parametrize(
    ("macro", "names"),
    [
        ("AT_FORALL_LOWER_PRECISION_FP", autocast.LOWER),
        ("AT_FORALL_FP32", autocast.FP32),
        ("AT_FORALL_FP32_SET_OPT_DTYPE", autocast.FP32_OUTPUT),
        ("AT_FORALL_PROMOTE", autocast.WIDEST),
    ],
)
def test_the_autocast_lists_are_those_of_the_installed_torch(macro: str, names: list[str]) -> None:
    header = Path(torch.__file__).parent / "include" / "ATen" / "autocast_mode.h"
    lines = iter(header.read_text().splitlines())
    assert any(line.startswith(f"#define {macro}(_)") for line in lines)
    listed = set()
    for line in lines:
        listed |= set(re.findall(r"_\((\w+)", line)) - {"ADD_NS"}
        if not line.endswith("\\"):
            break
    assert listed - set(names) - _NOT_OURS == set()
    assert set(names) - listed == set()


def test_rms_norm_runs_in_fp32_under_autocast() -> None:
    model = nn.RMSNorm(1024)
    step = Step(mode="inference", precision="amp-bf16")

    def inputs(batch: int) -> Any:
        return (torch.zeros(batch, 1024, dtype=torch.bfloat16),), {}

    trace = MemoryEstimator(model, inputs, step).trace(64)
    assert max(a.size_bytes for a in trace.allocations) == 64 * 1024 * 4


def test_autocast_for_cuda_inside_forward_takes_effect() -> None:
    class Inside(nn.Module):
        def __init__(self, *, enabled: bool) -> None:
            super().__init__()
            self.enabled = enabled
            self.net = nn.Sequential(*[nn.Linear(64, 64), nn.GELU()] * 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.autocast("cuda", dtype=torch.float16, enabled=self.enabled):
                return self.net(x)

    def inputs(batch: int) -> Inputs:
        return (torch.zeros(batch, 64),), {}

    step = Step(mode="train", optimizer="adamw", loss="sum")
    inside = MemoryEstimator(Inside(enabled=True), inputs, step).estimate(4096)
    plain = MemoryEstimator(Inside(enabled=False), inputs, step).estimate(4096)
    amp = Step(mode="train", optimizer="adamw", loss="sum", precision="amp-fp16")
    outside = MemoryEstimator(Inside(enabled=True).net, inputs, amp).estimate(4096)
    assert inside.peak_allocated_bytes < 0.9 * plain.peak_allocated_bytes
    assert inside.peak_allocated_bytes == pytest.approx(outside.peak_allocated_bytes, rel=0.15)


def test_the_cast_of_a_part_of_a_weight_is_not_kept() -> None:
    """Attention over another sequence splits its weight; parts may have each other's ids."""

    class Split(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(4 * 512, 512))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for part in self.weight.split(512):
                x = nn.functional.linear(x, part)
            return x

    def inputs(batch: int) -> Inputs:
        return (torch.zeros(batch, 512),), {}

    step = Step(mode="inference", precision="amp-bf16")
    trace = MemoryEstimator(Split(), inputs, step).trace(1)
    held, most = 0, 0
    for event in trace.events:
        allocation = trace.allocations[event if event >= 0 else ~event]
        if allocation.size_bytes == 512 * 512 * 2:  # the cast of one part
            held += 1 if event >= 0 else -1
            most = max(most, held)
    assert most == 1


def test_every_trace_of_a_step_is_the_same() -> None:
    """torch keeps results of fake operators, without the padding of an attention bias."""

    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1, 4, 8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x, self.bias)

    def inputs(batch: int) -> Inputs:
        return (torch.zeros(batch, 4, 8, 16),), {}

    model, step = Biased(), Step(mode="train", loss="sum", optimizer="sgd")
    traces = [MemoryEstimator(model, inputs, step).trace(2) for _ in range(3)]
    assert traces[1:] == traces[:2]
