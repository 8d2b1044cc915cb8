"""The models of the collected cases, written fresh, with the answers that stand beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.counts_cases.case import Case, Lambda


class Decoder(nn.Module):
    """As MBart's: scaled embedding, learned positions (two more than are used), head maybe tied."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(50_000, 384)
        self.positions = nn.Embedding(1026, 384)
        self.norm_in = nn.LayerNorm(384)
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(384, 4, 1536, batch_first=True) for _ in range(2)
        )
        self.norm_out = nn.LayerNorm(384)
        self.head = nn.Linear(384, 50_000, bias=False)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor, memory: Tensor) -> Tensor:
        where = torch.arange(2, 2 + ids.shape[1])
        x = self.norm_in(self.embed(ids) + self.positions(where))
        for layer in self.layers:
            x = layer(x, memory)
        logits: Tensor = self.head(self.norm_out(x))
        return logits


def _decoder_macs(tokens: int, memory: int) -> int:
    width, wide = 384, 1536
    own = 4 * tokens * width**2 + 2 * tokens * tokens * width
    cross = 2 * (tokens + memory) * width**2 + 2 * tokens * memory * width
    return 2 * (own + cross + 2 * tokens * width * wide) + tokens * width * 50_000


class SharedReluBlock(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = self.act(layer(x))
        return x


def shared_relu() -> nn.Module:
    act = nn.ReLU()
    return nn.Sequential(*(SharedReluBlock(act) for _ in range(3)))


def past_the_hooks() -> nn.Module:
    wrapper = Lambda(lambda self, x: self.inner.forward(x), inner=nn.Linear(3, 5))
    return nn.Sequential(wrapper, nn.Linear(5, 5))


def structured(self: Any, batch: dict[str, Any]) -> Tensor:
    assert isinstance(batch["mode"], str)
    first, second = batch["parts"]
    out: Tensor = self.linear(first + second + batch["more"]["x"])
    return out


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.unused = nn.Linear(100, 100)

    def forward(self, x: Tensor) -> Tensor:
        chosen: Tensor = self.a(x) if x.sum() > -1e9 else self.b(x)
        return chosen


class PlainList(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = [nn.Linear(4, 4) for _ in range(3)]
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x)
        return out


def four_times(self: Any, x: Tensor) -> Tensor:
    for _ in range(4):
        x = self.linear(x)
    return x


def dynamic_int8() -> nn.Module:
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    quantized: nn.Module = torch.ao.quantization.quantize_dynamic(
        model.eval(), {nn.Linear}, dtype=torch.qint8
    )
    return quantized


def tiny_llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    model: nn.Module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=100,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            use_cache=True,
        )
    )
    return model


def tiny_mbart(*, tied: bool) -> nn.Module:
    from transformers import MBartConfig, MBartForCausalLM

    model: nn.Module = MBartForCausalLM(
        MBartConfig(
            vocab_size=50_000,
            d_model=384,
            decoder_layers=2,
            decoder_attention_heads=4,
            decoder_ffn_dim=1536,
            tie_word_embeddings=tied,
        )
    )
    return model


def _named(name: str, **arguments: Any) -> Any:
    from torchvision import models

    return lambda: models.get_model(name, weights=None, **arguments)


_MEMORY = {"name": "memory", "shape": ["batch", 7, 384]}
_IDS = {"name": "ids", "shape": ["batch", 5], "dtype": "int64", "high": 50_000}
_LLAMA_LAYER = 2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64
_LLAMA_ATTENTION = 2 * 16 * 16 * 32

