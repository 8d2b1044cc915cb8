"""Activation checkpointing: choose the blocks to recompute and wrap them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from ..errors import StepError
from ..step import Step


def enable_checkpointing(model: nn.Module, step: Step) -> str:
    """Make the model recompute blocks in the backward pass; returns a note on which.

    In order of precedence: the modules that the step names, the model's own method, its repeated
    blocks, segments of a long `Sequential`, each about the square root of its length.
    """
    if step.checkpoint_modules:
        return _wrap_named(model, step.checkpoint_modules)
    switch = getattr(model, "gradient_checkpointing_enable", None)
    if switch is not None:
        try:
            switch(gradient_checkpointing_kwargs={"use_reentrant": False})
            return "checkpointing: gradient_checkpointing_enable()"
        # TypeError: no such argument; ValueError: a transformers model without support for it
        except (TypeError, ValueError):
            pass
    blocks = list(_repeated_blocks(model))
    if blocks:
        for block in blocks:
            _wrap(block)
        kinds = Counter(type(block).__name__ for block in blocks)
        listed = ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
        return f"checkpointing: the repeated blocks ({listed})"
    chains = [chain for chain in nn.Module.modules(model) if _is_chain(chain)]
    for chain in chains:
        _checkpoint_segments(chain)
    if chains:
        return "checkpointing: segments of nn.Sequential"
    return "checkpointing: no repeated blocks found, nothing is recomputed"


def _wrap_named(model: nn.Module, names: tuple[str, ...]) -> str:
    modules = dict(model.named_modules())
    for name in names:
        if name not in modules:
            raise StepError(f"no module {name!r} to checkpoint", "use the names of named_modules()")
        _wrap(modules[name])
    return f"checkpointing: {', '.join(names)}"


def _wrap(module: nn.Module) -> None:
    """Replace the forward of this instance by a checkpointed call of it."""
    # non-reentrant, as torch recommends: only then may all inputs lack gradients; the random state
    # is not preserved, since a recomputation with other dropout masks takes the same memory
    plain = module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(plain, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    module.forward = forward


def _repeated_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The outermost composite modules whose class occurs more than once among their siblings."""
    counts = Counter(type(child) for child in model.children())
    for child in model.children():
        if _is_block(child) and counts[type(child)] > 1:
            yield child
        else:
            yield from _repeated_blocks(child)


def _is_block(module: nn.Module) -> bool:
    """A module with parameters and children that is not only a container of other blocks."""
    if isinstance(module, (nn.ModuleList, nn.ModuleDict)) or not any(module.children()):
        return False
    if next(module.parameters(), None) is None:
        return False
    if isinstance(module, nn.Sequential):
        return next(_repeated_blocks(module), None) is None
    return True


def _is_chain(module: nn.Module) -> bool:
    return (
        type(module) is nn.Sequential
        and len(module) >= 4  # two segments of two: a shorter chain has nothing to save
        and all(not any(child.children()) for child in module)
        and next(module.parameters(), None) is not None
    )


def _checkpoint_segments(chain: nn.Module) -> None:
    """Checkpoint all segments except the last, as torch's checkpoint_sequential does."""
    layers = list(chain.children())
    # about sqrt(n) segments of sqrt(n) layers minimize what is kept plus what is recomputed
    length = math.ceil(len(layers) / math.isqrt(len(layers)))
    segments = [layers[i : i + length] for i in range(0, len(layers), length)]

    def run(segment: list[nn.Module], x: Any) -> Any:
        for layer in segment:
            x = layer(x)
        return x

    def forward(x: Any) -> Any:
        for segment in segments[:-1]:
            x = checkpoint(run, segment, x, use_reentrant=False, preserve_rng_state=False)
        return run(segments[-1], x)

    chain.forward = forward
