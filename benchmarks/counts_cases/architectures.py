"""Small forms of architectures that are easily miscounted, forward and with their gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.counts_cases.case import Case, Lambda


def weights(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def equilibrium(self: Any, x: Tensor) -> Tensor:
    """Five steps without a gradient, then one with it."""
    z = torch.zeros_like(x)
    with torch.no_grad():
        for _ in range(5):
            z = torch.tanh(self.inner(z) + self.outer(x))
    return torch.tanh(self.inner(z) + self.outer(x))


def runge_kutta(self: Any, x: Tensor) -> Tensor:
    """Three steps of four calls each."""
    for _ in range(3):
        first = self.slope(x)
        second = self.slope(x + first / 2)
        third = self.slope(x + second / 2)
        x = x + (first + 2 * second + 2 * third + self.slope(x + third)) / 6
    return x


def graph_attention(self: Any, x: Tensor, edges: Tensor) -> Tensor:
    h = self.embed(x)
    score = self.score(torch.cat([h[edges[0]], h[edges[1]]], -1)).softmax(0)
    return torch.zeros_like(h).index_add_(0, edges[1], score * h[edges[0]])


def mixed_kernels(self: Any, x: Tensor) -> Tensor:
    """A kernel for each sample, mixed from four."""
    shares = torch.sigmoid(self.router(x.mean((2, 3))))
    kernels = torch.einsum("be,eoikl->boikl", shares, self.kernels).reshape(-1, 3, 3, 3)
    out = functional.conv2d(x.reshape(1, -1, *x.shape[2:]), kernels, groups=x.shape[0], padding=1)
    return out.view(x.shape[0], 6, *x.shape[2:])


def capsules(self: Any, x: Tensor) -> Tensor:
    """Two rounds of routing by sums, which are no products."""
    votes = (self.weight @ x[:, :, None, :, None]).squeeze(-1)
    logits, out = x.new_zeros(x.shape[0], 6, 3, 1), x
    for _ in range(2):
        out = (logits.softmax(2) * votes).sum(1, keepdim=True)
        logits = logits + (votes * out).sum(-1, keepdim=True)
    return out


def windows(self: Any, x: Tensor) -> Tensor:
    """Attention in windows of 2×2 of a shifted picture, with a table of relative biases."""
    batch, height, width, channels = x.shape
    x = torch.roll(x, (-1, -1), (1, 2)).view(batch, height // 2, 2, width // 2, 2, channels)
    x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, channels)
    q, k, v = self.qkv(x).view(-1, 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
    scores = q @ k.mT + self.table[self.places].view(4, 4, 2).permute(2, 0, 1)
    out: Tensor = self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 4, channels))
    return out


def quantizer(self: Any, x: Tensor) -> Any:
    """The nearest of eight codes; the gradient goes past the choice."""
    book = self.book.weight
    near = ((book**2).sum(1) - 2 * x @ book.T).argmin(1)
    code = self.book(near)
    return x + (code - x).detach(), functional.mse_loss(code, x), near


def generation(self: Any, ids: Tensor) -> Tensor:
    """Three greedy steps with a cache of keys and values: 2, 3 and 4 of them."""
    cache, x = [], self.embed(ids)
    for _ in range(3):
        cache.append(self.kv(x))
        k, v = torch.cat(cache, 1).chunk(2, -1)
        ids = self.head(functional.scaled_dot_product_attention(self.q(x[:, -1:]), k, v)).argmax(-1)
        x = self.embed(ids)
    return ids


CASES = (
    Case(
        name="a deep equilibrium: six steps, the gradient of one",
        model=lambda: Lambda(equilibrium, inner=nn.Linear(4, 4), outer=nn.Linear(4, 4)),
        inputs=("batch,4",),
        parameters=40,
        macs=12 * 16,
        training_macs=12 * 16 + 2 * 16,
        calls=(("inner", 6), ("outer", 6)),
    ),
    Case(
        name="an ordinary differential equation, Runge-Kutta",
        model=lambda: Lambda(
            runge_kutta, slope=nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))
        ),
        inputs=("batch,3",),
        parameters=59,
        macs=12 * 48,
        training_macs=3 * 12 * 48 - 24,  # only the first call's input asks for no gradient
        calls=(("slope.0", 12),),
    ),
    Case(
        name="attention along nine edges of a graph",
        model=lambda: Lambda(
            graph_attention,
            embed=nn.Linear(5, 4, bias=False),
            score=nn.Linear(8, 1, bias=False),
        ),
        inputs=({"shape": [6, 5]}, {"shape": [2, 9], "dtype": "int64", "high": 6}),
        parameters=28,
        macs=6 * 20 + 9 * 8,
        training_macs=2 * 6 * 20 + 3 * 9 * 8,
    ),
    Case(
        name="a kernel for each sample, mixed from four",
        model=lambda: Lambda(mixed_kernels, router=nn.Linear(3, 4), kernels=weights(4, 6, 3, 3, 3)),
        inputs=("batch,3,4,4",),
        batch=2,
        parameters=16 + 4 * 162,
        macs=2 * (12 + 4 * 162 + 16 * 162),
        training_macs=2 * (2 * 12 + 3 * 4 * 162 + 2 * 16 * 162),
    ),
    Case(
        name="capsules that route by agreement",
        model=lambda: Lambda(capsules, weight=weights(1, 6, 3, 4, 2)),
        inputs=("batch,6,2",),
        batch=2,
        parameters=144,
        macs=2 * 144,
        training_macs=2 * 2 * 144,
    ),
    Case(
        name="attention in shifted windows with relative biases",
        model=lambda: Lambda(
            windows,
            qkv=nn.Linear(8, 24),
            out=nn.Linear(8, 8),
            table=weights(9, 2),
            places=nn.Buffer(torch.arange(16) % 9),
        ),
        inputs=("batch,4,4,8",),
        batch=2,
        parameters=216 + 72 + 18,
        macs=32 * (192 + 64) + 2 * 8 * 2 * 64,
        training_macs=32 * (2 * 192 + 3 * 64) + 3 * 2 * 8 * 2 * 64,
        buffers_bytes=128,
    ),
    Case(
        name="a vector quantizer",
        model=lambda: Lambda(quantizer, book=nn.Embedding(8, 4)),
        inputs=("batch,4",),
        batch=3,
        parameters=32,
        macs=3 * 32,
        training_macs=3 * 32,  # distances choose and give no gradient
    ),
    Case(
        name="three tokens generated with a cache",
        model=lambda: Lambda(
            generation,
            embed=nn.Embedding(11, 4),
            q=nn.Linear(4, 4, bias=False),
            kv=nn.Linear(4, 8, bias=False),
            head=nn.Linear(4, 11, bias=False),
        ),
        inputs=({"shape": ["batch", 2], "dtype": "int64", "high": 11},),
        parameters=44 + 16 + 32 + 44,
        macs=(2 + 1 + 1) * 32 + 3 * (16 + 44) + 2 * (2 + 3 + 4) * 4,
        calls=(("kv", 3), ("head", 3)),
    ),
)
