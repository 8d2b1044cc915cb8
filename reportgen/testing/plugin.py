"""The pytest plugin: `--reportgen-update` writes the files of `assert_same_structure`."""

from __future__ import annotations

import pytest

from reportgen.testing.update import set_update_baselines

_OPTION = "--reportgen-update"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("reportgen").addoption(
        _OPTION,
        action="store_true",
        help="write the files of reportgen.testing.assert_same_structure instead of comparing",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Switch to writing baselines if it was requested."""
    set_update_baselines(config.getoption(_OPTION))


def pytest_unconfigure() -> None:
    """Switch back, for a process that runs pytest twice."""
    set_update_baselines(False)
