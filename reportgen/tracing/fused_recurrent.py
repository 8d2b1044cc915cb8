"""Recurrent layers without data, each as the one kernel that cuDNN runs.

Taken apart, a sequence of 512 steps is thousands of operators, forward and backward, and on
shapes alone they all say the same. Here a whole layer is one operator with the cost that its
parts would add up to, and with the traffic of a fused kernel: everything read and written once.
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

Note = Callable[[list[Tensor], list[Tensor], int], None]
"""Told of every layer and of its backward pass: what is read, what is written, FLOPs."""

_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


@contextmanager
def whole_layers(model: nn.Module, note: Note) -> Iterator[None]:
    """Inside it every recurrent layer of fake tensors is one operator, of which `note` is told."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules_of(model))
    with _WholeLayers(note) if recurrent else nullcontext():
        yield


class _WholeLayers(TorchFunctionMode):
    def __init__(self, note: Note) -> None:
        super().__init__()
        self._note = note

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _GATES and not kwargs and _is_one_sequence(args):
            return _run_layer(self._note, name, args)
        return func(*args, **(kwargs or {}))


def _is_one_sequence(args: tuple[Any, ...]) -> bool:
    """Fake, and not packed: `(x, state, weights, biases?, layers, dropout, train, both, first)`."""
    return len(args) == 9 and isinstance(args[0], FakeTensor) and isinstance(args[3], bool)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layer:
    """One direction of one layer: widths of what it reads, keeps and gives."""

    gates: int
    inputs: int
    hidden: int
    given: int  # `hidden`, or less where it is projected
    weights: tuple[Tensor, ...]

    @property
    def from_input(self) -> int:
        """Multiply-adds of one token with the weights of the input."""
        return self.gates * self.hidden * self.inputs

    @property
    def from_state(self) -> int:
        """Multiply-adds of one token with the weights of the previous state."""
        return self.gates * self.hidden * self.given

    @property
    def projection(self) -> int:
        """Multiply-adds of one token from the state to what is given."""
        return self.hidden * self.given if self.given != self.hidden else 0

    @property
    def learns(self) -> bool:
        """Whether some weight asks for a gradient."""
        return any(weight.requires_grad for weight in self.weights)


def _layers_of(name: str, args: tuple[Any, ...]) -> list[_Layer]:
    x, state, weights, biases, count, _, _, both, _ = args
    hidden_state = state[0] if isinstance(state, list | tuple) else state
    given = int(hidden_state.shape[-1])
    hidden = int(weights[0].shape[0]) // _GATES[name]
    each = (4 if biases else 2) + (1 if given != hidden else 0)
    directions = 2 if both else 1
    return [
        _Layer(
            gates=_GATES[name],
            inputs=int(x.shape[-1]) if index < directions else directions * given,
            hidden=hidden,
            given=given,
            weights=tuple(weights[index * each : (index + 1) * each]),
        )
        for index in range(count * directions)
    ]


def _run_layer(tell: Note, name: str, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    layers = _layers_of(name, args)
    x, state, weights, *_, both, first = args
    states = list(state) if isinstance(state, list | tuple) else [state]
    tokens = x.numel() // x.shape[-1]
    steps = int(x.shape[1 if first else 0])
    shapes = [(*x.shape[:-1], (2 if both else 1) * layers[0].given), *(s.shape for s in states)]
    macs = sum(tokens * (each.from_input + each.from_state + each.projection) for each in layers)
    backward = _backward_macs(layers, args, tokens, tokens // steps)

    def note(read: list[Tensor], written: list[Tensor], cost: int) -> None:
        tell([*read, *weights], written, 2 * cost)

    given: tuple[Tensor, ...] = _Whole.apply(note, macs, backward, shapes, x, *states, *weights)
    return given


def _backward_macs(layers: list[_Layer], args: tuple[Any, ...], tokens: int, batch: int) -> int:
    """Products for the gradients that are asked for; the first state's only where it asks."""
    x, state, both = args[0], args[1], args[7]
    states = state if isinstance(state, list | tuple) else [state]
    from_outside = any(each.requires_grad for each in states)
    total, directions, below = 0, 2 if both else 1, bool(x.requires_grad)
    for index in range(0, len(layers), directions):
        level = layers[index : index + directions]
        for each in level:
            kinds = [weight.requires_grad for weight in each.weights]
            costs = [each.from_input, each.from_state, *[0] * (len(kinds) - 2)]
            if each.projection:
                costs[-1] = each.projection
            total += tokens * sum(c for c, asked in zip(costs, kinds, strict=True) if asked)
            total += tokens * each.from_input * below
            if below or from_outside or each.learns:
                kept = tokens if from_outside else tokens - batch
                total += kept * each.from_state + tokens * each.projection
        below = below or from_outside or any(each.learns for each in level)
    return total


class _Whole(torch.autograd.Function):
    """The shapes of a recurrent layer's results and gradients; every pass is noted."""

    @staticmethod
    def forward(
        ctx: Any, note: Note, macs: int, backward: int, shapes: list[Any], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        results = [tensors[0].new_empty(shape) for shape in shapes]
        note(list(tensors[: len(shapes)]), results, macs)
        ctx.note, ctx.macs, ctx.tensors = note, backward, tensors
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        asked = [
            t for t, needed in zip(ctx.tensors, ctx.needs_input_grad[4:], strict=True) if needed
        ]
        ctx.note([*gradients, *ctx.tensors[: len(gradients)]], asked, ctx.macs)
        made = [
            torch.empty_like(tensor) if needed else None
            for tensor, needed in zip(ctx.tensors, ctx.needs_input_grad[4:], strict=True)
        ]
        return (None, None, None, None, *made)
