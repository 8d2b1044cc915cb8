"""Architectures as trees of counted layers, without torch: the raw material of report values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from reportgen.sections.layers import Layer


@dataclass
class Node:
    """A module: its own figures for one sample, and its children."""

    name: str
    type: str
    shape: tuple[int, ...]
    own: int = 0
    own_macs: int = 0
    own_buffers: int = 0
    calls: int = 1
    children: list[Node] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        """Of the whole subtree."""
        return self.own + sum(child.parameters for child in self.children)

    @property
    def macs(self) -> int:
        """Of one sample through the whole subtree."""
        return self.own_macs + sum(child.macs for child in self.children)

    @property
    def buffers(self) -> int:
        """Numbers in buffers of the whole subtree."""
        return self.own_buffers + sum(child.buffers for child in self.children)

    def walk(self, batch: int, path: str = "", depth: int = 0) -> Iterator[Layer]:
        """The subtree as the section lists it, depth first."""
        yield Layer(
            path=path,
            type=self.type,
            depth=depth,
            calls=self.calls,
            input_shapes=((batch, *self.shape),),
            output_shapes=((batch, *self.shape),),
            parameters=self.parameters,
            own_parameters=self.own,
            macs=self.macs * batch,
            forward_backward_macs=3 * self.macs * batch,
            own_forward_backward_macs=3 * self.own_macs * batch,
            trainable=True,
            leaf=not self.children,
            shared_with=None,
        )
        for child in self.children:
            yield from child.walk(batch, f"{path}.{child.name}" if path else child.name, depth + 1)


def conv(name: str, i: int, o: int, k: int, size: int, *, bias: bool = True, stride: int = 1
         ) -> Node:  # fmt: skip
    """A convolution with `size` × `size` outputs."""
    extra = f", stride {stride}" if stride > 1 else ""
    weights = i * o * k * k
    return Node(name, f"Conv2d({i}, {o}, {k}x{k}{extra})", (o, size, size),
                weights + (o if bias else 0), weights * size * size)  # fmt: skip


def linear(name: str, i: int, o: int, *, tokens: tuple[int, ...] = ()) -> Node:
    """A linear layer, applied to every token."""
    times = 1
    for each in tokens:
        times *= each
    return Node(name, f"Linear({i}, {o})", (*tokens, o), i * o + o, i * o * times)


def plain(name: str, kind: str, shape: tuple[int, ...], own: int = 0, buffers: int = 0) -> Node:
    """A layer without multiply-adds."""
    return Node(name, kind, shape, own, 0, buffers)


def vgg16() -> Node:
    """138,357,544 parameters."""
    features = Node("features", "Sequential", (512, 7, 7))
    number, i, size = count(), 3, 224
    for item in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if item:
            features.children.append(conv(str(next(number)), i, item, 3, size))
            features.children.append(plain(str(next(number)), "ReLU", (item, size, size)))
            i = item
        else:
            size //= 2
            features.children.append(plain(str(next(number)), "MaxPool2d(2)", (i, size, size)))
    head = [linear("0", 25088, 4096), plain("1", "ReLU", (4096,)), plain("2", "Dropout", (4096,)),
            linear("3", 4096, 4096), plain("4", "ReLU", (4096,)), plain("5", "Dropout", (4096,)),
            linear("6", 4096, 1000)]  # fmt: skip
    return Node("", "VGG", (1000,), children=[
        features, plain("avgpool", "AdaptiveAvgPool2d(7x7)", (512, 7, 7)),
        Node("classifier", "Sequential", (1000,), children=head)])  # fmt: skip


def _norm(name: str, channels: int, size: int) -> Node:
    return plain(name, f"BatchNorm2d({channels})", (channels, size, size), 2 * channels,
                 2 * channels + 1)  # fmt: skip


def _bottleneck(name: str, i: int, width: int, size: int, stride: int) -> Node:
    out, before = width * 4, size * stride
    block = Node(name, "Bottleneck", (out, size, size), children=[
        conv("conv1", i, width, 1, before, bias=False), _norm("bn1", width, before),
        conv("conv2", width, width, 3, size, bias=False, stride=stride), _norm("bn2", width, size),
        conv("conv3", width, out, 1, size, bias=False), _norm("bn3", out, size),
        Node("relu", "ReLU", (out, size, size), calls=3)])  # fmt: skip
    if i != out:
        block.children.append(Node("downsample", "Sequential", (out, size, size), children=[
            conv("0", i, out, 1, size, bias=False, stride=stride),
            _norm("1", out, size)]))  # fmt: skip
    return block


def resnet50() -> Node:
    """25,557,032 parameters."""
    root = Node("", "ResNet", (1000,), children=[
        conv("conv1", 3, 64, 7, 112, bias=False, stride=2), _norm("bn1", 64, 112),
        plain("relu", "ReLU", (64, 112, 112)),
        plain("maxpool", "MaxPool2d(3, stride 2)", (64, 56, 56))])  # fmt: skip
    i, size = 64, 56
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        size = size if stage == 1 else size // 2
        layer = Node(f"layer{stage}", "Sequential", (width * 4, size, size))
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            layer.children.append(_bottleneck(str(block), i, width, size, stride))
            i = width * 4
        root.children.append(layer)
    root.children += [plain("avgpool", "AdaptiveAvgPool2d(1x1)", (2048, 1, 1)),
                      linear("fc", 2048, 1000)]  # fmt: skip
    return root


def _attention(name: str, width: int, heads: int, tokens: int) -> Node:
    return Node(name, f"MultiheadAttention({width}, {heads} heads)", (tokens, width),
                3 * width * width + 3 * width,
                tokens * 3 * width * width + 2 * tokens * tokens * width,
                children=[Node("out_proj", f"NonDynamicallyQuantizableLinear({width}, {width})",
                               (tokens, width), width * width + width,
                               tokens * width * width, calls=0)])  # fmt: skip


def _block(name: str, kind: str, width: int, heads: int, tokens: int, inner: int) -> Node:
    return Node(name, kind, (tokens, width), children=[
        plain("ln_1", f"LayerNorm({width})", (tokens, width), 2 * width),
        _attention("self_attention", width, heads, tokens),
        plain("dropout", "Dropout", (tokens, width)),
        plain("ln_2", f"LayerNorm({width})", (tokens, width), 2 * width),
        Node("mlp", "MLPBlock", (tokens, width), children=[
            linear("0", width, inner, tokens=(tokens,)), plain("1", "GELU", (tokens, inner)),
            plain("2", "Dropout", (tokens, inner)), linear("3", inner, width, tokens=(tokens,)),
            plain("4", "Dropout", (tokens, width))])])  # fmt: skip


def vit_b_16() -> Node:
    """86,567,656 parameters."""
    blocks = [_block(f"encoder_layer_{n}", "EncoderBlock", 768, 12, 197, 3072) for n in range(12)]
    return Node("", "VisionTransformer", (1000,), own=768, children=[
        conv("conv_proj", 3, 768, 16, 14, stride=16),
        Node("encoder", "Encoder", (197, 768), own=197 * 768, children=[
            plain("dropout", "Dropout", (197, 768)),
            Node("layers", "Sequential", (197, 768), children=blocks),
            plain("ln", "LayerNorm(768)", (197, 768), 2 * 768)]),
        Node("heads", "Sequential", (1000,), children=[linear("head", 768, 1000)])])  # fmt: skip


def tanh() -> Node:
    """The seed's example: 144 parameters, 128 multiply-adds."""
    return Node("", "Sequential", (16,), children=[
        linear("W0", 8, 16), plain("tanh", "Tanh", (16,))])  # fmt: skip


def lstm() -> Node:
    """An embedding, two bidirectional layers and a head."""
    return Node("", "SentimentClassifier", (2,), children=[
        plain("embedding", "Embedding(30000, 128)", (128, 128), 30000 * 128),
        Node("lstm", "LSTM(128, 128, 2 layers, bidirectional)", (128, 256), 659_456, 84_000_000),
        plain("dropout", "Dropout(0.2)", (256,)), linear("head", 256, 2),
        Node("unused", "Linear(100, 100)", (), 10_100, 0, calls=0)])  # fmt: skip


def transformer() -> Node:
    """Two encoder and two decoder blocks of width 128."""

    def side(name: str, tokens: int) -> Node:
        return Node(
            name,
            "ModuleList",
            (tokens, 128),
            calls=0,
            children=[
                _block(str(n), f"{name.capitalize()}Layer", 128, 4, tokens, 512) for n in range(2)
            ],
        )

    return Node("", "EncoderDecoder", (48, 4000), children=[
        plain("source", "Embedding(4000, 128)", (64, 128), 512_000),
        plain("target", "Embedding(4000, 128)", (48, 128), 512_000),
        side("encoder", 64), side("decoder", 48),
        linear("output", 128, 4000, tokens=(48,))])  # fmt: skip
