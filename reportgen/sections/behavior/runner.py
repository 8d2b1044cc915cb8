"""Runs the model on small batches within a work budget, and compares the outputs.

The budget counts operations, not seconds, so that the same probes run on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from reportgen.example_inputs import Examples
from reportgen.fake_model import set_mode
from reportgen.pytree import named_tensors
from reportgen.sections.behavior.fake_runs import FailedPassError
from reportgen.sources.weightless import seed_everything
from reportgen.tracing.running_modules import OnReturn, RunningModules, calling_back
from reportgen.units import format_bytes, format_count

WORK = 300 * 10**9
"""FLOPs for all probes of one model; a few seconds on two cores."""
MAX_BYTES = 3 * 2**30
"""Limit for activations and gradients of one pass."""


class WorkBudget:
    """The operations that the remaining probes may use."""

    def __init__(self, work: int = WORK) -> None:
        self._left = work

    def reserve(self, work: int, held_bytes: int = 0) -> str:
        """Subtract `work` operations; if that exceeds a limit, return the reason, else ""."""
        if held_bytes > MAX_BYTES:
            return f"it would need {format_bytes(held_bytes)} of memory"
        if work > self._left:
            return (
                f"it would need {format_count(work)} operations, and {format_count(self._left)} "
                "are left in this model's budget"
            )
        self._left -= work
        return ""


NamedTensors = dict[str, Tensor]


class ProbeNotRunError(Exception):
    """A probe was not run; the message is the reason."""


class ProbePassError(ProbeNotRunError):
    """A pass of a probe failed; `reason` gives the error and the module."""

    def __init__(self, error: Exception, path: str) -> None:
        self.reason = FailedPassError(error, path).reason
        super().__init__(f"the pass fails: {self.reason}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleCost:
    """Cost of one sample in one forward pass: operations and bytes written."""

    work: int
    written_bytes: int


class ProbeRunner:
    """Runs one model in evaluation mode and charges the work to its budget."""

    def __init__(
        self, model: nn.Module, *, batch: int, cost: SampleCost, budget: WorkBudget, seed: int
    ) -> None:
        self.model = model
        self.batch = batch
        self.seed = seed
        self._cost = cost
        self._budget = budget

    def reserve(self, samples: float, *, copies_of_results: int = 0, held_bytes: int = 0) -> None:
        """Charge a forward pass of `samples` samples to the budget.

        The results of all operators are held for `copies_of_results` samples, `held_bytes` more.

        Raises:
            ProbeNotRunError: the work or the memory exceeds the budget.
        """
        held_bytes += copies_of_results * self._cost.written_bytes
        reason = self._budget.reserve(round(samples * self._cost.work), held_bytes)
        if reason:
            raise ProbeNotRunError(reason)

    def evaluate(
        self, examples: Examples, on_return: OnReturn | None = None, *, seeded: bool = True
    ) -> Any:
        """The output of a pass in evaluation mode, unchanged.

        Raises:
            ProbePassError: the model raised.
        """
        set_mode(self.model, training=False)
        if seeded:
            seed_everything(self.seed)  # else random operators make every comparison fail
        running = RunningModules(self.model)
        try:
            with ExitStack() as contexts:
                contexts.enter_context(torch.no_grad())
                contexts.enter_context(running.watching())
                if on_return is not None:
                    contexts.enter_context(calling_back(self.model, on_return))
                return examples.call(self.model)
        except Exception as error:
            raise ProbePassError(error, running.path) from error

    def outputs(self, examples: Examples, on_return: OnReturn | None = None) -> NamedTensors:
        """Copies of all output tensors of a seeded pass on copied inputs.

        Raises:
            ProbePassError: the model raised.
        """
        return copies(named_tensors(self.evaluate(copied(examples), on_return)))


class CallRecorder:
    """Records the outputs of every module call, in the order in which the calls return."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, NamedTensors]] = []

    def __call__(self, path: str, _: nn.Module, output: Any) -> None:
        """Store copies of the outputs."""
        self.calls.append((path, copies(named_tensors(output))))


