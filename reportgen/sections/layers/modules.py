"""The modules of a model by path, and what hides from its registry."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from reportgen.pytree import modules_of
from reportgen.sections.layers.result import Unregistered

_MOST_VISITS = 20_000  # objects looked at in search of hidden modules
_NO_DOT = "\u2024"  # looks like the dot that separates names and is none
_PACKED = ("PackedParams", "PackedParameter")  # torch.ao keeps weights in it: no layer
_PACKED_LISTS = "_all_weight_values"  # where torch.ao's recurrent layers keep those


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Node:
    """One registered module under one path."""

    path: str
    depth: int
    module: nn.Module

    @property
    def leaf(self) -> bool:
        """Whether no module that counts as a layer is registered in it."""
        return not any(True for _ in _children(self.module))


def walk(model: nn.Module) -> list[Node]:
    """Every path of every module, depth first in order of registration; instances may repeat."""
    return list(_walk(model, "", 0, ()))


def first_visits(nodes: list[Node]) -> list[Node]:
    """Of every module its first path alone."""
    first: dict[int, Node] = {}
    for node in nodes:
        first.setdefault(id(node.module), node)
    return list(first.values())


def _walk(module: nn.Module, path: str, depth: int, above: tuple[int, ...]) -> Iterator[Node]:
    yield Node(path=path, depth=depth, module=module)
    above = (*above, id(module))
    for name, child in _children(module):
        if id(child) not in above:  # a module may hold its own parent
            yield from _walk(child, join(path, name), depth + 1, above)


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module._modules.items():
        if child is None or type(child).__name__.endswith(_PACKED) or name == _PACKED_LISTS:
            continue
        yield name.replace(".", _NO_DOT), child


def join(path: str, name: str) -> str:
    """`path.name`; the model itself has the path ``""``."""
    return f"{path}.{name}" if path else name


def is_within(path: str, ancestor: str) -> bool:
    """Whether `path` lies strictly below `ancestor`."""
    return path != ancestor and (not ancestor or path.startswith(f"{ancestor}."))


def own_parameters(node: Node) -> dict[str, nn.Parameter]:
    """The parameters registered in a module itself, by their full names."""
    held = node.module._parameters.items()
    return {join(node.path, name): p for name, p in held if p is not None}


def parameters_by_name(nodes: list[Node]) -> dict[str, nn.Parameter]:
    """Every name of every parameter; a tied one stands under all its names."""
    return {name: p for node in nodes for name, p in own_parameters(node).items()}


def quantized_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The packed weights and biases of one of torch's quantized modules, unpacked, by name."""
    if not type(module).__module__.startswith(("torch.ao.nn.", "torch.nn.quantized")):
        return {}
    found: dict[str, Tensor] = {}
    for name in ("weight", "bias"):  # methods there, where other modules have parameters
        read = getattr(module, name, None)
        value = read() if callable(read) and not isinstance(read, Tensor) else None
        if isinstance(value, Tensor):
            found[name] = value
    for name in ("get_weight", "get_bias"):  # recurrent ones
        read = getattr(module, name, None)
        if callable(read):
            found.update(read())
    return found


def own_tensors(node: Node) -> dict[Hashable, Tensor]:
    """The parameters and the packed weights of a module itself, by what identifies each.

    A key is the same under every path that leads to the tensor. Packed weights are unpacked anew
    at every look, so that only their module and name tell which they are.
    """
    packed = quantized_tensors(node.module).items()
    found: dict[Hashable, Tensor] = {id(p): p for p in own_parameters(node).values()}
    return found | {(id(node.module), name): tensor for name, tensor in packed}


