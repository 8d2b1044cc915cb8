"""Disables downloads from the Hugging Face Hub."""

from __future__ import annotations

import os
import sys

_SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY")


def stay_offline() -> None:
    """Disable the hub in this process, even if huggingface_hub is already imported."""
    for switch in _SWITCHES:
        os.environ[switch] = "1"
    # an imported hub has read the variables already
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
