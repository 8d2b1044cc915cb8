"""The step as users write it: forward, loss, backward, optimizer step."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from ..errors import StepError
from ..step import Loss, Step

Tensor = torch.Tensor


def make_target(output: Any, loss: str | Loss) -> Tensor | None:
    """The labels for cross-entropy, or None for other losses.

    The classes are dimension 1 of an image or a row, the last dimension of a sequence.
    """
    if loss != "cross_entropy" or scalar_of(output) is not None:
        return None
    logits = main_tensor(output)
    if logits.dim() < 2:
        return None
    shape = (logits.shape[0], *logits.shape[2:]) if logits.dim() != 3 else logits.shape[:2]
    return torch.zeros(shape, dtype=torch.int64, device=logits.device)


def scalar_loss(output: Any, target: Tensor | None, loss: str | Loss) -> Tensor:
    """The loss, a tensor of one element; that of the model itself takes precedence.

    If cross-entropy does not apply to the shape of the output, the loss is its mean.
    """
    if callable(loss):
        return _checked(loss(output))
    own = scalar_of(output)
    if own is not None:
        return own
    if loss == "sum":
        return _checked(_total([t.sum() for t in _floats(output)]))
    if loss == "mean" or target is None:
        return _checked(_total([t.mean() for t in _floats(output)]))
    logits = main_tensor(output)
    if logits.dim() == 3:
        return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), target.reshape(-1))
    return functional.cross_entropy(logits, target)


def scalar_of(output: Any) -> Tensor | None:
    """The loss in the output: its `loss`, or the sum of a dict of scalar losses."""
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if isinstance(own, Tensor) and own.numel() == 1:
        return own
    if isinstance(output, Mapping) and output:
        values = list(output.values())
        if all(isinstance(value, Tensor) and value.dim() == 0 for value in values):
            return _total(values)
    if isinstance(output, Tensor) and output.dim() == 0:
        return output
    return None


def main_tensor(output: Any) -> Tensor:
    """The first floating-point tensor of the output, usually the logits."""
    for tensor in _floats(output):
        return tensor
    raise StepError(
        f"the output, a {type(output).__name__}, has no floating-point tensor for a loss",
        "pass a loss function of the output",
    )


def _floats(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _floats(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _floats(item)
    elif hasattr(value, "__dict__"):
        for item in vars(value).values():
            yield from _floats(item)


def _total(values: list[Tensor]) -> Tensor | None:
    if not values:
        return None
    return reduce(operator.add, values)


def _checked(value: Any) -> Tensor:
    if isinstance(value, Tensor) and value.numel() == 1 and value.requires_grad:
        return value
    raise StepError(
        "the loss is not a scalar that depends on the parameters",
        "return a scalar tensor computed from the model's output",
    )


_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "rmsprop": ("RMSprop", {}),
    "adagrad": ("Adagrad", {}),
    "adafactor": ("Adafactor", {}),
}
_FUSED = ("sgd", "momentum", "nesterov", "adam", "adamw", "adagrad")


def make_optimizer(parameters: Iterable[nn.Parameter], step: Step) -> torch.optim.Optimizer | None:
    """The optimizer of the step over the parameters that train; None without any.

    The implementation is always given explicitly, because torch defaults to the for-loop on CPU
    tensors and to foreach on CUDA tensors.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if step.optimizer == "none" or not trained:
        return None
    if step.fused_optimizer and step.optimizer not in _FUSED:
        raise StepError(
            f"torch has no fused {step.optimizer}", f"fused exists for {', '.join(_FUSED)}"
        )
    name, defaults = _CLASSES[step.optimizer]
    arguments: dict[str, Any] = {**defaults, **dict(step.optimizer_arguments)}
    arguments["foreach"] = step.implementation == "foreach"
    if step.fused_optimizer:
        arguments["fused"] = True
    try:
        optimizer: torch.optim.Optimizer = getattr(torch.optim, name)(trained, **arguments)
    except TypeError as err:
        raise StepError(
            f"{step.optimizer} does not take these arguments: {err}",
            f"see torch.optim.{name}",
        ) from err
    return optimizer


