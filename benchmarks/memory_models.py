"""The models behind the published measurements that `memory_truth.py` compares with.

Written from their public descriptions, by shape; nothing is trained or loaded. What their torch
of the day kept for the backward pass, and today's does not, is part of the set-up and stands here:

- up to torch 1.10 softmax and log_softmax kept their input besides their output (pytorch #49600,
  #64000; changed by #65242 and #66018 for 1.11);
- DistributedDataParallel keeps a second copy of all gradients in its buckets, unless told to make
  them views of these, which came with torch 1.7.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

Tensor = torch.Tensor
aten = torch.ops.aten


class OldSoftmax(torch.autograd.Function):
    """Softmax as it was up to torch 1.10: its input stays alive until its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        result = x.softmax(dim)
        ctx.save_for_backward(x, result)
        ctx.dim = dim
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, result = ctx.saved_tensors
        return aten._softmax_backward_data(grad, result, ctx.dim, x.dtype), None


class OldLogSoftmax(torch.autograd.Function):
    """Log-softmax as it was up to torch 1.10: its input stays alive until its backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        result = x.log_softmax(dim)
        ctx.save_for_backward(x, result)
        ctx.dim = dim
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, result = ctx.saved_tensors
        return aten._log_softmax_backward_data(grad, result, ctx.dim, x.dtype), None


class BertLayer(nn.Module):
    """A layer of bert-large with the attention of 2022: explicit scores, softmax and dropout.

    The attention mask is fp32, the parameters' type, so that scores are fp32 under AMP too.
    """

    def __init__(self, width: int = 1024, heads: int = 16) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drops = nn.ModuleList(nn.Dropout(0.1) for _ in range(3))
        self.heads = heads

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (part(x).view(shape).transpose(1, 2) for part in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2)
        scores = scores / (width // self.heads) ** 0.5
        scores = scores + mask
        weights = self.drops[0](OldSoftmax.apply(scores, -1))
        mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
        x = self.one(x + self.drops[1](self.o(mixed)))
        hidden = functional.gelu(self.up(x))
        return self.two(x + self.drops[2](self.down(hidden)))


class BertLarge(nn.Module):
    """bert-large-uncased for sequence classification, by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30522, 1024), nn.Embedding(512, 1024)
        self.kinds = nn.Embedding(2, 1024)
        self.norm, self.drop = nn.LayerNorm(1024), nn.Dropout(0.1)
        self.layers = nn.ModuleList(BertLayer() for _ in range(24))
        self.pool, self.head = nn.Linear(1024, 1024), nn.Linear(1024, 2)

    def forward(self, ids: Tensor) -> Tensor:
        places = torch.arange(ids.shape[1])
        x = self.words(ids) + self.kinds(torch.zeros_like(ids))
        x = self.drop(self.norm(x + self.places(places)))
        mask = torch.zeros(ids.shape[0], 1, 1, ids.shape[1])
        for layer in self.layers:
            x = layer(x, mask)
        return self.head(self.drop(torch.tanh(self.pool(x[:, 0]))))


