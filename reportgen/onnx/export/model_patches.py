"""Temporary changes to a model that make it exportable, each undone on exit.

An exported file is compared with the model under the same changes (`OnnxFile.apply_patches`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reportgen.pytree import modules_of, named_tensors

if TYPE_CHECKING:
    from torch import nn

CACHE_OFF = "cache off"
EAGER_ATTENTION = "eager attention"
BATCHED_EXPERTS = "batched experts"
EVAL_MODE = "eval mode"


@dataclass(frozen=True, slots=True)
class _Setting:
    """An attribute of an object, and its new value."""

    holder: Any
    name: str
    value: Any


def is_applicable(name: str, model: nn.Module) -> bool:
    """Whether the patch `name` would change anything in `model`."""
    return next(_SETTINGS[name](model), None) is not None


@contextmanager
def patched(model: nn.Module, names: tuple[str, ...]) -> Iterator[None]:
    """Apply the patches `names` to `model`, and undo them on exit."""
    with ExitStack() as undo:
        for name in names:
            settings = list(_SETTINGS[name](model))
            before = [_Setting(s.holder, s.name, getattr(s.holder, s.name)) for s in settings]
            undo.callback(_set, before)  # first, so that a setter that fails is undone as well
            _set(settings)
        yield


def _set(settings: list[_Setting]) -> None:
    # outer configurations come first: transformers' setters also set those within them
    for setting in settings:
        setattr(setting.holder, setting.name, setting.value)


def _cache_off(model: nn.Module) -> Iterator[_Setting]:
    for config in _configurations(model):
        if getattr(config, "use_cache", None) is True:
            yield _Setting(config, "use_cache", False)


def _eager_attention(model: nn.Module) -> Iterator[_Setting]:
    for config in _configurations(model):
        chosen = getattr(config, "_attn_implementation", None)  # "sdpa", "flash_attention_2", ...
        if isinstance(chosen, str) and chosen != "eager":
            yield _Setting(config, "_attn_implementation", "eager")


def _batched_experts(model: nn.Module) -> Iterator[_Setting]:
    # the grouped product has no ONNX form, and a loop over the experts depends on values
    for config in _configurations(model):
        chosen = getattr(config, "_experts_implementation", None)
        if isinstance(chosen, str) and chosen != "batched_mm":
            yield _Setting(config, "_experts_implementation", "batched_mm")


def _eval_mode(model: nn.Module) -> Iterator[_Setting]:
    for module in modules_of(model):
        if module.training:
            yield _Setting(module, "training", False)


_SETTINGS: dict[str, Callable[[nn.Module], Iterator[_Setting]]] = {
    CACHE_OFF: _cache_off,
    EAGER_ATTENTION: _eager_attention,
    BATCHED_EXPERTS: _batched_experts,
    EVAL_MODE: _eval_mode,
}


def _configurations(model: nn.Module) -> Iterator[Any]:
    """Every configuration object of the modules, and those within another, each once."""
    waiting = [vars(module).get("config") for module in modules_of(model)]
    seen: set[int] = set()
    while waiting:
        config = waiting.pop(0)
        if config is None or id(config) in seen or not hasattr(config, "__dict__"):
            continue
        seen.add(id(config))
        yield config
        waiting.extend(part for part in vars(config).values() if _is_configuration(part))


def _is_configuration(value: Any) -> bool:
    return hasattr(value, "use_cache") or hasattr(value, "_attn_implementation")


_CONSTANTS = (type(None), bool, int, float, str)


@contextmanager
def flattened_outputs(model: nn.Module) -> Iterator[set[str]]:
    """Let `model` return a dict of its output's tensors; yields the classes that are dropped.

    An output without a reachable tensor is left as it is.
    """
    dropped: set[str] = set()

    def flatten(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        tensors = named_tensors(output)
        if not tensors:
            return output
        dropped.update(_dropped(output))
        return tensors

    # a hook, not a module around the model: parameters and module paths keep their names
    handle = model.register_forward_hook(flatten)
    try:
        yield dropped
    finally:
        handle.remove()


def _dropped(output: Any) -> Iterator[str]:
    """The classes in `output` that contain no reachable tensor."""
    import torch
    from torch.utils._pytree import tree_leaves

    for leaf in tree_leaves(output):
        traced = (torch.SymInt, torch.SymFloat, torch.SymBool)  # numbers while torch.export traces
        is_plain = isinstance(leaf, (torch.Tensor, *_CONSTANTS, *traced))
        if not is_plain and not named_tensors(leaf):
            yield type(leaf).__name__
