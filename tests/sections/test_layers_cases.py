"""Every model of the known traps (CASES.md) that concerns layers, with its right answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from layer_models import Examine, Function, quantized, row, tensor
from torch import Tensor, nn

from reportgen.sections.layers import Layers


class Blocks(nn.Module):
    """Three blocks of two Linear(4, 4), and one ReLU in all of them."""

    def __init__(self) -> None:
        super().__init__()
        relu = nn.ReLU()
        self.blocks = nn.ModuleList(
            Function(
                lambda self, x: self.relu(self.layers[1](self.relu(self.layers[0](x)))),
                layers=nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]),
                relu=relu,
            )
            for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def bypassed_hooks() -> nn.Module:
    wrapper = Function(lambda self, x: self.inner.forward(x), inner=nn.Linear(3, 5))
    return nn.Sequential(wrapper, nn.Linear(5, 5))


def attention() -> nn.Module:
    return Function(lambda self, x: self.a(x, x, x)[0],
                    a=nn.MultiheadAttention(448, 4, batch_first=True))  # fmt: skip


def branch() -> nn.Module:
    return Function(lambda self, x: self.a(x) if x.sum() > 1e9 else self.b(x),
                    a=nn.Linear(4, 4), b=nn.Linear(4, 4), unused=nn.Linear(100, 100))  # fmt: skip


def four_times() -> nn.Module:
    return Function(lambda self, x: self.f(self.f(self.f(self.f(x)))), f=nn.Linear(5, 5))


def plain_list() -> nn.Module:
    return Function(lambda self, x: self.head(self.extra[2](self.extra[1](self.extra[0](x)))),
                    head=nn.Linear(4, 2), extra=[nn.Linear(4, 4) for _ in range(3)])  # fmt: skip


def of_a_dict() -> nn.Module:
    return Function(lambda self, x: self.f(x["list"][0]) + x["deep"]["b"], f=nn.Linear(4, 4))


DICT = {
    "name": "x",
    "fields": {
        "list": {"items": [tensor(4), tensor(2)]},
        "deep": {"fields": {"b": tensor(4)}},
        "mode": {"value": {"value": "fast"}},
    },
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A model's inputs and what is right of it."""

    inputs: list[Any]
    batch: int = 1
    right: dict[str, Any] = field(default_factory=dict)


