"""A fake mode for models that call their modules in threads of their own."""

from __future__ import annotations

import threading
from typing import Any

from torch._ops import HigherOrderOperator
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

    supports_higher_order_operators = True

    def __init__(self) -> None:
        self._state = _State()
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator; some of higher order know torch's mode by its very class."""
        if isinstance(func, HigherOrderOperator):
            from torch._higher_order_ops.utils import registered_hop_fake_fns

            known: Any = registered_hop_fake_fns  # its annotation names another class
            if func not in known:
                return func.python_key_table[FakeTensorMode](self, *args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs or {})

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
