"""Modules that behave as in training although the model is to be judged as deployed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

_NAMES = ("Dropout", "BatchNorm", "RReLU", "StochasticDepth", "DropPath")


def modules_in_training(model: nn.Module) -> tuple[str, ...]:
    """Paths of the modules in train mode whose output differs there: `head.drop (Dropout)`."""
    return tuple(
        f"{path or 'the model'} ({type(module).__name__})"
        for path, module in model.named_modules()
        if module.training and _differs(type(module).__name__, module)
    )


def _differs(kind: str, module: nn.Module) -> bool:
    if not any(name in kind for name in _NAMES):
        return False
    return getattr(module, "p", 1) != 0
