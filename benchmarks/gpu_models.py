"""The models and steps that `gpu_truth.py` measures on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from reportgen.cuda_memory import Step

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One model, batch and step to measure."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    batch: int
    step: Step
    timed: bool = False
    """Whether forward and backward are timed too, for the roofline."""
    limit_bytes: int = 0
    """Memory to find the largest batch in; 0 measures the one batch."""


def images(side: int) -> Callable[[int], Inputs]:
    return lambda batch: ((torch.rand(batch, 3, side, side),), {})


def tokens(length: int, vocabulary: int) -> Callable[[int], Inputs]:
    return lambda batch: ((torch.randint(vocabulary, (batch, length)),), {})


def sequences(length: int, width: int) -> Callable[[int], Inputs]:
    return lambda batch: ((torch.rand(batch, length, width),), {})


def vision(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import torchvision

        known = {} if "deeplab" not in name else {"weights_backbone": None}
        return torchvision.models.get_model(name, weights=None, **known)  # type: ignore[no-any-return]

    return build


def clips(frames: int, side: int) -> Callable[[int], Inputs]:
    return lambda batch: ((torch.rand(batch, 3, frames, side, side),), {})


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(512, 8, batch_first=True)
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)


def language_model(name: str) -> nn.Module:
    """A model of transformers with the sizes of its published base version (llama: 8 layers)."""
    import transformers as library

    if name == "bert":
        return Logits(library.BertForMaskedLM(library.BertConfig()))
    if name == "gpt2":
        return Logits(library.GPT2LMHeadModel(library.GPT2Config()))
    config = library.LlamaConfig(
        hidden_size=1024, intermediate_size=2816, num_hidden_layers=8, num_attention_heads=16,
        num_key_value_heads=4,
    )  # fmt: skip
    return Logits(library.LlamaForCausalLM(config))


class Logits(nn.Module):
    """The logits of a model that returns an output of transformers."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.body(input_ids=ids, use_cache=False).logits


