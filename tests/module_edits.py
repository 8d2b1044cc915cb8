"""Random edits of real models, each with the changes that a comparison must name."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

Change = tuple[str, str, str, str, str]
"""Kind, new path (old one of what was removed), field, before, after."""


@dataclass
class Site:
    """A model being edited, and where it may still be."""

    model: nn.Module
    rng: random.Random
    used: list[str] = field(default_factory=list)  # paths whose subtrees were edited
    changes: set[Change] = field(default_factory=set)
    taken: list[str] = field(default_factory=list)  # modules that left their place, as text

    def pick(self, wanted: Callable[[str, nn.Module], bool]) -> tuple[str, nn.Module] | None:
        """A random module outside of what was edited before."""
        named = [
            (path, module)
            for path, module in self.model.named_modules()
            if path and not any(_overlap(path, other) for other in self.used)
            and wanted(path, module)
        ]  # fmt: skip
        return self.rng.choice(named) if named else None

    def parent(self, path: str) -> nn.Module:
        """The module that registers `path`."""
        return self.model.get_submodule(path.rpartition(".")[0])

    def use(self, path: str, *changes: Change) -> bool:
        """Note what was edited, and what the comparison must say."""
        self.used.append(path)
        self.changes.update(changes)
        return True


def _overlap(a: str, b: str) -> bool:
    return f"{a}.".startswith(f"{b}.") or f"{b}.".startswith(f"{a}.")


def parent_path(path: str) -> str:
    return path.rpartition(".")[0]


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _is_leaf(module: nn.Module) -> bool:
    return not list(module.children())


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _replace_child(parent: nn.Module, name: str, pairs: dict[str, nn.Module]) -> None:
    """Put `pairs` in the place of the child `name`, in its order."""
    items = list(parent._modules.items())
    parent._modules.clear()
    for key, child in items:
        for other, module in pairs.items() if key == name else [(key, child)]:
            parent._modules[other] = module


class Wrapper(nn.Module):
    """A module around another one."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner


def stride(site: Site) -> bool:
    found = site.pick(lambda p, m: type(m) is nn.Conv2d and m.stride == (1, 1))
    if not found:
        return False
    found[1].stride = (2, 2)
    return site.use(found[0], ("changed", found[0], "stride", "1", "2"))


def width(site: Site) -> bool:
    found = site.pick(lambda p, m: type(m) is nn.Linear or (type(m) is nn.Conv2d and m.groups == 1))
    if not found:
        return False
    path, layer = found
    size = "out_channels" if isinstance(layer, nn.Conv2d) else "out_features"
    before = getattr(layer, size)
    wider = copy.deepcopy(layer)
    setattr(wider, size, before * 2)
    for name, value in list(wider._parameters.items()):
        if value is not None:
            wider._parameters[name] = nn.Parameter(torch.cat([value.data, value.data]))
    _replace_child(site.parent(path), _last(path), {_last(path): wider})
    return site.use(path, ("changed", path, size, str(before), str(before * 2)))


def head_size(site: Site) -> bool:
    layers = [(p, m) for p, m in site.model.named_modules() if type(m) is nn.Linear]
    if not layers:
        return False
    path, layer = layers[-1]
    if any(_overlap(path, other) for other in site.used):
        return False
    new = nn.Linear(layer.in_features, 7, bias=layer.bias is not None, device="meta")
    _replace_child(site.parent(path), _last(path), {_last(path): new})
    return site.use(path, ("changed", path, "out_features", str(layer.out_features), "7"))


def bias_removed(site: Site) -> bool:
    found = site.pick(lambda p, m: type(m) in (nn.Linear, nn.Conv2d) and m.bias is not None)
    if not found:
        return False
    path, layer = found
    before = f"float32 ({layer.bias.numel()})"
    layer.bias = None
    return site.use(path, ("changed", path, "bias", before, "none"))


def rename(site: Site) -> bool:
    found = site.pick(lambda p, m: _has_weights(m) and not _last(p).isdigit())
    if not found:
        return False
    path, module = found
    parent = parent_path(path)
    _replace_child(site.parent(path), _last(path), {"another_name": module})
    site.used.append(f"{parent}.another_name".lstrip("."))
    return site.use(parent or path, ("renamed", f"{parent}.another_name".lstrip("."), "", "", ""))


def move(site: Site) -> bool:
    found = site.pick(
        lambda p, m: _has_weights(m) and not _last(p).isdigit() and repr(m) not in site.taken
    )
    if not found:
        return False
    path, module = found
    target = site.pick(
        lambda p, m: not _is_leaf(m) and not isinstance(m, nn.Sequential | nn.ModuleList)
        and not _overlap(p, path) and not hasattr(m, _last(path))
    )  # fmt: skip
    if not target:
        return False
    del site.parent(path)._modules[_last(path)]
    site.taken.append(repr(module))
    target[1].add_module(_last(path), module)
    site.used.append(parent_path(path) or path)
    return site.use(target[0], ("moved", f"{target[0]}.{_last(path)}", "", "", ""))


def wrap(site: Site) -> bool:
    found = site.pick(lambda p, m: _has_weights(m))
    if not found:
        return False
    path, module = found
    outer = nn.Sequential(module) if site.rng.random() < 0.5 else Wrapper(module)
    inner = "0" if isinstance(outer, nn.Sequential) else "inner"
    _replace_child(site.parent(path), _last(path), {_last(path): outer})
    return site.use(path, ("wrapped", f"{path}.{inner}", "", "", ""))


