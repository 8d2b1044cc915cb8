"""The user's loop: load a batch, forward, loss, backward, optimizer step, and again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import nn

from .losses import make_target, scalar_loss
from .optimizers import make_optimizer, state_tensors
from .step import Step


class Observer(Protocol):
    """Who is told how far a step has come; `Recorder` is one."""

    def mark(self, phase: str) -> None:
        """Start a phase."""

    def relabel(self, tensors: Iterable[torch.Tensor], category: str) -> None:
        """Name what these tensors are for."""

    def relabel_gradients(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Name the gradients of these parameters."""


Batch = tuple[tuple[Any, ...], dict[str, Any]]
_AMP = {"amp-bf16": torch.bfloat16, "amp-fp16": torch.float16}


def run_inference(
    observer: Observer,
    model: nn.Module,
    next_batch: Callable[[], Batch],
    step: Step,
    device: str = "cpu",
) -> None:
    """Forward passes without gradients; the last result lives until the next one is bound."""
    output = None
    with torch.no_grad():
        for _ in range(step.iterations):
            observer.mark("inputs")
            args, kwargs = next_batch()
            observer.mark("forward")
            with _autocast(step, device):
                output = model(*args, **kwargs)
    observer.mark("end")
    del output


def run_training(
    observer: Observer,
    model: nn.Module,
    next_batch: Callable[[], Batch],
    step: Step,
    device: str = "cpu",
) -> None:
    """Training iterations as people write them: locals live on into the next iteration."""
    optimizer = make_optimizer(model.parameters(), step)
    scaler = _Scaler(device) if step.precision == "amp-fp16" else None
    named = list(model.named_parameters())
    zero = optimizer.zero_grad if optimizer is not None else model.zero_grad
    output = loss = target = None
    for iteration in range(step.iterations):
        if step.zero_grad in ("before_forward", "in_place"):
            zero(set_to_none=step.zero_grad != "in_place")
        for micro in range(step.accumulation):
            observer.mark("inputs")
            args, kwargs = next_batch()
            observer.mark("forward")
            with _autocast(step, device):
                output = model(*args, **kwargs)
                if target is None or iteration + micro < 2:
                    observer.mark("inputs")
                    target = make_target(output, step.loss)
                observer.mark("loss")
                loss = scalar_loss(output, target, step.loss)
                if step.accumulation > 1:
                    loss = loss / step.accumulation
            if step.zero_grad == "before_backward" and micro == 0:
                zero()
            observer.mark("backward")
            (loss if scaler is None else scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
            observer.relabel_gradients(named)
        observer.mark("optimizer")
        if optimizer is not None:
            if scaler is not None:
                scaler.unscale(optimizer)
            optimizer.step()
            observer.relabel(state_tensors(optimizer), "optimizer_state")
        if step.zero_grad == "after_step":
            zero()
    observer.mark("end")


class _Scaler:
    """What `torch.amp.GradScaler` allocates: the scale, and a few scalars at each unscaling."""

    def __init__(self, device: str) -> None:
        self._scale = torch.full((1,), 65536.0, device=device)
        self._growth = torch.full((1,), 0, dtype=torch.int32, device=device)

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss * self._scale

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        inverse = self._scale.double().reciprocal().float()
        found = torch.zeros_like(inverse)
        gradients = [
            parameter.grad
            for group in optimizer.param_groups
            for parameter in group["params"]
            if parameter.grad is not None
        ]
        torch._foreach_mul_(gradients, 1.0)
        del inverse, found


def _autocast(step: Step, device: str) -> AbstractContextManager[Any]:
    dtype = _AMP.get(step.precision)
    return nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)
