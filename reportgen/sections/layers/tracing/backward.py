"""Forward and backward together: what one training step of the model itself costs.

The gradient starts at every real output and flows to every parameter that requires one; the
loss and the optimizer are left out, as they have no multiply-adds to speak of. What a
checkpointed block computes again is computed, and so it counts.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reportgen.fake_model import Arguments, set_mode, unfused_kernels
from reportgen.pytree import named_tensors
from reportgen.sections.layers.modules import parameters_by_name, walk
from reportgen.sections.layers.result import Uncounted
from reportgen.sections.layers.tracing.module_tracker import ModuleTracker
from reportgen.sections.layers.tracing.op_counter import OpCounter, OpWork

MakeModel = Callable[[], AbstractContextManager[tuple[nn.Module, Arguments]]]
"""Context with a model (a fake copy, or the model itself) and the arguments of one call."""


class _NoGradientError(Exception):
    """No gradient can be followed from an output to a parameter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardBackward:
    """What a forward pass and its backward pass did together."""

    flops: dict[str, int]  # by path, without those of the children
    work: Counter[OpWork]
    uncounted: tuple[Uncounted, ...]
    note: str

    @property
    def all_flops(self) -> int:
        """Of all modules together."""
        return sum(self.flops.values())

    @property
    def operator_bytes(self) -> int:
        """Read and written by all operators."""
        return sum(work.bytes * times for work, times in self.work.items())


class _Places:
    """For which module an operator works, in either pass.

    Every step of the backward pass is the other half of a step forward and has its number: it
    works for the module that ran then. Recomputed blocks run inside a module again.
    """

    def __init__(self, tracker: ModuleTracker) -> None:
        self._watch = tracker
        self._paths: dict[int, str] = {}  # by number of the step

    def __call__(self, parameters: list[str]) -> str:
        step: Any = torch._C._current_autograd_node()
        if step is None or self._watch.is_inside:
            path = self._watch.place(parameters)
        else:
            path = self._paths.get(step._sequence_nr(), "")
        autograd: Any = torch.autograd
        self._paths.setdefault(autograd._get_sequence_nr() - 1, path)
        return path


def run_forward_backward(
    make_model: MakeModel, error_text: Callable[[BaseException], str]
) -> ForwardBackward | str:
    """Count both passes in training mode, else in evaluation mode; else why it cannot be done.

    Some models refuse to train on these inputs (batch norm on one sample, targets that are
    missing); then the backward pass of evaluation mode, with its fixed statistics, is counted.
    """
    try:
        return _run(make_model, training=True, note="counted in training mode")
    except _NoGradientError as error:
        return str(error)
    except Exception as error:  # the model's own: evaluation mode may still do
        reason = error_text(error)
    try:
        note = f"counted in evaluation mode, because the pass fails in training mode: {reason}"
        return _run(make_model, training=False, note=note)
    except _NoGradientError as error:
        return str(error)
    except Exception as error:  # the reason is in the report
        return f"the backward pass cannot be traced: {error_text(error)}"


def _run(make_model: MakeModel, *, training: bool, note: str) -> ForwardBackward:
    with make_model() as (model, (args, kwargs)), _fixed_seeds():
        set_mode(model, training=training)
        tracker = ModuleTracker(model)
        counter = tracker.counter = OpCounter(parameters_by_name(walk(model)), _Places(tracker))
        with torch.enable_grad(), unfused_kernels(model, counter.note), tracker.tracking():
            with counter:
                output = model(*args, **kwargs)
            if counter.loops:  # what autograd does not see would be missing without a word
                names = ", ".join(sorted(counter.loops))
                raise _NoGradientError(f"the backward pass of {names} is not counted")
            roots = _roots(output)
            seeds = [torch.ones_like(root) for root in roots]  # a loss would give them
            with _without_gradients(roots), counter:
                torch.autograd.backward(roots, seeds)
        if _has_no_modes(model):
            note = "counted in the mode that the program was exported in"
    return ForwardBackward(
        flops=dict(counter.flops), work=counter.work, uncounted=counter.uncounted, note=note
    )


@contextmanager
def _without_gradients(roots: list[Tensor]) -> Iterator[None]:
    """Start without gradients; modules that are not the model's own get theirs back."""
    before = [(leaf, leaf.grad) for leaf in _leaves_below(roots)]
    for leaf, _ in before:
        leaf.grad = None
    try:
        yield
    finally:
        for leaf, gradient in before:
            leaf.grad = gradient


def _leaves_below(roots: list[Tensor]) -> list[Tensor]:
    """Every tensor to which a backward pass from `roots` gives a gradient."""
    steps: list[Any] = [root.grad_fn for root in roots]
    seen: set[Any] = set()
    leaves = [root for root in roots if root.is_leaf]
    while steps:
        step = steps.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        leaves += [step.variable] if hasattr(step, "variable") else []
        steps += [below for below, _ in step.next_functions]
    return leaves


def _has_no_modes(model: nn.Module) -> bool:
    return isinstance(model, torch.fx.GraphModule) and any(
        getattr(node.target, "namespace", "") == "aten" for node in model.graph.nodes
    )


@contextmanager
def _fixed_seeds() -> Iterator[None]:
    """Models that drop layers at random drop the same ones in every pass."""
    before = random.getstate()
    torch.manual_seed(0)  # torch's state is restored with the model's
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(before)


def _roots(output: object) -> list[Tensor]:
    roots = [leaf for leaf in named_tensors(output).values() if leaf.requires_grad]
    if not roots:
        raise _NoGradientError("no output depends on a parameter that requires a gradient")
    return list({id(root): root for root in roots}.values())
