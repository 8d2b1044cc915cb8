"""Recurrent layers on fake tensors, each as one fused operator, like cuDNN's kernels.

On fake tensors PyTorch decomposes a sequence of 512 steps into thousands of operators, forward and
backward, that repeat the same shapes. The fused operator has the FLOPs of the decomposition and the
memory traffic of a fused kernel: every tensor is read or written once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

from reportgen.pytree import modules_of

CostCallback = Callable[[list[Tensor], list[Tensor], int], None]
"""Called for each forward and backward pass: tensors read, tensors written, FLOPs."""

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@contextmanager
def fuse_recurrent_layers(model: nn.Module, record: CostCallback) -> Iterator[None]:
    """In this block, each recurrent layer on fake tensors runs as one operator."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules_of(model))
    with _FusedLayersMode(record) if recurrent else nullcontext():
        yield


class _FusedLayersMode(TorchFunctionMode):
    # a function mode: the dispatcher sees `lstm` only after its decomposition
    def __init__(self, record: CostCallback) -> None:
        super().__init__()
        self._record = record

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _GATES and not kwargs and _is_unpacked_call(args):
            return _run_layers(self._record, name, args)
        return func(*args, **(kwargs or {}))


def _is_unpacked_call(args: tuple[Any, ...]) -> bool:
    """Whether the input is a fake tensor and not a packed sequence.

    Then `args` is (input, state, weights, has_biases, num_layers, dropout, train, bidirectional,
    batch_first).
    """
    return len(args) == 9 and isinstance(args[0], FakeTensor) and isinstance(args[3], bool)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """One direction of one layer, with the sizes of its input, state and output."""

    gates: int
    inputs: int
    hidden: int
    outputs: int  # equals `hidden`, or `proj_size` of an LSTM with projection
    weights: tuple[Tensor, ...]

    @property
    def input_macs(self) -> int:
        """Multiply-adds per token with `weight_ih`."""
        return self.gates * self.hidden * self.inputs

    @property
    def state_macs(self) -> int:
        """Multiply-adds per token with `weight_hh`."""
        return self.gates * self.hidden * self.outputs

    @property
    def projection_macs(self) -> int:
        """Multiply-adds per token with `weight_hr`."""
        return self.hidden * self.outputs if self.outputs != self.hidden else 0

    @property
    def requires_grad(self) -> bool:
        """Whether any weight requires a gradient."""
        return any(weight.requires_grad for weight in self.weights)


def _layers_of(name: str, args: tuple[Any, ...]) -> list[_Layer]:
    x, state, weights, has_biases, num_layers, _, _, bidirectional, _ = args
    hidden_state = state[0] if isinstance(state, list | tuple) else state  # (h, c) of an LSTM
    outputs = int(hidden_state.shape[-1])
    hidden = int(weights[0].shape[0]) // _GATES[name]  # `weight_ih` stacks the gates in dim 0
    weights_per_layer = (4 if has_biases else 2) + (1 if outputs != hidden else 0)
    directions = 2 if bidirectional else 1
    return [
        _Layer(
            gates=_GATES[name],
            inputs=int(x.shape[-1]) if index < directions else directions * outputs,
            hidden=hidden,
            outputs=outputs,
            weights=tuple(weights[index * weights_per_layer : (index + 1) * weights_per_layer]),
        )
        for index in range(num_layers * directions)
    ]


def _run_layers(record: CostCallback, name: str, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    layers = _layers_of(name, args)
    x, state, weights, *_, bidirectional, batch_first = args
    states = list(state) if isinstance(state, list | tuple) else [state]
    tokens = x.numel() // x.shape[-1]
    steps = int(x.shape[1 if batch_first else 0])
    width = (2 if bidirectional else 1) * layers[0].outputs
    shapes = [(*x.shape[:-1], width), *(s.shape for s in states)]
    forward_macs = tokens * sum(
        each.input_macs + each.state_macs + each.projection_macs for each in layers
    )
    backward_macs = _backward_macs(layers, args, tokens, tokens // steps)

    def record_pass(read: list[Tensor], written: list[Tensor], macs: int) -> None:
        record([*read, *weights], written, 2 * macs)

    outputs: tuple[Tensor, ...] = _FusedRecurrent.apply(
        record_pass, forward_macs, backward_macs, shapes, x, *states, *weights
    )
    return outputs


def _backward_macs(layers: list[_Layer], args: tuple[Any, ...], tokens: int, batch: int) -> int:
    x, state, bidirectional = args[0], args[1], args[7]
    states = state if isinstance(state, list | tuple) else [state]
    state_requires_grad = any(each.requires_grad for each in states)
    total, directions = 0, 2 if bidirectional else 1
    input_requires_grad = bool(x.requires_grad)
    for index in range(0, len(layers), directions):
        level = layers[index : index + directions]
        for each in level:
            required = [weight.requires_grad for weight in each.weights]
            # the order of the weights: ih, hh, two biases (no multiply-adds), projection
            macs = [each.input_macs, each.state_macs, *[0] * (len(required) - 2)]
            if each.projection_macs:
                macs[-1] = each.projection_macs
            total += tokens * sum(m for m, needed in zip(macs, required, strict=True) if needed)
            total += tokens * each.input_macs * input_requires_grad
            if input_requires_grad or state_requires_grad or each.requires_grad:
                # the first step needs no gradient of its state, unless the initial one requires it
                state_tokens = tokens if state_requires_grad else tokens - batch
                total += state_tokens * each.state_macs + tokens * each.projection_macs
        input_requires_grad = (
            input_requires_grad or state_requires_grad or any(each.requires_grad for each in level)
        )
    return total


class _FusedRecurrent(torch.autograd.Function):
    """Empty results and gradients of the right shapes; each pass is recorded."""

    @staticmethod
    def forward(
        ctx: Any,
        record: CostCallback,
        forward_macs: int,
        backward_macs: int,
        shapes: list[Any],
        *tensors: Tensor,
    ) -> tuple[Tensor, ...]:
        results = [tensors[0].new_empty(shape) for shape in shapes]
        record(list(tensors[: len(shapes)]), results, forward_macs)
        ctx.record, ctx.macs, ctx.tensors = record, backward_macs, tensors
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        needed = ctx.needs_input_grad[4:]
        written = [t for t, need in zip(ctx.tensors, needed, strict=True) if need]
        ctx.record([*gradients, *ctx.tensors[: len(gradients)]], written, ctx.macs)
        results = [
            torch.empty_like(tensor) if need else None
            for tensor, need in zip(ctx.tensors, needed, strict=True)
        ]
        return (None, None, None, None, *results)
