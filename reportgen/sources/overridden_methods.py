"""Models whose classes replace methods of `nn.Module` that PyTorch itself calls."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator

import torch
from torch import nn

from reportgen.errors import ModelError


def restore_module_methods(model: nn.Module) -> tuple[str, ...]:
    """Put `nn.Module`'s own methods back where a class replaces them by something else.

    `train(self, loader)` is what `model.eval()` calls, so that the module could not even be
    switched to evaluation. Methods that extend PyTorch's, as one that keeps a norm frozen, stay.

    Returns:
        A sentence for each class, with the methods that were replaced.

    Raises:
        ModelError: a module cannot be hashed, so that PyTorch cannot list the modules.
    """
    notes: dict[str, None] = {}
    for module in list(_modules(model)):
        replaced = [name for name, is_kept in _CHECKS.items() if not is_kept(module, name)]
        if replaced:
            cls = type(module)
            notes[_note(cls, replaced)] = None
            methods = {name: getattr(nn.Module, name) for name in replaced}
            # a subclass of its own: the user's class stays as it is
            module.__class__ = type(cls.__name__, (cls,), methods | {"__module__": cls.__module__})
    return tuple(notes)


def _modules(model: nn.Module) -> Iterator[nn.Module]:
    """All modules; `model.modules()` may be replaced, and puts the modules into a set."""
    waiting, seen = [model], set[int]()
    while waiting:
        module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        _require_hash(module)
        yield module
        waiting += [child for child in module._modules.values() if child is not None]


def _require_hash(module: nn.Module) -> None:
    cls = type(module)
    if cls.__hash__ is not None:
        return
    cause, remedy = "defines __eq__ without __hash__", "define __hash__ = nn.Module.__hash__"
    if dataclasses.is_dataclass(cls):
        cause, remedy = "@dataclass removes __hash__", "write @dataclass(eq=False)"
    raise ModelError(
        f"{cls.__name__} cannot be hashed: {cause}, and PyTorch keeps modules in sets",
        hint=f"{remedy} in {cls.__name__}; model.parameters() fails otherwise",
    )


def _note(cls: type, names: list[str]) -> str:
    listed = " and ".join(f"{name}({_arguments(getattr(cls, name))})" for name in names)
    own = " and ".join(f"nn.Module.{name}" for name in names)
    return (
        f"{cls.__name__}.{listed} replaces {own}, which PyTorch calls: rename it; "
        f"analyzed with {own}"
    )


def _arguments(method: Callable[..., object]) -> str:
    return ", ".join(name for name in inspect.signature(method).parameters if name != "self")


def _takes_mode(module: nn.Module, name: str) -> bool:
    """Whether `train` can be called as `train(False)`, with what is not a mode left out."""
    method = getattr(module, name, None)
    if not callable(method):
        return False
    given = [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
    if not given:
        return False
    first, *others = given
    is_mode = first.name == "mode" or first.default in (True, False)
    is_mode = is_mode or first.kind is inspect.Parameter.VAR_POSITIONAL
    return is_mode and all(
        p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in others
    )


def _gives(kind: type, *, named: bool) -> Callable[[nn.Module, str], bool]:
    def is_kept(module: nn.Module, name: str) -> bool:
        if getattr(type(module), name) is getattr(nn.Module, name):
            return True
        try:
            found = list(getattr(module, name)())
            values = [value for _, value in found] if named else found
        except Exception:  # the method asks for arguments, or its items are no pairs
            return False
        return all(isinstance(value, kind) for value in values)

    return is_kept


_CHECKS: dict[str, Callable[[nn.Module, str], bool]] = {
    "train": _takes_mode,
    "parameters": _gives(nn.Parameter, named=False),
    "named_parameters": _gives(nn.Parameter, named=True),
    "buffers": _gives(torch.Tensor, named=False),
    "named_buffers": _gives(torch.Tensor, named=True),
    "modules": _gives(nn.Module, named=False),
    "named_modules": _gives(nn.Module, named=True),
    "children": _gives(nn.Module, named=False),
    "named_children": _gives(nn.Module, named=True),
}