CASES: dict[str, tuple[Any, Case]] = {
    "one ReLU in three blocks": (
        Blocks,
        Case(inputs=[tensor(4)], right={"parameters": 120, "macs": 96}),
    ),
    "a layer reached by .forward()": (
        bypassed_hooks,
        Case(
            inputs=[tensor(3)],
            batch=32,
            right={"parameters": 50, "parameter_bytes": 200, "macs": 1_280},
        ),
    ),
    "fused attention": (
        attention,
        Case(inputs=[tensor(300, 448)], right={"parameters": 804_608, "macs": 321_484_800}),
    ),
    "LSTM(10, 20)": (
        lambda: nn.LSTM(10, 20),
        Case(
            inputs=[{"shape": [5, 3, 10]}],
            right={
                "parameters": 2_560,
                "macs": 36_000,
                "output_shapes": {"0": (5, 3, 20), "1.0": (1, 3, 20), "1.1": (1, 3, 20)},
            },
        ),
    ),
    "attention as a function, on the CPU": (
        lambda: Function(lambda _, q: F.scaled_dot_product_attention(q, q, q)),
        Case(inputs=[tensor(12, 64, 64)], right={"flops": 12_582_912}),
    ),
    "outputs by key": (
        lambda: Function(lambda _, a, b: {"a": a, "b": b}),
        Case(
            inputs=[tensor(4), tensor(400)],
            batch=2,
            right={"output_shapes": {"a": (2, 4), "b": (2, 400)}},
        ),
    ),
    "a list of three outputs": (
        lambda: Function(lambda _, x: [x, x[:1], None, x.sum()]),
        Case(inputs=[tensor(4)], right={"output_shapes": {"0": (1, 4), "1": (1, 4), "3": ()}}),
    ),
    "one dict as argument": (
        of_a_dict,
        Case(
            inputs=[DICT],
            batch=2,
            right={"parameters": 20, "macs": 32, "input_constants": {"x.mode": "'fast'"}},
        ),
    ),
    "an embedding looks up": (
        lambda: nn.Sequential(nn.Embedding(50_000, 64), nn.Linear(64, 10)),
        Case(
            inputs=[tensor(16, dtype="int64", high=50_000)],
            right={"parameters": 3_200_650, "macs": 10_240},
        ),
    ),
    "dynamic int8": (
        lambda: quantized(
            nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), nn.Linear
        ),
        Case(
            inputs=[tensor(64)],
            right={
                "parameters": 4_810,
                "quantized_parameters": 4_810,
                "quantized_bytes": 4_736,
                "bytes_by_dtype": {"float32": 296, "qint8": 4_736},
                "macs": 4_736,
            },
        ),
    ),
    "lazy layers": (
        lambda: nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(10)),
        Case(inputs=[tensor(3, 8, 8)], right={"parameters": 3_114, "macs": 10_656}),
    ),
    "a branch on values": (
        branch,
        Case(
            inputs=[tensor(4)],
            right={
                "parameters": 10_140,
                "macs": 16,
                "unused_parameters": ("a.weight", "a.bias", "unused.weight", "unused.bias"),
            },
        ),
    ),
    "one layer four times": (
        four_times,
        Case(inputs=[tensor(5)], batch=6, right={"parameters": 30, "macs": 600}),
    ),
    "layers in a plain list": (
        plain_list,
        Case(inputs=[tensor(4)], right={"parameters": 10, "macs": 56}),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_known_trap_is_counted_right(look: Examine, name: str) -> None:
    make, case = CASES[name]
    result = look(make(), *case.inputs, batch=case.batch)
    assert {key: getattr(result, key) for key in case.right} == case.right
    assert result.parameters_of_rows == result.parameters
    assert result.macs_of_rows == result.macs
    assert result.uncounted == ()


def test_known_traps_are_right_in_the_rows(look: Examine) -> None:
    blocks = look(Blocks(), tensor(4))
    assert [row(blocks, f"blocks.{i}.relu").calls for i in range(3)] == [2, 2, 2]
    hooks = look(bypassed_hooks(), tensor(3))
    assert row(hooks, "0.inner").executed_via == "forward"
    again = look(four_times(), tensor(5))
    assert row(again, "f").calls == 4
    hidden = look(plain_list(), tensor(4))
    assert sum(item.parameters for item in hidden.unregistered) == 60


def test_the_row_of_an_attentions_projection_has_shapes_and_cost(look: Examine) -> None:
    projection = row(look(attention(), tensor(300, 448)), "a.out_proj")
    assert (projection.macs, projection.executed_via) == (300 * 448 * 448, "weights")
    assert (projection.input_shapes, projection.output_shapes) == (((300, 448),), ((300, 448),))


def mbart(*, tied: bool) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.MBartConfig(
        vocab_size=50_000, d_model=384, decoder_layers=2, decoder_ffn_dim=1536,
        decoder_attention_heads=6, max_position_embeddings=1024, tie_word_embeddings=tied,
        use_cache=False, is_decoder=True,
    )  # fmt: skip
    with torch.device("meta"):
        made: nn.Module = transformers.MBartForCausalLM(config)
    return made


@pytest.mark.parametrize(("tied", "parameters"), [(True, 24_328_704), (False, 43_528_704)])
def test_a_tied_decoder_is_smaller_than_an_untied_one(
    look: Examine, tied: bool, parameters: int
) -> None:
    ids = {"name": "input_ids", "dtype": "int64", "high": 50_000, "keyword": True}
    result = look(mbart(tied=tied), ids | {"shape": ["batch", 8]})
    assert (result.parameters, result.parameters_of_rows) == (parameters, parameters)
    assert result.parameters_by_path == 43_528_704
    tie = ("model.decoder.embed_tokens.weight", "lm_head.weight")
    assert result.tied == ((tie,) if tied else ())
    assert result.method == "fake"


def test_resnet50_has_its_known_figures(look: Examine) -> None:
    torchvision = pytest.importorskip("torchvision")
    with torch.device("meta"):
        model = torchvision.models.resnet50()
    result: Layers = look(model, tensor(3, 224, 224), batch=8)
    assert (result.parameters, result.parameter_bytes) == (25_557_032, 102_228_128)
    assert (result.buffers_bytes, result.macs) == (212_904, 8 * 4_089_184_256)
    assert result.forward_backward.macs is not None
    first = 8 * 112 * 112 * 64 * 3 * 49  # nobody asks for the picture's gradient
    assert result.forward_backward.macs == 3 * result.macs - first
