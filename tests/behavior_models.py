"""What looks at the behavior of small models, for the tests of that section."""

from __future__ import annotations

from collections.abc import Callable

from reportgen.sections.behavior import Behavior, Probe

ExamineBehavior = Callable[..., Behavior]
"""A model, its inputs as the manifest writes them, and other fields: how it behaves."""


def probe(result: Behavior, name: str) -> Probe:
    """The answer to one question, which must have been asked."""
    found = result.probe(name)
    assert found is not None, name
    return found
