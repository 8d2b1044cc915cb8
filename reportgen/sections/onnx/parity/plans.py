"""The plans of a parity check: which seeds at which sizes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reportgen.example_inputs import Examples, make_examples

if TYPE_CHECKING:
    from torch import nn

    from reportgen.manifest import ModelSpec
    from reportgen.onnx.export import OnnxFile

_LARGEST_SECOND_BATCH = 4
_SECOND_BATCH = 3
_SEEDS = 3
_HEAVY_BYTES = 40_000_000  # of weights: from here on the second size is tried with one seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The inputs of one case; `dims` are sizes that differ from the manifest's."""

    batch: int
    seed: int
    dims: dict[str, int] = field(default_factory=dict)

    def examples(self, spec: ModelSpec) -> Examples:
        """The inputs themselves."""
        if self.dims:
            spec = spec.model_copy(update={"dims": {**spec.dims, **self.dims}})
        return make_examples(spec, self.batch, self.seed)


def make_plans(spec: ModelSpec, file: OnnxFile, model: nn.Module) -> list[Plan]:
    """Two batch sizes and three seeds, and one case with the other dynamic dims one smaller.

    One of the sizes is 1, where a forgotten batch dimension shows; the other is the manifest's,
    or 3 when that is large or 1 itself. A file with a fixed batch is compared at that size.
    A model with more than 40 MB of weights meets the second size with the first seed only.
    """
    seeds = tuple((spec.seed + step) % 2**32 for step in range(_SEEDS))
    if file.batch is not None:
        batches: tuple[int, ...] = (file.batch,)
    else:
        usable = 1 < spec.batch <= _LARGEST_SECOND_BATCH
        batches = (1, spec.batch if usable else _SECOND_BATCH)
    heavy = sum(tensor.nbytes for tensor in model.parameters()) > _HEAVY_BYTES
    plans = [
        Plan(batch=batch, seed=seed)
        for batch in batches
        for seed in (seeds[:1] if heavy and batch != batches[0] else seeds)
    ]
    smaller = {
        dim: spec.dims[dim] - 1 for dim in file.dynamic if dim != "batch" and spec.dims[dim] > 1
    }
    if smaller:
        plans.append(Plan(batch=batches[-1], seed=seeds[0], dims=smaller))
    return plans


def told(plans: list[Plan]) -> str:
    """The plans in words: `seeds 0, 1 and 2 at batch 1 and 3`."""
    seeds: dict[tuple[int, tuple[tuple[str, int], ...]], list[int]] = {}
    for plan in plans:
        seeds.setdefault((plan.batch, tuple(plan.dims.items())), []).append(plan.seed)
    sizes: dict[tuple[int, ...], list[str]] = {}
    for (batch, dims), listed in seeds.items():
        size = "".join(f", {dim} {length}" for dim, length in dims)
        sizes.setdefault(tuple(listed), []).append(f"batch {batch}{size}")
    return "; ".join(
        f"{'seeds' if len(listed) > 1 else 'seed'} {_and(map(str, listed))} at {_and(places)}"
        for listed, places in sizes.items()
    )


def _and(parts: Iterable[str]) -> str:
    words = list(parts)
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def do_seeds_matter(spec: ModelSpec) -> bool:
    """Whether another seed gives other inputs; arrays from files stay as they are."""
    first, other = (make_examples(spec, 1, seed).tensors() for seed in (spec.seed, spec.seed + 1))
    return not first or any(not tensor.equal(other[name]) for name, tensor in first.items())
