"""Analyses of model objects run in a fork, which autograd may have made impossible."""

from __future__ import annotations

import pytest

from reportgen.python_api.analyze import why_not_forked


@pytest.fixture(autouse=True, scope="module")
def forkable() -> None:
    """Skip a file whose process ran other tests that made autograd start threads."""
    if "autograd" in (reason := why_not_forked()):
        pytest.skip(reason)
