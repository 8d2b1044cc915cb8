"""Forward and backward together: what one training step of the model itself costs.

The gradient starts at every real output and flows to every parameter that asks for one; the
loss and the optimizer are left out, as they have no multiply-adds to speak of. What a
checkpointed block computes again is computed, and so it counts.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reportgen.leaves import tensor_leaves
from reportgen.sections.layers.meter import Meter, Work
from reportgen.sections.layers.modules import parameters_by_name, walk
from reportgen.sections.layers.result import Uncounted
from reportgen.twin import Arguments, countable, set_mode

Borrow = Callable[[], AbstractContextManager[tuple[nn.Module, Arguments]]]
"""Lends a model (a twin, or the model itself) with the arguments of one call."""


class _NoGradientError(Exception):
    """No gradient can be followed from an output to a parameter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardBackward:
    """What a forward pass and its backward pass did together."""

    flops: int
    work: Counter[Work]
    uncounted: tuple[Uncounted, ...]
    note: str

    @property
    def operator_bytes(self) -> int:
        """Read and written by all operators."""
        return sum(work.bytes * times for work, times in self.work.items())


def run_forward_backward(
    borrow: Borrow, in_words: Callable[[BaseException], str]
) -> ForwardBackward | str:
    """Count both passes in training mode, else in evaluation mode; else why it cannot be done.

    Some models refuse to train on these inputs (batch norm on one sample, targets that are
    missing); then the backward pass of evaluation mode, with its fixed statistics, is counted.
    """
    try:
        return _run(borrow, training=True, note="counted in training mode")
    except _NoGradientError as error:
        return str(error)
    except Exception as error:  # the model's own: evaluation mode may still do
        reason = in_words(error)
    try:
        note = f"counted in evaluation mode, because the pass fails in training mode: {reason}"
        return _run(borrow, training=False, note=note)
    except _NoGradientError as error:
        return str(error)
    except Exception as error:  # told in the report
        return f"the backward pass cannot be traced: {in_words(error)}"


def _run(borrow: Borrow, *, training: bool, note: str) -> ForwardBackward:
    with borrow() as (model, (args, kwargs)), _same_chances():
        set_mode(model, training=training)
        meter = Meter(parameters_by_name(walk(model)), lambda _: "")
        with torch.enable_grad(), countable(model, meter.note):
            with meter:
                output = model(*args, **kwargs)
            if meter.loops:  # what autograd does not see would be missing without a word
                names = ", ".join(sorted(meter.loops))
                raise _NoGradientError(f"the backward pass of {names} is not counted")
            roots = _roots(output)
            seeds = [torch.ones_like(root) for root in roots]  # a loss would give them
            with meter:
                torch.autograd.backward(roots, seeds)
        if _has_no_modes(model):
            note = "counted in the mode that the program was exported in"
    return ForwardBackward(
        flops=meter.flops.total(), work=meter.work, uncounted=meter.uncounted, note=note
    )


def _has_no_modes(model: nn.Module) -> bool:
    return isinstance(model, torch.fx.GraphModule) and any(
        getattr(node.target, "namespace", "") == "aten" for node in model.graph.nodes
    )


@contextmanager
def _same_chances() -> Iterator[None]:
    """Models that drop layers at random drop the same ones every time."""
    before = random.getstate()
    torch.manual_seed(0)  # who borrows a model keeps torch's state
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(before)


def _roots(output: object) -> list[Tensor]:
    roots = [leaf for leaf in tensor_leaves(output).values() if leaf.requires_grad]
    if not roots:
        raise _NoGradientError("no output depends on a parameter that asks for a gradient")
    return list({id(root): root for root in roots}.values())
