"""What loading a model gives: the module, and what a reader should know of how it was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reportgen.pytree import modules_of

if TYPE_CHECKING:
    from torch import nn

    from reportgen.manifest import InputSpec

BAKED = (
    "an exported program: its mode is baked in, so that train() and eval() change nothing, and "
    "only the shapes that it was exported for can run"
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loaded:
    """A model from its source.

    Attributes:
        model: the module, in eval mode where it has modes, on the CPU or (too large) on meta.
        notes: what a reader of figures about it should know, one sentence each.
        inputs: the inputs that the source itself names (a `.pt2` file); () where it names none.
        dims: the sizes of the named dims of `inputs`, other than batch.
        batch: the batch size that the source itself holds examples for; None where it names none.
    """

    model: nn.Module
    notes: tuple[str, ...] = ()
    inputs: tuple[InputSpec, ...] = ()
    dims: tuple[tuple[str, int], ...] = ()
    batch: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recipe:
    """How to make a library's model, as often as it is called for, and what to know of it."""

    make: Callable[[], object]
    notes: tuple[str, ...] = ()


def let_modes_be_set(model: nn.Module) -> bool:
    """Let `train` and `eval` pass over exported programs in `model`; whether it is one itself.

    torch makes theirs raise. The class's own set flags that nobody reads in a program.
    """
    from torch.fx import GraphModule

    programs = [
        module
        for module in modules_of(model)
        if isinstance(module, GraphModule) and {"train", "eval"} <= vars(module).keys()
    ]
    for module in programs:
        for refusal in ("train", "eval"):
            vars(module).pop(refusal)
    return any(module is model for module in programs)


def circle_of(model: nn.Module) -> str:
    """The path of a module that holds itself, as in `child.parent`; "" where none does.

    Nothing of torch that walks down a model, `eval()` to begin with, ends in one.
    """
    above: set[int] = set()
    done: set[int] = set()
    waiting: list[tuple[str, nn.Module, bool]] = [("", model, False)]
    while waiting:
        path, module, leaving = waiting.pop()
        if leaving:
            above.remove(id(module))
            done.add(id(module))
            continue
        if id(module) in above:
            return path
        if id(module) in done:
            continue
        above.add(id(module))
        waiting.append((path, module, True))
        for name, child in module._modules.items():
            if child is not None:
                waiting.append((f"{path}.{name}".lstrip("."), child, False))
    return ""


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back a library's words, and undo what its import does to logging.

    What the libraries have to say of a model without weights is never news: nothing is loaded.
    """
    import logging
    import warnings

    root = logging.getLogger()
    handlers, level, threshold = list(root.handlers), root.level, logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(threshold)
        root.setLevel(level)
        root.handlers[:] = handlers
