"""Complete values for tests: one call each, no mocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.manifest import ModelSpec, Source, Target

if TYPE_CHECKING:
    from torch import nn

    from reportgen.context import ModelContext


def make_spec(*inputs: Any, name: str = "model", **fields: Any) -> ModelSpec:
    """A model's manifest entry; inputs are `batch,3,8,8`-like text or mappings."""
    source = Source(kind="module", target="tests", factory="model", text="tests:model")
    return ModelSpec.model_validate(
        {"name": name, "source": source, "inputs": list(inputs), **fields}
    )


def make_study(
    model: nn.Module,
    *inputs: Any,
    folder: Path,
    targets: tuple[str, ...] = (),
    timings: bool = True,
    **fields: Any,
) -> ModelContext:
    """A context of `model`; other `fields` are those of its manifest entry."""
    from reportgen.context import ModelContext

    return ModelContext(
        spec=make_spec(*inputs, **fields),
        model=model.eval(),
        targets=tuple(Target(name=target) for target in targets),
        folder=folder,
        timings=timings,
    )
