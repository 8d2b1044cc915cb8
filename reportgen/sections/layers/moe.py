"""Mixtures of experts: the parameters that a single token uses.

Experts are modules of equal structure in one list, or tensors stacked along a first dimension.
The number of active experts is taken from the traced pass (a top-k over as many candidates as
there are experts, in the module that holds them), or else from attributes of the router.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from reportgen.sections.layers.modules import (
    ModuleNode,
    first_visits,
    is_within,
    join,
    own_parameters,
    walk,
)
from reportgen.sections.layers.result import Experts
from reportgen.sections.layers.tracing.op_counter import TopKChoice

_ACTIVE_ATTRIBUTES = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "experts_per_token",
    "num_selected_experts",
    "num_selected",
    "moe_topk",
    "moe_top_k",
    "top_k",
    "topk",
    "k",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Stack:
    """Modules or stacked tensors that could be experts."""

    path: str  # of the list, or of the module that registers the stacked tensors
    home: str  # path of the module that would call the router
    experts: int
    parameters: int
    listed: bool
    tensors: frozenset[str]  # names of the parameters of the experts


def find_experts(
    model: nn.Module, choices: Iterable[TopKChoice], first_read: Mapping[str, int]
) -> tuple[Experts, ...]:
    """Every mixture of experts in `model`, in the order of the modules.

    `first_read` is the index of the first operator that reads each parameter: experts run after
    the top-k.
    """
    nodes = walk(model)
    modules = {node.path: node.module for node in nodes}
    ran = sorted(choices)
    found = []
    for node in first_visits(nodes):
        for stack in _stacks(node, first_read):
            reads = [when for name, when in first_read.items() if name in stack.tensors]
            # a router's top-k runs before the experts; a later one selects something else
            before = [choice for choice in ran if not reads or choice.when <= min(reads)]
            # the pass has priority: an attribute called `k` or `top_k` may mean something else
            found_active = _active_in_pass(stack, before) or _active_by_attribute(stack, modules)
            if found_active is not None:
                active, evidence = found_active
                found.append(
                    Experts(
                        path=stack.path,
                        experts=stack.experts,
                        active=active,
                        parameters=stack.parameters,
                        detected_by=evidence,
                    )
                )
    return tuple(found)


def active_parameters(parameters: int, experts: tuple[Experts, ...]) -> int | None:
    """The parameters that one token uses; None without experts."""
    if not experts:
        return None
    return parameters - sum(
        each.parameters - each.parameters * each.active // each.experts for each in experts
    )


def _stacks(node: ModuleNode, first_read: Mapping[str, int]) -> Iterator[_Stack]:
    module = node.module
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        yield from _listed(node)
    elif not isinstance(module, nn.modules.conv._ConvNd):  # dim 0 of a kernel is its channels
        held = {name: p for name, p in own_parameters(node).items() if p.dim() >= 2}
        for count in sorted({int(p.shape[0]) for p in held.values() if p.dim() >= 3}):
            if count > 1:
                equal = {name: p for name, p in held.items() if p.shape[0] == count}
                yield _stacked(node, equal, first_read)


def _listed(node: ModuleNode) -> Iterator[_Stack]:
    children = list(node.module.children())
    shapes = {_parameter_shapes(child) for child in children}
    # `children` skips None and repeated modules, `_modules` does not
    if len(children) == len(node.module._modules) >= 2 and len(shapes) == 1 and shapes != {()}:
        held = dict(node.module.named_parameters())
        yield _Stack(
            path=node.path,
            home=node.path.rpartition(".")[0],
            experts=len(children),
            parameters=sum(p.numel() for p in held.values()),
            listed=True,
            tensors=frozenset(join(node.path, name) for name in held),
        )


def _stacked(
    node: ModuleNode, held: dict[str, nn.Parameter], first_read: Mapping[str, int]
) -> _Stack:
    """Tensors with an equal first dimension; a matrix that is read before them is the router."""
    weights = frozenset(name for name, p in held.items() if p.dim() >= 3)
    start = min((first_read[name] for name in weights if name in first_read), default=0)
    experts = [p for name, p in held.items() if first_read.get(name, start) >= start]
    return _Stack(
        path=node.path,
        home=node.path.rpartition(".")[0],
        experts=int(experts[0].shape[0]),
        parameters=sum(p.numel() for p in experts),
        listed=False,
        tensors=weights,
    )


def _parameter_shapes(module: nn.Module) -> tuple[Any, ...]:
    return tuple((name, tuple(p.shape)) for name, p in module.named_parameters())


def _active_in_pass(stack: _Stack, choices: list[TopKChoice]) -> tuple[int, str] | None:
    near = [
        choice
        for choice in choices
        if choice.candidates == stack.experts > choice.picked and _is_near(choice.path, stack)
    ]
    if not near:
        return None
    choice = min(near, key=lambda choice: choice.picked)
    where = choice.path or "the model"
    return choice.picked, f"a top-k of {choice.picked} of {choice.candidates} ran in {where}"


def _is_near(path: str, stack: _Stack) -> bool:
    """Whether a top-k at `path` can route to `stack`: in its home, not inside an expert."""
    if stack.listed and (path == stack.path or is_within(path, stack.path)):
        return False
    below = path.removeprefix(stack.home).strip(".")
    return (path == stack.home or is_within(path, stack.home)) and below.count(".") < 2


def _active_by_attribute(stack: _Stack, modules: dict[str, nn.Module]) -> tuple[int, str] | None:
    """The number that a router attribute gives, if a router matrix has one row per expert."""
    home = modules.get(stack.home)
    if home is None or not _has_router(home, stack):
        return None
    beside = [(stack.home, home), (stack.path, modules[stack.path])]
    beside += [(f"{stack.home}.{name}".strip("."), child) for name, child in home.named_children()]
    for path, module in beside:
        config = getattr(module, "config", None)
        for owner, where in ((module, path or "the model"), (config, "the configuration")):
            for name in _ACTIVE_ATTRIBUTES:
                value = getattr(owner, name, None)
                if type(value) is int and 0 < value < stack.experts:  # not a bool, not a module
                    return value, f"{name} of {where} is {value}"
    return None


def _has_router(home: nn.Module, stack: _Stack) -> bool:
    """Whether a matrix beside the experts has one score for each of them."""
    inside = stack.path.removeprefix(stack.home).strip(".")
    return any(
        p.dim() == 2 and stack.experts in p.shape
        for name, p in home.named_parameters()
        if not (inside and is_within(name, inside)) and name.count(".") < 2
    )
