"""Calls back for every operator that runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

OnOperator = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]
"""Receives the operator, its positional and keyword arguments, and its result."""


class OpRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls `on_operator` after every operator that runs inside it, in this thread.

    Dispatch modes are thread-local; `RunningModules` enters a new one in each thread of the model.
    """

    # else torch raises on higher-order operators such as `cond` and `flex_attention`
    supports_higher_order_operators = True

    def __init__(self, on_operator: OnOperator) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._on_operator = on_operator

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # True, the default, imports dynamo with the first operator, which takes a second
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator, then call back."""
        result = func(*args, **(kwargs or {}))
        self._on_operator(func, args, kwargs or {}, result)
        return result
