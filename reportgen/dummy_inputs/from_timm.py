"""Inputs of timm's models: the image size that each one was configured for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs.candidate import Choice, tensor

if TYPE_CHECKING:
    from torch import nn

_SIZES = (224, 256, 288, 384, 64, 32)


def timm_choices(model: nn.Module, arguments: dict[str, Any]) -> Iterator[Choice]:
    """The configured size, then the sizes that are common; `img_size` and `in_chans` override."""
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    channels, height, width = config.get("input_size") or (3, 224, 224)
    channels = arguments.get("in_chans", channels)
    asked = arguments.get("img_size")
    if asked is not None:
        height, width = (asked, asked) if isinstance(asked, int) else tuple(asked)
    for size in dict.fromkeys([(height, width), *((s, s) for s in _SIZES)]):
        yield Choice(inputs=(tensor("x", "batch", channels, *size),))
