"""Where a model comes from: the installed libraries, your Python file or package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.errors import ModelError
from reportgen.manifest import ModelSpec
from reportgen.sources.from_python import call_factory
from reportgen.sources.from_torchvision import call_torchvision
from reportgen.sources.weights import load_weights

if TYPE_CHECKING:
    from torch import nn

_FACTORIES = {
    "torchvision": call_torchvision,
    "python": call_factory,
    "module": call_factory,
}


def load_model(spec: ModelSpec) -> nn.Module:
    """The model of `spec` on the CPU in eval mode, with its weights or seeded random ones.

    Nothing is downloaded. Without `weights` the architecture's own initialisation runs under
    the manifest's seed, so two builds see the same parameters.

    Raises:
        ModelError: the source cannot be imported, is no model, or the weights do not fit it.
    """
    import torch

    make = _FACTORIES.get(spec.source.kind)
    if make is None:
        known = ", ".join(_FACTORIES)
        raise ModelError(
            f"source {spec.source.text!r}: this version reads {known} sources only",
            hint="write a file.py with a function that returns the model, and name it as source",
        )
    torch.manual_seed(spec.seed)
    model = make(spec.source, dict(spec.arguments))
    if not isinstance(model, torch.nn.Module):
        raise ModelError(
            f"source {spec.source.text!r} gave {type(model).__name__}, not a torch.nn.Module",
            hint="name a class derived from torch.nn.Module, or a function that returns a model",
        )
    if spec.weights is not None:
        load_weights(model, spec.weights)
    return model.eval()
