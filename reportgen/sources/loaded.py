"""What loading a model gives: the module, and what a reader should know of how it was made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from reportgen.manifest import InputSpec


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loaded:
    """A model from its source.

    Attributes:
        model: the module, in eval mode where it has modes, on the CPU or (too large) on meta.
        notes: what a reader of figures about it should know, one sentence each.
        inputs: the inputs that the source itself names (a `.pt2` file); () where it names none.
        dims: the sizes of the named dims of `inputs`, other than batch.
        batch: the batch size that the source itself holds examples for; None where it names none.
    """

    model: nn.Module
    notes: tuple[str, ...] = ()
    inputs: tuple[InputSpec, ...] = ()
    dims: tuple[tuple[str, int], ...] = ()
    batch: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Recipe:
    """How to make a library's model, as often as it is called for, and what to know of it."""

    make: Callable[[], object]
    notes: tuple[str, ...] = ()


@contextmanager
def quietly() -> Iterator[None]:
    """Hold back a library's words, and undo what its import does to logging.

    What the libraries have to say of a model without weights is never news: nothing is loaded.
    """
    import logging
    import warnings

    root = logging.getLogger()
    handlers, level, threshold = list(root.handlers), root.level, logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(threshold)
        root.setLevel(level)
        root.handlers[:] = handlers
