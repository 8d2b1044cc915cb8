"""Attention in its variants: projections, and 2 · queries · keys · width for the products."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.counts_cases.case import Case, Lambda


def attend(query: int, key: int, width: int, batch: int = 1) -> int:
    """Scores and weighted sum of all heads together."""
    return batch * 2 * query * key * width


def mha_macs(query: int, key: int, width: int, batch: int = 1) -> int:
    """Four projections, the outer two on queries and the inner two on keys, and attention."""
    return batch * 2 * (query + key) * width**2 + attend(query, key, width, batch)


def mha_parameters(width: int) -> int:
    return 4 * width * (width + 1)


def feed_forward(width: int, wide: int) -> tuple[int, int]:
    """Parameters, and multiply-adds of a token."""
    return 2 * width * wide + width + wide, 2 * width * wide


def encoder_parameters(width: int, wide: int) -> int:
    return mha_parameters(width) + feed_forward(width, wide)[0] + 4 * width


def encoder_macs(tokens: int, width: int, wide: int, batch: int = 1) -> int:
    return mha_macs(tokens, tokens, width, batch) + batch * tokens * feed_forward(width, wide)[1]


def decoder_parameters(width: int, wide: int) -> int:
    return 2 * mha_parameters(width) + feed_forward(width, wide)[0] + 6 * width


def decoder_macs(tokens: int, memory: int, width: int, wide: int, batch: int = 1) -> int:
    cross = mha_macs(tokens, memory, width, batch)
    return encoder_macs(tokens, width, wide, batch) + cross


def attention_module(call: Any, *arguments: Any, **options: Any) -> Any:
    return lambda: Lambda(
        call, attention=nn.MultiheadAttention(*arguments, batch_first=True, **options)
    )


def self_attention(self: Any, x: Tensor) -> Any:
    return self.attention(x, x, x)


def padded_encoder(self: Any, x: Tensor) -> Any:
    padding = torch.zeros(x.shape[:2], dtype=torch.bool)
    padding[:, -1] = True
    return self.encoder(x, src_key_padding_mask=padding)


def causal(_: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def masked(_: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def grouped_query(_: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def flexible(_: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(q, k, v, score_mod=lambda s, *at: s + at[-2] - at[-1])


def flexible_bias(self: Any, q: Tensor, k: Tensor, v: Tensor) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(q, k, v, score_mod=lambda s, _, head, *__: s + self.bias[head])


class EinsumAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(3, 4, 16, 4) / 4)  # which, head, width, head width
        self.out = nn.Parameter(torch.randn(4, 4, 16) / 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = torch.einsum("btd,whde->wbhte", x, self.qkv)
        scores = torch.einsum("bhte,bhse->bhts", q, k).softmax(-1)
        mixed = torch.einsum("bhts,bhse->bhte", scores, v)
        return torch.einsum("bhte,hed->btd", mixed, self.out)


def linear_attention(_: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    state = torch.einsum("bhsd,bhse->bhde", k.softmax(-2), v)
    return torch.einsum("bhtd,bhde->bhte", q, state)


class Universal(nn.Module):
    """One encoder layer, applied six times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(6):
            x = self.layer(x)
        return x


