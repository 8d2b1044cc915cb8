"""Small models and helpers for the tests of the sections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from reportgen.sections.layers import Layer, Layers

Examine = Callable[..., Layers]
"""Takes a model, its inputs in manifest form, `batch` and other fields; returns the result."""


class Function(nn.Module):
    """A module of one function with the given children."""

    def __init__(self, function: Callable[..., Any], **children: Any) -> None:
        super().__init__()
        self.function = function
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(self, *args, **kwargs)


class Returning(nn.Module):
    """A linear layer, and a function of its output."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self._answer = answer

    def forward(self, x: Tensor) -> Any:
        return self._answer(self.layer(x))


def row(result: Layers, path: str) -> Layer:
    """The row of a module."""
    return next(layer for layer in result.layers if layer.path == path)


def tensor(*shape: Any, **fields: Any) -> dict[str, Any]:
    """An input whose first dimension is the batch."""
    return {"shape": ["batch", *shape], **fields}


def quantized(model: nn.Module, *kinds: type[nn.Module]) -> nn.Module:
    """`model` with layers of `kinds` dynamically quantized to int8."""
    from torch.ao.quantization import quantize_dynamic

    made: nn.Module = quantize_dynamic(model.eval(), set(kinds))  # type: ignore[no-untyped-call]
    return made
