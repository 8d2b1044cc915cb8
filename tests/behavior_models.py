"""Helpers of the behavior tests."""

from __future__ import annotations

from collections.abc import Callable

from reportgen.sections.behavior import Behavior, Probe

AnalyzeBehavior = Callable[..., Behavior]
"""(model, inputs as in the manifest, **fields) -> the result of the behavior section."""


def probe(result: Behavior, name: str) -> Probe:
    """The probe called `name`; fails if it is missing."""
    found = result.probe(name)
    assert found is not None, name
    return found
