"""A layer in one line: its class and the arguments that tell it from its neighbors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import nn

_LONGEST = 60
_ADDRESS = re.compile(r"(<[^<>]*)? at 0x[0-9a-fA-F]+>?")


def describe(module: nn.Module) -> str:
    """`Conv2d(64, 128, kernel 3x3, stride 2)`, at most 60 characters.

    Layers of torch that people know by a few arguments show those; any other module shows its
    own `extra_repr`, cut where it is too long.
    """
    name, parametrized = _class_name(module)
    arguments = ", ".join(_arguments(module)) or _own_words(module)
    text = f"{name}({arguments})" if arguments else name
    text = f"{text} {parametrized}".rstrip()
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1].rstrip(' ,')}…"


def _class_name(module: nn.Module) -> tuple[str, str]:
    """The class, and a word where its weights are made by another module (`weight_norm`)."""
    kind = type(module)
    if "parametrizations" in module._modules and kind.__name__.startswith("Parametrized"):
        return kind.__bases__[0].__name__, "parametrized"
    return kind.__name__, ""


def _arguments(module: nn.Module) -> list[str]:
    for kinds, tell in _TELLERS:
        if isinstance(module, kinds):
            try:
                return tell(module)
            except AttributeError:  # a subclass that did not keep what its parent keeps
                return []
    return []


def kernel_of(module: nn.Module) -> tuple[int, ...]:
    """The kernel of a convolution or a pooling, a size per dimension; empty for other layers."""
    size = getattr(module, "kernel_size", None)
    if isinstance(size, int) and not isinstance(size, bool):
        return (size,) * _dimensions(module)
    sizes = tuple(size) if isinstance(size, list | tuple) else ()
    return sizes if all(isinstance(item, int) for item in sizes) else ()


def groups_of(module: nn.Module) -> int | None:
    """The groups of a convolution; None for other layers."""
    groups = getattr(module, "groups", None)
    return groups if isinstance(groups, int) and kernel_of(module) else None


def _dimensions(module: nn.Module) -> int:
    """`2` of `MaxPool2d`, whose kernel may be one number for both."""
    digits = re.findall(r"([123])d", type(module).__name__)
    return int(digits[-1]) if digits else 1


def _size(value: Any) -> str:
    """`3` as `3`, `(3, 3)` as `3x3`."""
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _unless(value: Any, usual: int, word: str) -> list[str]:
    """`stride 2`, `stride 2x1`; nothing where `value` is what it usually is."""
    values = value if isinstance(value, list | tuple) else (value,)
    if all(item == usual for item in values):
        return []
    return [f"{word} {values[0] if len(set(values)) == 1 else _size(value)}"]


def _convolution(module: Any) -> list[str]:
    return [
        str(module.in_channels),
        str(module.out_channels),
        f"kernel {_size(module.kernel_size)}",
        *_unless(module.stride, 1, "stride"),
        *_unless(module.groups, 1, "groups"),
        *_unless(module.dilation, 1, "dilation"),
    ]


def _linear(module: Any) -> list[str]:
    bias = [] if module.bias is not None else ["no bias"]
    return [str(module.in_features), str(module.out_features), *bias]


def _recurrent(module: Any) -> list[str]:
    return [
        str(module.input_size),
        str(module.hidden_size),
        *([f"{module.num_layers} layers"] if module.num_layers > 1 else []),
        *(["bidirectional"] if module.bidirectional else []),
    ]


def _pool(module: Any) -> list[str]:
    size = module.kernel_size
    stride = [] if module.stride == size else _unless(module.stride, 1, "stride")
    return [f"kernel {_size(size)}", *stride]


_TELLERS: tuple[tuple[Any, Callable[[Any], list[str]]], ...] = (
    (nn.modules.conv._ConvNd, _convolution),
    (nn.Linear, _linear),
    (nn.Bilinear, lambda m: [str(m.in1_features), str(m.in2_features), str(m.out_features)]),
    (nn.Embedding, lambda m: [str(m.num_embeddings), str(m.embedding_dim)]),
    (nn.EmbeddingBag, lambda m: [str(m.num_embeddings), str(m.embedding_dim), m.mode]),
    (nn.MultiheadAttention, lambda m: [str(m.embed_dim), f"{m.num_heads} heads"]),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, lambda m: [str(m.input_size), str(m.hidden_size)]),
    (nn.modules.batchnorm._NormBase, lambda m: [str(m.num_features)]),
    (nn.GroupNorm, lambda m: [str(m.num_groups), str(m.num_channels)]),
    (nn.LayerNorm, lambda m: [_size(m.normalized_shape)]),
    (nn.modules.pooling._MaxPoolNd, _pool),
    (nn.modules.pooling._AvgPoolNd, _pool),
    (nn.modules.pooling._AdaptiveAvgPoolNd, lambda m: [_size(m.output_size)]),
    (nn.modules.pooling._AdaptiveMaxPoolNd, lambda m: [_size(m.output_size)]),
    (nn.modules.dropout._DropoutNd, lambda m: [f"{m.p:g}"]),
    (nn.modules.container.ModuleList, lambda m: [f"{len(m)} modules"]),
    (nn.modules.container.ParameterList, lambda m: [f"{len(m)} parameters"]),
)


def _own_words(module: nn.Module) -> str:
    """What the module says of itself, on one line and the same in every process."""
    if isinstance(module, nn.Sequential | nn.ModuleDict | nn.ParameterDict | nn.ReLU):
        return ""
    try:
        words = module.extra_repr()
    except Exception:  # somebody's own, and no reason to lose the table
        return ""
    return _ADDRESS.sub("", " ".join(str(words).split()))
