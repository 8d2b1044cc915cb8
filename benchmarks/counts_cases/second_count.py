"""A second count that shares nothing with reportgen: formulas on the calls that a forward makes.

reportgen watches the operators that the dispatcher sees. Here the calls of torch's Python functions
are watched (`F.linear`, `torch.matmul`, `nn.MultiheadAttention`'s own function, …), and each costs
what its arguments say. Attention is thus counted from widths and lengths, a recurrent layer from
its weights and its steps, a quantized layer by a hook on the module.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def second_parameters(model: nn.Module) -> int:
    """Numbers in the parameters of the state dict, each storage once, packed weights unpacked."""
    buffers = {name for name, _ in model.named_buffers()}
    storages: dict[int, int] = {}
    packed = 0
    for name, value in model.state_dict(keep_vars=True).items():
        if isinstance(value, tuple):  # a packed weight with its bias
            packed += sum(part.numel() for part in value if isinstance(part, Tensor))
        elif isinstance(value, Tensor) and value.is_quantized:
            packed += value.numel()
        elif isinstance(value, nn.Parameter) and name not in buffers:
            storages[value.untyped_storage()._cdata] = value.numel()
        elif name.endswith("bias") and name not in buffers and isinstance(value, Tensor):
            packed += value.numel()
    return sum(storages.values()) + packed


def second_macs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Multiply-adds of one forward pass in evaluation mode."""
    counter = Calls()
    with torch.no_grad(), _quantized_layers(model, counter), counter:
        model(*args, **kwargs)
    return counter.macs


class Calls(TorchFunctionMode):
    """Adds up what the calls inside it cost."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)  # the mode is off in here: nothing inside is counted twice
        cost = _COSTS.get(getattr(func, "__name__", ""))
        packed = any(isinstance(arg, torch.ScriptObject) for arg in args)  # the hooks' affair
        if cost is not None and not packed:
            self.macs += cost(result, *args, **{k: v for k, v in kwargs.items() if k != "out"})
        return result


@contextmanager
def _quantized_layers(model: nn.Module, counter: Calls) -> Iterator[None]:
    def count(module: Any, _: Any, output: Tensor) -> None:
        weight = module.weight()
        counter.macs += output.numel() * weight.numel() // weight.shape[0]

    kinds = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")
    handles = [
        module.register_forward_hook(count)
        for module in model.modules()
        if type(module).__module__.startswith(kinds) and callable(getattr(module, "weight", None))
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _linear(_: Tensor, x: Tensor, weight: Tensor, *__: Any, **___: Any) -> int:
    return x.numel() // x.shape[-1] * weight.numel() if x.numel() else 0


def _convolution(out: Tensor, _: Tensor, weight: Tensor, *__: Any, **___: Any) -> int:
    return out.numel() * math.prod(weight.shape[1:])


def _transposed(_: Tensor, x: Tensor, weight: Tensor, *__: Any, **___: Any) -> int:
    return x.numel() * math.prod(weight.shape[1:])


def _product(out: Tensor, left: Tensor, *_: Any, **__: Any) -> int:
    return out.numel() * left.shape[-1]


def _product_from_right(out: Tensor, _: Tensor, left: Tensor) -> int:
    return out.numel() * left.shape[-1]


def _added_product(out: Tensor, _: Tensor, *factors: Tensor, **named: Tensor) -> int:
    left = factors[0] if factors else named.get("batch1", named.get("mat1", out))
    return out.numel() * left.shape[-1]


def _grouped_product(out: Tensor, left: Tensor, *_: Any, **__: Any) -> int:
    """Every row of `left` through the one matrix of its group."""
    return out.numel() * left.shape[-1]


def _added_products(_: Tensor, __: Tensor, left: Tensor, right: Tensor, **___: Any) -> int:
    return left.numel() * right.shape[-1]


def _outer(out: Tensor, *_: Any, **__: Any) -> int:
    return out.numel()


def _bilinear(_: Tensor, left: Tensor, right: Tensor, weight: Tensor, *__: Any, **___: Any) -> int:
    samples = left.numel() // left.shape[-1]
    return samples * weight.shape[0] * right.shape[-1] * (left.shape[-1] + 1)


def _tensordot(result: Tensor, left: Tensor, right: Tensor, *_: Any, **__: Any) -> int:
    """Of each index that is kept there are two, of each that is summed over there are two."""
    return math.isqrt(result.numel() * left.numel() * right.numel())


def _attention(_: Tensor, q: Tensor, k: Tensor, v: Tensor, *__: Any, **___: Any) -> int:
    return q.numel() // q.shape[-1] * k.shape[-2] * (q.shape[-1] + v.shape[-1])


def _multi_head(
    _: Any, query: Tensor, key: Tensor, value: Tensor, width: int, *rest: Any, **__: Any
) -> int:
    """Projections in and out, then scores and sums over keys with what is added to them."""
    samples = query.shape[1] if query.ndim == 3 else 1
    queries, keys = query.shape[0], key.shape[0]
    bias_k, add_zero = rest[3], rest[5]
    projections = queries * 2 * width + keys * (key.shape[-1] + value.shape[-1])
    keys += (bias_k is not None) + bool(add_zero)
    return int(samples * width * (projections + 2 * queries * keys))


def _recurrent(_: Any, data: Tensor, __: Any, third: Any, fourth: Any, *___: Any) -> int:
    """`data` is padded, or packed, in which case the weights come one argument later."""
    packed = isinstance(fourth, list | tuple)
    weights = fourth if packed else third
    steps = data.shape[0] if packed else data.numel() // data.shape[-1]
    return int(steps * sum(weight.numel() for weight in weights if weight.ndim == 2))


def _cell(_: Any, x: Tensor, __: Any, inputs: Tensor, state: Tensor, *___: Any) -> int:
    return (x.numel() // x.shape[-1]) * (inputs.numel() + state.numel())


def _einsum(_: Tensor, equation: str, *operands: Any) -> int:
    """Two operands at a time, from the left; every index of a pair is one loop."""
    tensors = operands[0] if isinstance(operands[0], list | tuple) else operands
    left, _arrow, out = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, tensors, strict=True):
        for letter, size in zip(term, tensor.shape, strict=True):
            sizes[letter] = max(sizes.get(letter, 1), size)
    macs, held = 0, terms[0]
    for index, term in enumerate(terms[1:], 1):
        macs += math.prod(sizes[letter] for letter in set(held) | set(term))
        wanted = set(out).union(*terms[index + 1 :])
        held = "".join(sorted((set(held) | set(term)) & wanted))
    return macs


_COSTS: dict[str, Callable[..., int]] = {
    "linear": _linear,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    **dict.fromkeys(
        ("matmul", "__matmul__", "bmm", "mm", "mv", "dot", "vdot", "inner", "_int_mm"), _product
    ),
    "__rmatmul__": _product_from_right,
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _added_product),
    **dict.fromkeys(("grouped_mm", "_grouped_mm"), _grouped_product),
    "addbmm": _added_products,
    "addr": _outer,
    "bilinear": _bilinear,
    "tensordot": _tensordot,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
    "einsum": _einsum,
}
