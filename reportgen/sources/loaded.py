"""The result of loading a model, and helpers that several sources use."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reportgen.pytree import modules_of

if TYPE_CHECKING:
    from torch import nn

    from reportgen.manifest import InputSpec

FIXED_MODE_NOTE = (
    "an exported program: its mode was fixed at export, so train() and eval() have no effect, and "
    "it runs only with the shapes that it was exported for"
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loaded:
    """A model from its source.

    Attributes:
        model: the module in eval mode, on the CPU, or on meta if its weights are too large.
        notes: remarks for the report, one sentence each.
        inputs: the inputs declared by the source (a `.pt2` file), else ().
        dims: the sizes of the named dims of `inputs`, other than batch.
        batch: the batch size of the example inputs in the source; None if there are none.
    """

    model: nn.Module
    notes: tuple[str, ...] = ()
    inputs: tuple[InputSpec, ...] = ()
    dims: tuple[tuple[str, int], ...] = ()
    batch: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recipe:
    """A function that builds a new model of a library at each call, and notes for the report."""

    make: Callable[[], object]
    notes: tuple[str, ...] = ()


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """The hint `did you mean 'resnet50'?` with the most similar of `known`, else `otherwise`."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


def allow_train_and_eval(model: nn.Module) -> bool:
    """Make `train()` and `eval()` of exported programs in `model` work; return if it is one itself.

    torch.export replaces both methods by ones that raise. Without them, those of nn.Module set the
    `training` flag, which has no effect in an exported program.
    """
    from torch.fx import GraphModule

    programs = [
        module
        for module in modules_of(model)
        if isinstance(module, GraphModule) and {"train", "eval"} <= vars(module).keys()
    ]
    for module in programs:
        for method in ("train", "eval"):
            vars(module).pop(method)
    return any(module is model for module in programs)


def find_module_cycle(model: nn.Module) -> str:
    """The path of a module that contains itself, such as `child.parent`; "" without a cycle."""
    above: set[int] = set()
    done: set[int] = set()
    stack: list[tuple[str, nn.Module, bool]] = [("", model, False)]
    while stack:
        path, module, leaving = stack.pop()
        if leaving:
            above.remove(id(module))
            done.add(id(module))
            continue
        if id(module) in above:
            return path
        if id(module) in done:
            continue
        above.add(id(module))
        stack.append((path, module, True))
        # not named_children(), which an attribute of that name would hide
        for name, child in module._modules.items():
            if child is not None:
                stack.append((f"{path}.{name}".lstrip("."), child, False))
    return ""


@contextmanager
def quietly() -> Iterator[None]:
    """Suppress warnings and logging of a library, and restore the root logger afterwards.

    Libraries warn about missing pretrained weights, which are never loaded here; some add handlers
    to the root logger when they are imported.
    """
    import logging
    import warnings

    root = logging.getLogger()
    handlers, level, threshold = list(root.handlers), root.level, logging.root.manager.disable
    # not root.setLevel(): the logger of transformers has its own level
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(threshold)
        root.setLevel(level)
        root.handlers[:] = handlers