class Segmentation(nn.Module):
    """The map of a segmentation model of torchvision."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.body = vision(name)()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)["out"]


class Recurrent(nn.Module):
    """Embedding, a stack of recurrent layers, a classifier over the last step."""

    def __init__(
        self, kind: str, vocabulary: int = 10000, width: int = 512, **settings: Any
    ) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, width)
        self.body = getattr(nn, kind)(
            width, width, num_layers=2, batch_first=True, dropout=0.1, **settings
        )
        wide = settings.get("proj_size", width) * (2 if settings.get("bidirectional") else 1)
        self.head = nn.Linear(wide, vocabulary)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.table(ids))[0])


class Block(nn.Module):
    """A pre-norm transformer block with scaled dot-product attention."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.one, self.two = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.heads, self.dropout = heads, dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.one(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        p = self.dropout if self.training else 0.0
        found = nn.functional.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        x = x + self.out(found.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(nn.functional.gelu(self.up(self.two(x))))


class Gpt(nn.Module):
    """A small decoder with a tied head: logits of every position."""

    def __init__(self, layers: int = 6, width: int = 512, dropout: float = 0.0) -> None:
        super().__init__()
        self.table = nn.Embedding(32000, width)
        self.blocks = nn.ModuleList(Block(width, 8, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 32000, bias=False)
        self.head.weight = self.table.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Repeated(nn.Module):
    """torchinfo #144."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(1024, 1024)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(100):
            x = self.linear(x)
        return x


def case(
    name: str,
    build: Any,
    inputs: Any,
    batch: int,
    *,
    timed: bool = False,
    limit: int = 0,
    **step: Any,
) -> Configuration:
    """A configuration that trains with Adam unless the step says otherwise; `limit` is in GiB."""
    return Configuration(
        name=name,
        build=build,
        inputs=inputs,
        batch=batch,
        step=Step(**{"mode": "train", "optimizer": "adam", **step}),
        timed=timed,
        limit_bytes=limit << 30,
    )


def configurations() -> Iterator[Configuration]:
    """Families, losses, optimizers, precisions, checkpointing, sizes, and limits of memory."""
    yield from image_models()
    yield from image_steps()
    yield from other_images()
    yield from sequence_models()
    yield from library_models()
    yield from limited()


def image_models() -> Iterator[Configuration]:
    """Families of image models in fp32, and attention in two precisions."""
    for name, batch in (
        ("resnet18", 64), ("resnet50", 32), ("resnet50", 64), ("vgg11", 32), ("vgg16", 16),
        ("mobilenet_v2", 64), ("efficientnet_b0", 32), ("densenet121", 32), ("convnext_tiny", 32),
        ("mnasnet1_0", 64), ("regnet_y_400mf", 64), ("shufflenet_v2_x1_0", 64),
    ):  # fmt: skip
        yield case(f"{name}-fp32-b{batch}", vision(name), images(224), batch, timed=True)
    for name in ("vit_b_16", "swin_t"):
        for precision in ("fp32", "amp-bf16"):
            timed = precision == "fp32"
            yield case(
                f"{name}-{precision}", vision(name), images(224), 32,
                precision=precision, timed=timed,
            )  # fmt: skip


def image_steps() -> Iterator[Configuration]:
    """Two image models in every precision, optimizer, form and mode."""
    resnet, vit, full = vision("resnet50"), vision("vit_b_16"), images(224)
    for precision in ("tf32", "amp-bf16", "amp-fp16", "bf16"):
        yield case(f"resnet50-{precision}", resnet, full, 32, precision=precision)
    yield case(
        "resnet50-nhwc-amp", resnet, full, 32, precision="amp-bf16", channels_last=True
    )  # fmt: skip
    for optimizer in ("sgd", "momentum", "adamw", "rmsprop", "adagrad", "adafactor"):
        yield case(f"vit_b_16-{optimizer}", vit, full, 4, optimizer=optimizer)
    for form in ("fused", "for-loop"):
        yield case(f"vit_b_16-{form}", vit, full, 4, implementation=form)
    for name, build in (("resnet50", resnet), ("vit_b_16", vit), ("vgg16", vision("vgg16"))):
        yield case(f"{name}-checkpointing", build, full, 32, checkpointing=True)
        yield case(f"{name}-inference", build, full, 64, mode="inference", optimizer="none")


def other_images() -> Iterator[Configuration]:
    """Depthwise and strided convolutions in NHWC, video, segmentation, and real DDP."""
    for name in ("efficientnet_b0", "convnext_tiny", "mobilenet_v2"):
        yield case(
            f"{name}-nhwc-amp", vision(name), images(224), 32,
            precision="amp-bf16", channels_last=True,
        )  # fmt: skip
        yield case(f"{name}-amp", vision(name), images(224), 32, precision="amp-bf16")
    yield case("r3d_18", vision("r3d_18"), clips(16, 112), 4, timed=True)
    yield case("deeplabv3", partial(Segmentation, "deeplabv3_resnet50"), images(256), 4, loss="sum")
    for name in ("resnet50", "swin_t"):
        yield case(f"{name}-ddp", vision(name), images(224), 32, optimizer="adamw", ddp=True)


def library_models() -> Iterator[Configuration]:
    """Language models of transformers, from their configurations, without weights."""
    for name in ("bert", "gpt2", "llama"):
        for precision in ("fp32", "amp-bf16"):
            timed = precision == "fp32"
            yield case(
                f"{name}-{precision}", partial(language_model, name), tokens(512, 30000), 4,
                precision=precision, optimizer="adamw", timed=timed,
            )  # fmt: skip


def limited() -> Iterator[Configuration]:
    """Where memory ends: the largest batch that runs in 8 or 16 GiB, and in what is estimated."""
    amp = {"precision": "amp-bf16"}
    for name, limit, step in (
        ("resnet50", 16, {}), ("resnet50", 8, amp), ("vit_b_16", 16, amp), ("mobilenet_v2", 8, {}),
        ("densenet121", 8, {}), ("efficientnet_b0", 8, amp), ("swin_t", 8, {}),
        ("resnet50", 8, {"mode": "inference", "optimizer": "none"}),
    ):  # fmt: skip
        how = "-".join(map(str, step.values())) or "fp32"
        yield case(f"limit-{name}-{limit}-{how}", vision(name), images(224), 0, limit=limit, **step)
    yield case("limit-gpt-8", Gpt, tokens(512, 32000), 0, limit=8)
    yield case("limit-lstm-8", partial(Recurrent, "LSTM"), tokens(128, 10000), 0, limit=8)
    yield case("limit-bert-16", partial(language_model, "bert"), tokens(512, 30000), 0, limit=16)


def sequence_models() -> Iterator[Configuration]:
    """Recurrent layers, a decoder, an encoder, and torchinfo #144."""

    def rows(batch: int) -> Inputs:
        return (torch.rand(10240 * batch, 1024),), {}

    yield case("issue-144", Repeated, rows, 1, optimizer="none", loss="sum")
    for kind in ("LSTM", "GRU"):
        yield case(f"{kind.lower()}-train", partial(Recurrent, kind), tokens(128, 10000), 32)
    for name, more in (
        ("projected", {"proj_size": 128}),
        ("bidirectional", {"bidirectional": True}),
    ):
        build = partial(Recurrent, "LSTM", **more)
        yield case(f"lstm-{name}", build, tokens(128, 10000), 32)
    yield case("lstm-amp", partial(Recurrent, "LSTM"), tokens(128, 10000), 32, precision="amp-bf16")
    yield case("encoder", encoder, sequences(256, 512), 16, loss="sum")
    yield case("encoder-inference", encoder, sequences(256, 512), 16, mode="inference",
               optimizer="none")  # fmt: skip
    ids = tokens(512, 32000)
    for precision in ("fp32", "amp-bf16", "bf16"):
        yield case(f"gpt-{precision}", Gpt, ids, 8, precision=precision, timed=precision == "fp32")
    yield case("gpt-dropout", partial(Gpt, dropout=0.1), ids, 8)
    yield case("gpt-checkpointing", Gpt, ids, 8, checkpointing=True)
    yield case("gpt-accumulation", Gpt, ids, 4, accumulation=4)
    yield case("gpt-sum-loss", Gpt, ids, 8, loss="sum")