CASES = (
    *(
        Case(
            name=f"MBart-like decoder, {'tied' if tied else 'untied'}",
            source="torchinfo#377",
            model=lambda tied=tied: Decoder(tied=tied),
            inputs=(_IDS, _MEMORY),
            parameters=24_328_704 if tied else 43_528_704,
            macs=_decoder_macs(5, 7),
        )
        for tied in (True, False)
    ),
    *(
        Case(
            name=f"transformers' MBart decoder, {'tied' if tied else 'untied'}",
            source="torchinfo#377",
            model=lambda tied=tied: tiny_mbart(tied=tied),
            inputs=({**_IDS, "name": "input_ids"},),
            parameters=24_328_704 if tied else 43_528_704,
            # no encoder's states are given: the attention to them stays idle, with its norm
            macs=2 * (4 * 5 * 384**2 + 2 * 5 * 5 * 384 + 2 * 5 * 384 * 1536) + 5 * 384 * 50_000,
            unused_parameters=2 * (591_360 + 768),
        )
        for tied in (True, False)
    ),
    Case(
        name="one ReLU shared by three blocks",
        source="torchinfo#327",
        model=shared_relu,
        inputs=("batch,4",),
        parameters=120,
        macs=96,
        calls=(("0.act", 2), ("1.act", 2), ("2.act", 2)),
    ),
    Case(
        name="a layer reached by .forward()",
        source="torchinfo#366",
        model=past_the_hooks,
        inputs=("batch,3",),
        batch=32,
        parameters=50,
        macs=1_280,
        parameter_bytes=200,
        calls=(("0.inner", 1),),
    ),
    Case(
        name="MultiheadAttention(448, 4) on 1×300×448",
        source="thop#197, fvcore#153, ptflops#101",
        model=lambda: Lambda(
            lambda self, x: self.attention(x, x, x),
            attention=nn.MultiheadAttention(448, 4, batch_first=True),
        ),
        inputs=("batch,300,448",),
        parameters=804_608,
        macs=321_484_800,
        outputs={"0": (1, 300, 448), "1": (1, 300, 300)},
    ),
    Case(
        name="LSTM(10, 20) on 5×3×10",
        source="fvcore#98, calflops#55",
        model=lambda: nn.LSTM(10, 20),
        inputs=("5,3,10",),
        parameters=2_560,
        macs=36_000,
        outputs={"0": (5, 3, 20), "1.0": (1, 3, 20), "1.1": (1, 3, 20)},
    ),
    Case(
        name="scaled_dot_product_attention, 1×12×64×64",
        source="pytorch#195460",
        model=lambda: Lambda(lambda _, x: functional.scaled_dot_product_attention(x, x, x)),
        inputs=("batch,12,64,64",),
        parameters=0,
        macs=12_582_912 // 2,
    ),
    Case(
        name="tiny tied Llama, cache on, ids 2×16",
        source="pytorch#136582, torchview#44",
        model=tiny_llama,
        inputs=({"name": "input_ids", "shape": ["batch", 16], "dtype": "int64", "high": 100},),
        batch=2,
        parameters=100 * 32 + 2 * (_LLAMA_LAYER + 2 * 32) + 32,
        macs=2 * (16 * (2 * _LLAMA_LAYER + 100 * 32) + 2 * _LLAMA_ATTENTION),
    ),
    Case(
        name="a dict of two outputs",
        source="torchinfo#234",
        model=lambda: Lambda(
            lambda self, x: {"a": self.a(x), "b": self.b(x)},
            a=nn.Linear(8, 4),
            b=nn.Linear(8, 400),
        ),
        inputs=("batch,8",),
        batch=2,
        parameters=36 + 3_600,
        macs=2 * 8 * 404,
        outputs={"a": (2, 4), "b": (2, 400)},
    ),
    Case(
        name="a list of three outputs",
        source="torchinfo#234",
        model=lambda: Lambda(
            lambda self, x: [x, self.a(x), self.a(x) * 2], a=nn.Linear(8, 4, bias=False)
        ),
        inputs=("batch,8",),
        parameters=32,
        macs=64,
        outputs={"0": (1, 8), "1": (1, 4), "2": (1, 4)},
    ),
    Case(
        name="one dict argument: a list, a dict and a string",
        source="torchinfo#268",
        model=lambda: Lambda(structured, linear=nn.Linear(4, 4)),
        inputs=(
            {
                "fields": {
                    "parts": {"items": [{"shape": ["batch", 4]}, {"shape": ["batch", 4]}]},
                    "more": {"fields": {"x": {"shape": ["batch", 4]}}},
                    "mode": {"value": {"value": "mean"}},
                }
            },
        ),
        batch=2,
        parameters=20,
        macs=32,
    ),
    Case(
        name="Embedding(50000, 64) + Linear(64, 10)",
        source="torchinfo's README",
        model=lambda: nn.Sequential(nn.Embedding(50_000, 64), nn.Linear(64, 10)),
        inputs=("batch,16:int64<50000",),
        parameters=3_200_650,
        macs=10_240,
    ),
    Case(
        name="dynamic int8",
        source="torchinfo#29",
        model=dynamic_int8,
        inputs=("batch,64",),
        parameters=4_810,
        macs=64 * 64 + 64 * 10,
        parameter_bytes=4_736 + 296,
    ),
    Case(
        name="LazyConv2d + LazyLinear, not yet materialize_lazy",
        model=lambda: nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(10)),
        inputs=("batch,3,8,8",),
        parameters=3_114,
        macs=10_656,
    ),
    Case(
        name="a branch on x.sum(), an unused layer",
        source="pytorch#57776, Lightning#2919",
        model=Branch,
        inputs=("batch,4",),
        parameters=10_140,
        macs=16,
        unused_parameters=10_120,
    ),
    Case(
        name="one Linear(5, 5) applied four times",
        source="torchsummary#37",
        model=lambda: Lambda(four_times, linear=nn.Linear(5, 5)),
        inputs=("batch,5",),
        batch=6,
        parameters=30,
        macs=600,
        calls=(("linear", 4),),
    ),
    Case(
        name="three layers in a plain Python list",
        source="torchview#99",
        model=PlainList,
        inputs=("batch,4",),
        parameters=10,
        macs=3 * 16 + 8,
        unregistered=60,
    ),
    Case(
        name="ResNet-50, batch 8",
        source="torchinfo#187",
        model=_named("resnet50"),
        inputs=("batch,3,224,224",),
        batch=8,
        parameters=25_557_032,
        macs=8 * 4_089_184_256,
        parameter_bytes=102_228_128,
        buffers_bytes=212_904,
    ),
    Case(
        name="DenseNet-201",
        source="torchviz#71, netron#68",
        model=_named("densenet201"),
        inputs=("batch,3,224,224",),
        parameters=20_013_928,
        macs=4_291_365_888,
    ),
    Case(
        name="ViT-B/16",
        source="torchinfo's mult-adds",
        model=_named("vit_b_16"),
        inputs=("batch,3,224,224",),
        parameters=86_567_656,
        macs=196 * 768 * 768
        + 12 * (197 * 768 * (4 * 768 + 2 * 3072) + 2 * 197 * 197 * 768)
        + 768 * 1000,
    ),
)
