"""Trace a step: run it on fake CPU tensors and record its allocations and frees in order.

The step runs through torch's own autograd engine, with the operators dispatched as on CUDA. A model
that reads the values of its tensors runs with values recorded on the CPU, or on the CPU itself.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count

import torch
from torch import nn

from ..errors import CudaMemoryError, UntraceableModelError
from ..extrapolation import PairedTrace, pair_iterations
from ..gpus import Gpu
from ..library_workspaces import Platform, torch_version
from ..memory_trace import MemoryTrace
from ..step import Step, check_batch
from .checkpointing import enable_checkpointing
from .cuda_dispatch import cuda_dispatch
from .cuda_kernels import CUDA_KERNELS, FAKE_SHORTCUTS
from .data_dependent import NEEDS_VALUES, CpuValues, RecordedValues
from .fake_copy import (
    FakeMode,
    MakeInputs,
    clone_inputs,
    fake_copy,
    fake_inputs,
    new_fake_inputs,
    real_copy,
    real_inputs,
    suppress_warnings,
)
from .output_cache import OutputCache
from .storage_recorder import StorageRecorder
from .train_loop import Batch, run_inference, run_training

_THREADS = (
    "the model runs modules in threads: they are estimated one after the other, but "
    "overlapping modules need more memory, such as a cuBLAS workspace per thread"
)
CPU_RUN_BATCH = 2  # small, as it takes real memory; batch norm does not train on one sample
CPU_RUN_BYTES_LIMIT = 4 << 30  # of weights; training holds up to four times as much


class TraceCache:
    """What the estimators of one model and its inputs share.

    `cpu_values` holds the values that CPU runs recorded, `outputs` the shapes of fake results, and
    `linear` the passes of which a third batch confirmed that sizes are linear in the batch: the
    generation of GPUs, the first batch of the line, and the step without optimizer and
    checkpointing.
    """

    def __init__(self) -> None:
        self.cpu_values = CpuValues()
        self.outputs = OutputCache()
        self.linear: set[tuple[bool, int, Step]] = set()


class StepTracer:
    """Traces one step of a model at any number of batch sizes, on one fake copy of it.

    The model itself is never run, moved or changed. `data_dependent` is True once a trace needed
    the values of tensors; `depends_on_gpu` once GPUs of another generation would have run other
    kernels.
    """

    def __init__(
        self,
        model: nn.Module,
        make_inputs: MakeInputs,
        step: Step,
        gpu: Gpu | None,
        cache: TraceCache,
    ) -> None:
        self.step = step
        self.gpu = gpu
        self.depends_on_gpu = False
        self.was_traced = False
        self.data_dependent = False
        self._model = model
        self._make_inputs = make_inputs
        self._cache = cache
        self._fake = FakeMode()
        self._iterations_differ = False
        self._notes: list[str] = []
        self._error: Exception | None = None
        self._fake_model: nn.Module | None = None

    @property
    def platform(self) -> Platform:
        """What decides the kernels and the libraries' requests."""
        return Platform(
            gpu=self.gpu,
            precision=self.step.precision,
            channels_last=self.step.channels_last,
            torch_version=torch_version(self.step.torch_version),
        )

    def trace(self, batch: int, *, light: bool = False) -> MemoryTrace:
        """Run the step at this batch and return its allocations; a light trace has no optimizer.

        If the model reads the values of its tensors, the fake run replays values recorded in a CPU
        run; if that fails, the step runs on the CPU itself. Both take a batch of `CPU_RUN_BATCH` at
        most: `batch` of the trace is the one that was run.

        Raises:
            UntraceableModelError: the model raises at this batch, and on the CPU as well.
        """
        check_batch(batch)
        return self._trace(batch, self._without_optimizer() if light else self.step)

    def _trace(self, batch: int, step: Step) -> MemoryTrace:
        if not (self.data_dependent or isinstance(self._error, NEEDS_VALUES)):
            try:
                return self._fake_trace(batch, step=step)
            except CudaMemoryError:
                raise
            except Exception as err:  # any exception of the model's code
                self._discard_fake_model(err)
                # a model that ran on fake tensors before rejects this batch: no CPU run helps
                if self.was_traced and not isinstance(err, NEEDS_VALUES):
                    raise _batch_error(batch, err) from err
        self._check_cpu_run_possible()
        made = self._trace_with_cpu_values(min(batch, CPU_RUN_BATCH)) or self._cpu_trace(batch)
        self.data_dependent = True  # only now: an error at one batch says nothing about the others
        return made

    def trace_pair(self, batch: int) -> PairedTrace | None:
        """Trace two iterations at two batch sizes in one run: `batch + 1`, then `batch`.

        The larger batch runs first, so that what a model caches at its first call is large enough
        for the second. None if the step has not two iterations, if the iterations differ in more
        than sizes, or if the model raises; the next `trace` starts from a new fake copy then. Once
        iterations differ, as in a model that caches a tensor at its first call, no pair is traced.
        """
        if self.step.iterations != 2 or self.step.accumulation != 1 or self.step.prefetch != 1:
            return None  # an iteration would hold inputs of both batch sizes
        if self._iterations_differ or self.data_dependent:
            return None
        try:
            traced = self._fake_trace(batch, batches=(batch + 1, batch))
        except Exception as err:  # any exception of the model's code; `trace` reports it
            self._discard_fake_model(err)
            return None
        pair = pair_iterations(traced)
        if pair is None:
            self._iterations_differ = True
            self._fake_model = None
        return pair

    def trace_iteration(self, batch: int) -> MemoryTrace:
        """One iteration without optimizer; see `trace`."""
        return self._trace(batch, replace(self._without_optimizer(), iterations=1))

    def _without_optimizer(self) -> Step:
        return replace(self.step, optimizer="none")

    def _discard_fake_model(self, err: Exception) -> None:
        """Forget the fake copy: an interrupted pass may have left state in it."""
        self._error = err
        self._fake_model = None

    def _trace_with_cpu_values(self, batch: int) -> MemoryTrace | None:
        """The fake step with values of a CPU run; None if they do not suffice."""
        if not isinstance(self._error, NEEDS_VALUES):
            return None
        values = self._cache.cpu_values.at(self._model, self._make_inputs, batch, self.step)
        if values is None:
            return None
        try:
            made = self._fake_trace(batch, values=values.rewound())
        except CudaMemoryError:
            raise
        except Exception:  # it reads values that the CPU run did not, as in a recomputation
            return None
        note = (
            f"data-dependent control flow ({_first_line(self._error)}): traced with values from a "
            f"CPU run at batch {batch}; other batch sizes are extrapolated"
        )
        return replace(made, method="cpu values", notes=(*made.notes, note))

    def _fake_trace(
        self,
        batch: int,
        *,
        step: Step | None = None,
        batches: tuple[int, ...] = (),
        values: RecordedValues | None = None,
    ) -> MemoryTrace:
        """Run `step` (default: the tracer's) on the fake copy, its iterations at `batches`."""
        if self._fake_model is None:
            made = fake_copy(self._model, self._fake, precision=self.step.precision)
            self._fake_model = self._prepared(made)
        model = self._fake_model
        examples = [
            fake_inputs(self._make_inputs, size, self._fake, precision=self.step.precision)
            for size in batches or (batch,)
        ]
        calls = count()

        def next_batch() -> Batch:
            gc.collect(1)  # see _preserve_global_state
            if values is not None:
                values.start_pass()
            args, kwargs = examples[min(next(calls), len(examples) - 1)]
            # new tensors at each call, as a data loader copies every batch to the device
            return new_fake_inputs(args, self._fake), new_fake_inputs(kwargs, self._fake)

        recorder = self._recorder(fake=True, values=values)
        with _preserve_global_state(), cuda_dispatch(self.platform) as choices, self._fake:
            self._run(recorder, model, next_batch, step or self.step)
        if values is not None:
            values.start_pass()  # raises if the last pass read too few values
        self.depends_on_gpu = self.depends_on_gpu or choices.depend_on_gpu
        self.was_traced = True
        return recorder.trace(batch=batch, method="fake", notes=self._notes_on(recorder))

    def _cpu_trace(self, requested: int) -> MemoryTrace:
        """The same step with real tensors, at a small batch because it takes real memory."""
        batch = min(requested, CPU_RUN_BATCH)
        model = self._prepared(real_copy(self._model, self.step.precision))
        args, kwargs = real_inputs(self._make_inputs, batch)

        def next_batch() -> Batch:
            return clone_inputs(args, self.step.precision), clone_inputs(
                kwargs, self.step.precision
            )

        recorder = self._recorder(fake=False)
        with _preserve_global_state():
            try:
                self._run(recorder, model, next_batch, self.step)
            except CudaMemoryError:
                raise
            except Exception as err:  # any exception of the model's code
                raise _batch_error(requested, err) from err
        note = (
            f"traced in a CPU run at batch {batch}, because the model cannot run on fake tensors "
            f"({_first_line(self._error)}); other batch sizes are extrapolated"
        )
        notes = (*self._notes_on(recorder), note)
        return recorder.trace(batch=batch, method="cpu run", notes=notes)

    def _notes_on(self, recorder: StorageRecorder) -> tuple[str, ...]:
        return (*self._notes, _THREADS) if recorder.ran_in_threads else tuple(self._notes)

    def _check_cpu_run_possible(self) -> None:
        # unbound: an attribute called buffers must not hide the method
        tensors = [*self._model.parameters(), *nn.Module.buffers(self._model)]
        if any(tensor.is_meta for tensor in tensors):
            raise UntraceableModelError(
                f"the model cannot run on fake tensors ({_first_line(self._error)}) "
                "and has no weights for a CPU run",
                "load the model with its weights",
            )
        if sum(tensor.nbytes for tensor in tensors) > CPU_RUN_BYTES_LIMIT:
            raise UntraceableModelError(
                f"the model cannot run on fake tensors ({_first_line(self._error)}) "
                "and is too large for a CPU run",
                "estimate the part of it that does not read values",
            )

    def _prepared(self, model: nn.Module) -> nn.Module:
        """The copy in the step's mode, with checkpointing if the step has it."""
        model.train(self.step.trains)
        if self.step.checkpoints:
            note = enable_checkpointing(model, self.step)
            self._notes += [note] if note not in self._notes else []
        return model

    def _recorder(self, *, fake: bool, values: RecordedValues | None = None) -> StorageRecorder:
        return StorageRecorder(
            CUDA_KERNELS,
            FAKE_SHORTCUTS if fake else {},  # they return no values
            self._cache.outputs if fake else None,
            values,
            scalars_stay_on_host=not self.step.fused_optimizer,
        )

    def _run(
        self,
        recorder: StorageRecorder,
        model: nn.Module,
        next_batch: Callable[[], Batch],
        step: Step,
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
            # the next trace of this fake copy must start without gradients
            for parameter in model.parameters():
                parameter.grad = None


@contextmanager
def _preserve_global_state() -> Iterator[None]:
    """Restore random state and grad mode afterwards.

    The garbage collector is off: it runs once per iteration, so that traces of a model with
    reference cycles are reproducible.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with suppress_warnings(), torch.random.fork_rng(devices=[]), torch.enable_grad():
            yield
    finally:
        if collecting:
            gc.enable()


def _batch_error(batch: int, err: Exception) -> UntraceableModelError:
    return UntraceableModelError(
        f"the model fails at batch {batch}: {_first_line(err)}",
        "check the shapes and types of the inputs",
    )


def _first_line(err: BaseException | None) -> str:
    text = str(err).strip().split("\n")[0] or type(err).__name__
    return text[:200]
