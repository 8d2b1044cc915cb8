"""The ways to export a model, and which one to try after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reportgen.onnx.export.model_patches import (
    BATCHED_EXPERTS,
    CACHE_OFF,
    EAGER_ATTENTION,
    EVAL_MODE,
    is_applicable,
)

if TYPE_CHECKING:
    from torch import nn

    from reportgen.onnx.export.diagnostics import ExportFailure

EXAMPLE_BATCH = 2  # torch.export may treat a size of 1 as a constant
MOST_ATTEMPTS = 8  # each traces the whole model


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """One way to export.

    Attributes:
        dynamic: the named dimensions to export as dynamic.
        batch: the batch size to trace with.
        strict: whether to capture with TorchDynamo's bytecode analysis instead of running the
            model's Python.
        model_patches: temporary changes to the model, see `model_patches`.
        flattened: whether the outputs are replaced by their tensors.
        weightless: whether the weights are left out: the file is a structure only.
        traced: whether to use the TorchScript tracer instead of torch.export: what Python decides
            from the values of tensors is then fixed to the example's.
    """

    dynamic: tuple[str, ...]
    batch: int
    strict: bool = False
    model_patches: tuple[str, ...] = ()
    flattened: bool = False
    weightless: bool = False
    traced: bool = False

    def describe(self, dynamic: tuple[str, ...] | None = None) -> str:
        """`torch.export, dynamic batch, cache off`; `dynamic` if the outcome is known."""
        found = self.dynamic if dynamic is None else dynamic
        parts = [
            "TorchScript tracing" if self.traced else "torch.export",
            "strict" if self.strict else "",
            f"dynamic {' and '.join(found)}" if found else "all dimensions fixed",
            *self.model_patches,
            "outputs flattened" if self.flattened else "",
            "structure only" if self.weightless else "",
        ]
        return ", ".join(filter(None, parts))


def first_strategy(asked: tuple[str, ...], batch: int, *, weightless: bool) -> Strategy:
    """Everything as the manifest requests, with the model unchanged."""
    traced = EXAMPLE_BATCH if "batch" in asked else batch
    return Strategy(dynamic=asked, batch=traced, weightless=weightless)


def next_strategy(
    failed: Strategy, why: ExportFailure, model: nn.Module, batch: int, tried: list[Strategy]
) -> Strategy | None:
    """What to try after `failed`, which failed because of `why`; None if nothing is left.

    `batch` is the manifest's: some models run at no other.
    """
    for remedy in _REMEDIES[why.kind]:
        for candidate in remedy(failed, model, batch):
            if candidate not in tried and len(tried) < MOST_ATTEMPTS:
                return candidate
    return None


Remedy = Callable[[Strategy, "nn.Module", int], Iterator[Strategy]]


# strict=False in the remedies: each starts again with torch.export's default way to capture
def _patch(name: str) -> Remedy:
    def remedy(failed: Strategy, model: nn.Module, _batch: int) -> Iterator[Strategy]:
        if name not in failed.model_patches and is_applicable(name, model):
            yield replace(failed, strict=False, model_patches=(*failed.model_patches, name))

    return remedy


def _flatten(failed: Strategy, _model: nn.Module, _batch: int) -> Iterator[Strategy]:
    if not failed.flattened:
        yield replace(failed, strict=False, flattened=True)


def _capture_strictly(failed: Strategy, _model: nn.Module, _batch: int) -> Iterator[Strategy]:
    if not failed.strict:
        yield replace(failed, strict=True)


def _fix_dims(failed: Strategy, _model: nn.Module, batch: int) -> Iterator[Strategy]:
    """Keep only the batch dynamic, then nothing."""
    if "batch" in failed.dynamic and len(failed.dynamic) > 1:
        yield replace(failed, strict=False, dynamic=("batch",), batch=EXAMPLE_BATCH)
    elif failed.dynamic:
        yield replace(failed, strict=False, dynamic=(), batch=batch)


def _leave_weights_out(failed: Strategy, _model: nn.Module, _batch: int) -> Iterator[Strategy]:
    if not failed.weightless:
        yield replace(failed, weightless=True)


def _trace(failed: Strategy, _model: nn.Module, _batch: int) -> Iterator[Strategy]:
    # the tracer runs the model, so it needs the weights; it flattens the outputs by itself
    if not failed.traced and not failed.weightless:
        yield replace(failed, strict=False, flattened=False, traced=True)


_REMEDIES: dict[str, tuple[Remedy, ...]] = {
    "output": (_patch(CACHE_OFF), _flatten),
    "attention": (_patch(EAGER_ATTENTION),),
    "experts": (_patch(BATCHED_EXPERTS),),
    "dims": (_fix_dims,),
    "own": (_fix_dims,),
    "values": (_trace,),
    "memory": (_leave_weights_out,),
    "unknown": (  # what changes least comes first; fixed dims make the file useless at other sizes
        _capture_strictly,
        _patch(CACHE_OFF),
        _patch(EAGER_ATTENTION),
        _patch(EVAL_MODE),
        _fix_dims,
    ),
    "final": (),
}
