"""The user's loop: load a batch, forward, loss, backward, optimizer step, and again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from .losses import make_target, scalar_loss
from .optimizers import make_optimizer, state_tensors
from .recorder import Recorder
from .step import Step

Batch = tuple[tuple[Any, ...], dict[str, Any]]
_AMP = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}


def run_inference(
    recorder: Recorder, model: nn.Module, next_batch: Callable[[], Batch], step: Step
) -> None:
    """Forward passes without gradients; the last result lives until the next one is bound."""
    output = None
    with torch.no_grad():
        for _ in range(step.iterations):
            recorder.mark("inputs")
            args, kwargs = next_batch()
            recorder.mark("forward")
            with _autocast(step):
                output = model(*args, **kwargs)
    recorder.mark("end")
    del output


def run_training(
    recorder: Recorder, model: nn.Module, next_batch: Callable[[], Batch], step: Step
) -> None:
    """Training iterations as people write them: locals live on into the next iteration."""
    optimizer = make_optimizer(model.parameters(), step)
    scaler = _Scaler() if step.precision == "amp-fp16" else None
    named = list(model.named_parameters())
    zero = optimizer.zero_grad if optimizer is not None else model.zero_grad
    output = loss = target = None
    for iteration in range(step.iterations):
        if step.zero_grad == "before_forward":
            zero()
        for micro in range(step.accumulation):
            recorder.mark("inputs")
            args, kwargs = next_batch()
            recorder.mark("forward")
            with _autocast(step):
                output = model(*args, **kwargs)
                if target is None or iteration + micro < 2:
                    recorder.mark("inputs")
                    target = make_target(output, step.loss)
                recorder.mark("loss")
                loss = scalar_loss(output, target, step.loss)
                if step.accumulation > 1:
                    loss = loss / step.accumulation
            if step.zero_grad == "before_backward" and micro == 0:
                zero()
            recorder.mark("backward")
            (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
            recorder.relabel_gradients(named)
        recorder.mark("optimizer")
        if optimizer is not None:
            if scaler is not None:
                scaler.unscale(optimizer)
            optimizer.step()
            recorder.relabel(state_tensors(optimizer), "optimizer_state")
        if step.zero_grad == "after_step":
            zero()
    recorder.mark("end")


class _Scaler:
    """What `torch.amp.GradScaler` allocates: the scale, and a few scalars at each unscaling."""

    def __init__(self) -> None:
        self._scale = torch.full((1,), 65536.0)
        self._growth = torch.full((1,), 0, dtype=torch.int32)

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss * self._scale

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        inverse = self._scale.double().reciprocal().float()
        found = torch.full((1,), 0.0)
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        torch._foreach_mul_(gradients, 1.0)
        del inverse, found


def _autocast(step: Step) -> AbstractContextManager[Any]:
    dtype = _AMP.get(step.precision)
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype)
