"""Whether `assert_same_structure` writes its files instead of comparing with them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class _Mode:
    updates: bool = False


_mode = _Mode()


def updates_baselines() -> bool:
    """Whether `pytest --reportgen-update` runs."""
    return _mode.updates


def set_update_baselines(updates: bool) -> None:
    """Called by the plugin when pytest starts and ends."""
    _mode.updates = updates
