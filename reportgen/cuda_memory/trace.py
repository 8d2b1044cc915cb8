"""One fake run of a step, written down: what is allocated and freed, in order.

The step runs on fake CPU tensors through torch's own autograd engine, under the CUDA personality.
A model that reads the values of its tensors is told those of a real pass; where that does not
carry it through, it runs for real on the CPU under the same recorder.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import nn

from .checkpointing import apply_checkpointing
from .cuda_dispatch import cuda_personality
from .data_dependent import NEEDS_VALUES, Answers, RealPasses
from .errors import CudaMemoryError, ModelRefusedError
from .events import Trace
from .fake_copy import (
    MakeInputs,
    cloned,
    fake_copy,
    fake_inputs,
    fresh,
    quiet,
    real_copy,
    real_inputs,
)
from .fake_kernels import FAKE_SHORTCUTS
from .fake_mode import FakeMode
from .gpus import Gpu
from .kernels import CUDA_KERNELS
from .library_workspaces import Platform, torch_version
from .recorder import Recorder
from .step import Step, check_batch
from .train_loop import Batch, run_inference, run_training

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
        self,
        model: nn.Module,
        make_inputs: MakeInputs,
        step: Step,
        gpu: Gpu | None,
        passes: RealPasses,
    ) -> None:
        self.step = step
        self.gpu = gpu
        self.depends_on_card = False
        self.was_traced = False
        self._model = model
        self._make_inputs = make_inputs
        self._passes = passes
        self._fake = FakeMode()
        self._notes: list[str] = []
        self.needs_values = False
        self._reason = ""
        self._asks_values = False
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

        A light trace leaves the optimizer's steps out. A model that reads values is told those
        of a real pass, and one that cannot run fake at all runs for real, both at a batch of
        `REAL_RUN_BATCH` at most: the trace tells its batch.
        """
        check_batch(batch)
        if not self.needs_values:
            try:
                return self._fake_trace(batch, light=light)
            except CudaMemoryError:
                raise
            except Exception as err:  # whatever the model's own code raises
                self._reason = _first_line(err)
                self._asks_values = isinstance(err, NEEDS_VALUES)
                self._stand_in = None  # it may keep something of the pass that ended halfway
                if self.was_traced and not self._asks_values:  # it runs fake, but not at this batch
                    raise _refusal(batch, err) from err
        self._refuse_what_cannot_be_computed()
        made = self._told_trace(min(batch, REAL_RUN_BATCH)) or self._real_trace(batch)
        self.needs_values = True  # not before: a batch that is refused says nothing of the others
        return made

    def _told_trace(self, batch: int) -> Trace | None:
        """The fake step with the values of a real pass; None where they do not carry it through."""
        if not self._asks_values:
            return None
        answers = self._passes.answers(self._model, self._make_inputs, batch, self.step)
        if answers is None:
            return None
        try:
            made = self._fake_trace(batch, light=False, answers=answers.from_the_start())
        except CudaMemoryError:
            raise
        except Exception:  # it reads what the real pass did not, as in a recomputation
            return None
        note = (
            f"its course depends on values ({self._reason}): those of a pass on the CPU at batch "
            f"{batch} were taken, other batches scaled"
        )
        return replace(made, method="cpu values", notes=(*made.notes, note))

    def _fake_trace(self, batch: int, *, light: bool, answers: Answers | None = None) -> Trace:
        if self._stand_in is None:
            made = fake_copy(self._model, self._fake, precision=self.step.precision)
            self._stand_in = self._prepared(made)
        model = self._stand_in
        example = fake_inputs(self._make_inputs, batch, self._fake, precision=self.step.precision)

        def next_batch() -> Batch:
            gc.collect(1)
            if answers is not None:
                answers.restart()
            args, kwargs = example
            return fresh(args, self._fake), fresh(kwargs, self._fake)

        recorder = self._recorder(fake=True, answers=answers)
        step = replace(self.step, optimizer="none") if light else self.step
        with _undisturbed(), cuda_personality(self.platform) as choices, self._fake:
            self._run(recorder, model, next_batch, step)
        if answers is not None:
            answers.restart()
        self.depends_on_card = self.depends_on_card or choices.depend_on_card
        self.was_traced = True
        return recorder.trace(batch=batch, method="fake", notes=self._notes_on(recorder))

    def _real_trace(self, wanted: int) -> Trace:
        """The same step with real values, at a small batch because it costs real memory."""
        batch = min(wanted, REAL_RUN_BATCH)
        model = self._prepared(real_copy(self._model, self.step.precision))
        args, kwargs = real_inputs(self._make_inputs, batch)

        def next_batch() -> Batch:
            return cloned(args, self.step.precision), cloned(kwargs, self.step.precision)

        recorder = self._recorder(fake=False)
        with _undisturbed():
            try:
                self._run(recorder, model, next_batch, self.step)
            except CudaMemoryError:
                raise
            except Exception as err:  # whatever the model's own code raises
                raise _refusal(wanted, err) from err
        note = f"ran for real on the CPU at batch {batch}, other batches scaled: {self._reason}"
        notes = (*self._notes_on(recorder), note)
        return recorder.trace(batch=batch, method="cpu run", notes=notes)

    def _notes_on(self, recorder: Recorder) -> tuple[str, ...]:
        return (*self._notes, _THREADS) if recorder.left_home else tuple(self._notes)

    def _refuse_what_cannot_be_computed(self) -> None:
        held = [*self._model.parameters(), *nn.Module.buffers(self._model)]
        if any(tensor.is_meta for tensor in held):
            raise ModelRefusedError(
                f"the model cannot run fake ({self._reason}) and has no weights to run on",
                "load the model with its weights",
            )
        if sum(p.numel() * p.element_size() for p in held) > REAL_RUN_BYTES_LIMIT:
            raise ModelRefusedError(
                f"the model cannot run fake ({self._reason}) and is too large to run for real",
                "estimate the part of it that does not read values",
            )

    def _prepared(self, model: nn.Module) -> nn.Module:
        """The copy in the step's mode, checkpointed if asked for, without gradients."""
        model.train(self.step.trains)
        if self.step.checkpoints:
            note = apply_checkpointing(model, self.step)
            self._notes += [note] if note not in self._notes else []
        return model

    def _recorder(self, *, fake: bool, answers: Answers | None = None) -> Recorder:
        return Recorder(
            CUDA_KERNELS,
            FAKE_SHORTCUTS if fake else {},
            answers,
            scalars_stay_on_host=not self.step.fused_optimizer,
        )

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
        with quiet(), torch.random.fork_rng(devices=[]), torch.enable_grad():
            yield
    finally:
        if collecting:
            gc.enable()


def _refusal(batch: int, err: Exception) -> ModelRefusedError:
    return ModelRefusedError(
        f"the model refuses batch {batch}: {_first_line(err)}",
        "check the shapes and types of the inputs",
    )


def _first_line(err: BaseException) -> str:
    text = str(err).strip().split("\n")[0] or type(err).__name__
    return text[:200]
