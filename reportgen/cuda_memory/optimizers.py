"""The torch optimizer of a step, in the form that a CUDA run would take."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from .errors import StepError
from .step import Step

_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.01}),
    "momentum": ("SGD", {"lr": 0.01, "momentum": 0.9}),
    "nesterov": ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "rmsprop": ("RMSprop", {}),
    "adagrad": ("Adagrad", {}),
    "adafactor": ("Adafactor", {}),
}
_FUSED = ("sgd", "momentum", "nesterov", "adam", "adamw", "adagrad")


def make_optimizer(parameters: Iterable[nn.Parameter], step: Step) -> torch.optim.Optimizer | None:
    """The optimizer of the step over the parameters that train; None without any.

    Forms are always asked for by name, because torch takes the for-loop for CPU tensors and
    foreach for CUDA tensors.
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
    """Everything the optimizer keeps between steps, of more than one element."""
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.dim():
                yield value
