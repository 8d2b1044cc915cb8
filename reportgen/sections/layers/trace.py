"""One forward pass, written down: what was called, with which shapes, at what cost.

The pass runs on a twin of the model whose tensors are fake (shape, dtype and device without
data): it costs no arithmetic and no memory, and the model itself is not touched. A model whose
course depends on values, or that torch cannot copy, runs for real on the model lent by `loan`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reportgen.fake_model import Arguments, countable, set_mode, twin
from reportgen.pytree import named_tensors
from reportgen.sections.layers.memory_traffic import shape_of, tensor_bytes
from reportgen.sections.layers.module_tracker import Call, Watch, shapes_of
from reportgen.sections.layers.modules import parameters_by_name, walk
from reportgen.sections.layers.op_counter import Choice, Meter, Seen, Work
from reportgen.sections.layers.result import Shape, Uncounted, Unregistered


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """One forward pass."""

    calls: tuple[Call, ...]  # in the order in which they ended
    flops: dict[str, int]  # by path, without those of the children
    used: frozenset[str]  # names of the parameters that took part
    uncounted: tuple[Uncounted, ...]
    strangers: tuple[Unregistered, ...]  # called, and neither registered in nor held by the model
    outputs: dict[str, Shape]
    output_bytes: int
    complex_products: int
    conventional: tuple[str, ...]  # operators counted by the steps of a classic algorithm
    work: Counter[Work]  # what every operator did, and how often
    choices: frozenset[Choice]
    first_read: dict[str, int]  # by parameter: how many operators ran before it was read
    added: tuple[str, ...]  # parameters that the pass itself makes or reshapes, with their sizes
    threaded: bool  # some module ran in a thread of its own
    to_numpy: tuple[str, ...]  # paths of modules that hand tensors to NumPy
    seen: dict[str, Seen]  # by path: the first operator that read a module's own parameters

    @property
    def operator_bytes(self) -> int:
        """Read and written by all operators."""
        return sum(work.bytes * times for work, times in self.work.items())


def trace_fake(model: nn.Module, arguments: Arguments, *, training: bool = False) -> Trace:
    """Trace a pass of a twin without data; raises whatever the twin raises."""
    with twin(model, arguments) as (double, copied):
        set_mode(double, training=training)
        return trace(double, copied)


def trace(model: nn.Module, arguments: Arguments, forbidden: Iterable[Tensor] = ()) -> Trace:
    """Trace one forward pass of a twin or of a lent model; raises whatever the model raises.

    `forbidden` are parameters that the pass must not read: those of the model behind a twin.
    """
    args, kwargs = arguments
    before = parameters_by_name(walk(model))
    shapes = {name: shape_of(parameter) for name, parameter in before.items()}
    watch = Watch(model)
    meter = watch.meter = Meter(before, watch.place, forbidden)
    with torch.no_grad(), countable(model, meter.note), watch.watching(), meter:
        output = model(*args, **kwargs)
    leaves = named_tensors(output)
    meter.note_used(list(leaves.values()))
    after = parameters_by_name(walk(model))
    return Trace(
        calls=tuple(watch.calls_in_order()),
        flops=dict(meter.flops),
        used=frozenset(meter.used),
        uncounted=meter.uncounted,
        strangers=watch.strangers(),
        outputs=shapes_of(leaves),
        output_bytes=sum(map(tensor_bytes, leaves.values())),
        complex_products=meter.complex_products,
        conventional=tuple(sorted(meter.conventional)),
        work=meter.work,
        choices=meter.choices,
        seen=meter.seen,
        first_read=meter.first_read,
        added=tuple(
            f"{name} ({parameter.numel():,})"
            for name, parameter in after.items()
            if name not in before or shape_of(parameter) != shapes[name]
        ),
        threaded=bool(watch.elsewhere),
        to_numpy=tuple(sorted(watch.to_numpy)),
    )
