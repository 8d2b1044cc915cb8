"""Candidate tensors from the layers of a module: the inputs that each layer accepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs.candidate import filled, indices, tensor
from reportgen.manifest import InputSpec
from reportgen.pytree import modules_of

if TYPE_CHECKING:
    from torch import nn

LENGTH = 16
_SIDES = (224, 64, 32, 28, 299, 16, 8)
_WIDTHS = (3, 4, 8, 10, 16, 32, 64, 128, 256, 512, 784)
_DTYPES = ("float32", "float16", "bfloat16", "float64", "complex64")
_MOST_MODULES, _MOST_FOUND = 200, 24


def proposals_of(model: nn.Module) -> list[InputSpec]:
    """Inputs of the first layers of each kind in module order, then common sizes."""
    found: list[InputSpec] = []
    for module in list(modules_of(model))[:_MOST_MODULES]:
        found += [item for item in _of_layer(module) if item not in found]
        if len(found) > _MOST_FOUND:
            break
    found += list(_of_own_parameters(model))
    common = [
        *(tensor(None, "batch", 3, side, side) for side in _SIDES[:3]),
        *(tensor(None, "batch", width) for width in _WIDTHS),
        indices(None, "batch", LENGTH, count=10),
    ]
    dtype = _dtype_of(model)
    return [_of_dtype(item, dtype) for item in dict.fromkeys([*found, *common])]


def table_sizes(model: nn.Module) -> list[int]:
    """The distinct numbers of rows of the embeddings, in module order."""
    sizes = (getattr(module, "num_embeddings", None) for module in modules_of(model))
    return list(dict.fromkeys(size for size in sizes if isinstance(size, int)))


def states_of(model: nn.Module) -> list[InputSpec]:
    """States of the recurrent layers: one tensor, or a tuple of two for an LSTM."""
    from torch import nn

    found: list[InputSpec] = []
    for module in modules_of(model):
        held: Any = module
        if isinstance(module, nn.RNNBase):
            count = held.num_layers * (1 + held.bidirectional)
            one = tensor(None, count, "batch", held.hidden_size)
        elif isinstance(module, nn.RNNCellBase):
            one = tensor(None, "batch", held.hidden_size)
        else:
            continue
        two = InputSpec.model_validate({"items": (one, one), "tuple": True})
        found += [one, two] if isinstance(module, nn.LSTM | nn.LSTMCell) else [one]
    return list(dict.fromkeys(found))


def ones(*dims: int | str) -> InputSpec:
    """A mask of ones."""
    return filled(None, *dims, value=1)


def _dtype_of(model: nn.Module) -> str:
    """The dtype of the largest floating-point or complex parameter."""
    held = [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]
    largest = max(held, key=lambda p: 0 if _is_lazy(p) else p.numel(), default=None)
    name = "" if largest is None else str(largest.dtype).removeprefix("torch.")
    return name if name in _DTYPES else "float32"


def _is_lazy(parameter: Any) -> bool:
    from torch.nn.parameter import is_lazy

    return bool(is_lazy(parameter))


def _of_dtype(item: InputSpec, dtype: str) -> InputSpec:
    return item.model_copy(update={"dtype": dtype}) if item.dtype == "float32" else item


def _of_layer(module: nn.Module) -> Iterator[InputSpec]:
    """The inputs that one layer accepts."""
    from torch import nn

    held: Any = module
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        yield indices(None, "batch", LENGTH, count=held.num_embeddings)
        yield indices(None, "batch", count=held.num_embeddings)
    elif isinstance(getattr(held, "kernel_size", None), tuple) and hasattr(held, "in_channels"):
        yield from _of_convolution(held)
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.modules.batchnorm._BatchNorm):
        yield from _of_recurrent(held) if hasattr(held, "input_size") else _normed(held)
    else:
        yield from _of_dense(held)


def _of_convolution(held: Any) -> Iterator[InputSpec]:
    """Inputs of a convolution; three channels for a lazy one, which accepts any number."""
    channels = int(held.in_channels) or 3
    if len(held.kernel_size) == 1:
        for length in (128, 1024, 16_000):
            yield tensor(None, "batch", channels, length)
    elif len(held.kernel_size) == 2:
        for side in _SIDES:
            yield tensor(None, "batch", channels, side, side)
    else:
        for side in (32, 64, 112):
            yield tensor(None, "batch", channels, 16, side, side)


def _of_recurrent(held: Any) -> Iterator[InputSpec]:
    first = getattr(held, "batch_first", None)
    if first is None:
        yield tensor(None, "batch", held.input_size)
    else:
        yield tensor(None, *(("batch", LENGTH) if first else (LENGTH, "batch")), held.input_size)


def _of_dense(held: Any) -> Iterator[InputSpec]:
    """Inputs of a linear, transformer or norm layer; a lazy one has no size yet."""
    from torch import nn

    width = getattr(held, "in_features", None)
    if isinstance(held, nn.MultiheadAttention):
        yield tensor(None, "batch", LENGTH, held.embed_dim)
    elif isinstance(held, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        yield tensor(None, "batch", LENGTH, held.linear1.in_features)
    elif isinstance(held, nn.LayerNorm):
        yield tensor(None, "batch", LENGTH, *held.normalized_shape)
    elif isinstance(held, nn.Bilinear):
        yield tensor(None, "batch", held.in1_features)
        yield tensor(None, "batch", held.in2_features)
    elif isinstance(width, int) and width > 0:
        yield tensor(None, "batch", width)
        yield tensor(None, "batch", LENGTH, width)
        yield from _unflattened(width)


def _unflattened(width: int) -> Iterator[InputSpec]:
    """Images that Flatten converts to `width` values."""
    for channels in (1, 3):
        side = round((width / channels) ** 0.5)
        if side > 3 and side * side * channels == width:
            yield tensor(None, "batch", channels, side, side)


def _normed(held: Any) -> Iterator[InputSpec]:
    from torch import nn

    if isinstance(held, nn.BatchNorm2d):
        yield tensor(None, "batch", held.num_features, 32, 32)
    elif isinstance(held, nn.BatchNorm1d):
        yield tensor(None, "batch", held.num_features)


def _of_own_parameters(model: nn.Module) -> Iterator[InputSpec]:
    """Factors for a matrix product with a parameter of the model, from either side."""
    for parameter in list(model.parameters(recurse=False))[:4]:
        if not _is_lazy(parameter) and parameter.ndim == 2:
            yield tensor(None, "batch", parameter.shape[1])
            yield tensor(None, "batch", parameter.shape[0])
