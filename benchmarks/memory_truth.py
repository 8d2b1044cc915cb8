"""Predicted against measured memory, for every published measurement of MEMORY.md section 8.

    python benchmarks/memory_truth.py [--rows FILE.csv]...

Nothing here needs a GPU. The published rows stand below; `--rows` adds files in the same columns.
One constant is fitted: what nvidia-smi shows besides reserved memory in GPUMemNet's set-up, taken
from its MobileNetV2 and EfficientNet rows and applied to all others.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from reportgen.cuda_memory import Estimate, Step, find_gpu, trace_step
from reportgen.cuda_memory.replay import live_at

MIB = 1 << 20
OLD_TORCH = "2.6"
FITTED_ON = ("mobilenet_v2", "efficientnet_b0")

XMEM = """\
model,optimizer,batch,image_side,gpu,ground_bytes,xmem_error_percent,dnnmem_error_percent,schedtune_error_percent
convnext_base,AdamW,300,86,RTX 3060 12GB,10521411584,2.7,-34.7,-23.1
convnext_base,SGD,300,86,RTX 3060 12GB,9984540672,2.9,-31.2,-19.0
convnext_tiny,SGD,300,86,RTX 3060 12GB,4833935360,3.0,-27.1,-4.6
mnasnet1_0,AdamW,200,86,RTX 3060 12GB,2246049792,-14.1,-19.7,20.1
mobilenet_v3_large,Adam,200,86,RTX 3060 12GB,1820327936,6.5,-10.0,32.2
"""
GPUMEMNET = """\
model,batch,nvidia_smi_mib,gpu
vgg16,32,8222,A100-40
vgg16,128,24408,A100-40
resnet50,32,5262,A100-40
resnet50,128,15120,A100-40
mobilenet_v2,32,4544,A100-40
mobilenet_v2,128,12578,A100-40
efficientnet_b0,32,4958,A100-40
efficientnet_b0,128,13832,A100-40
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One comparison; bytes."""

    name: str
    predicted: int
    low: int
    high: int
    measured: int

    @property
    def error_percent(self) -> float:
        """Above zero is too much predicted."""
        return 100 * (self.predicted / self.measured - 1)

    @property
    def in_band(self) -> bool:
        """Whether the printed band holds the measured value."""
        return self.low <= self.measured <= self.high

    def __str__(self) -> str:
        inside = "in band" if self.in_band else "OUTSIDE the band"
        return (
            f"{self.name:34} predicted {self.predicted / MIB:8.0f}  measured "
            f"{self.measured / MIB:8.0f} MiB  {self.error_percent:+6.1f} %  {inside} "
            f"({self.low / MIB:.0f}-{self.high / MIB:.0f})"
        )


def vision_model(name: str) -> nn.Module:
    import torchvision

    try:
        with torch.device("meta"):
            return torchvision.models.get_model(name, weights=None)
    except NotImplementedError:
        return torchvision.models.get_model(name, weights=None)


def vision_estimate(name: str, batch: int, side: int, step: Step, gpu: str) -> Estimate:
    def inputs(size: int) -> Any:
        return (torch.empty(size, 3, side, side),), {}

    plan = trace_step(vision_model(name), inputs, step, find_gpu(gpu))
    plan.trace(batch)
    return plan.estimate(batch)


def xmem_rows(table: list[dict[str, str]]) -> list[Row]:
    """Reserved bytes; zero_grad right before backward, three iterations, torch 2.6."""
    found = []
    for line in table:
        step = Step(
            mode="train",
            optimizer=line["optimizer"].lower(),
            zero_grad="before_backward",
            iterations=3,
            torch_version=OLD_TORCH,
        )
        gpu = line["gpu"].removesuffix(" 12GB")
        made = vision_estimate(
            line["model"], int(line["batch"]), int(line["image_side"]), step, gpu
        )
        found.append(
            Row(
                name=f"{line['model']} {line['optimizer']} b{line['batch']}",
                predicted=made.peak_reserved_bytes,
                low=made.reserved_band_low_bytes,
                high=made.reserved_band_high_bytes,
                measured=int(line["ground_bytes"]),
            )
        )
    return found


def gpumemnet_rows(table: list[dict[str, str]]) -> tuple[list[Row], int]:
    """nvidia-smi bytes and the constant that was fitted on the rows of `FITTED_ON`."""
    step = Step(mode="train", optimizer="adam", iterations=3, torch_version=OLD_TORCH)
    made = [
        (line, vision_estimate(line["model"], int(line["batch"]), 224, step, line["gpu"]))
        for line in table
    ]
    gaps = [
        int(line["nvidia_smi_mib"]) * MIB - estimate.peak_reserved_bytes
        for line, estimate in made
        if line["model"] in FITTED_ON
    ]
    constant = int(statistics.median(gaps)) if gaps else 0
    rows = [
        Row(
            name=f"{line['model']} Adam b{line['batch']}",
            predicted=estimate.peak_reserved_bytes + constant,
            low=estimate.reserved_band_low_bytes + constant,
            high=estimate.reserved_band_high_bytes + constant,
            measured=int(line["nvidia_smi_mib"]) * MIB,
        )
        for line, estimate in made
    ]
    return rows, constant


def issue_144() -> Row:
    """Linear(1024, 1024) a hundred times on [10240, 1024]: allocated bytes after forward."""

    class Repeated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(1024, 1024)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(100):
                x = self.linear(x)
            return x

    def inputs(batch: int) -> Any:
        return (torch.empty(10240 * batch, 1024),), {}

    trace = trace_step(Repeated(), inputs, Step(mode="train", loss="sum", iterations=1)).trace(1)
    position = trace.position_of("loss")
    assert position is not None
    live = live_at(trace, position - 1)
    held = sum(-(-trace.allocations[i].size_bytes // 512) * 512 for i in live)
    measured = int(4044.00390625 * MIB)
    return Row(name="torchinfo #144 after forward", predicted=held, low=held, high=held,
               measured=measured)  # fmt: skip


def vit_l_16() -> Row:
    """vit_l_16, batch 1, Adam: "about 6 GB" at the peak, which is in the optimizer step."""
    made = vision_estimate(
        "vit_l_16", 1, 224, Step(mode="train", optimizer="adam", torch_version="2.1"), "A100"
    )
    gap = made.reserved_band_high_bytes - made.peak_reserved_bytes
    return Row(
        name=f"vit_l_16 Adam b1 (peak in {made.peak_phase})",
        predicted=made.peak_allocated_bytes,
        low=made.peak_allocated_bytes - gap,
        high=made.peak_allocated_bytes + gap,
        measured=6 * 10**9,
    )


class BertLayer(nn.Module):
    """A layer of bert-large with the attention of 2022: explicit scores, softmax and dropout."""

    def __init__(self, width: int = 1024, heads: int = 16) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drops = nn.ModuleList(nn.Dropout(0.1) for _ in range(3))
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.heads, width // self.heads)
        q, k, v = (part(x).view(shape).transpose(1, 2) for part in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / (width // self.heads) ** 0.5
        scores = scores + torch.zeros(batch, 1, 1, length, dtype=scores.dtype)
        weights = self.drops[0](scores.softmax(-1))
        mixed = (weights @ v).transpose(1, 2).reshape(batch, length, width)
        x = self.one(x + self.drops[1](self.o(mixed)))
        hidden = nn.functional.gelu(self.up(x))
        return self.two(x + self.drops[2](self.down(hidden)))


class BertLarge(nn.Module):
    """bert-large-uncased for sequence classification, by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(30522, 1024), nn.Embedding(512, 1024)
        self.norm, self.drop = nn.LayerNorm(1024), nn.Dropout(0.1)
        self.layers = nn.ModuleList(BertLayer() for _ in range(24))
        self.pool, self.head = nn.Linear(1024, 1024), nn.Linear(1024, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(ids.shape[1])
        x = self.drop(self.norm(self.words(ids) + self.places(places)))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.drop(torch.tanh(self.pool(x[:, 0]))))


