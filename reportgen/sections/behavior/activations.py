"""The values inside one pass: activations that explode or die, and softmaxes that saturate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from reportgen.pytree import named_tensors
from reportgen.sections.behavior.result import Activations, LargeActivation
from reportgen.tracing.running_modules import RunningModules, paths_of

_LARGE = 1e4  # root mean square; float16 overflows at 65,504
_GROWTH = 1e3  # of the inputs
_ONE_HOT = 0.999  # share of the largest entry in the median row
_LEAST_ENTRIES = 4  # of a row of a softmax
_LEAST_ROWS = 8
_RECTIFIERS = (nn.ReLU, nn.ReLU6)


class ActivationRecorder:
    """Records what `Activations` holds while a model runs with real values."""

    def __init__(self, model: nn.Module, running: RunningModules) -> None:
        self._paths = paths_of(model)
        self._running = running
        self._inputs = 1.0  # root mean square, at least 1
        self._large: LargeActivation | None = None
        self._zero: dict[str, bool] = {}  # by rectifier: whether no call returned anything else
        self._saturated: dict[str, bool] = {}  # by module: whether all its softmaxes were

    @contextmanager
    def recording(self, inputs: Sequence[Tensor]) -> Iterator[None]:
        """Record the passes inside the block."""
        self._inputs = max((_rms(tensor) for tensor in inputs), default=1.0)
        with ExitStack() as undo:
            handle = nn.modules.module.register_module_forward_hook(self._returned)
            undo.callback(handle.remove)
            undo.enter_context(_SoftmaxMode(self._softmax))
            yield

    def result(self) -> Activations:
        """What was recorded."""
        return Activations(
            exploding=self._large,
            dead=tuple(path for path, zero in self._zero.items() if zero),
            saturated=tuple(path for path, saturated in self._saturated.items() if saturated),
        )

    def _returned(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        path = self._paths.get(id(module))
        # inside vmap tensors have no values of their own
        if path is None or any(map(_is_wrapped, named_tensors(output).values())):
            return
        if isinstance(module, _RECTIFIERS) and isinstance(output, Tensor):
            self._note_rectifier(path, module, args, output)
        # tensors of modules without parameters may be masks, which are huge on purpose
        if self._large is None and any(True for _ in module.parameters(recurse=False)):
            rms = max((_rms(tensor) for tensor in named_tensors(output).values()), default=0.0)
            if math.isfinite(rms) and rms > max(_LARGE, _GROWTH * self._inputs):
                self._large = LargeActivation(
                    path=path, root_mean_square=_rounded(rms), of_inputs=_rounded(self._inputs)
                )

    def _note_rectifier(
        self, path: str, module: nn.Module, args: tuple[Any, ...], output: Tensor
    ) -> None:
        # an in-place ReLU has overwritten its input; negative values are then not seen as such
        given = args[0] if args and isinstance(args[0], Tensor) else output
        in_place = getattr(module, "inplace", False)
        had_values = in_place or bool(given.any())
        is_zero = had_values and output.numel() > _LEAST_ROWS and not bool(output.any())
        self._zero[path] = is_zero and self._zero.get(path, True)

    def _softmax(self, result: Tensor, dim: int) -> None:
        if result.dim() == 0 or result.shape[dim] < _LEAST_ENTRIES:
            return
        largest = result.detach().amax(dim)
        if largest.numel() < _LEAST_ROWS:
            return
        path = self._running.path
        saturated = bool(largest.float().median() > _ONE_HOT)
        self._saturated[path] = saturated and self._saturated.get(path, True)


class _SoftmaxMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, note: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._note = note

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        plain = type(result) is Tensor and not _is_wrapped(result)
        if func is torch.ops.aten._softmax.default and plain:
            self._note(result, args[1])
        return result


def _is_wrapped(tensor: Tensor) -> bool:
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def _rms(tensor: Tensor) -> float:
    if not tensor.is_floating_point() or tensor.layout is not torch.strided or not tensor.numel():
        return 0.0
    plain = tensor.detach()
    return float(torch.linalg.vector_norm(plain.float())) / math.sqrt(plain.numel())


def _rounded(value: float) -> float:
    # the last digits depend on the number of threads
    return float(f"{value:.2g}")


def constant_outputs(
    passes: Iterable[tuple[Sequence[Tensor], Mapping[str, Tensor] | None]], batch: int
) -> tuple[str, ...]:
    """Names of the outputs that are equal for all samples, if those of all outputs are.

    Outputs of zeros are left out: a head that begins at zero gives them until it is trained.

    Args:
        passes: inputs and outputs of passes with different inputs, run one by one as needed:
            a saturated output may be equal for a few samples by chance.
        batch: samples per pass.
    """
    first: dict[str, Tensor] = {}
    for inputs, outputs in passes:
        found = {
            name: tensor
            for name, tensor in (outputs or {}).items()
            if tensor.is_floating_point() and tensor.layout is torch.strided and tensor.numel()
        }
        first = first or {name: tensor[0] for name, tensor in found.items() if tensor.dim()}
        constant = all(_is_constant(tensor, batch, first.get(n)) for n, tensor in found.items())
        if not found or not constant or not _differ(inputs, batch):
            return ()
    return tuple(first) if any(bool(tensor.any()) for tensor in first.values()) else ()


def _differ(inputs: Sequence[Tensor], batch: int) -> bool:
    """Whether the samples of a batch differ in some input."""
    return batch > 1 and any(
        tensor.dim() > 0 and tensor.shape[0] == batch and not torch.equal(tensor[0], tensor[1])
        for tensor in inputs
    )


def _is_constant(tensor: Tensor, batch: int, first: Tensor | None) -> bool:
    is_batch = first is not None and tensor.dim() > 0 and tensor.shape[0] == batch
    return is_batch and first is not None and all(torch.equal(row, first) for row in tensor)