def _unit(channels_in: int, channels: int, kernel: int = 3, *, stride: int = 1, dilation: int = 1,
          relu: bool = True) -> nn.Sequential:  # fmt: skip
    """Convolution, batch norm (synchronized there, which keeps the same), ReLU in place."""
    padding = dilation * (kernel // 2)
    parts: list[nn.Module] = [
        nn.Conv2d(channels_in, channels, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(channels),
    ]
    return nn.Sequential(*parts, *([nn.ReLU(inplace=True)] if relu else []))


class ResidualBlock(nn.Module):
    """Basic or bottleneck block; the sum is made in place."""

    def __init__(self, before: int, width: int, *, deep: bool, stride: int, dilation: int) -> None:
        super().__init__()
        after = width * (4 if deep else 1)
        middle = _unit(before if not deep else width, width, stride=stride, dilation=dilation)
        if deep:
            self.body = nn.Sequential(
                _unit(before, width, 1), middle, _unit(width, after, 1, relu=False)
            )
        else:
            self.body = nn.Sequential(middle, _unit(width, after, relu=False))
        changes = stride != 1 or before != after
        self.skip = _unit(before, after, 1, stride=stride, relu=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        out += x if self.skip is None else self.skip(x)
        return functional.relu(out, inplace=True)


class FcnHead(nn.Module):
    """mmsegmentation's FCN head: 3 x 3 convolutions, their input joined again, a classifier."""

    def __init__(self, before: int, width: int, *, convolutions: int, join: bool) -> None:
        super().__init__()
        sizes = [before, *[width] * convolutions]
        self.body = nn.Sequential(*(_unit(a, b) for a, b in pairwise(sizes)))
        self.joined = _unit(before + width, width) if join else None
        self.drop = nn.Dropout2d(0.1)
        self.classify = nn.Conv2d(width, 19, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.body(x)
        if self.joined is not None:
            out = self.joined(torch.cat([x, out], 1))
        return self.classify(self.drop(out))


class FcnD8(nn.Module):
    """mmsegmentation's FCN on ResNetV1c-D8 with an auxiliary head, as it trains; returns the loss.

    Strides 1, 2, 1, 1 and dilations 1, 1, 2, 4; the first block of a dilated stage has half.
    """

    DEPTHS: ClassVar = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}

    def __init__(self, depth: int) -> None:
        super().__init__()
        deep = depth >= 50
        grow = 4 if deep else 1
        self.stem = nn.Sequential(
            _unit(3, 32, stride=2), _unit(32, 32), _unit(32, 64), nn.MaxPool2d(3, 2, 1)
        )
        stages, before = [], 64
        for stage, blocks in enumerate(self.DEPTHS[depth]):
            width, dilation = 64 << stage, (1, 1, 2, 4)[stage]
            made = []
            for block in range(blocks):
                stride = 2 if stage == 1 and block == 0 else 1
                own = max(dilation // 2, 1) if block == 0 else dilation
                made.append(ResidualBlock(before, width, deep=deep, stride=stride, dilation=own))
                before = width * grow
            stages.append(nn.Sequential(*made))
        self.stages = nn.ModuleList(stages)
        self.head = FcnHead(512 * grow, 128 * grow, convolutions=2, join=True)
        self.second = FcnHead(256 * grow, 64 * grow, convolutions=1, join=False)
        gradients = sum(parameter.numel() for parameter in self.parameters())
        self.register_buffer("buckets", torch.empty(gradients))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        x = self.stem(images)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        total = self._loss(self.head(found[3]), labels)
        return total + 0.4 * self._loss(self.second(found[2]), labels)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        large = functional.interpolate(
            logits, size=labels.shape[2:], mode="bilinear", align_corners=labels.shape[2] % 2 == 1
        )
        target = labels.squeeze(1)
        chances = OldLogSoftmax.apply(large, 1)
        loss = functional.nll_loss(chances, target, reduction="none", ignore_index=255).mean()
        best = large.topk(1, dim=1)[1].transpose(0, 1)
        best.eq(target.unsqueeze(0)).sum()
        return loss


@dataclass(frozen=True, kw_only=True, slots=True)
class GptShape:
    """The published configuration of one of LitGPT's models."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    hidden: int
    longest: int
    rotary: float = 1.0
    llama: bool = False
    shared_norm: bool = False
    head_bias: bool = False


LITGPT = {
    "phi-1.5": GptShape(layers=24, width=2048, heads=32, vocabulary=51200, hidden=8192,
                        longest=1044, rotary=0.5, shared_norm=True, head_bias=True),
    "StableLM-3B": GptShape(layers=16, width=4096, heads=32, vocabulary=50688, hidden=16384,
                            longest=1034, rotary=0.25),
    "Llama-2-7B": GptShape(layers=32, width=4096, heads=32, vocabulary=32000, hidden=11008,
                           longest=1304, llama=True),
    "Llama-2-13B": GptShape(layers=40, width=5120, heads=40, vocabulary=32000, hidden=13824,
                            longest=1304, llama=True),
}  # fmt: skip
"""`longest` is the length of Alpaca's longest example with the model's tokenizer."""


class RootMeanNorm(nn.Module):
    """LitGPT's RMSNorm in fp32, as its repository and the forks of that winter have it.

    An earlier form computed in the model's own type. The measured rows come from between the two;
    with that form Llama's rows come out 3 to 5 % too low, so they told which one was run.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        mean = torch.mean(wide * wide, dim=-1, keepdim=True)
        return (self.weight * (wide * torch.rsqrt(mean + 1e-5))).type_as(x)


class LoraProjection(nn.Module):
    """Queries, keys and values in one projection; rank-8 updates of queries and values."""

    def __init__(self, width: int, *, bias: bool, rank: int) -> None:
        super().__init__()
        self.plain = nn.Linear(width, 3 * width, bias=bias)
        self.rank = rank
        if rank:
            self.lora_a = nn.Parameter(torch.zeros(2 * rank, width))
            self.lora_b = nn.Parameter(torch.zeros(2 * width, rank))
            self.drop = nn.Dropout(0.05)

    def forward(self, x: Tensor) -> Tensor:
        plain = self.plain(x)
        if not self.rank:
            return plain
        width = x.shape[-1]
        narrow = functional.linear(self.drop(x), self.lora_a)
        update = functional.conv1d(narrow.transpose(-2, -1), self.lora_b.unsqueeze(-1), groups=2)
        update = update.transpose(-2, -1).transpose(0, 1)
        padded = update.new_zeros((*update.shape[:-1], 3 * width)).view(-1, 3 * width)
        places = torch.arange(2 * width)
        padded = padded.index_copy(1, places, update.reshape(-1, 2 * width))
        padded = padded.view(*update.shape[:-1], 3 * width).transpose(0, 1)
        return plain + padded * 2.0


class GptAttention(nn.Module):
    """Causal attention with rotated heads; in inference through a cache of keys and values."""

    def __init__(self, shape: GptShape, *, rank: int, cached: int) -> None:
        super().__init__()
        bias = not shape.llama
        self.project = LoraProjection(shape.width, bias=bias, rank=rank)
        self.out = nn.Linear(shape.width, shape.width, bias=bias)
        self.shape = shape
        size = shape.width // shape.heads
        if cached:
            for name in ("keys", "values"):
                self.register_buffer(name, torch.zeros(1, shape.heads, cached, size))
        self.cached = cached

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = self.shape.heads
        joint = self.project(x).view(batch, length, heads, 3, width // heads)
        q, k, v = (
            part.reshape(batch, heads, length, width // heads)
            for part in joint.permute(0, 2, 3, 1, 4).split(1, dim=2)
        )
        q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
        if self.cached:
            places = torch.arange(length)
            k = self.keys.index_copy_(2, places, k)
            v = self.values.index_copy_(2, places, v)
            mask = torch.ones(1, 1, length, self.cached, dtype=torch.bool)
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    turned = x[..., : cos.shape[-1]]
    first, second = turned.chunk(2, dim=-1)
    turned = (turned * cos + torch.cat((-second, first), dim=-1) * sin).type_as(x)
    return torch.cat((turned, x[..., cos.shape[-1] :]), dim=-1)


class GptMlp(nn.Module):
    """GELU between two layers, or Llama's gated SiLU."""

    def __init__(self, shape: GptShape) -> None:
        super().__init__()
        bias = not shape.llama
        self.up = nn.Linear(shape.width, shape.hidden, bias=bias)
        self.gate = nn.Linear(shape.width, shape.hidden, bias=bias) if shape.llama else None
        self.down = nn.Linear(shape.hidden, shape.width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(functional.gelu(self.up(x)))
        up, gate = self.up(x), self.gate(x)
        return self.down(functional.silu(up) * gate)


class GptBlock(nn.Module):
    """Llama's two residual sums, or GPT-NeoX's and phi's parallel one."""

    def __init__(self, shape: GptShape, *, rank: int, cached: int) -> None:
        super().__init__()
        norm = RootMeanNorm if shape.llama else nn.LayerNorm
        self.one = norm(shape.width)
        self.two = None if shape.shared_norm else norm(shape.width)
        self.attention = GptAttention(shape, rank=rank, cached=cached)
        self.mlp = GptMlp(shape)
        self.parallel = not shape.llama

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        normed = self.one(x)
        mixed = self.attention(normed, cos, sin)
        if self.parallel:
            return self.mlp(normed if self.two is None else self.two(x)) + mixed + x
        x = mixed + x
        assert self.two is not None
        return self.mlp(self.two(x)) + x


class LitGpt(nn.Module):
    """LitGPT's model of October 2023 in pure bf16; only the LoRA weights train.

    In training the logits come in chunks of 128 tokens, and Lightning's Fabric gives them back in
    fp32; the tables of the rotation, made anew for the longest example, are fp32. In inference
    `cached` is the length of the key and value cache.
    """

    def __init__(self, shape: GptShape, *, rank: int = 8, cached: int = 0) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(
            GptBlock(shape, rank=rank, cached=cached) for _ in range(shape.layers)
        )
        self.norm = (RootMeanNorm if shape.llama else nn.LayerNorm)(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=shape.head_bias)
        self.to(torch.bfloat16)
        turned = int(shape.rotary * shape.width // shape.heads)
        for name in ("cos", "sin"):
            self.register_buffer(name, torch.empty(cached or shape.longest, turned))
        for name, parameter in self.named_parameters():
            parameter.requires_grad_("lora_" in name)

    def forward(self, ids: Tensor) -> Any:
        length = ids.shape[1]
        cos, sin = self.cos[:length], self.sin[:length]
        x = self.words(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        x = self.norm(x)
        if not self.training:
            return self.head(x).float()
        logits = [self.head(chunk) for chunk in x.split(128, dim=1)]
        return [chunk.float() for chunk in logits]


def litgpt_loss(logits: list[Tensor]) -> Tensor:
    """Cross-entropy chunk by chunk; the last token has no successor."""
    logits[-1] = logits[-1][:, :-1]
    losses = []
    for chunk in logits:
        flat = chunk.reshape(-1, chunk.shape[-1])
        target = torch.zeros(flat.shape[0], dtype=torch.int64)
        losses.append(functional.cross_entropy(flat, target, reduction="none"))
    return torch.cat(losses).mean() / 128