def bert_rows() -> list[Row]:
    """Hugging Face's guide: V100-16, length 512, nvidia-smi; the context was measured there.

    It is from before torch 2.0: gradients were zeroed in place, optimizers looped.
    """
    with torch.device("meta"):
        model = BertLarge()

    def inputs(batch: int) -> Any:
        return (torch.zeros(batch, 512, dtype=torch.int64),), {}

    found = []
    for name, batch, measured, step in (
        ("b4 fp32", 4, 14949, {}),
        ("b1 x 4 accumulation", 1, 8681, {"accumulation": 4}),
        ("the same, checkpointing", 1, 6775, {"accumulation": 4, "checkpointing": True}),
        ("b4 fp16", 4, 13939, {"precision": "amp-fp16"}),
    ):
        full = Step(
            mode="train",
            optimizer="adamw",
            implementation="for-loop",
            zero_grad="in_place",
            torch_version="2.0",
            **step,
        )
        made = trace_step(model, inputs, full, find_gpu("V100-16GB")).estimate(batch)
        context = 1343 * MIB
        found.append(
            Row(
                name=f"bert-large AdamW {name}",
                predicted=made.peak_reserved_bytes + context,
                low=made.reserved_band_low_bytes + context,
                high=made.reserved_band_high_bytes + context,
                measured=measured * MIB,
            )
        )
    return found


