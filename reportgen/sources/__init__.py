"""Loads models from installed libraries, Python files, packages and exported programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from reportgen.errors import ModelError
from reportgen.manifest import ModelSpec, Source
from reportgen.sources.from_pt2 import load_program
from reportgen.sources.from_python import call_factory
from reportgen.sources.from_timm import timm_recipe
from reportgen.sources.from_torchvision import torchvision_recipe
from reportgen.sources.from_transformers import transformers_recipe
from reportgen.sources.loaded import (
    FIXED_MODE_NOTE,
    Loaded,
    Recipe,
    allow_train_and_eval,
    find_module_cycle,
)
from reportgen.sources.weightless import build_within_memory, is_weightless, seed_everything
from reportgen.sources.weights import load_weights

__all__ = ["Loaded", "is_weightless", "load_model"]

_RECIPES: dict[str, Callable[[Source, dict[str, Any]], Recipe]] = {
    "torchvision": torchvision_recipe,
    "timm": timm_recipe,
    "transformers": transformers_recipe,
}


def load_model(spec: ModelSpec) -> Loaded:
    """Load the model of `spec` on the CPU in eval mode.

    Nothing is downloaded. Without `weights` the model is randomly initialized with the manifest's
    seed, so that its parameters are reproducible. A library model whose weights are too large for
    this machine stays on meta, with a note.

    Raises:
        ModelError: the source cannot be imported, is not a model, or the weights do not match it.
        EnvironmentFault: the library of the source is not installed.
    """
    loaded = _make(spec)
    # before eval(), which recurses until Python's limit
    if cycle := find_module_cycle(loaded.model):
        raise ModelError(
            f"a module of {spec.source.text!r} contains itself: {cycle}",
            hint="store the reference in a tuple, self.parent = (module,), so that it is not "
            "registered as a submodule; eval() and state_dict() recurse forever otherwise",
        )
    if spec.weights is not None:
        if is_weightless(loaded.model):
            raise ModelError(
                f"the weights of {spec.source.text!r} do not fit in this machine's memory",
                hint="remove 'weights': shapes, counts and estimates do not need them",
            )
        notes = load_weights(loaded.model, spec.weights)
        loaded = replace(loaded, notes=(*loaded.notes, *notes))
    loaded.model.eval()
    return loaded


def _make(spec: ModelSpec) -> Loaded:
    source, arguments = spec.source, dict(spec.arguments)
    if source.kind in _RECIPES:
        return build_within_memory(_RECIPES[source.kind](source, arguments), spec.seed)
    if source.kind == "pt2":
        return load_program(source, arguments)
    if source.kind == "onnx":
        raise ModelError(
            f"source {source.text!r} is an ONNX file, not a PyTorch module",
            hint="write a file.py with a function that returns the model, and use it as source",
        )
    return _from_python(spec)


def _from_python(spec: ModelSpec) -> Loaded:
    import torch

    from reportgen.sources.overridden_methods import restore_module_methods

    seed_everything(spec.seed)
    model = call_factory(spec.source, dict(spec.arguments))
    if not isinstance(model, torch.nn.Module):
        raise ModelError(
            f"source {spec.source.text!r} returned {type(model).__name__}, "
            "expected a torch.nn.Module",
            hint="use a class derived from torch.nn.Module, or a function that returns a model",
        )
    notes = restore_module_methods(model)
    is_program = allow_train_and_eval(model)
    return Loaded(model=model, notes=(*notes, *([FIXED_MODE_NOTE] if is_program else [])))
