"""The configuration of a step: one inference, or one training iteration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from .errors import StepError

MODES = ("inference", "train")
PRECISIONS = ("fp32", "tf32", "amp-bf16", "amp-fp16", "bf16", "fp16")
OPTIMIZERS = (
    "none", "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "adafactor",
)  # fmt: skip
IMPLEMENTATIONS = ("foreach", "fused", "for-loop")
ZERO_GRAD = ("before_forward", "before_backward", "after_step", "in_place")
LOSSES = ("cross_entropy", "sum", "mean")

Loss = Callable[..., Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One configuration to estimate; raises `StepError` if it is not valid.

    `loss` is "cross_entropy", "sum", "mean" or a function of the model's output that returns a
    scalar tensor. `checkpointing` recomputes blocks in the backward pass: through the model's own
    method if it has one, else its repeated blocks, or the modules named in `checkpoint_modules`.
    `optimizer_arguments` go to the torch optimizer. `accumulation` is the number of micro-batches
    of size `batch` before one optimizer step. `zero_grad` says where gradients are set to None;
    "in_place" zeroes and keeps them, as torch did before 2.0. `prefetch` is how many batches of
    inputs are on the device at once: 2 where a loader copies the next one while a step runs. `ddp`
    adds the gradient buckets of DistributedDataParallel, `ema` an averaged copy of parameters and
    buffers, `clip` the norms of gradient clipping. `torch_version` ("2.6") is the
    version that will run; empty is the installed one. `cudnn_benchmark` is
    torch.backends.cudnn.benchmark; only `measure_step` uses it.
    """

    mode: str = "inference"
    precision: str = "fp32"
    optimizer: str = "none"
    implementation: str = "foreach"
    optimizer_arguments: tuple[tuple[str, Any], ...] = ()
    checkpointing: bool = False
    checkpoint_modules: tuple[str, ...] = ()
    loss: str | Loss = "cross_entropy"
    zero_grad: str = "before_forward"
    accumulation: int = 1
    iterations: int = 2
    channels_last: bool = False
    prefetch: int = 1
    ddp: bool = False
    ema: bool = False
    clip: float | None = None
    cudnn_benchmark: bool = False
    torch_version: str = ""

    def __post_init__(self) -> None:
        _check("mode", self.mode, MODES)
        _check("precision", self.precision, PRECISIONS)
        _check("optimizer", self.optimizer, OPTIMIZERS)
        _check("implementation", self.implementation, IMPLEMENTATIONS)
        _check("zero_grad", self.zero_grad, ZERO_GRAD)
        if not callable(self.loss):
            _check("loss", str(self.loss), LOSSES)
        for name in ("accumulation", "iterations", "prefetch"):
            if getattr(self, name) < 1:
                raise StepError(f"{name} must be at least 1, got {getattr(self, name)}", "use 1")
        if self.clip is not None and not self.clip > 0:
            raise StepError(f"clip must be a positive norm, got {self.clip}", "use 1.0")

    @property
    def trains(self) -> bool:
        """Whether there is a backward pass."""
        return self.mode == "train"

    @property
    def checkpoints(self) -> bool:
        """Whether blocks are recomputed in the backward pass."""
        return self.trains and (self.checkpointing or bool(self.checkpoint_modules))

    @property
    def fused_optimizer(self) -> bool:
        """Whether one kernel updates all parameters in place."""
        return self.implementation == "fused"


def check_batch(batch: int) -> None:
    """Raise `StepError` unless the batch is a positive integer."""
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise StepError(
            f"batch must be a positive integer, got {batch!r}", "use a batch of at least 1"
        )


def _check(field: str, value: str, known: tuple[str, ...]) -> None:
    if value in known:
        return
    close = get_close_matches(value, known, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    raise StepError(f"unknown {field} {value!r}", f"{meant}known: {', '.join(known)}")