def numbers_in_code(model: nn.Module) -> int:
    """How many numbers TorchScript keeps as constants: weights, once it has been frozen."""
    scripts = [module for module in modules_of(model) if isinstance(module, torch.jit.ScriptModule)]
    inner = {id(part) for script in scripts for part in script.children()}
    count = 0
    for script in scripts:
        if id(script) in inner or not hasattr(script, "forward"):
            continue  # its code stands in that of the module above
        graph: Any = script.inlined_graph  # its nodes live as long as it does
        for node in graph.findAllNodes("prim::Constant"):
            if node.hasAttribute("value") and node.kindOf("value") == "t":
                count += node.t("value").numel()
    return count


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hidden:
    """A module or a parameter that is held by a model and not registered in it."""

    path: str
    value: nn.Module | nn.Parameter

    def parameters(self) -> list[nn.Parameter]:
        """Its parameters, each once."""
        return list(self.value.parameters()) if isinstance(self.value, nn.Module) else [self.value]


def hidden(model: nn.Module) -> list[Hidden]:
    """Modules and parameters in plain lists, dicts and objects of a model, each once."""
    search = _Search(model)
    for node in walk(model):
        if not isinstance(node.module, torch.jit.ScriptModule):  # its attributes are a mirror
            search.look_into_attributes(node.path, node.module)
    return search.found


def kept_by_functions(model: nn.Module) -> dict[int, str]:
    """Where functions and callable objects of a model keep modules: path by identity.

    Such a module need not be a layer (a hook may keep a logger), so it is no finding by itself.
    """
    search = _Search(model, functions=True)
    for node in walk(model):
        if not isinstance(node.module, torch.jit.ScriptModule):
            search.look_into_attributes(node.path, node.module)
    return {
        id(part): join(item.path, name) if name else item.path
        for item in search.found
        if isinstance(item.value, nn.Module)
        for name, part in item.value.named_modules()
    }


class _Search:
    def __init__(self, model: nn.Module, *, functions: bool = False) -> None:
        self.found: list[Hidden] = []
        self._functions = functions
        self._seen = {id(m) for m in modules_of(model)} | {id(p) for p in model.parameters()}
        self._visits = _MOST_VISITS

    def look_into_attributes(self, path: str, owner: object) -> None:
        for name, value in list(vars(owner).items()):
            if name not in ("_parameters", "_buffers", "_modules"):
                self._look_at(join(path, name), value)

    def _look_at(self, path: str, value: Any) -> None:
        self._visits -= 1
        if id(value) in self._seen or self._visits < 0 or isinstance(value, _PLAIN):
            return
        self._seen.add(id(value))
        if isinstance(value, nn.Module):
            self._seen.update(id(part) for part in [*modules_of(value), *value.parameters()])
            self.found.append(Hidden(path=path, value=value))
        elif isinstance(value, nn.Parameter):
            self.found.append(Hidden(path=path, value=value))
        elif isinstance(value, list | tuple | set | frozenset | deque):
            for index, item in enumerate(value):
                self._look_at(f"{path}[{index}]", item)
        elif isinstance(value, dict):
            for key, item in list(value.items()):
                self._look_at(f"{path}[{key!r}]", item)
        elif not callable(value) or self._functions:
            self._look_inside(path, value)

    def _look_inside(self, path: str, value: Any) -> None:
        if isinstance(value, partial):
            self._look_at(f"{path}.func", value.func)
            self._look_at(f"{path}.args", value.args)
            self._look_at(f"{path}.keywords", value.keywords)
        elif isinstance(value, FunctionType):
            for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
                with suppress(ValueError):  # a cell that is empty still
                    self._look_at(f"{path} → {name}", cell.cell_contents)
        elif _may_hold_modules(value):
            self.look_into_attributes(path, value)


_PLAIN = (str, bytes, int, float, complex, type(None), type)


def _may_hold_modules(value: object) -> bool:
    """An object of somebody's own class; torch's own are looked into by torch."""
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, Tensor)
        and not type(value).__module__.startswith(("torch.", "builtins", "numpy"))
    )


def unregistered(model: nn.Module) -> list[Unregistered]:
    """What `hidden` finds, where it has parameters."""
    return [
        Unregistered(
            path=item.path,
            type=type(item.value).__name__,
            parameters=sum(p.numel() for p in item.parameters()),
        )
        for item in hidden(model)
        if item.parameters()
    ]
