"""One fake run of a step, written down: what is allocated and freed, in order.

The step runs on fake CPU tensors through torch's own autograd engine, under the CUDA personality.
A model that needs the values of its tensors runs for real on the CPU under the same recorder.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .checkpointing import apply_checkpointing
from .errors import CudaMemoryError, ModelRefusedError
from .events import Trace
from .fake_mode import FakeMode
from .gpus import Gpu
from .iteration import Batch, run_inference, run_training
from .kernels import CUDA_KERNELS
from .library import Platform, torch_version
from .personality import cuda_personality
from .recorder import Recorder
from .shortcuts import FAKE_SHORTCUTS
from .stand_in import LOW_PRECISION, MakeInputs, fake_inputs, fresh, real_inputs, stand_in
from .step import Step, check_batch

_THREADS = (
    "modules run in threads of their own: the figures are those of one after the other; what runs "
    "at the same time needs more, a cuBLAS workspace for each thread among it"
)
REAL_RUN_BATCH = 2
REAL_RUN_BYTES_LIMIT = 4 << 30


class Tracer:
    """A model made ready once, to be traced at any number of batch sizes.

    The model itself is never run, moved or changed: its stand-in is. Raises `ModelRefusedError`
    when the model rejects the inputs.
    """

    def __init__(
        self, model: nn.Module, make_inputs: MakeInputs, step: Step, gpu: Gpu | None = None
    ) -> None:
        self.step = step
        self.gpu = gpu
        self.depends_on_card = False
        self.was_traced = False
        self._model = model
        self._make_inputs = make_inputs
        self._fake = FakeMode()
        self._notes: list[str] = []
        self.needs_values = False
        self._reason = ""
        self._stand_in: nn.Module | None = None

    @property
    def platform(self) -> Platform:
        """What decides the kernels and the libraries' requests."""
        return Platform(
            gpu=self.gpu,
            precision=self.step.precision,
            channels_last=self.step.channels_last,
            torch_version=torch_version(self.step.torch_version),
        )

    def trace(self, batch: int, *, light: bool = False) -> Trace:
        """Run the step at this batch size and return what it did to memory.

        A light trace leaves the optimizer's steps out. A model that cannot run fake runs for
        real, at a batch of `REAL_RUN_BATCH` at most: the trace tells its batch.
        """
        check_batch(batch)
        if not self.needs_values:
            try:
                return self._fake_trace(batch, light=light)
            except CudaMemoryError:
                raise
            except Exception as err:  # whatever the model's own code raises
                self._reason = _first_line(err)
        made = self._real_trace(batch)
        self.needs_values = True  # not before: a batch that is refused says nothing of the others
        return made

    def _fake_trace(self, batch: int, *, light: bool) -> Trace:
        if self._stand_in is None:
            made = stand_in(self._model, self._fake, precision=self.step.precision)
            self._stand_in = self._prepared(made)
        model = self._stand_in
        example = fake_inputs(self._make_inputs, batch, self._fake, precision=self.step.precision)

        def next_batch() -> Batch:
            gc.collect(1)
            args, kwargs = example
            return fresh(args, self._fake), fresh(kwargs, self._fake)

        recorder = self._recorder(fake=True)
        step = replace(self.step, optimizer="none") if light else self.step
        with _undisturbed(), cuda_personality(self.platform) as choices, self._fake:
            self._run(recorder, model, next_batch, step)
        self.depends_on_card = self.depends_on_card or choices.depend_on_card
        self.was_traced = True
        return recorder.trace(batch=batch, method="fake", notes=self._notes_on(recorder))

    def _real_trace(self, wanted: int) -> Trace:
        """The same step with real values, at a small batch because it costs real memory."""
        self._refuse_large()
        batch = min(wanted, REAL_RUN_BATCH)
        model = self._prepared(_real_copy(self._model, self.step.precision))
        args, kwargs = real_inputs(self._make_inputs, batch)

        def next_batch() -> Batch:
            return _cloned(args, self.step.precision), _cloned(kwargs, self.step.precision)

        recorder = self._recorder(fake=False)
        with _undisturbed():
            try:
                self._run(recorder, model, next_batch, self.step)
            except CudaMemoryError:
                raise
            except Exception as err:  # whatever the model's own code raises
                raise ModelRefusedError(
                    f"the model refuses batch {wanted}: {_first_line(err)}",
                    "check the shapes and types of the inputs",
                ) from err
        note = f"ran for real on the CPU at batch {batch}, other batches scaled: {self._reason}"
        notes = (*self._notes_on(recorder), note)
        return recorder.trace(batch=batch, method="cpu run", notes=notes)

    def _notes_on(self, recorder: Recorder) -> tuple[str, ...]:
        return (*self._notes, _THREADS) if recorder.left_home else tuple(self._notes)

    def _refuse_large(self) -> None:
        weights = sum(p.numel() * p.element_size() for p in self._model.parameters())
        if weights > REAL_RUN_BYTES_LIMIT:
            raise ModelRefusedError(
                f"the model cannot run fake ({self._reason}) and is too large to run for real",
                "estimate the part of it that does not read values",
            )

    def _prepared(self, model: nn.Module) -> nn.Module:
        """The copy in the step's mode, checkpointed if asked for, without gradients."""
        model.train(self.step.trains)
        if self.step.checkpoints:
            self._notes.append(apply_checkpointing(model, self.step))
        return model

    def _recorder(self, *, fake: bool) -> Recorder:
        shortcuts = FAKE_SHORTCUTS if fake else {}
        return Recorder(CUDA_KERNELS, shortcuts, scalars_stay_on_host=not self.step.fused_optimizer)

    def _run(
        self, recorder: Recorder, model: nn.Module, next_batch: Callable[[], Batch], step: Step
    ) -> None:
        run = run_training if self.step.trains else run_inference
        recorder.mark("load")
        recorder.declare(model.named_parameters(), "parameter")
        recorder.declare(model.named_buffers(), "buffer")
        try:
            with recorder.module_paths(model), recorder:
                run(recorder, model, next_batch, step)
        finally:
            recorder.stop()
            for parameter in model.parameters():
                parameter.grad = None


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Random state and grad mode are the caller's again afterwards.

    Garbage is collected once an iteration instead of now and then, so that a trace of a model
    with reference cycles is the same every time.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            yield
    finally:
        if collecting:
            gc.enable()


def _real_copy(model: nn.Module, precision: str) -> nn.Module:
    made = copy.deepcopy(model)
    if any(parameter.is_meta for parameter in made.parameters()):
        made = made.to_empty(device="cpu")
        for tensor in (*made.parameters(), *nn.Module.buffers(made)):
            tensor.data.zero_()
    return made.to(LOW_PRECISION[precision]) if precision in LOW_PRECISION else made


def _cloned(value: Any, precision: str) -> Any:
    if isinstance(value, torch.Tensor):
        low = LOW_PRECISION.get(precision)
        made = value.detach().clone()
        return made.to(low) if low is not None and made.is_floating_point() else made
    if isinstance(value, (list, tuple)):
        return type(value)(_cloned(item, precision) for item in value)
    if isinstance(value, dict):
        return {key: _cloned(item, precision) for key, item in value.items()}
    return value


def _first_line(err: BaseException) -> str:
    text = str(err).strip().split("\n")[0] or type(err).__name__
    return text[:200]
