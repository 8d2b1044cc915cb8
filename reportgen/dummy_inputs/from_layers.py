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
# later modules take features of earlier ones, not inputs
_MOST_MODULES, _MOST_FOUND = 200, 24


def proposals_of(model: nn.Module) -> list[InputSpec]:
    """Inputs of the first layers of each kind in module order, then common sizes."""
    found: list[InputSpec] = []
    for module in list(modules_of(model))[:_MOST_MODULES]:
        found += [item for item in _of_layer(module) if item not in found]
        if len(found) > _MOST_FOUND:
            break
    if _is_time_first(model):
        found = [_with_time_first(item) for item in found]
    found += list(_of_own_parameters(model))
    common = [
        *(tensor(None, "batch", 3, side, side) for side in _SIDES[:3]),
        *(tensor(None, "batch", width) for width in _WIDTHS),
        indices(None, "batch", LENGTH, count=10),
    ]
    dtype = _dtype_of(model)
    return [_of_dtype(item, dtype) for item in dict.fromkeys([*found, *common])]


def _is_time_first(model: nn.Module) -> bool:
    """Whether `model` is PyTorch's own attention or transformer with batch_first=False.

    A model around one may transpose its inputs, and models take the batch first.
    """
    from torch import nn

    if not type(model).__module__.startswith("torch.nn.modules."):
        return False
    layers = (each for each in modules_of(model) if isinstance(each, nn.MultiheadAttention))
    return not getattr(next(layers, None), "batch_first", True)


def _with_time_first(item: InputSpec) -> InputSpec:
    if item.shape is None or item.shape[:2] != ("batch", LENGTH):
        return item
    return item.model_copy(update={"shape": (LENGTH, "batch", *item.shape[2:])})


def table_sizes(model: nn.Module) -> list[int]:
    """The distinct numbers of rows of the embeddings, in module order."""
    sizes = (getattr(module, "num_embeddings", None) for module in modules_of(model))
    return list(dict.fromkeys(size for size in sizes if isinstance(size, int)))


def states_of(model: nn.Module) -> list[InputSpec]:
    """States of the recurrent layers: one tensor, or a tuple of two for an LSTM."""
    from torch import nn

    found: list[InputSpec] = []
    for module in modules_of(model):
        layer: Any = module
        if isinstance(module, nn.RNNBase):
            count = layer.num_layers * (1 + layer.bidirectional)
            one = tensor(None, count, "batch", layer.hidden_size)
        elif isinstance(module, nn.RNNCellBase):
            one = tensor(None, "batch", layer.hidden_size)
        else:
            continue
        two = InputSpec.model_validate({"items": (one, one), "tuple": True})
        found += [one, two] if isinstance(module, nn.LSTM | nn.LSTMCell) else [one]
    return list(dict.fromkeys(found))


def ones(*dims: int | str) -> InputSpec:
    """A mask of ones."""
    return filled(None, *dims, value=1)


def _dtype_of(model: nn.Module) -> str:
    # norm layers of a half-precision model may stay in float32
    floats = [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]
    # numel() of a lazy parameter raises
    largest = max(floats, key=lambda p: 0 if _is_lazy(p) else p.numel(), default=None)
    name = "" if largest is None else str(largest.dtype).removeprefix("torch.")
    return name if name in _DTYPES else "float32"


def _is_lazy(parameter: Any) -> bool:
    from torch.nn.parameter import is_lazy

    return bool(is_lazy(parameter))


def _of_dtype(item: InputSpec, dtype: str) -> InputSpec:
    return item.model_copy(update={"dtype": dtype}) if item.dtype == "float32" else item


def _of_layer(module: nn.Module) -> Iterator[InputSpec]:
    from torch import nn

    layer: Any = module
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        yield indices(None, "batch", LENGTH, count=layer.num_embeddings)
        yield indices(None, "batch", count=layer.num_embeddings)
    # by attributes: quantized and custom convolutions are not derived from nn.Conv2d
    elif isinstance(getattr(layer, "kernel_size", None), tuple) and hasattr(layer, "in_channels"):
        yield from _of_convolution(layer)
    elif isinstance(module, nn.RNNBase | nn.RNNCellBase | nn.modules.batchnorm._BatchNorm):
        yield from _of_recurrent(layer) if hasattr(layer, "input_size") else _of_batch_norm(layer)
    else:
        yield from _of_dense(layer)


def _of_convolution(layer: Any) -> Iterator[InputSpec]:
    channels = int(layer.in_channels) or 3  # a lazy one has 0 channels and accepts any number
    if len(layer.kernel_size) == 1:
        for length in (128, 1024, 16_000):
            yield tensor(None, "batch", channels, length)
    elif len(layer.kernel_size) == 2:
        for side in _SIDES:
            yield tensor(None, "batch", channels, side, side)
    else:
        for side in (32, 64, 112):
            yield tensor(None, "batch", channels, 16, side, side)


def _of_recurrent(layer: Any) -> Iterator[InputSpec]:
    # only nn.RNNBase has batch_first; a cell takes one step
    first = getattr(layer, "batch_first", None)
    if first is None:
        yield tensor(None, "batch", layer.input_size)
    else:
        yield tensor(None, *(("batch", LENGTH) if first else (LENGTH, "batch")), layer.input_size)


def _of_dense(layer: Any) -> Iterator[InputSpec]:
    from torch import nn

    width = getattr(layer, "in_features", None)  # 0 in a lazy layer
    if isinstance(layer, nn.MultiheadAttention):
        yield tensor(None, "batch", LENGTH, layer.embed_dim)
    elif isinstance(layer, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        yield tensor(None, "batch", LENGTH, layer.linear1.in_features)
    elif isinstance(layer, nn.LayerNorm):
        yield tensor(None, "batch", LENGTH, *layer.normalized_shape)
    elif isinstance(layer, nn.Bilinear):
        yield tensor(None, "batch", layer.in1_features)
        yield tensor(None, "batch", layer.in2_features)
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


def _of_batch_norm(layer: Any) -> Iterator[InputSpec]:
    from torch import nn

    if isinstance(layer, nn.BatchNorm2d):
        yield tensor(None, "batch", layer.num_features, 32, 32)
    elif isinstance(layer, nn.BatchNorm1d):
        yield tensor(None, "batch", layer.num_features)


def _of_own_parameters(model: nn.Module) -> Iterator[InputSpec]:
    """Factors for a matrix product with a parameter of the model, from either side."""
    for parameter in list(model.parameters(recurse=False))[:4]:
        if not _is_lazy(parameter) and parameter.ndim == 2:
            yield tensor(None, "batch", parameter.shape[1])
            yield tensor(None, "batch", parameter.shape[0])