def growth(rows: list[Row]) -> list[tuple[str, float]]:
    """Error of the growth from the smaller to the larger batch of each model, in percent."""
    found = []
    for first, second in zip(rows[::2], rows[1::2], strict=False):
        predicted = second.predicted - first.predicted
        measured = second.measured - first.measured
        found.append((first.name.split()[0], 100 * (predicted / measured - 1)))
    return found


def median_size(errors: list[float]) -> float:
    return statistics.median(abs(error) for error in errors)


def main() -> None:
    """Print every row and the medians beside those of the published methods."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--xmem", type=Path, help="more rows in the columns of truth/xmem.csv")
    parser.add_argument("--gpumemnet", type=Path, help="more rows like truth/gpumemnet.csv")
    options = parser.parse_args()
    xmem_table = _table(XMEM, options.xmem)
    xmem = xmem_rows(xmem_table)
    gpumemnet, constant = gpumemnet_rows(_table(GPUMEMNET, options.gpumemnet))
    bert = bert_rows()
    others = [issue_144(), vit_l_16()]
    for title, rows in (
        ("xMem rows: reserved, RTX 3060, 86 x 86", xmem),
        (f"GPUMemNet rows: nvidia-smi, A100-40, constant {constant / MIB:.0f} MiB", gpumemnet),
        ("bert-large rows: nvidia-smi, V100-16, the context of 1343 MiB as measured", bert),
        ("Others", others),
    ):
        print(title, *rows, sep="\n  ")
    print("\nMedian error on the xMem rows")
    print(f"  this estimator {median_size([row.error_percent for row in xmem]):6.1f} %")
    for name in ("xmem", "dnnmem", "schedtune"):
        errors = [float(line[f"{name}_error_percent"]) for line in xmem_table]
        print(f"  {name:14} {median_size(errors):6.1f} %")
    print("Growth from batch 32 to 128")
    grown = growth(gpumemnet)
    for name, error in grown:
        print(f"  {name:20} {error:+6.1f} %")
    print(f"  median {median_size([error for _, error in grown]):.1f} %")
    everything = [*xmem, *gpumemnet, *bert, *others]
    inside = sum(row.in_band for row in everything)
    print(f"Measured value in the printed band: {inside} of {len(everything)} rows")
    print(f"Median error, all rows: {median_size([r.error_percent for r in everything]):.1f} %")


def _table(text: str, more: Path | None) -> list[dict[str, str]]:
    lines = text.splitlines()
    if more is not None:
        lines = more.read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(lines))


if __name__ == "__main__":
    main()
