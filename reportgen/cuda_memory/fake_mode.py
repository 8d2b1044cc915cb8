"""A fake mode for models that call their modules in threads of their own."""

from __future__ import annotations

import threading
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode


class _State(threading.local):
    """What torch's mode keeps of the thread that is in it, and so belongs to that thread."""

    def __init__(self) -> None:
        self.in_kernel = False
        self.entered: list[Any] = []


class FakeMode(FakeTensorMode):  # type: ignore[no-untyped-call]
    """torch's fake mode with a state for each thread.

    In torch's all threads share it: one that runs an operator while another is in a kernel fails,
    or sees its tensors on the meta device.
    """

    def __init__(self) -> None:
        self._state = _State()
        super().__init__(allow_non_fake_inputs=True)

    @property
    def in_kernel_invocation(self) -> bool:
        """Whether this thread computes with meta tensors now."""
        return self._state.in_kernel

    @in_kernel_invocation.setter
    def in_kernel_invocation(self, value: bool) -> None:
        self._state.in_kernel = value

    @property
    def enter_stack(self) -> list[Any]:
        """How this thread came into the mode, once for every time."""
        return self._state.entered

    @enter_stack.setter
    def enter_stack(self, value: list[Any]) -> None:
        self._state.entered = value