def state_tensors(optimizer: torch.optim.Optimizer) -> Iterable[torch.Tensor]:
    """The state tensors of the optimizer, without scalars."""
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.dim():
                yield value


class Observer(Protocol):
    """Receives the phases of a step; `StorageRecorder` is one."""

    def mark(self, phase: str) -> None:
        """Start a phase."""

    def relabel(self, tensors: Iterable[torch.Tensor], category: str) -> None:
        """Set the category of these tensors."""

    def relabel_gradients(self, named: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Assign the gradients of these parameters to their modules."""


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
    """Training iterations; as in user code, locals stay alive into the next iteration."""
    optimizer = make_optimizer(model.parameters(), step)
    held = _held_beside(model, step, observer)
    next_batch = _prefetched(next_batch, step.prefetch)
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
                # labels of the first two batches only: `trace_pair` runs two batch sizes
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
            _update(optimizer, scaler, step)
            observer.relabel(state_tensors(optimizer), "optimizer_state")
        held.update()
        if step.zero_grad == "after_step":
            zero()
    observer.mark("end")


def _update(optimizer: torch.optim.Optimizer, scaler: _Scaler | None, step: Step) -> None:
    if scaler is not None:
        scaler.unscale(optimizer)
    if step.clip is not None:
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, step.clip, foreach=True)
    optimizer.step()


_BUCKET_BYTES = 25 << 20  # DistributedDataParallel's bucket_cap_mb


class _Held:
    """What a training loop keeps beside the plain step: gradient buckets and averaged weights."""

    def __init__(self) -> None:
        self.buckets: list[Tensor] = []
        self.averages: list[Tensor] = []
        self.averaged: list[Tensor] = []

    def update(self) -> None:
        """Move the averages toward the current weights."""
        floating = [
            (average, tensor.detach())
            for average, tensor in zip(self.averages, self.averaged, strict=True)
            if average.is_floating_point()
        ]
        if floating:
            averages, tensors = zip(*floating, strict=True)
            with torch.no_grad():
                torch._foreach_lerp_(list(averages), list(tensors), 0.001)


def _held_beside(model: nn.Module, step: Step, observer: Observer) -> _Held:
    held = _Held()
    if step.ddp:
        held.buckets = list(_gradient_buckets(model))
        observer.relabel(held.buckets, "ddp_bucket")
    if step.ema:
        held.averaged = [*model.parameters(), *nn.Module.buffers(model)]
        held.averages = [tensor.detach().clone() for tensor in held.averaged]
        observer.relabel(held.averages, "ema")
    return held


def _gradient_buckets(model: nn.Module) -> Iterator[Tensor]:
    """Flat tensors that DistributedDataParallel reduces, as large as the gradients together.

    It keeps them beside the gradients, unless `gradient_as_bucket_view` is set.
    """
    full: dict[torch.dtype, int] = {}
    for parameter in reversed([p for p in model.parameters() if p.requires_grad]):
        dtype = parameter.dtype
        full[dtype] = full.get(dtype, 0) + parameter.numel()
        if full[dtype] * parameter.element_size() >= _BUCKET_BYTES:
            yield parameter.new_empty(full.pop(dtype))
    for dtype, count in full.items():
        yield torch.empty(count, dtype=dtype, device=next(model.parameters()).device)


def _prefetched(next_batch: Callable[[], Batch], count: int) -> Callable[[], Batch]:
    """`next_batch`, with `count` batches on the device, the current one included."""
    if count == 1:
        return next_batch
    waiting: deque[Batch] = deque()

    def fetch() -> Batch:
        while len(waiting) < count:
            waiting.append(next_batch())
        return waiting.popleft()

    return fetch


class _Scaler:
    """Allocates what `torch.amp.GradScaler` does: the scale, and scalars at each unscaling."""

    def __init__(self, device: str) -> None:
        self._scale = torch.full((1,), 65536.0, device=device)  # GradScaler's init_scale
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
        # in place, like _amp_foreach_non_finite_check_and_unscale_
        torch._foreach_mul_(gradients, 1.0)
        del inverse, found


def _autocast(step: Step, device: str) -> AbstractContextManager[Any]:
    dtype = _AMP.get(step.precision)
    return nullcontext() if dtype is None else torch.autocast(device, dtype=dtype)
