"""What others may use of the memory estimates: peaks at a batch, and the largest batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from reportgen.comparable import Comparable, LargestBatch, ModuleFigure
from reportgen.metrics import Method, Metric
from reportgen.sections.memory.result import Fit, Memory
from reportgen.units import format_count, format_integer

_TABLES = {"train": "Safe training batch", "inference": "Safe inference batch"}
_PEAK = (
    "{how}, its allocations replayed through a model of PyTorch's caching allocator, plus CUDA "
    "context and libraries; the largest peak of the estimated steps"
)
_HOW = {
    True: "One step on the CPU at a small batch, scaled up",
    False: "One step on fake tensors with the kernels of a CUDA device",
}
_SEARCH = (
    "Bisection over the batch size, the step replayed at the capacity of the GPU: the largest "
    "batch for which the upper end of the estimated range fits the usable memory"
)
_DEFINITION = (
    "the largest batch for which even the upper end of the estimated range, context and libraries "
    "included, fits the memory that the GPU leaves to a program, without checkpointing; “≥” where "
    "the search ended before the memory did"
)


def metrics_of(result: Memory) -> tuple[Metric, ...]:
    """The largest peak of any step at each batch, and the safe batch of the plainest steps."""
    fits = [*_plainest(result.fits, "train"), *_plainest(result.fits, "inference")]
    return (*_peaks(result), *map(_safe_batch, fits))


def methods_of(result: Memory) -> tuple[Method, ...]:
    """The replay of a step, and the search for a batch."""
    on_cpu = any(estimate.method == "cpu run" for estimate in result.estimates)
    peaks = tuple(
        Method(
            keys=(_peak_key(batch),),
            text=_PEAK.format(how=_HOW[on_cpu]),
            tools=("reportgen", "torch"),
            batch=batch,
        )
        for batch in _batches(result)
    )
    searched = tuple(m.key for m in metrics_of(result) if m.unit == "batch")
    search = Method(keys=searched, text=_SEARCH, tools=("reportgen", "torch"))
    return (*peaks, search) if searched else peaks


def _batches(result: Memory) -> list[int]:
    return sorted({estimate.batch for estimate in result.estimates})


def _peak_key(batch: int) -> str:
    return f"memory.peak_memory@{batch}"


def _peaks(result: Memory) -> Iterator[Metric]:
    for batch in _batches(result):
        peaks = [e.peak_device_bytes for e in result.estimates if e.batch == batch]
        yield Metric(
            key=_peak_key(batch),
            label=f"Peak memory at batch {batch:,}",
            value=max(peaks),
            unit="bytes",
            direction="lower",
        )


def _plainest(fits: Sequence[Fit], mode: str) -> list[Fit]:
    """The first fit of each GPU without checkpointing, in the precision that comes first."""
    plain = [fit for fit in fits if fit.mode == mode and not fit.checkpointing]
    first: dict[str, Fit] = {}
    for fit in plain:
        if fit.precision == plain[0].precision:
            first.setdefault(fit.gpu, fit)
    return list(first.values())


def _safe_batch(fit: Fit) -> Metric:
    setting = [fit.precision, fit.optimizer if fit.mode == "train" else ""]
    return Metric(
        key=f"memory.safe_{fit.mode}_batch@{fit.gpu}",
        label=fit.gpu,
        value=fit.safe_batch,
        unit="batch",
        direction="higher",
        text=batch_text(fit),
        quality="" if fit.safe_batch else "bad",
        table=_TABLES[fit.mode],
        note=", ".join(filter(None, setting)),
        definition=_DEFINITION,
    )


def batch_text(fit: Fit) -> str:
    """The safe batch of `fit`: `64`, `none`, or `≥ 4.1 K` where the search ended first."""
    if fit.safe_batch == 0:
        return "none"
    if fit.first_batch_that_fails is None and fit.safe_batch == fit.largest_batch:
        return f"≥ {format_count(fit.safe_batch)}"
    return format_integer(fit.safe_batch)


def comparable_of(result: Memory) -> Comparable:
    """The largest batch of every step on every GPU, and the modules that hold most memory."""
    return Comparable(
        fits=tuple(
            LargestBatch(
                gpu=fit.gpu,
                mode=fit.mode,
                precision=fit.precision,
                setting=", ".join(_setting(fit)),
                safe_batch=fit.safe_batch,
                largest_batch=fit.largest_batch,
            )
            for fit in result.fits
        ),
        module_figures=(
            ModuleFigure(
                key="memory",
                label="Memory at the peak",
                unit="B",
                values={each.path: each.total_bytes for each in result.top_modules if each.path},
            ),
        )
        if result.top_modules
        else (),
    )


def _setting(fit: Fit) -> Iterator[str]:
    if fit.mode == "train":
        yield fit.optimizer
    if fit.checkpointing:
        yield "checkpointing"
