"""Real passes: the model itself on tiny batches, each with inputs of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from reportgen.example_inputs import Examples
from reportgen.fake_model import set_mode
from reportgen.pytree import named_tensors
from reportgen.sections.behavior.fake_runs import CannotRunError
from reportgen.sections.behavior.op_recorder import Running, paths_of
from reportgen.sections.behavior.time_budget import Budget
from reportgen.sources.weightless import seed_everything

Leaves = dict[str, Tensor]
Seen = Callable[[str, Leaves], None]
"""Told of a finished call: the module's path and its results."""


class NotRunError(Exception):
    """A probe that cannot be asked, with the reason in words."""


class PassFailedError(NotRunError):
    """A pass that the model could not do; `reason` says where and why."""

    def __init__(self, error: Exception, path: str) -> None:
        self.reason = CannotRunError(error, path).reason
        super().__init__(f"the pass fails: {self.reason}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one pass of one sample takes, in operations and in bytes written."""

    work: int
    written_bytes: int


class Bench:
    """The model on loan, in evaluation mode, and the work that may still be spent on it."""

    def __init__(
        self, model: nn.Module, *, batch: int, cost: Cost, budget: Budget, seed: int
    ) -> None:
        self.model = model
        self.batch = batch
        self.seed = seed
        self._cost = cost
        self._budget = budget

    def pay(self, samples: float, *, copies_of_results: int = 0, held_bytes: int = 0) -> None:
        """Take the work of a forward pass of `samples` samples from the budget.

        `copies_of_results` is for how many samples the results of all operators are kept.

        Raises:
            NotRunError: it is too much.
        """
        held_bytes += copies_of_results * self._cost.written_bytes
        refusal = self._budget.refusal(round(samples * self._cost.work), held_bytes)
        if refusal:
            raise NotRunError(refusal)

    def evaluate(self, examples: Examples, seen: Seen | None = None, *, seeded: bool = True) -> Any:
        """The output of a pass in evaluation mode, as the model gave it.

        Raises:
            PassFailedError: the model could not.
        """
        set_mode(self.model, training=False)
        if seeded:
            seed_everything(self.seed)
        running = Running(self.model)
        try:
            with torch.no_grad(), running.watching(), _watched(self.model, seen):
                return examples.call(self.model)
        except Exception as error:
            raise PassFailedError(error, running.path) from error

    def outputs(self, examples: Examples, seen: Seen | None = None) -> Leaves:
        """Copies of all tensors that a seeded pass on copied inputs returns.

        Raises:
            PassFailedError: the model could not.
        """
        return copies(named_tensors(self.evaluate(copied(examples), seen)))


class Recording:
    """The results of every call, in the order in which the calls ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Leaves]] = []

    def __call__(self, path: str, results: Leaves) -> None:
        """Keep copies of what a call returned."""
        self.calls.append((path, copies(results)))


def copies(leaves: Leaves) -> Leaves:
    """The same tensors, which nobody else will write into."""
    return {key: tensor.detach().clone() for key, tensor in leaves.items()}


def copied(examples: Examples) -> Examples:
    """The same inputs, which a pass may write into."""
    return mapped(examples, Tensor.clone)


def mapped(examples: Examples, change: Callable[[Tensor], Tensor]) -> Examples:
    """The inputs with every tensor replaced by `change` of it."""
    args, kwargs = pytree.tree_map_only(Tensor, change, (examples.args, examples.kwargs))
    return replace(examples, args=args, kwargs=kwargs)


def tensors_of(examples: Examples) -> list[Tensor]:
    """Every input tensor, in the order in which `mapped` changes them."""
    leaves = pytree.tree_leaves((examples.args, examples.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


@contextmanager
def _watched(model: nn.Module, seen: Seen | None) -> Iterator[None]:
    if seen is None:
        yield
        return
    paths = paths_of(model)

    def tell(module: nn.Module, _: Any, output: Any) -> None:
        if id(module) in paths:
            seen(paths[id(module)], named_tensors(output))

    handle = nn.modules.module.register_module_forward_hook(tell)
    try:
        yield
    finally:
        handle.remove()
