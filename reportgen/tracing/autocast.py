"""The `torch.autocast` regions that a forward pass enters, and a switch to disable them."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch

from reportgen.error_text import user_location


@dataclass(frozen=True, kw_only=True, slots=True)
class AutocastRegion:
    """An enabled `torch.autocast`."""

    device: str  # "cuda"
    dtype: str  # "float16"
    module: str  # path of the module that enters it; "" for the model itself
    place: str  # "model.py:19"; "" if unknown

    def __str__(self) -> str:
        at = f" at {self.place}" if self.place else ""
        return f'torch.autocast("{self.device}", {self.dtype}){at}'


@contextmanager
def recording_autocast(
    running_path: Callable[[], str] = str,
) -> Iterator[dict[AutocastRegion, None]]:
    """The regions that are entered in the block, in order.

    One for a device that is not there counts if its constructor runs in the block: torch
    disables it then, so a decorator does not show what it was meant to do.

    Args:
        running_path: returns the path of the running module.
    """
    found: dict[AutocastRegion, None] = {}  # a dict keeps the order
    kind: Any = torch.amp.autocast_mode.autocast
    make, enter = kind.__init__, kind.__enter__
    wanted: dict[int, tuple[Any, bool]] = {}  # keeps the object, since ids are reused

    def init(self: Any, device_type: str, dtype: Any = None, enabled: bool = True, *more: Any,
             **options: Any) -> None:  # fmt: skip
        wanted[id(self)] = self, enabled
        make(self, device_type, dtype, enabled, *more, **options)

    def entered(self: Any) -> Any:
        _, enabled = wanted.get(id(self), (self, self._enabled))
        if enabled:
            dtype = str(self.fast_dtype).removeprefix("torch.")
            place = _place(sys._getframe(1))
            region = AutocastRegion(
                device=self.device, dtype=dtype, module=running_path(), place=place
            )
            found[region] = None
        return enter(self)

    kind.__init__, kind.__enter__ = init, entered
    try:
        yield found
    finally:
        kind.__init__, kind.__enter__ = make, enter


@contextmanager
def autocast_disabled() -> Iterator[None]:
    """Every `torch.autocast` that is entered in the block computes in the tensors' own dtype."""
    kind: Any = torch.amp.autocast_mode.autocast
    enter = kind.__enter__

    def entered(self: Any) -> Any:
        before, self._enabled = self._enabled, False
        try:
            return enter(self)
        finally:
            self._enabled = before

    kind.__enter__ = entered
    try:
        yield
    finally:
        kind.__enter__ = enter


def _place(frame: FrameType | None) -> str:
    while frame is not None:
        code = frame.f_code
        function = frame.f_locals.get("func") if code.co_name == "decorate_autocast" else None
        # a compiled function wraps the user's
        decorated = getattr(inspect.unwrap(function) if function else None, "__code__", None)
        if decorated is not None and (
            place := user_location(decorated.co_filename, decorated.co_firstlineno)
        ):
            return place
        if place := user_location(code.co_filename, frame.f_lineno):
            return place
        frame = frame.f_back
    return ""
