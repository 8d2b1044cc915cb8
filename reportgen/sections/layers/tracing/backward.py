"""The cost of a forward and backward pass, without loss and optimizer.

The gradient starts at every floating-point output and flows to every parameter that requires one.
Loss and optimizer have no matrix products, so they would count as zero. The recomputation of
checkpointed blocks counts.
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
from reportgen.sections.layers.tracing.op_counter import OpCounter, OpWork, total_bytes

MakeModel = Callable[[], AbstractContextManager[tuple[nn.Module, Arguments]]]
"""Context with a model (a fake copy, or the model itself) and the arguments of one call."""


class _NoGradientError(Exception):
    """No gradient flows from an output to a parameter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardBackward:
    """The cost of a forward pass and its backward pass together."""

    flops: dict[str, int]  # by path, without those of the children
    work: Counter[OpWork]
    uncounted: tuple[Uncounted, ...]
    note: str

    @property
    def all_flops(self) -> int:
        """FLOPs of all modules together."""
        return sum(self.flops.values())

    @property
    def operator_bytes(self) -> int:
        """Bytes read and written by all operators."""
        return total_bytes(self.work)


class _Places:
    """Maps an operator of either pass to its module.

    An autograd node has the sequence number of the forward operator that created it, so its
    backward operators belong to the module that ran then.
    """

    def __init__(self, tracker: ModuleTracker) -> None:
        self._tracker = tracker
        self._paths: dict[int, str] = {}  # by sequence number

    def __call__(self, parameters: list[str]) -> str:
        node: Any = torch._C._current_autograd_node()
        # inside a module during the backward pass: a checkpointed block is recomputed
        if node is None or self._tracker.is_inside:
            path = self._tracker.place(parameters)
        else:
            path = self._paths.get(node._sequence_nr(), "")
        autograd: Any = torch.autograd
        # the counter is incremented when a node is created: the latest node has the number before
        self._paths.setdefault(autograd._get_sequence_nr() - 1, path)
        return path


def run_forward_backward(
    make_model: MakeModel, error_text: Callable[[BaseException], str]
) -> ForwardBackward | str:
    """Count both passes in training mode, else in evaluation mode; else the reason as text.

    Some models raise in training mode on these inputs (batch norm on one sample, missing targets);
    then the passes of evaluation mode are counted.
    """
    try:
        return _run(make_model, training=True, note="counted in training mode")
    except _NoGradientError as error:
        return str(error)
    except Exception as error:  # from the model: evaluation mode may still work
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
            if counter.loops:  # autograd does not see their bodies: the count would be too low
                names = ", ".join(sorted(counter.loops))
                raise _NoGradientError(f"the backward pass of {names} is not counted")
            roots = _roots(output)
            seeds = [torch.ones_like(root) for root in roots]  # in place of a loss's gradients
            with _without_gradients(roots), counter:
                torch.autograd.backward(roots, seeds)
        if _has_no_modes(model):
            note = "counted in the mode that the program was exported in"
    return ForwardBackward(
        flops=dict(counter.flops), work=counter.work, uncounted=counter.uncounted, note=note
    )


@contextmanager
def _without_gradients(roots: list[Tensor]) -> Iterator[None]:
    """Clear the gradients of all leaves, and restore them at the end."""
    # The model's state is preserved elsewhere; leaves of unregistered modules are not part of it.
    # An existing gradient would be accumulated into, with one more operator per leaf.
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
    nodes: list[Any] = [root.grad_fn for root in roots]
    seen: set[Any] = set()
    leaves = [root for root in roots if root.is_leaf]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaves += [node.variable] if hasattr(node, "variable") else []  # of AccumulateGrad
        nodes += [below for below, _ in node.next_functions]
    return leaves


def _has_no_modes(model: nn.Module) -> bool:
    # an exported program: dropout and batch norm were captured in one mode, as aten operators
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
