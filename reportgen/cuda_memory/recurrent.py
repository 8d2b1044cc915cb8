"""LSTM, GRU and plain recurrent layers as cuDNN runs them: one call a layer stack.

cuDNN keeps a reserve for the backward pass (see `library.json`) and takes a workspace during
each call; the cells of the CPU path would show up as many small tensors instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .autocast import autocast_arguments
from .library_workspaces import library_figures

Tensor = torch.Tensor
_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _reserve_elements(kind: str, states: int) -> int:
    name = {"lstm": "lstm_reserve_gates", "gru": "gru_reserve_gates"}.get(kind, "rnn_reserve_gates")
    return int(states * float(library_figures()["rnn"][name]["nominal"]))


class _CudnnRnn(torch.autograd.Function):
    """Allocates what `_cudnn_rnn` and its backward allocate; the values are never computed."""

    @staticmethod
    def forward(ctx: Any, layout: dict[str, Any], x: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """`x` is [time, batch, features]; `rest` the states, then the weights."""
        states, weights = rest[: layout["states"]], rest[layout["states"] :]
        steps = x.shape[:-1]
        output = x.new_empty((*steps, layout["output_width"]))
        ends = [state.new_empty(state.shape) for state in states]
        flat = steps.numel() * layout["hidden"] * layout["layers"] * layout["directions"]
        reserve = x.new_empty((_reserve_elements(layout["kind"], flat) if layout["train"] else 0,))
        workspace = x.new_empty((_GATES[layout["kind"]] * steps.numel() * layout["hidden"],))
        del workspace
        ctx.layout = layout
        ctx.save_for_backward(x, output, reserve, *states, *weights)
        return (output, *ends)

    @staticmethod
    def backward(ctx: Any, *_grads: Any) -> Any:
        """Gradients of the input, the states and the weights, these in one flat buffer."""
        x, _output, _reserve, *rest = ctx.saved_tensors
        layout = ctx.layout
        states, weights = rest[: layout["states"]], rest[layout["states"] :]
        grad_x = x.new_empty(x.shape)
        workspace = x.new_empty((_GATES[layout["kind"]] * x.shape[:-1].numel() * layout["hidden"],))
        grad_states = [state.new_empty(state.shape) for state in states]
        del workspace
        flat = x.new_zeros((sum(weight.numel() for weight in weights),))
        grad_weights = _views(flat, weights)
        return (None, grad_x, *grad_states, *grad_weights)


def _views(flat: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    views, start = [], 0
    for weight in weights:
        views.append(flat[start : start + weight.numel()].view(weight.shape))
        start += weight.numel()
    return views


def _run(
    kind: str,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    layers: int,
    train: bool,
    bidirectional: bool,
) -> tuple[Tensor, ...]:
    x, *rest = autocast_arguments((x, *states, *weights))
    count = len(states)
    hidden = rest[count + 1].shape[-1]
    directions = 2 if bidirectional else 1
    layout = {
        "kind": kind,
        "states": count,
        "hidden": hidden,
        "layers": layers,
        "directions": directions,
        "output_width": states[0].shape[-1] * directions,
        "train": train or (torch.is_grad_enabled() and x.requires_grad),
    }
    return _CudnnRnn.apply(layout, x, *rest)  # type: ignore[no-any-return]


def _padded(kind: str) -> Callable[..., tuple[Tensor, ...]]:
    """The `.input` overload: one tensor of equal lengths."""

    def run(
        x: Tensor,
        hx: Any,
        params: Sequence[Tensor],
        _has_biases: bool,
        num_layers: int,
        _dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[Tensor, ...]:
        states = list(hx) if kind == "lstm" else [hx]
        if batch_first:
            x = x.transpose(0, 1).contiguous()
        output, *ends = _run(kind, x, states, params, num_layers, train, bidirectional)
        return (output.transpose(0, 1) if batch_first else output, *ends)

    return run


def _packed(kind: str) -> Callable[..., tuple[Tensor, ...]]:
    """The `.data` overload: packed sequences of several lengths."""

    def run(
        data: Tensor,
        _batch_sizes: Tensor,
        hx: Any,
        params: Sequence[Tensor],
        _has_biases: bool,
        num_layers: int,
        _dropout: float,
        train: bool,
        bidirectional: bool,
    ) -> tuple[Tensor, ...]:
        states = list(hx) if kind == "lstm" else [hx]
        return _run(kind, data, states, params, num_layers, train, bidirectional)

    return run


REPLACEMENTS: dict[str, Callable[..., Any]] = {
    **{f"{kind}.input": _padded(kind) for kind in _GATES},
    **{f"{kind}.data": _packed(kind) for kind in _GATES},
}
