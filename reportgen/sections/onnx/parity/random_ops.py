"""Where a PyTorch model draws random numbers, by operator, module and line."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from reportgen.onnx.export.source_location import is_machinery, relative

if TYPE_CHECKING:
    from torch import nn

_MOST = 5  # places that are told


def find_draws(model: nn.Module, call: Callable[[], Any]) -> tuple[str, ...]:
    """`aten.rand_like in noise at net.py:12` for every operator of one call that draws.

    What draws outside of the model, as the inputs do, does not count. A place that is reached
    more than once is told once; beyond five only how many more.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    found: dict[str, None] = {}

    class Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if inside and torch.Tag.nondeterministic_seeded in func.tags:
                found[f"{func.overloadpacket}{_in(inside)}{_at()}"] = None
            return func(*args, **(kwargs or {}))

    with _followed(model) as inside, Watcher():  # type: ignore[no-untyped-call]
        call()
    places = list(found)
    more = len(places) - _MOST
    return (*places[:_MOST], *([f"{more} other places"] if more > 0 else []))


def _in(inside: list[str]) -> str:
    return f" in {inside[-1]}" if inside[-1] else ""


def _at() -> str:
    """The innermost line of the model's own code that is running."""
    for frame in reversed(traceback.extract_stack()):
        if not is_machinery(frame.filename):
            return f" at {relative(frame.filename)}:{frame.lineno}"
    return ""


@contextmanager
def _followed(model: nn.Module) -> Iterator[list[str]]:
    """The paths of the modules that are running, the innermost last, kept up to date."""
    running: list[str] = []

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: running.append(path)

    handles = []
    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path)))
        handles.append(module.register_forward_hook(lambda *_: _dropped(running), always_call=True))
    try:
        yield running
    finally:
        for handle in handles:
            handle.remove()


def _dropped(running: list[str]) -> None:
    running.pop()
