"""`reportgen estimate`: the peak memory of one step of one model, and the GPUs it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from reportgen.cuda_memory.errors import CudaMemoryError
from reportgen.cuda_memory.gpus import Gpu, find_gpu
from reportgen.cuda_memory.step import Step
from reportgen.dummy_inputs import knows_inputs, with_dummy_inputs
from reportgen.errors import ReportgenError
from reportgen.example_inputs import make_examples
from reportgen.manifest import InputSpec, ModelSpec, parse_source
from reportgen.sections.memory.analysis import ZERO_GRAD, as_result, fit_of
from reportgen.sections.memory.result import Fit, MemoryEstimate
from reportgen.sources import Loaded, load_model
from reportgen.units import format_bytes, format_integer, format_share

if TYPE_CHECKING:
    from reportgen.context import ModelContext
    from reportgen.cuda_memory import Measurement, MemoryEstimator

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuFit:
    """Whether the step fits one GPU at the requested batch size."""

    fits: bool
    fit: Fit


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Answer:
    """The peak memory of one step, and on which of the GPUs it fits; `str` gives it as text."""

    source: str
    estimate: MemoryEstimate
    notes: tuple[str, ...]
    gpus: tuple[GpuFit, ...]
    measurement: Measurement | None

    @property
    def fits_everywhere(self) -> bool:
        """Whether the step fits every requested GPU."""
        return all(each.fits for each in self.gpus)

    def __str__(self) -> str:
        return "\n".join(answer_lines(self))

    __repr__ = __str__  # what a notebook and the Python prompt show


def estimate_model(context: ModelContext, step: Step, gpus: tuple[str, ...]) -> Answer:
    """Estimate `step` of the model of `context` at its batch size.

    Raises:
        ReportgenError: a GPU name is invalid, or the step cannot be traced.
    """
    from reportgen.cuda_memory import MemoryEstimator  # loads torch

    try:
        targets = tuple(map(find_gpu, gpus))
        gpu = targets[0] if targets else None
        estimator = MemoryEstimator(context.model, context.arguments, step, gpu)
        found = estimator.estimate(context.batch)
        return Answer(
            source=context.name,
            estimate=as_result(found),
            notes=(*context.source_notes, *found.notes),
            gpus=tuple(
                GpuFit(fits=estimator.fits(context.batch, each), fit=fit_of(estimator, each))
                for each in targets
            ),
            measurement=None,
        )
    except CudaMemoryError as error:
        raise ReportgenError(str(error), hint=error.hint) from error


def make_step(
    *,
    mode: str,
    optimizer: str,
    checkpointing: bool,
    zero_grad: str,
    **options: Any,
) -> Step:
    """The step of these options; inference has neither an optimizer nor checkpointing.

    Args:
        mode: train or inference.
        optimizer: of a training step.
        checkpointing: of a training step.
        zero_grad: free or keep, as in a manifest.
        options: further fields of `Step`.

    Raises:
        ReportgenError: a value is not valid.
    """
    if zero_grad not in ZERO_GRAD:
        raise ReportgenError(f"unknown zero_grad {zero_grad!r}", hint="use 'free' or 'keep'")
    trains = mode == "train"
    try:
        return Step(
            mode=mode,
            optimizer=optimizer if trains else "none",
            checkpointing=checkpointing and trains,
            zero_grad=ZERO_GRAD[zero_grad],
            **options,
        )
    except CudaMemoryError as error:
        raise ReportgenError(str(error), hint=error.hint) from error


def estimate_step(
    source: str,
    inputs: tuple[InputSpec, ...],
    *,
    batch: int,
    step: Step,
    gpus: tuple[str, ...] = (),
    measure: bool = False,
) -> Answer:
    """Estimate `step` of the model at `source`; files are looked up from the current folder.

    The model is loaded once, on meta. Only if its constructor or the trace requires values, or if
    `measure` is set, is it loaded a second time with real weights.

    Raises:
        ReportgenError: the source, an input, the batch or a GPU name is invalid.
    """
    try:
        targets = tuple(map(find_gpu, gpus))
        model = _LazyModel(spec=_spec(source, inputs))
        spec, notes = model.with_inputs()
        estimator = model.estimator(spec, step, batch, targets[0] if targets else None)
        found = estimator.estimate(batch)
        return Answer(
            source=source,
            estimate=as_result(found),
            notes=(*notes, *found.notes),
            gpus=tuple(
                GpuFit(fits=estimator.fits(batch, gpu), fit=fit_of(estimator, gpu))
                for gpu in targets
            ),
            measurement=model.measure(spec, step, batch) if measure else None,
        )
    except CudaMemoryError as error:
        raise ReportgenError(str(error), hint=error.hint) from error


def _spec(source: str, inputs: tuple[InputSpec, ...]) -> ModelSpec:
    parsed = parse_source(source, Path.cwd())
    if parsed.kind == "onnx":
        raise ReportgenError(
            f"{source!r} is not a PyTorch module; only PyTorch steps can be estimated",
            hint="use the source from which the file was exported",
        )
    inputs = _with_batch_named(inputs)
    for dim in (dim for item in inputs for dim in item.named_dims()):
        if dim != "batch":
            raise ReportgenError(
                f"the dim {dim!r} in --input has no size",
                hint="write a number instead; only the batch size may have a name",
            )
    return ModelSpec(name="model", source=parsed, inputs=inputs)


def _with_batch_named(inputs: tuple[InputSpec, ...]) -> tuple[InputSpec, ...]:
    """Call the first dim "batch" if it has another name, as `N` and `B` in papers."""
    names = {dim for item in inputs for dim in (item.shape or ())[:1] if isinstance(dim, str)}
    if len(names) != 1:
        return inputs
    (name,) = names
    return tuple(
        item.model_copy(
            update={"shape": tuple("batch" if dim == name else dim for dim in item.shape)}
        )
        if item.shape
        else item
        for item in inputs
    )


@dataclass(kw_only=True, slots=True)
class _LazyModel:
    """The model of `spec`: on meta at first, with real weights once a step requires them."""

    spec: ModelSpec
    _on_meta: Loaded | None = None
    _real: Loaded | None = None

    def with_inputs(self) -> tuple[ModelSpec, tuple[str, ...]]:
        """`spec` with inputs derived from the model where none are given, and notes on them."""
        if self.spec.inputs:
            return self._first_success(lambda loaded: with_dummy_inputs(self.spec, loaded))
        if not knows_inputs(self.spec):
            raise ReportgenError(
                f"the inputs of {self.spec.source.text!r} are unknown",
                hint="specify them, as in --input batch,3,224,224",
            )
        found, notes = self._first_success(lambda loaded: with_dummy_inputs(self.spec, loaded))
        shapes = " ".join(_input_text(item) for item in found.inputs)
        return found, (*notes, f"inputs: {shapes}")

    def estimator(
        self, spec: ModelSpec, step: Step, batch: int, gpu: Gpu | None
    ) -> MemoryEstimator:
        """The estimator of the step, checked at `batch`."""
        # imported here, because it loads torch; a wrong GPU name is reported without it
        from reportgen.cuda_memory import MemoryEstimator

        def checked(loaded: Loaded) -> MemoryEstimator:
            estimator = MemoryEstimator(loaded.model, _maker(spec), step, gpu)
            estimator.estimate(batch)  # traces the step: without weights this may fail
            return estimator

        return self._first_success(checked)

    def measure(self, spec: ModelSpec, step: Step, batch: int) -> Measurement:
        """Run the step on the GPU with real weights."""
        from reportgen.cuda_memory import measure_step

        return measure_step(self._with_weights().model, _maker(spec), batch=batch, step=step)

    def _first_success(self, compute: Callable[[Loaded], T]) -> T:
        """`compute` of the model on meta; of the real one, from then on, if that fails."""
        import torch

        # on meta first: no weights are allocated
        if self._real is None:
            try:
                if self._on_meta is None:
                    with torch.device("meta"):
                        self._on_meta = load_model(self.spec)
                return compute(self._on_meta)
            except Exception:  # the error of the real model is the one to report
                self._on_meta = None
        return compute(self._with_weights())

    def _with_weights(self) -> Loaded:
        if self._real is None:
            self._real = load_model(self.spec)
        return self._real


def _input_text(item: InputSpec) -> str:
    """An input in the syntax of `--input`, as far as that can express it."""
    return f"{item.name or 'input'}={_type_text(item)}"


def _type_text(item: InputSpec) -> str:
    if item.items is not None:
        parts = ", ".join(map(_type_text, item.items))
        return f"[{parts}{' per sample' if item.per_sample else ''}]"
    return f"{','.join(map(str, item.shape))}:{item.dtype}" if item.shape else item.kind


def _maker(spec: ModelSpec) -> Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]:
    def make(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        examples = make_examples(spec, batch, spec.seed)
        return examples.args, examples.kwargs

    return make


def answer_lines(answer: Answer) -> Iterator[str]:
    """The answer as lines of text."""
    found = answer.estimate
    trained = f" with {found.optimizer}" if found.mode == "train" else ""
    checkpointed = ", checkpointed" if found.checkpointing else ""
    yield (
        f"{answer.source}: {found.mode} in {found.precision}{trained}{checkpointed}, "
        f"batch {format_integer(found.batch)}"
    )
    yield ""
    yield from _three_figures(answer)
    yield ""
    yield f"at the peak, in {found.peak_phase} of {found.peak_module or 'the step'}"
    for name, size in sorted(found.at_peak.items(), key=lambda item: -item[1]):
        share = format_share(size, found.peak_allocated_bytes)
        yield f"  {name.replace('_', ' '):<18}{format_bytes(size):>12}{share:>9}"
    if answer.gpus:
        yield ""
        yield from _gpu_lines(answer)
    for note in answer.notes:
        yield f"note: {note}"


def _three_figures(answer: Answer) -> Iterator[str]:
    found, measured = answer.estimate, answer.measurement
    rows = [
        ("allocated", found.peak_allocated_bytes, "torch.cuda.max_memory_allocated()"),
        ("reserved", found.peak_reserved_bytes, "torch.cuda.max_memory_reserved()"),
        ("on the device", found.peak_device_bytes, "as nvidia-smi shows it, likely "
         f"{format_bytes(found.band_low_bytes)} to {format_bytes(found.band_high_bytes)}"),
    ]  # fmt: skip
    real = (
        (measured.peak_allocated_bytes, measured.peak_reserved_bytes, measured.peak_device_bytes)
        if measured
        else (None, None, None)
    )
    for (name, size, words), seen in zip(rows, real, strict=True):
        beside = "" if seen is None else f"  measured {format_bytes(seen):>10}"
        yield f"  {name:<18}{format_bytes(size):>12}{beside}  {words}"


def _gpu_lines(answer: Answer) -> Iterator[str]:
    batch = f"batch {answer.estimate.batch}"
    yield f"  {'GPU':<22}{'usable':>10}  {batch:>14}  {'safe up to':>10}  {'likely up to':>12}"
    for each in answer.gpus:
        fit = each.fit
        verdict = "fits" if each.fits else "does not fit"
        if each.fits and answer.estimate.batch > fit.safe_batch:
            verdict = "likely fits"
        yield (
            f"  {fit.gpu:<22}{format_bytes(fit.usable_bytes):>10}  {verdict:>14}  "
            f"{fit.safe_batch:>10,}  {fit.largest_batch:>12,}"
        )


def answer_data(answer: Answer) -> dict[str, Any]:
    """The answer as JSON-ready data: an entry of `estimates[]`, with `fits[]`."""
    from pydantic_core import to_jsonable_python

    data: dict[str, Any] = to_jsonable_python(answer.estimate)
    data["notes"] = list(answer.notes)
    if answer.gpus:
        data["fits"] = [to_jsonable_python(g.fit) | {"fits": g.fits} for g in answer.gpus]
    if answer.measurement is not None:
        data["measured"] = to_jsonable_python(answer.measurement)
    return data
