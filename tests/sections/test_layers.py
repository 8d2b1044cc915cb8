"""Layers and cost: closed forms first, then the ways in which models hide their parts."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import make_study
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_models import Examine, Function, quantized, row, tensor
from torch import Tensor, nn

from reportgen.errors import SectionError
from reportgen.sections.layers import analyze
from reportgen.sections.layers.metrics import metrics_of

# Cost: closed forms ---------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(
    batch=st.integers(1, 5),
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    groups=st.integers(1, 3),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
)
def test_a_convolution_costs_its_closed_form(
    tmp_path_factory: pytest.TempPathFactory,
    batch: int,
    inputs: int,
    outputs: int,
    groups: int,
    kernel: int,
    stride: int,
) -> None:
    convolution = nn.Conv2d(inputs * groups, outputs * groups, kernel, stride, groups=groups)
    context = make_study(
        convolution, tensor(inputs * groups, 9, 9), folder=tmp_path_factory.mktemp("c"), batch=batch
    )
    result = analyze(context)
    side = (9 - kernel) // stride + 1
    assert result.macs == batch * outputs * groups * side**2 * inputs * kernel**2
    assert result.flops == 2 * result.macs
    assert result.output_shapes == {"": (batch, outputs * groups, side, side)}


@pytest.mark.parametrize(
    ("model", "inputs", "batch", "macs"),
    [
        (nn.Linear(64, 128), [tensor(50, 64)], 1, 409_600),
        (nn.Linear(4, 5), [{"shape": [4]}], 1, 20),
        (nn.Bilinear(4, 5, 6), [tensor(4), tensor(5)], 2, 2 * 6 * 5 * (4 + 1)),
        (nn.LSTM(10, 20), [{"shape": [5, 3, 10]}], 1, 36_000),
        (nn.GRU(10, 20, bidirectional=True), [{"shape": [5, 3, 10]}], 1, 54_000),
        (nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), [tensor(50, 64)], 1, 1_958_400),
        (nn.ConvTranspose2d(3, 5, 2), [tensor(3, 4, 4)], 2, 2 * 16 * 3 * 5 * 4),
        (Function(lambda _, a, b: a @ b), [tensor(3, 4), tensor(4, 5)], 2, 2 * 3 * 4 * 5),
        (Function(lambda _, a, b: torch.dot(a, b)), [{"shape": [7]}, {"shape": [7]}], 1, 7),
        (Function(lambda _, a, b: torch.outer(a, b)), [{"shape": [7]}, {"shape": [3]}], 1, 0),
        (nn.Sequential(nn.Embedding(50_000, 64), nn.Linear(64, 10)),
         [tensor(16, dtype="int64", high=50_000)], 1, 10_240),
    ],
)  # fmt: skip
def test_the_cost_of_a_layer_is_its_closed_form(
    look: Examine, model: nn.Module, inputs: list[Any], batch: int, macs: int
) -> None:
    result = look(model, *inputs, batch=batch)
    assert result.macs == macs
    assert result.uncounted == ()
    assert result.method == "fake"


def test_attention_is_counted_with_its_projections(look: Examine) -> None:
    attention = nn.MultiheadAttention(448, 4, batch_first=True)
    model = Function(lambda self, x: self.attention(x, x, x)[0], attention=attention)
    result = look(model, tensor(300, 448))
    assert (result.parameters, result.macs) == (804_608, 321_484_800)
    projection = row(result, "attention.out_proj")
    assert (projection.executed_via, projection.macs) == ("weights", 300 * 448 * 448)
    assert result.unused_parameters == ()


def test_the_fused_encoder_path_is_counted(look: Examine) -> None:
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    result = look(nn.TransformerEncoder(layer, 2), tensor(50, 64))
    assert result.macs == 2 * 1_958_400
    assert torch.backends.mha.get_fastpath_enabled()
    assert all(
        layer.macs for layer in result.layers if layer.parameters and "norm" not in layer.path
    )


def test_scaled_dot_product_attention_on_the_cpu_is_counted(look: Examine) -> None:
    model = Function(lambda _, q: F.scaled_dot_product_attention(q, q, q))
    assert look(model, tensor(12, 64, 64)).flops == 12_582_912


def test_an_lstm_lists_its_three_outputs(look: Examine) -> None:
    result = look(nn.LSTM(10, 20), {"shape": [5, 3, 10]})
    assert result.parameters == 2_560
    assert result.output_shapes == {"0": (5, 3, 20), "1.0": (1, 3, 20), "1.1": (1, 3, 20)}


def test_costs_of_rows_add_up_to_the_total(look: Examine) -> None:
    inner = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.Sequential(nn.Linear(8, 16), inner, nn.Linear(16, 4))
    result = look(model, tensor(5, 8), batch=3)
    assert sum(layer.own_macs for layer in result.layers) == result.macs == row(result, "").macs
    assert sum(layer.own_parameters for layer in result.layers) == result.parameters


@pytest.mark.slow
def test_the_total_agrees_with_torchs_own_counter(look: Examine) -> None:
    torchvision = pytest.importorskip("torchvision")
    from torch.utils.flop_counter import FlopCounterMode

    model = torchvision.models.mobilenet_v3_small().eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, 64, 64))
    assert look(model, tensor(3, 64, 64), batch=2).flops == counter.get_total_flops()


def test_operators_without_a_formula_are_listed_and_free_ones_are_not(look: Examine) -> None:
    model = Function(lambda self, x: torch.linalg.matrix_exp(self.norm(x).softmax(-1)).sum(),
                     norm=nn.LayerNorm(8))  # fmt: skip
    result = look(model, tensor(8, 8))
    assert [(item.operator, item.calls) for item in result.uncounted] == [
        ("aten.linalg_matrix_exp", 1)
    ]
    assert result.uncounted[0].bytes == 2 * 8 * 8 * 4
    assert result.operator_calls == 4  # with the norm, the softmax and the sum


# Trees: what really ran ------------------------------------------------------------------------


def test_one_instance_in_three_blocks_has_a_row_in_each(look: Examine) -> None:
    relu = nn.ReLU()

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.relu = relu

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = self.relu(layer(x))
            return x

    result = look(nn.Sequential(Block(), Block(), Block()), tensor(4))
    assert (result.parameters, result.macs) == (120, 96)
    assert [row(result, f"{i}.relu").calls for i in range(3)] == [2, 2, 2]
    assert [row(result, f"{i}.relu").shared_with for i in range(3)] == [None, "0.relu", "0.relu"]
    assert row(result, "1.layers").executed_via == "children"


def test_one_layer_called_four_times_is_counted_four_times_and_held_once(look: Examine) -> None:
    model = Function(lambda self, x: self.f(self.f(self.f(self.f(x)))), f=nn.Linear(5, 5))
    result = look(model, tensor(5), batch=6)
    assert (result.parameters, result.macs, row(result, "f").calls) == (30, 600, 4)


def test_items_of_a_sequence_that_are_one_layer_take_turns(look: Examine) -> None:
    layer = nn.Linear(5, 5)
    result = look(nn.Sequential(layer, layer, layer), tensor(5))
    assert result.parameters == 30
    assert [(item.calls, item.macs, item.shared_with) for item in result.layers[1:]] == [
        (1, 25, None), (1, 25, "0"), (1, 25, "0")
    ]  # fmt: skip


def test_a_layer_called_by_forward_is_counted_and_noted(look: Examine) -> None:
    wrapper = Function(lambda self, x: self.inner.forward(x), inner=nn.Linear(3, 5))
    result = look(nn.Sequential(wrapper, nn.Linear(5, 5)), tensor(3), batch=32)
    assert (result.parameters, result.parameter_bytes, result.macs) == (50, 200, 1_280)
    assert row(result, "0.inner").executed_via == "forward"
    assert row(result, "0.inner").output_shapes == ((32, 5),)
    assert any("hooks were bypassed" in note for note in result.notes)


def test_parameters_used_without_a_module_are_used(look: Examine) -> None:
    model = Function(
        lambda self, x: F.linear(x, self.weight) + self.more[0] * self.named["a"],
        weight=nn.Parameter(torch.zeros(4, 3)),
        more=nn.ParameterList([nn.Parameter(torch.zeros(4))]),
        named=nn.ParameterDict({"a": nn.Parameter(torch.zeros(4))}),
    )
    result = look(model, tensor(3), batch=2)
    assert (result.parameters, result.macs, result.unused_parameters) == (20, 24, ())


def test_a_parameter_that_is_viewed_and_returned_is_used(look: Examine) -> None:
    model = Function(lambda self, x: (x, self.query[None]), query=nn.Parameter(torch.zeros(3)))
    assert look(model, tensor(3)).unused_parameters == ()


def test_a_data_dependent_branch_is_traced_on_a_real_run(look: Examine) -> None:
    model = Function(
        lambda self, x: self.a(x) if x.sum() > 1e9 else self.b(x),
        a=nn.Linear(4, 4), b=nn.Linear(4, 4), unused=nn.Linear(100, 100),
    )  # fmt: skip
    result = look(model, tensor(4))
    assert (result.parameters, result.macs, result.method) == (10_140, 16, "real")
    assert result.unused_parameters == ("a.weight", "a.bias", "unused.weight", "unused.bias")
    assert sum(row(result, path).unused_parameters for path in ("a", "unused")) == 10_120
    assert "data-dependent control flow" in result.notes[0]
    assert "test_layers.py:" in result.notes[0]


def test_a_real_run_uses_the_batch_of_the_manifest_where_that_is_cheap(look: Examine) -> None:
    model = Function(lambda self, x: self.f(x) * x.sum().item(), f=nn.Linear(4, 4))
    assert (result := look(model, tensor(4), batch=7)).batch == 7
    assert result.macs == 7 * 16


def test_a_costly_real_run_uses_one_sample_and_a_note(look: Examine) -> None:
    model = Function(lambda self, x: self.f(x).sum().item() + x, f=nn.Linear(4096, 4096))
    result = look(model, tensor(4096), batch=2000)
    assert (result.batch, result.macs) == (1, 4096 * 4096)
    assert "1 instead of 2000 samples" in result.notes[0]


def test_tied_weights_are_counted_once_and_named(look: Examine) -> None:
    model = nn.Sequential(nn.Embedding(11, 3), nn.Linear(3, 11, bias=False))
    model[1].weight = model[0].weight
    result = look(model, tensor(5, dtype="int64", high=11))
    assert (result.parameters, result.parameter_bytes) == (33, 132)
    assert result.tied == (("0.weight", "1.weight"),)
    assert result.unused_parameters == ()


def test_frozen_parameters_and_buffers_are_counted_separately(look: Examine) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    model[0].requires_grad_(False)
    result = look(model, tensor(4), batch=2)
    assert (result.parameters, result.trainable_parameters) == (28, 8)
    assert (row(result, "0").trainable, row(result, "1").trainable) == (False, True)
    assert (result.buffers, result.buffers_bytes) == (9, 40)
    assert result.bytes_by_dtype == {"float32": (28 + 8) * 4, "int64": 8}


def test_three_layers_in_a_plain_list_are_unregistered(look: Examine) -> None:
    model = Function(lambda self, x: self.head(self.extra[2](self.extra[1](self.extra[0](x)))),
                     head=nn.Linear(4, 2), extra=[nn.Linear(4, 4) for _ in range(3)])  # fmt: skip
    result = look(model, tensor(4))
    assert (result.parameters, result.macs) == (10, 3 * 16 + 8)
    assert [item.path for item in result.unregistered] == ["extra[0]", "extra[1]", "extra[2]"]
    assert sum(item.parameters for item in result.unregistered) == 60


def test_parameters_in_dicts_objects_and_closures_are_unregistered(look: Examine) -> None:
    class Box:
        def __init__(self) -> None:
            self.scale = nn.Parameter(torch.ones(3))

    outside = nn.Linear(3, 3)
    model = Function(lambda self, x: outside(self.table["a"](x)) * self.box.scale,
                     table={"a": nn.Linear(3, 3)}, box=Box())  # fmt: skip
    result = look(model, tensor(3))
    assert [(item.path, item.parameters) for item in result.unregistered] == [
        ("table['a']", 12), ("box.scale", 3), ("function → outside", 12)
    ]  # fmt: skip


def test_registered_modules_held_twice_are_no_finding(look: Examine) -> None:
    layers = nn.ModuleList([nn.Linear(3, 3)])
    model = Function(lambda self, x: self.shortcut[0](x), layers=layers, shortcut=list(layers))
    assert look(model, tensor(3)).unregistered == ()


def test_a_head_used_only_in_training_is_listed(look: Examine) -> None:
    model = Function(lambda self, x: (self.a(x), self.aux(x)) if self.training else self.a(x),
                     a=nn.Linear(3, 3), aux=nn.Linear(3, 3))  # fmt: skip
    result = look(model, tensor(3))
    assert result.train_only_parameters == result.unused_parameters == ("aux.weight", "aux.bias")


# Inputs, outputs and layers of every kind --------------------------------------------------------


def test_every_leaf_of_an_output_stands_with_its_key(look: Examine) -> None:
    @dataclass
    class Output:
        logits: Tensor
        states: list[Tensor]
        nothing: None = None

    model = Function(lambda _, x: {"a": x, "deep": Output(x[:, :1], [x, x])})
    assert look(model, tensor(4), batch=2).output_shapes == {
        "a": (2, 4), "deep.logits": (2, 1), "deep.states.0": (2, 4), "deep.states.1": (2, 4),
    }  # fmt: skip


def test_a_model_without_output_or_parameters_has_zeros(look: Examine) -> None:
    result = look(Function(lambda _, x: None), tensor(4))
    assert (result.parameters, result.macs, result.output_shapes) == (0, 0, {})
    assert (result.unused_parameters, result.uncounted, result.tied) == ((), (), ())


def test_keyword_inputs_reach_the_model(look: Examine) -> None:
    model = Function(lambda self, x, *, mask: self.f(x) * mask, f=nn.Linear(4, 4))
    mask = {"name": "mask", "shape": ["batch", 4], "keyword": True}
    result = look(model, {"name": "x", "shape": ["batch", 4]}, mask, batch=3)
    assert result.input_shapes == {"x": (3, 4), "mask": (3, 4)}
    assert row(result, "").input_keys == ("0", "mask")


def test_lazy_layers_are_counted_and_left_lazy(look: Examine) -> None:
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(10)).eval()
    lazy = look(model, tensor(3, 8, 8))
    assert (lazy.parameters, lazy.macs, lazy.method) == (3_114, 10_656, "fake")
    assert isinstance(model[0], nn.LazyConv2d)
    assert all(nn.parameter.is_lazy(p) for p in model.parameters())
    model(torch.zeros(1, 3, 8, 8))
    materialized = look(model, tensor(3, 8, 8))
    assert (materialized.parameters, materialized.macs) == (3_114, 10_656)
    assert [layer.type for layer in materialized.layers] == [layer.type for layer in lazy.layers]


def test_the_size_of_an_uncalled_lazy_layer_is_unknown(look: Examine) -> None:
    model = Function(lambda self, x: self.f(x), f=nn.LazyLinear(3), spare=nn.LazyLinear(4))
    with pytest.raises(SectionError, match=r"spare\.weight belongs to a lazy layer .* unknown"):
        look(model, tensor(4))


def test_a_lazy_model_whose_forward_raises_is_reported(look: Examine) -> None:
    model = Function(lambda self, x: self.f(x) @ torch.zeros(99, 1), f=nn.LazyLinear(3))
    with pytest.raises(SectionError, match=r"lazy layers are unknown.*mat1 and mat2"):
        look(model, tensor(4))


@pytest.mark.parametrize(
    "normed",
    [
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)),
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 5)),
        lambda: nn.utils.weight_norm(nn.Linear(4, 5)),
    ],
    ids=["weight norm", "spectral norm", "old weight norm"],
)
def test_parametrized_layers_are_counted(look: Examine, normed: Callable[[], nn.Module]) -> None:
    model = normed()
    result = look(model, tensor(4), batch=2)
    assert row(result, "").own_macs == 40
    assert result.unused_parameters == ()
    assert result.parameters == sum(p.numel() for p in model.parameters())


def test_dynamically_quantized_layers_count_their_logical_parameters(look: Examine) -> None:
    model = quantized(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), nn.Linear)
    result = look(model, tensor(64), batch=2)
    assert (result.parameters, result.quantized_parameters) == (4_810, 4_810)
    assert result.bytes_by_dtype == {"float32": 296, "qint8": 4_736}
    assert (result.macs, result.uncounted) == (2 * 4_736, ())
    assert [layer.path for layer in result.layers] == ["", "0", "1", "2"]


def test_packed_weights_are_identified_by_module_and_name(look: Examine, tmp_path: Path) -> None:
    many = quantized(nn.Sequential(*[nn.Linear(8, 8) for _ in range(40)]), nn.Linear)
    model = nn.Sequential(many, many[0])
    result = look(model, tensor(8))
    assert (result.parameters, result.parameters_of_rows) == (40 * 72, 40 * 72)
    assert result.parameters_by_path == 41 * 72
    assert (tmp_path / "summary.txt").read_text(encoding="utf-8").count("(shared)") == 1


def test_quantized_recurrent_layers_count_their_logical_parameters(look: Examine) -> None:
    plain = nn.LSTM(4, 6)
    model = quantized(nn.Sequential(plain), nn.LSTM)
    result = look(model, {"shape": [5, 3, 4]})
    assert result.parameters == sum(p.numel() for p in plain.parameters())
    assert (result.macs, result.uncounted) == (5 * 3 * 4 * 6 * (4 + 6), ())
    assert [layer.path for layer in result.layers] == ["", "0"]


def test_complex_layers_are_counted_and_noted(look: Examine) -> None:
    result = look(nn.Linear(4, 5, dtype=torch.complex64), tensor(4, dtype="complex64"))
    assert (result.parameters, result.parameter_bytes, result.macs) == (25, 200, 20)
    assert any("complex" in note for note in result.notes)


def test_a_sparse_product_costs_by_what_it_holds(look: Examine) -> None:
    matrix = torch.eye(10).to_sparse()
    result = look(Function(lambda _, x: torch.sparse.mm(matrix, x)), {"shape": [10, 3]})
    assert (result.method, result.macs) == ("real", 10 * 3)
    assert "not in its shape" in result.notes[0]


# Failing, and leaving no trace -------------------------------------------------------------------


def test_a_forward_that_raises_is_reported_with_its_location(look: Examine) -> None:
    def broken(self: nn.Module, x: Tensor) -> Tensor:
        raise ValueError("three channels, please\nand more")

    failure = look(Function(broken), tensor(4), batch=2).failure
    assert failure is not None
    assert failure.message.startswith("ValueError: three channels, please (test_layers.py:")
    assert "inputs" in failure.hint


def test_wrong_inputs_are_reported(look: Examine) -> None:
    failure = look(nn.Sequential(nn.Linear(3, 2)), tensor(4)).failure
    assert failure is not None
    assert (failure.module, failure.message) == ("0", "expected 3 input features, got 4")
    assert "inputs" in failure.hint


def test_a_table_ends_at_the_failure(look: Examine, tmp_path: Path) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(8, 16, 3), nn.ReLU(), nn.MaxPool2d(2),
            )  # fmt: skip
            self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(400, 10), nn.Softmax(1))

        def forward(self, x: Tensor) -> Any:
            return self.classifier(self.features(x))

    result = look(Broken(), tensor(3, 32, 32), batch=2)
    assert result.parameters == 5_402
    assert result.failure is not None
    assert result.failure.module == "classifier.1"
    assert result.failure.message.startswith(
        "expected 400 input features, got 576 (test_layers.py:"
    )
    assert "classifier.1" in result.failure.hint
    assert (result.unused_parameters, result.unregistered) == ((), ())
    assert {r.path: r.output_shapes for r in result.layers if r.executed_via == "called"} == {
        "features": ((2, 16, 6, 6),),
        "features.0": ((2, 8, 30, 30),),
        "features.1": ((2, 8, 30, 30),),
        "features.2": ((2, 8, 15, 15),),
        "features.3": ((2, 16, 13, 13),),
        "features.4": ((2, 16, 13, 13),),
        "features.5": ((2, 16, 6, 6),),
        "classifier.0": ((2, 576),),
    }
    rest = {r.path: (r.executed_via, r.input_shapes) for r in result.layers if not r.calls}
    assert rest["classifier.1"] == ("failed", ((2, 576),))
    assert rest["classifier.2"][0] == "unknown"
    metrics = {metric.key: metric.value for metric in metrics_of(result)}
    assert (metrics["layers.parameters"], metrics["layers.macs"]) == (5_402, None)
    assert "classifier.1: expected 400" in (tmp_path / result.summary_file).read_text()


def state_of(model: nn.Module) -> list[Any]:
    return [
        {name: bytes(value.numpy().tobytes()) for name, value in model.state_dict().items()},
        [module.training for module in model.modules()],
        [sorted(vars(module)) for module in model.modules()],
        torch.get_rng_state().tolist(),
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
    ]


@pytest.mark.parametrize("kind", ["fake", "real", "failing"])
def test_the_model_is_restored(look: Examine, kind: str) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.calls += 1
        self.cache = x * 2
        self.seen[len(self.seen)] = x
        if kind != "fake":
            float(x.sum())
        y = F.dropout(self.norm(self.f(x)), training=True)
        return y if kind != "failing" else y @ torch.zeros(99, 1)

    model = Function(forward, f=nn.Linear(4, 4), norm=nn.BatchNorm1d(4), seen={})
    model.register_buffer("calls", torch.zeros((), dtype=torch.int64))
    model.eval()
    before = state_of(model)
    result = look(model, tensor(4), batch=3)
    assert (result.failure is not None) == (kind == "failing")
    assert result.method == ("real" if kind == "failing" else kind)
    assert state_of(model) == before
    assert not hasattr(model, "cache")
    assert model.seen == {}
    assert "forward" not in vars(model)


def test_the_same_model_gives_the_same_result_twice_and_after_a_failure(
    look: Examine, tmp_path: Path
) -> None:
    model = nn.TransformerEncoderLayer(16, 2, 32)
    first = look(model, tensor(5, 16))
    files = [(tmp_path / name).read_bytes() for name in (first.table_file, first.summary_file)]
    assert look(nn.Linear(3, 2), tensor(4)).failure is not None
    assert look(model, tensor(5, 16)) == first
    assert [(tmp_path / n).read_bytes() for n in (first.table_file, first.summary_file)] == files


@pytest.mark.parametrize("validate", [True, False])
def test_disabled_distribution_validation_makes_no_difference(
    look: Examine, validate: bool
) -> None:
    """Dynamo switches the validation of distributions off for the whole process."""
    before = torch.distributions.Distribution._validate_args
    model = Function(lambda self, x: torch.distributions.Normal(self.f(x), 1.0).mean,
                     f=nn.Linear(4, 4))  # fmt: skip
    torch.distributions.Distribution.set_default_validate_args(validate)
    try:
        result = look(model, tensor(4))
        assert torch.distributions.Distribution._validate_args is validate
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)
    assert (result.method, result.macs) == ("fake", 16)


# Words -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Conv2d(64, 128, 3, stride=2), "Conv2d(64, 128, kernel 3x3, stride 2)"),
        (nn.Conv2d(8, 8, (1, 3), groups=8), "Conv2d(8, 8, kernel 1x3, groups 8)"),
        (nn.Linear(3, 4, bias=False), "Linear(3, 4, no bias)"),
        (nn.LSTM(3, 4, 2, bidirectional=True), "LSTM(3, 4, 2 layers, bidirectional)"),
        (nn.MultiheadAttention(8, 2), "MultiheadAttention(8, 2 heads)"),
        (nn.MaxPool2d(2), "MaxPool2d(kernel 2)"),
        (nn.LayerNorm((3, 4)), "LayerNorm(3x4)"),
        (nn.Dropout(0.25), "Dropout(0.25)"),
        (nn.ReLU(inplace=True), "ReLU"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), "Linear(3, 4) parametrized"),
    ],
)
def test_describe_shows_the_main_arguments(module: nn.Module, words: str) -> None:
    from reportgen.sections.layers.modules import describe

    assert describe(module) == words


def test_a_long_or_broken_description_is_cut_or_left_out() -> None:
    from reportgen.sections.layers.modules import describe

    class Talkative(nn.Module):
        def extra_repr(self) -> str:
            return f"function=<function f at 0x7f00>,\n {'many words ' * 20}"

    class Broken(nn.Module):
        def extra_repr(self) -> str:
            raise RuntimeError

    assert len(describe(Talkative())) <= 60
    assert "0x" not in describe(Talkative())
    assert describe(Broken()) == "Broken"


# Files -------------------------------------------------------------------------------------------


def test_layers_csv_has_every_layer_and_no_formula(look: Examine, tmp_path: Path) -> None:
    model = nn.ModuleDict({"=cmd()": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    result = look(Function(lambda self, x: self.parts["=cmd()"](x), parts=model), tensor(3))
    text = (tmp_path / result.table_file).read_bytes()
    assert b"\r" not in text
    rows = list(csv.DictReader(io.StringIO(text.decode())))
    assert len(rows) == len(result.layers) == 4
    assert rows[0]["output_shapes"] == "1x3"
    assert rows[3]["calls"] == "0"


def test_layers_csv_has_every_column(look: Examine, tmp_path: Path) -> None:
    pair = Function(lambda _, x, *, scale: {"a": x, "b": scale})
    model = Function(
        lambda self, x: self.pair(self.pool(self.f(x)), scale=x.sum()),
        f=nn.Conv2d(4, 6, (1, 3), groups=2),
        pool=nn.MaxPool2d(2),
        pair=pair,
    )
    result = look(model, tensor(4, 6, 6), batch=2)
    rows = list(csv.DictReader(io.StringIO((tmp_path / result.table_file).read_text())))
    convolution = rows[1]
    right = {
        "path": "f", "input_shapes": "2x4x6x6", "output_shapes": "2x6x6x4", "dtype": "float32",
        "output_dtype": "float32", "kernel": "1x3", "groups": "2", "parameters": "42",
        "parameters_share": "1.000000", "macs": str(2 * 144 * 6), "macs_share": "1.000000",
        "trainable": "true", "calls": "1",
    }  # fmt: skip
    assert {key: convolution[key] for key in right} == right
    assert (rows[2]["kernel"], rows[2]["groups"]) == ("2x2", "")
    assert rows[3]["input_shapes"] == "0: 2x6x3x2; scale: scalar"
    assert rows[3]["output_shapes"] == "a: 2x6x3x2; b: scalar"


def test_frozen_parameters_are_named_once(look: Examine) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    model[0].weight.requires_grad_(False)
    result = look(model, tensor(3))
    assert (result.frozen, result.trainable_parameters) == (("0.weight",), 6)
    assert (result.parameters, result.parameters_by_path) == (15, 24)
    assert result.parameters_of_rows == 15


def test_a_cell_that_starts_like_a_formula_is_quoted(look: Examine, tmp_path: Path) -> None:
    model = Function(lambda self, x: getattr(self, "@sum")(x), **{"@sum": nn.Linear(3, 3)})
    result = look(model, tensor(3))
    assert "\n'@sum,\"Linear" in (tmp_path / result.table_file).read_text()


def test_the_flat_table_is_right_for_tuples_and_shared_layers(
    look: Examine, tmp_path: Path
) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        y, (h, _) = self.lstm(self.f(self.f(x)))
        return self.pair(y), h

    model = Function(forward, f=nn.Linear(4, 4), lstm=nn.LSTM(4, 6, batch_first=True),
                     pair=Function(lambda _, y: {"a": y, "b": y[:, 0]}))  # fmt: skip
    result = look(model, tensor(5, 4), batch=2)
    text = " ".join((tmp_path / result.summary_file).read_text().split())
    assert "Linear-1 [-1, 5, 4] 20 Linear-2 [-1, 5, 4] (shared)" in text
    assert "LSTM-3 [-1, 5, 6], [1, 2, 6], [1, 2, 6] 288" in text
    assert "Function-4 a: [-1, 5, 6], b: [-1, 6] 0" in text
    assert "Total params: 308" in text


def test_summary_has_our_tree_if_torchinfo_fails(look: Examine, tmp_path: Path) -> None:
    model = Function(lambda self, x: self.f(x["a"]), f=nn.Linear(4, 4))
    given = {"name": "x", "fields": {"a": tensor(4), "mode": {"value": {"value": "fast"}}}}
    result = look(model, given, batch=2)
    assert (result.parameters, result.macs) == (20, 32)
    text = (tmp_path / result.summary_file).read_text()
    if result.torchinfo.error is None:
        assert result.torchinfo.parameters == 20
    else:
        assert result.torchinfo.macs is None
        assert "torchinfo fails on this model" in text
        assert "f: Linear(4, 4)" in text


def test_torchinfo_is_skipped_for_deep_nesting(look: Examine) -> None:
    model: nn.Module = nn.Linear(4, 4)
    for _ in range(200):
        model = Function(lambda self, x: self.inner(x), inner=model)
    result = look(model, tensor(4))
    assert (len(result.layers), result.parameters, result.macs) == (201, 20, 16)
    assert result.torchinfo.error is not None
    assert "not run" in result.torchinfo.error


def test_torchscript_modules_run_for_real(look: Examine) -> None:
    scripted = torch.jit.script(nn.Linear(4, 4))
    result = look(nn.Sequential(scripted, nn.Linear(4, 2)), tensor(4), batch=3)
    assert (result.method, result.parameters, result.macs) == ("real", 30, 3 * 24)
    assert (result.unused_parameters, result.unregistered) == ((), ())


@pytest.mark.slow
def test_vgg16_has_its_known_figures(look: Examine, tmp_path: Path) -> None:
    from torchvision.models import vgg16

    with torch.device("meta"):
        model = vgg16()
    model = model.to_empty(device="cpu")
    result = look(model, tensor(3, 224, 224), batch=250)
    text = " ".join((tmp_path / result.summary_file).read_text().split())
    assert (result.parameters, result.macs) == (138_357_544, 250 * 15_470_264_320)
    for words in (
        "Conv2d-1 [-1, 64, 224, 224] 1,792",
        "Linear-39 [-1, 1000] 4,097,000",
        "Total params: 138,357,544",
        "Input size (MB): 0.57",
        "Forward/backward pass size (MB): 218.78",
        "Params size (MB): 527.79",
        "Estimated Total Size (MB): 747.15",
        "Forward/backward pass size (MB): 27113.42",
        "Estimated Total Size (MB): 27817.38",
        "Total parameters 138,357,544",
        "Forward/backward pass size (MiB) 25,857.38",
        "Total size (MiB) 26,528.72",
    ):
        assert words in text
    assert (
        result.torchinfo.activation_bytes
        == result.torchinfo.forward_backward_bytes
        == 27_113_424_000
    )


@pytest.mark.slow
def test_vit_costs_over_seventeen_billion(look: Examine) -> None:
    from torchvision.models import vit_b_16

    result = look(vit_b_16(), tensor(3, 224, 224))
    assert result.macs == 17_563_828_224
    assert result.torchinfo.macs is not None
    assert result.torchinfo.macs < result.macs / 50
    assert result.unused_parameters == ()
