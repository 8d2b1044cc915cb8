"""What a model computes in, which may be less exact than what its outputs are in."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from reportgen.pytree import buffers_of

if TYPE_CHECKING:
    from torch import nn

    from reportgen.example_inputs import Examples

_LEAST_EXACT_FIRST = ("bfloat16", "float16", "float32", "float64")


def computing_dtype(model: nn.Module, examples: Examples) -> str:
    """The dtype of most numbers that a model holds; of its least exact input where it holds none.

    "" where there are no floating-point numbers. A float16 model that returns its logits in
    float32 rounds as float16 does.
    """
    elements: Counter[str] = Counter()
    for tensor in (*model.parameters(), *buffers_of(model)):
        elements[_name(tensor.dtype)] += tensor.numel()
    held = [name for name, _ in elements.most_common() if name in _LEAST_EXACT_FIRST]
    if held:
        return held[0]
    given = {_name(tensor.dtype) for tensor in examples.tensors().values()}
    return next((name for name in _LEAST_EXACT_FIRST if name in given), "")


def _name(dtype: object) -> str:
    return str(dtype).removeprefix("torch.")