def exchange(site: Site) -> bool:
    first = site.pick(lambda p, m: bool(parent_path(p)) and _has_weights(m) and not _is_leaf(m))
    if not first:
        return False
    others = [
        (f"{parent_path(first[0])}.{name}", child)
        for name, child in site.parent(first[0]).named_children()
        if not _is_leaf(child) and repr(child) != repr(first[1])
    ]
    if not others or any(_overlap(parent_path(first[0]), other) for other in site.used):
        return False
    parent, second = site.parent(first[0]), site.rng.choice(others)
    a, b = _last(first[0]), _last(second[0])
    parent._modules[a], parent._modules[b] = parent._modules[b], parent._modules[a]
    order = list(parent._modules)
    new = b if order.index(a) < order.index(b) else a
    path = f"{parent_path(first[0])}.{new}"
    return site.use(parent_path(first[0]), ("exchanged", path, "", "", ""))


def insert(site: Site) -> bool:
    found = site.pick(lambda p, m: type(m) is nn.Sequential and list(m._modules) == _range(m))
    if not found:
        return False
    path, module = found
    at = site.rng.randrange(len(module._modules) + 1)
    last = len(module._modules)
    module.insert(at, nn.Dropout(0.37))
    changes: list[Change] = [("added", f"{path}.{at}", "", "", "")]
    changes += [("shifted", f"{path}.{i + 1}", "", "", "") for i in range(at, last)]
    return site.use(path, *changes)


def _range(module: nn.Module) -> list[str]:
    return [str(index) for index in range(len(module._modules))]


def tie(site: Site) -> bool:
    first = site.pick(lambda p, m: type(m) in (nn.Linear, nn.Conv2d))
    if not first:
        return False
    shape = first[1].weight.shape
    second = site.pick(
        lambda p, m: p != first[0] and type(m) is type(first[1]) and m.weight.shape == shape
    )
    if not second:
        return False
    order = [path for path, _ in site.model.named_modules()]
    a, b = sorted((first[0], second[0]), key=order.index)
    site.model.get_submodule(b).weight = site.model.get_submodule(a).weight
    site.used.append(a)
    return site.use(b, ("tied", b, "weight", "", f"{a}.weight"))


def dtype(site: Site) -> bool:
    found = site.pick(lambda p, m: _is_leaf(m) and _has_weights(m))
    if not found:
        return False
    found[1].half()
    return site.use(found[0], ("changed", found[0], "dtype", "float32", "float16"))


def frozen(site: Site) -> bool:
    found = site.pick(lambda p, m: _is_leaf(m) and _has_weights(m))
    if not found:
        return False
    found[1].requires_grad_(False)
    return site.use(found[0], ("changed", found[0], "trainable", "true", "false"))


def dropout_rate(site: Site) -> bool:
    found = site.pick(lambda p, m: type(m) is nn.Dropout)
    if not found:
        return False
    before = f"{float(found[1].p):g}"
    found[1].p = 0.45
    return site.use(found[0], ("changed", found[0], "p", before, "0.45"))


def activation(site: Site) -> bool:
    kinds = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish)
    found = site.pick(lambda p, m: isinstance(m, kinds))
    if not found:
        return False
    path, module = found
    _replace_child(site.parent(path), _last(path), {_last(path): nn.Mish()})
    return site.use(path, ("type", path, "", type(module).__name__, "Mish"))


def norm_type(site: Site) -> bool:
    found = site.pick(lambda p, m: isinstance(m, nn.LayerNorm))
    if not found:
        return False
    path, module = found
    new = nn.RMSNorm(list(module.normalized_shape), device="meta")
    _replace_child(site.parent(path), _last(path), {_last(path): new})
    return site.use(path, ("type", path, "", type(module).__name__, "RMSNorm"))


def class_name(site: Site) -> bool:
    found = site.pick(lambda p, m: True)
    if not found:
        return False
    path, module = found
    kind = type(module)
    module.__class__ = type("Renamed", (kind,), {})
    return site.use(path, ("type", path, "", kind.__name__, "Renamed"))


def unused_layer(site: Site) -> bool:
    found = site.pick(lambda p, m: not isinstance(m, nn.Sequential | nn.ModuleList))
    if not found:
        return False
    found[1].add_module("never_called", nn.Linear(3, 5, device="meta"))
    return site.use(found[0], ("added", f"{found[0]}.never_called", "", "", ""))


def removal(site: Site) -> bool:
    # nobody can tell which of two equal modules was moved if both left their places
    found = site.pick(lambda p, m: not _last(p).isdigit() and repr(m) not in site.taken)
    if not found:
        return False
    path = found[0]
    site.taken.append(repr(found[1]))
    del site.parent(path)._modules[_last(path)]
    return site.use(parent_path(path) or path, ("removed", path, "", "", ""))


def qkv_split(site: Site) -> bool:
    found = site.pick(lambda p, m: _last(p) == "qkv" and type(m) is nn.Linear)
    if not found:
        return False
    path, layer = found
    size, bias = layer.in_features, layer.bias is not None
    parts = {f"{name}_proj": nn.Linear(size, size, bias=bias, device="meta") for name in "qkv"}
    _replace_child(site.parent(path), "qkv", parts)
    first = f"{parent_path(path)}.q_proj"
    return site.use(parent_path(path), ("split", first, "", "qkv", "q_proj, k_proj, v_proj"))


EDITS: tuple[Callable[[Site], bool], ...] = (
    stride, width, head_size, bias_removed, rename, move, wrap, exchange, insert, tie, dtype,
    frozen, dropout_rate, activation, norm_type, class_name, unused_layer, removal, qkv_split,
)  # fmt: skip


def edited(
    model: nn.Module, edits: Iterator[Callable[[Site], bool]], rng: random.Random, number: int
) -> Site:
    """A copy of `model` with `number` of the edits at places that do not touch each other."""
    site = Site(model=copy.deepcopy(model), rng=rng)
    done = 0
    for edit in edits:
        done += edit(site)
        if done == number:
            break
    return site
