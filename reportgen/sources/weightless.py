"""Models that are too large for this machine: built on meta, without memory for weights."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from reportgen.errors import ModelError
from reportgen.pytree import buffers_of
from reportgen.sources.loaded import Loaded, Recipe
from reportgen.units import format_bytes

if TYPE_CHECKING:
    from torch import nn

_SHARE = 3  # the weights, the copy made by preserve_model_state and an ONNX file must fit


def build_within_memory(recipe: Recipe, seed: int) -> Loaded:
    """Build the model of `recipe` with `seed`; on meta if its weights are too large.

    Weights that exceed a third of the memory that this process may use are not allocated. A model
    whose constructor fails on meta is assumed to be small enough.

    Raises:
        ModelError: the recipe fails, or does not return a module.
    """
    limit = memory_limit_bytes() // _SHARE
    meta_model = _on_meta(recipe, seed)
    size = 0 if meta_model is None else weight_bytes(meta_model)
    if meta_model is None or size <= limit:
        return Loaded(model=_module(recipe, seed), notes=recipe.notes)
    note = (
        f"the weights take {format_bytes(size)}, more than a third of this machine's memory: "
        "the model was built without them, and no result depends on their values"
    )
    return Loaded(model=meta_model, notes=(*recipe.notes, note))


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the distinct parameters and buffers, on meta too; lazy ones count as 0."""
    from torch.nn.parameter import is_lazy

    # by id: tied tensors on meta have no storage address to compare
    tensors = {id(t): t for t in (*model.parameters(), *buffers_of(model)) if not is_lazy(t)}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def is_weightless(model: nn.Module) -> bool:
    """Whether all parameters are on meta."""
    # a module without parameters has no weights to lack
    parameters = list(model.parameters())
    return bool(parameters) and all(p.device.type == "meta" for p in parameters)


def memory_limit_bytes() -> int:
    """The memory limit of this process (RLIMIT_DATA), else the machine's memory, in bytes."""
    machine: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # the module `resource` is for Unix only
    if sys.platform == "win32":
        return machine
    import resource

    # the limit that a worker sets, see workers/limits.py
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return machine if soft == resource.RLIM_INFINITY else min(machine, soft)


def seed_everything(seed: int) -> None:
    """Seed the global generators of random, numpy and torch."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _on_meta(recipe: Recipe, seed: int) -> nn.Module | None:
    import torch

    # a constructor may choose its architecture at random
    seed_everything(seed)
    try:
        with torch.device("meta"):
            model = recipe.make()
    except Exception:  # if it fails on the CPU too, that error is reported
        return None
    return model if isinstance(model, torch.nn.Module) else None


def _module(recipe: Recipe, seed: int) -> nn.Module:
    import torch

    seed_everything(seed)
    model = recipe.make()
    if not isinstance(model, torch.nn.Module):
        raise ModelError(
            f"the source returned {type(model).__name__}, expected a torch.nn.Module",
            hint="use a model as source",
        )
    return model
