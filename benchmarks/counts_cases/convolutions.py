"""Convolutions: every output is a kernel of products; transposed, every input is."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.counts_cases.case import Case, Lambda


class Hypernetwork(nn.Module):
    """Each sample is convolved with a kernel made from it, all in one grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Linear(3, 6 * 3 * 9)

    def forward(self, x: Tensor) -> Tensor:
        samples = x.shape[0]
        kernels = self.make(x.mean((2, 3))).view(samples * 6, 3, 3, 3)
        out = functional.conv2d(x.view(1, samples * 3, 8, 8), kernels, groups=samples)
        return out.view(samples, 6, 6, 6)


class Unfolded(nn.Module):
    """A convolution as im2col and one product."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3 * 9))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight @ functional.unfold(x, 3)


CASES = (
    Case(
        name="conv1d with 'same' padding and dilation",
        model=lambda: nn.Conv1d(4, 6, 5, padding="same", dilation=2),
        inputs=("batch,4,20",),
        batch=2,
        parameters=4 * 6 * 5 + 6,
        macs=2 * 20 * 4 * 6 * 5,
        outputs={"": (2, 6, 20)},
    ),
    Case(
        name="conv2d, reflecting, depthwise, stride 2",
        model=lambda: nn.Conv2d(8, 16, 3, 2, 1, groups=8, padding_mode="reflect", bias=False),
        inputs=("batch,8,9,9",),
        parameters=16 * 9,
        macs=25 * 16 * 9,
    ),
    Case(
        name="conv3d in two groups",
        model=lambda: nn.Conv3d(4, 6, (1, 2, 3), groups=2),
        inputs=("batch,4,3,5,7",),
        parameters=6 * 2 * 6 + 6,
        macs=3 * 4 * 5 * 6 * 2 * 6,
    ),
    Case(
        name="conv2d on one image without a batch",
        model=lambda: nn.Conv2d(3, 6, 3),
        inputs=("3,8,8",),
        parameters=168,
        macs=36 * 162,
        outputs={"": (6, 6, 6)},
    ),
    Case(
        name="transposed convolution, 2×2 to 4×4",
        source="ptflops#149, fvcore#78",
        model=lambda: nn.ConvTranspose2d(3, 1, (2, 2), stride=(2, 2)),
        inputs=("batch,3,2,2",),
        parameters=13,
        macs=48,
        outputs={"": (1, 1, 4, 4)},
    ),
    Case(
        name="transposed convolution in groups, with output padding",
        source="pytorch#119806, mmcv#715",
        model=lambda: nn.ConvTranspose2d(8, 12, 3, 2, 1, output_padding=1, groups=4),
        inputs=("batch,8,5,5",),
        batch=2,
        parameters=8 * 3 * 9 + 12,
        macs=2 * 25 * 8 * 3 * 9,
        outputs={"": (2, 12, 10, 10)},
    ),
    Case(
        name="transposed conv3d",
        model=lambda: nn.ConvTranspose3d(2, 3, 2, stride=2),
        inputs=("batch,2,3,3,3",),
        parameters=2 * 3 * 8 + 3,
        macs=27 * 2 * 3 * 8,
    ),
    Case(
        name="complex convolution",
        model=lambda: nn.Conv2d(2, 3, 3, dtype=torch.complex64),
        inputs=("batch,2,5,5:complex64",),
        parameters=57,
        parameter_bytes=57 * 8,
        macs=3 * 9 * 54,  # torch makes three real convolutions of it
    ),
    Case(
        name="a kernel for each sample, made by a layer",
        model=Hypernetwork,
        inputs=("batch,3,8,8",),
        batch=4,
        parameters=4 * 162,
        macs=4 * (3 * 162 + 36 * 162),
    ),
    Case(
        name="a convolution as unfold and a product",
        model=Unfolded,
        inputs=("batch,3,8,8",),
        batch=2,
        parameters=135,
        macs=2 * 36 * 135,
    ),
    Case(
        name="conv_tbc",
        model=lambda: Lambda(
            lambda self, x: torch.conv_tbc(x, self.weight, self.bias),
            weight=nn.Parameter(torch.randn(3, 4, 6)),
            bias=nn.Parameter(torch.zeros(6)),
        ),
        inputs=("10,2,4",),
        parameters=78,
        macs=8 * 2 * 72,
    ),
)
