"""Where a model comes from: installed libraries, your Python file or package, a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reportgen.errors import ModelError
from reportgen.manifest import ModelSpec, Source
from reportgen.sources.from_pt2 import load_program
from reportgen.sources.from_python import call_factory
from reportgen.sources.from_timm import timm_recipe
from reportgen.sources.from_torchvision import torchvision_recipe
from reportgen.sources.from_transformers import transformers_recipe
from reportgen.sources.loaded import BAKED, Loaded, Recipe, circle_of, let_modes_be_set
from reportgen.sources.weightless import is_weightless, make_affordable, seed_everything
from reportgen.sources.weights import load_weights

__all__ = ["Loaded", "is_weightless", "load_model"]

_RECIPES: dict[str, Callable[[Source, dict[str, Any]], Recipe]] = {
    "torchvision": torchvision_recipe,
    "timm": timm_recipe,
    "transformers": transformers_recipe,
}


def load_model(spec: ModelSpec) -> Loaded:
    """The model of `spec` on the CPU in eval mode, with its weights or seeded random ones.

    Nothing is downloaded. Without `weights` the architecture's own initialization runs under
    the manifest's seed, so two builds see the same parameters. A library's model whose weights
    are too large for this machine stays on meta, and a note says so.

    Raises:
        ModelError: the source cannot be imported, is no model, or the weights do not fit it.
        EnvironmentFault: the library that the source names is not installed.
    """
    loaded = _make(spec)
    if circle := circle_of(loaded.model):
        raise ModelError(
            f"a module of {spec.source.text!r} holds itself: {circle}",
            hint="hold it outside of the module's attributes, in a tuple: "
            "self.parent = (module,); eval() and state_dict() never end otherwise",
        )
    if spec.weights is not None:
        if is_weightless(loaded.model):
            raise ModelError(
                f"the weights of {spec.source.text!r} do not fit this machine's memory",
                hint="leave 'weights' out: shapes, counts and estimates need none",
            )
        load_weights(loaded.model, spec.weights)
    loaded.model.eval()
    return loaded


def _make(spec: ModelSpec) -> Loaded:
    source, arguments = spec.source, dict(spec.arguments)
    if source.kind in _RECIPES:
        return make_affordable(_RECIPES[source.kind](source, arguments), spec.seed)
    if source.kind == "pt2":
        return load_program(source, arguments)
    if source.kind == "onnx":
        raise ModelError(
            f"source {source.text!r} holds no PyTorch module",
            hint="write a file.py with a function that returns the model, and name it as source",
        )
    return _from_python(spec)


def _from_python(spec: ModelSpec) -> Loaded:
    import torch

    seed_everything(spec.seed)
    model = call_factory(spec.source, dict(spec.arguments))
    if not isinstance(model, torch.nn.Module):
        raise ModelError(
            f"source {spec.source.text!r} gave {type(model).__name__}, not a torch.nn.Module",
            hint="name a class derived from torch.nn.Module, or a function that returns a model",
        )
    is_program = let_modes_be_set(model)
    return Loaded(model=model, notes=(BAKED,) if is_program else ())
