"""Models too large for this machine: the same modules, with weights that have no memory."""

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

_SHARE = 3  # the lender's copy and an ONNX file must fit beside the weights


def make_affordable(recipe: Recipe, seed: int) -> Loaded:
    """The model of `recipe`, initialized under `seed`; on meta where its weights are too large.

    Weights of more than a third of the memory that this process may use stay without data.
    A constructor that cannot run on meta is believed to be small.

    Raises:
        ModelError: the recipe raises, or gives no module.
    """
    limit = memory_limit_bytes() // _SHARE
    draft = _on_meta(recipe, seed)
    size = 0 if draft is None else weight_bytes(draft)
    if draft is None or size <= limit:
        return Loaded(model=_module(recipe, seed), notes=recipe.notes)
    note = (
        f"the weights take {format_bytes(size)}, more than a third of this machine's memory: "
        "the model was built without them, so that nothing here depends on their values"
    )
    return Loaded(model=draft, notes=(*recipe.notes, note))


def weight_bytes(model: nn.Module) -> int:
    """Bytes of the distinct parameters and buffers, had they memory; lazy ones have no size."""
    from torch.nn.parameter import is_lazy

    held = {id(t): t for t in (*model.parameters(), *buffers_of(model)) if not is_lazy(t)}
    return sum(tensor.numel() * tensor.element_size() for tensor in held.values())


def is_weightless(model: nn.Module) -> bool:
    """Whether every parameter is on meta, so that the model can run on shapes alone."""
    parameters = list(model.parameters())
    return bool(parameters) and all(p.device.type == "meta" for p in parameters)


def memory_limit_bytes() -> int:
    """What this process may allocate: the limit it was given, else the machine's memory."""
    machine: int = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if sys.platform == "win32":
        return machine
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return machine if soft == resource.RLIM_INFINITY else min(machine, soft)


def seed_everything(seed: int) -> None:
    """Seed every generator that an initialization may draw from."""
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _on_meta(recipe: Recipe, seed: int) -> nn.Module | None:
    import torch

    seed_everything(seed)
    try:
        with torch.device("meta"):
            model = recipe.make()
    except Exception:  # the real constructor says it better, or does not say it
        return None
    return model if isinstance(model, torch.nn.Module) else None


def _module(recipe: Recipe, seed: int) -> nn.Module:
    import torch

    seed_everything(seed)
    model = recipe.make()
    if not isinstance(model, torch.nn.Module):
        raise ModelError(
            f"the source gave {type(model).__name__}, not a torch.nn.Module",
            hint="name a model",
        )
    return model
