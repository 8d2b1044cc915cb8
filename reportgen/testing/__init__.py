"""Assertions on models for the tests of other projects; `plugin` adds an option to pytest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reportgen.testing.assertions import (
        assert_budget,
        assert_onnx_parity,
        assert_same_structure,
    )

__all__ = ["assert_budget", "assert_onnx_parity", "assert_same_structure"]


# On first use: pytest imports this package at every start, for the plugin.
def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'reportgen.testing' has no attribute {name!r}")
    from reportgen.testing import assertions

    return getattr(assertions, name)