def copies(leaves: NamedTensors) -> NamedTensors:
    """Detached copies of the tensors."""
    return {key: tensor.detach().clone() for key, tensor in leaves.items()}


def copied(examples: Examples) -> Examples:
    """A copy of the inputs; a pass may write into it."""
    return mapped(examples, Tensor.clone)


def mapped(examples: Examples, change: Callable[[Tensor], Tensor]) -> Examples:
    """The inputs with `change` applied to every tensor."""
    args, kwargs = pytree.tree_map_only(Tensor, change, (examples.args, examples.kwargs))
    return replace(examples, args=args, kwargs=kwargs)


def tensors_of(examples: Examples) -> list[Tensor]:
    """Every input tensor, in the order of `mapped`."""
    leaves = pytree.tree_leaves((examples.args, examples.kwargs))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


_TOLERANCES = {
    torch.float64: 1e-9,
    torch.complex128: 1e-9,
    torch.float32: 1e-3,
    torch.complex64: 1e-3,
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
}
"""Relative to the largest element; kernels sum in a different order for another batch size."""


def is_same(a: Tensor, b: Tensor) -> bool:
    """Whether shape, dtype and every element are equal; NaN equals NaN."""
    if a.shape != b.shape or a.dtype != b.dtype or a.layout != b.layout:
        return False
    if a.is_quantized or a.layout != torch.strided:
        a, b = _plain(a), _plain(b)
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    # `equal` is the fast check: it is False for NaN
    return torch.equal(a, b) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def rounding_tolerance(tensors: Iterable[Tensor]) -> float:
    """The relative tolerance of the least precise dtype of `tensors`; 0 without floats."""
    return max((_TOLERANCES.get(dtype, 0.0) for dtype in {t.dtype for t in tensors}), default=0.0)


def is_close(a: Tensor, b: Tensor, *, share: float = 1.0, rounding: float = 0.0) -> bool:
    """Whether the tensors are equal within rounding; integers and booleans must be equal.

    Args:
        a: a tensor.
        b: the reference; its largest element scales the tolerance.
        share: factor on the tolerance.
        rounding: tolerance of the dtype that the model computes in, if less precise than `a`.
    """
    if is_same(a, b):
        return True
    if a.shape != b.shape or a.dtype != b.dtype or a.dtype not in _TOLERANCES:
        return False
    a, b = _plain(a), _plain(b)
    # NaN and infinity must be at the same places; they would make every difference NaN
    finite = a.isfinite() & b.isfinite()
    if not is_same(a[~finite], b[~finite]):
        return False
    limit = share * max(_TOLERANCES[a.dtype], rounding) * max_magnitude(b[finite])
    return max_magnitude(a[finite] - b[finite]) <= limit


def max_magnitude(tensor: Tensor) -> float:
    """The largest absolute value; 0 if empty."""
    return float(tensor.abs().max()) if tensor.numel() else 0.0


def max_difference(a: Tensor, b: Tensor) -> float | None:
    """The largest finite difference; None for different shapes or booleans."""
    if a.shape != b.shape or a.dtype == torch.bool or b.dtype == torch.bool:
        return None
    a, b = _plain(a), _plain(b)
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    difference = a.to(wide) - b.to(wide)
    return max_magnitude(difference[difference.isfinite()])


def describe_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> str:
    """The outputs that differ by more than rounding, as text; "" for none.

    Example: `logits by up to 0.53`.
    """
    if list(a) != list(b):
        return "the output keys differ"
    words = []
    for key, tensor in a.items():
        if is_close(tensor, b[key]):
            continue
        difference = max_difference(tensor, b[key])
        by = f" by up to {difference:.2g}" if difference else ""
        words.append(f"{key or 'the output'}{by}")
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor contains no NaN and no infinity."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    plain = _plain(tensor)
    if plain.sum().isfinite():  # the fast check: NaN and infinity propagate into a sum
        return True
    return bool(plain.isfinite().all())  # finite elements may overflow the sum


def _plain(tensor: Tensor) -> Tensor:
    if tensor.is_quantized:
        return tensor.dequantize()
    return tensor if tensor.layout == torch.strided else tensor.to_dense()