class Memories(nn.Module):
    """Learned queries read from the input, as a perceiver or DETR does."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(1, 5, 16))
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        queries = self.queries.expand(x.shape[0], -1, -1)
        out: Tensor = self.attention(queries, x, x, need_weights=False)[0]
        return out


def _qkv(q: str, k: str, v: str) -> tuple[str, ...]:
    return (f"batch,{q}", f"batch,{k}", f"batch,{v}")


_SAME = _qkv("4,8,16", "4,8,16", "4,8,16")

CASES = (
    Case(
        name="attention to keys and values of other widths",
        model=attention_module(
            lambda self, q, k, v: self.attention(q, k, v), 16, 4, kdim=12, vdim=20
        ),
        inputs=_qkv("6,16", "9,12", "9,20"),
        batch=2,
        parameters=16 * 16 + 16 * 12 + 16 * 20 + 3 * 16 + 16 * 17,
        macs=2 * (2 * 6 * 16 * 16 + 9 * 16 * (12 + 20)) + attend(6, 9, 16, batch=2),
    ),
    Case(
        name="attention with a bias for keys and values, and a zero key",
        model=attention_module(self_attention, 16, 4, add_bias_kv=True, add_zero_attn=True),
        inputs=("batch,6,16",),
        batch=2,
        parameters=mha_parameters(16) + 2 * 16,
        macs=2 * 4 * 6 * 16 * 16 + attend(6, 8, 16, batch=2),
        outputs={"0": (2, 6, 16), "1": (2, 6, 8)},
    ),
    Case(
        name="attention that returns no weights",
        model=attention_module(lambda self, x: self.attention(x, x, x, need_weights=False), 16, 4),
        inputs=("batch,6,16",),
        parameters=mha_parameters(16),
        macs=mha_macs(6, 6, 16),
        outputs={"0": (1, 6, 16)},
    ),
    Case(
        name="attention on an unbatched sequence, weights of each head",
        model=lambda: Lambda(
            lambda self, x: self.attention(x, x, x, average_attn_weights=False),
            attention=nn.MultiheadAttention(16, 4),
        ),
        inputs=("6,16",),
        parameters=mha_parameters(16),
        macs=mha_macs(6, 6, 16),
        outputs={"0": (6, 16), "1": (4, 6, 6)},
    ),
    Case(
        name="attention with a padding mask and a float mask",
        model=attention_module(
            lambda self, x: self.attention(
                x, x, x, key_padding_mask=torch.zeros(2, 6), attn_mask=torch.zeros(6, 6)
            ),
            16,
            4,
        ),
        inputs=("batch,6,16",),
        batch=2,
        parameters=mha_parameters(16),
        macs=mha_macs(6, 6, 16, batch=2),
    ),
    Case(
        name="attention in half precision",
        model=lambda: Lambda(
            self_attention, attention=nn.MultiheadAttention(16, 4, batch_first=True)
        ).half(),
        inputs=("batch,6,16:float16",),
        parameters=mha_parameters(16),
        parameter_bytes=2 * mha_parameters(16),
        macs=mha_macs(6, 6, 16),
    ),
    Case(
        name="learned queries",
        model=Memories,
        inputs=("batch,9,16",),
        batch=2,
        parameters=5 * 16 + mha_parameters(16),
        macs=mha_macs(5, 9, 16, batch=2),
    ),
    Case(
        name="encoder of two layers, norm first, and a last norm",
        model=lambda: nn.TransformerEncoder(
            nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True),
            2,
            norm=nn.LayerNorm(16),
            enable_nested_tensor=False,
        ),
        inputs=("batch,6,16",),
        batch=2,
        parameters=2 * encoder_parameters(16, 32) + 32,
        macs=2 * encoder_macs(6, 16, 32, batch=2),
    ),
    Case(
        name="encoder whose padding makes nested tensors",
        source="ptflops#101, the fast path",
        model=lambda: Lambda(
            padded_encoder,
            encoder=nn.TransformerEncoder(
                nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2
            ),
        ),
        inputs=("batch,6,16",),
        batch=2,
        parameters=2 * encoder_parameters(16, 32),
        macs=2 * encoder_macs(6, 16, 32, batch=2),
    ),
    Case(
        name="one encoder layer applied six times",
        model=Universal,
        inputs=("batch,6,16",),
        parameters=encoder_parameters(16, 32),
        macs=6 * encoder_macs(6, 16, 32),
        calls=(("layer", 6), ("layer.linear1", 6)),
    ),
    Case(
        name="decoder layer",
        model=lambda: nn.TransformerDecoderLayer(16, 4, 32, batch_first=True),
        inputs=("batch,6,16", "batch,9,16"),
        batch=2,
        parameters=decoder_parameters(16, 32),
        macs=decoder_macs(6, 9, 16, 32, batch=2),
    ),
    Case(
        name="nn.Transformer",
        source="encoders and decoders in one",
        model=lambda: nn.Transformer(16, 4, 2, 3, 32, batch_first=True),
        inputs=("batch,9,16", "batch,6,16"),
        parameters=2 * encoder_parameters(16, 32) + 3 * decoder_parameters(16, 32) + 4 * 16,
        macs=2 * encoder_macs(9, 16, 32) + 3 * decoder_macs(6, 9, 16, 32),
    ),
    Case(
        name="causal attention counts the whole square",
        model=lambda: Lambda(causal),
        inputs=_SAME,
        batch=2,
        parameters=0,
        macs=attend(8, 8, 4 * 16, batch=2),
    ),
    Case(
        name="attention under a mask",
        model=lambda: Lambda(masked),
        inputs=_qkv("4,8,16", "4,10,16", "4,10,24"),
        batch=2,
        parameters=0,
        macs=2 * 4 * 8 * 10 * (16 + 24),
        outputs={"": (2, 4, 8, 24)},
    ),
    Case(
        name="attention without a dimension for heads, in bfloat16",
        model=lambda: Lambda(causal),
        inputs=("batch,8,16:bfloat16", "batch,8,16:bfloat16", "batch,8,16:bfloat16"),
        batch=2,
        parameters=0,
        macs=attend(8, 8, 16, batch=2),
    ),
    Case(
        name="eight heads of queries over two of keys",
        source="fvcore#153",
        model=lambda: Lambda(grouped_query),
        inputs=_qkv("8,6,16", "2,6,16", "2,6,16"),
        parameters=0,
        macs=attend(6, 6, 8 * 16),
    ),
    Case(
        name="flex_attention",
        model=lambda: Lambda(flexible),
        inputs=_qkv("4,16,16", "4,16,16", "4,16,16"),
        parameters=0,
        macs=attend(16, 16, 4 * 16),
    ),
    Case(
        name="flex_attention whose score function closes over a parameter",
        model=lambda: Lambda(flexible_bias, bias=nn.Parameter(torch.randn(4))),
        inputs=_qkv("4,16,16", "4,16,16", "4,16,16"),
        parameters=4,
        macs=attend(16, 16, 4 * 16),
    ),
    Case(
        name="attention written in einsum, weights as parameters",
        source="einsum in hook-based counters",
        model=EinsumAttention,
        inputs=("batch,6,16",),
        batch=2,
        parameters=4 * 16 * 16,
        macs=mha_macs(6, 6, 16, batch=2),
    ),
    Case(
        name="linear attention",
        model=lambda: Lambda(linear_attention),
        inputs=_SAME,
        parameters=0,
        macs=2 * 4 * 8 * 16 * 16,
    ),
    Case(
        name="F.multi_head_attention_forward on buffers",
        model=lambda: FunctionalAttention(),
        inputs=("6,batch,16",),
        batch=2,
        parameters=0,
        buffers_bytes=4 * mha_parameters(16),
        macs=mha_macs(6, 6, 16, batch=2),
    ),
)


class FunctionalAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("into", torch.randn(48, 16))
        self.register_buffer("into_bias", torch.randn(48), persistent=False)
        self.register_buffer("out", torch.randn(16, 16))
        self.register_buffer("out_bias", torch.randn(16))

    def forward(self, x: Tensor) -> Tensor:
        found = functional.multi_head_attention_forward(
            x, x, x, 16, 4, self.into, self.into_bias, None, None, False, 0.0,
            self.out, self.out_bias,
        )  # fmt: skip
        return found[0]
