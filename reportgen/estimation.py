"""The answer of `reportgen estimate`: one step of one model on any number of cards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.cuda_memory.errors import CudaMemoryError
from reportgen.cuda_memory.gpus import Gpu, find_gpu
from reportgen.cuda_memory.step import Step
from reportgen.dummy_inputs import knows_inputs, with_dummy_inputs
from reportgen.errors import ReportgenError
from reportgen.example_inputs import make_examples
from reportgen.manifest import InputSpec, ModelSpec, parse_source
from reportgen.sections.memory import Fit, MemoryEstimate, as_result, fit_of
from reportgen.sources import Loaded, load_model
from reportgen.units import format_bytes, format_integer, format_share

if TYPE_CHECKING:
    from reportgen.cuda_memory import Measurement, Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Whether the step fits one card at the batch that was asked about."""

    fits: bool
    fit: Fit


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What one step needs, and on which of the cards it fits."""

    source: str
    estimate: MemoryEstimate
    notes: tuple[str, ...]
    rooms: tuple[Room, ...]
    measurement: Measurement | None

    @property
    def fits_everywhere(self) -> bool:
        """Whether no card that was named is too small."""
        return all(room.fits for room in self.rooms)


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

    The model is built without memory for its weights where its constructor allows that.

    Raises:
        ReportgenError: the source, an input, the batch or a card is not what it should be.
    """
    try:
        cards = tuple(map(find_gpu, gpus))
        spec, notes = _with_inputs(_spec(source, inputs))
        plan = _plan(spec, step, batch, cards[0] if cards else None)
        found = plan.estimate(batch)
        return Answer(
            source=source,
            estimate=as_result(found),
            notes=(*notes, *found.notes),
            rooms=tuple(
                Room(fits=plan.fits(batch, card), fit=fit_of(plan, card)) for card in cards
            ),
            measurement=_measure(spec, step, batch) if measure else None,
        )
    except CudaMemoryError as error:
        raise ReportgenError(str(error), hint=error.hint) from error


def _spec(source: str, inputs: tuple[InputSpec, ...]) -> ModelSpec:
    parsed = parse_source(source, Path.cwd())
    if parsed.kind == "onnx":
        raise ReportgenError(
            f"{source!r} holds no PyTorch module, and a step of PyTorch is what is estimated",
            hint="name the source that the file was exported from",
        )
    return ModelSpec(name="model", source=parsed, inputs=inputs)


def _with_inputs(spec: ModelSpec) -> tuple[ModelSpec, tuple[str, ...]]:
    """`spec` with the inputs that its source knows, where none were given, and notes of both."""
    if spec.inputs:
        return spec, ()
    if not knows_inputs(spec):
        raise ReportgenError(
            f"the inputs of {spec.source.text!r} are not known",
            hint="name them, as in --input batch,3,224,224",
        )
    try:
        found, notes = with_dummy_inputs(spec, _without_weights(spec))
    except Exception:  # a real run is slower and says it better
        found, notes = with_dummy_inputs(spec, load_model(spec))
    shapes = " ".join(_in_words(item) for item in found.inputs)
    return found, (*notes, f"inputs: {shapes}")


def _in_words(item: InputSpec) -> str:
    """An input as `--input` takes it, as far as that can say it."""
    return f"{item.name or 'input'}={_form_in_words(item)}"


def _form_in_words(item: InputSpec) -> str:
    if item.items is not None:
        parts = ", ".join(map(_form_in_words, item.items))
        return f"[{parts}{' for every sample' if item.per_sample else ''}]"
    return f"{','.join(map(str, item.shape))}:{item.dtype}" if item.shape else item.kind


def _plan(spec: ModelSpec, step: Step, batch: int, card: Gpu | None) -> Plan:
    """A plan that is known to answer: of a model without weights, else of the real one."""
    from reportgen.cuda_memory import trace_step

    make_inputs = _maker(spec)
    try:
        plan = trace_step(_without_weights(spec).model, make_inputs, step, card)
        plan.estimate(batch)
    except Exception:  # whatever it is: the real model says it better, or does not say it
        plan = trace_step(load_model(spec).model, make_inputs, step, card)
    return plan


def _without_weights(spec: ModelSpec) -> Loaded:
    import torch

    with torch.device("meta"):
        return load_model(spec)


def _maker(spec: ModelSpec) -> Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]:
    def make(batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        examples = make_examples(spec, batch, spec.seed)
        return examples.args, examples.kwargs

    return make


def _measure(spec: ModelSpec, step: Step, batch: int) -> Measurement:
    from reportgen.cuda_memory import measure_step

    return measure_step(load_model(spec).model, _maker(spec), batch=batch, step=step)


def answer_lines(answer: Answer) -> Iterator[str]:
    """The answer as a table for people."""
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
    if answer.rooms:
        yield ""
        yield from _card_lines(answer)
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


def _card_lines(answer: Answer) -> Iterator[str]:
    batch = f"batch {answer.estimate.batch}"
    yield f"  {'card':<22}{'usable':>10}  {batch:>14}  {'largest':>9}  {'first that fails':>16}"
    for room in answer.rooms:
        fit = room.fit
        first = "-" if fit.first_batch_that_fails is None else f"{fit.first_batch_that_fails:,}"
        verdict = "fits" if room.fits else "does not fit"
        yield (
            f"  {fit.gpu:<22}{format_bytes(fit.usable_bytes):>10}  {verdict:>14}  "
            f"{fit.largest_batch:>9,}  {first:>16}"
        )


def answer_data(answer: Answer) -> dict[str, Any]:
    """The answer as JSON-ready data, in the form of `estimates[]` with `fits[]`."""
    from pydantic_core import to_jsonable_python

    data: dict[str, Any] = to_jsonable_python(answer.estimate)
    data["notes"] = list(answer.notes)
    if answer.rooms:
        data["fits"] = [to_jsonable_python(r.fit) | {"fits": r.fits} for r in answer.rooms]
    if answer.measurement is not None:
        data["measured"] = to_jsonable_python(answer.measurement)
    return data
