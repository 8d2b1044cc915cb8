"""Outputs replaced by their tensors, for classes that torch.export cannot look into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reportgen.pytree import named_tensors

if TYPE_CHECKING:
    from torch import nn

_CONSTANTS = (type(None), bool, int, float, str)


@contextmanager
def flattened_outputs(model: nn.Module) -> Iterator[set[str]]:
    """Let `model` return a dict of its output's tensors; lends the classes that are dropped.

    A hook does it rather than a module around the model, so that parameters and module paths
    keep their names. An output without a tensor that can be reached is left as it is.
    """
    dropped: set[str] = set()

    def flatten(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        tensors = named_tensors(output)
        if not tensors:
            return output
        dropped.update(_dropped(output))
        return tensors

    handle = model.register_forward_hook(flatten)
    try:
        yield dropped
    finally:
        handle.remove()


def _dropped(output: Any) -> Iterator[str]:
    """The classes in `output` of which no tensor can be reached."""
    import torch
    from torch.utils._pytree import tree_leaves

    for leaf in tree_leaves(output):
        traced = (torch.SymInt, torch.SymFloat, torch.SymBool)
        is_plain = isinstance(leaf, (torch.Tensor, *_CONSTANTS, *traced))
        if not is_plain and not named_tensors(leaf):
            yield type(leaf).__name__
