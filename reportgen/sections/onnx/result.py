"""The result of the ONNX section: the file, its export, its parity, its performance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from reportgen.onnx.export import ExportAttempt
from reportgen.sections.onnx.file_result import FileResult
from reportgen.sections.onnx.parity_result import Parity


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Measured on this machine, in milliseconds; omitted with `--no-timings`."""

    batch: int
    runs: int
    threads: int
    median: float
    p10: float
    p90: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyPoint:
    """One batch size and number of threads, in milliseconds; None if no run fits the time limit."""

    batch: int
    threads: int
    runs: int
    median: float | None
    p10: float | None
    p90: float | None
    samples_per_second: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeShare:
    """The time of one operator, or one module, in a run.

    Attributes:
        name: the operator's type, or the module's path.
        calls: kernels started per run.
        milliseconds: per run, on average.
        share: of the time in all kernels, 0 to 1.
    """

    name: str
    calls: int
    milliseconds: float
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """Latency and profile of onnxruntime on this machine's CPU; omitted with `--no-timings`.

    Attributes:
        latency_ms: at the manifest's batch on all threads.
        points: latency by batch size and threads.
        profiled_batch: the batch size of the profile; None if there is none, for the reason in
            `not_profiled`.
        operators: the ten slowest operators, slowest first.
        modules: the ten slowest modules, by path.
    """

    latency_ms: Latency
    points: tuple[LatencyPoint, ...]
    profiled_batch: int | None
    operators: tuple[TimeShare, ...]
    modules: tuple[TimeShare, ...]
    not_profiled: str = ""
    measured: Literal[True] = True


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredParameters:
    """How many of the model's parameters are in the file; each tied tensor counts once.

    Attributes:
        found: elements of parameters found in the file, by name or by contents.
        merged: elements of batch norms that the exporter multiplied into the layer before.
        zero: elements of parameters that are all zero and that the exporter left out.
        absent: names of the other parameters that are not in the file as they are: no node needs
            them, or the exporter computed something from them beforehand.
        absent_elements: how many elements those have.
    """

    found: int
    merged: int
    zero: int
    absent: tuple[str, ...]
    absent_elements: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportResult:
    """How the file was made from the PyTorch module.

    Attributes:
        from_module: False if the file itself is the model's source.
        strategy: how the export succeeded, in words.
        attempts: every strategy in the order tried; the last one succeeded.
        dynamic: the named dimensions that are dynamic in the file.
        proven_dynamic: those at which the file agreed with PyTorch at more than one size.
        failing_batch: of a file that is the source and declares its batch dynamic: a size at which
            it fails, although it runs at another; None if none was found.
        batch_failure: how it fails there.
        requested_dynamic: the named dimensions that the manifest makes dynamic.
        requested_opset: the manifest's opset.
        fixed_dims: why a requested dimension is not dynamic, by its name.
        warnings: what the exporter could not do as requested.
        model_patches: what was changed in the model for export and comparison (`cache off`).
        decomposed_operators: operators unsupported by torch's exporter, replaced by others.
        structure_only: the weights are inputs of the graph instead of being in the file.
        traced: control flow was fixed to the example's path by the TorchScript tracer.
        fixed_decisions: `net.py:12: if x.sum() > 0:`, each line of Python whose outcome for the
            example inputs is fixed in the file.
        training_modules: modules exported in train mode (dropout, batch norm), by path.
        stored_parameters: whether the model's parameters are in the file; None without a model.
    """

    from_module: bool = True
    strategy: str = ""
    attempts: tuple[ExportAttempt, ...] = ()
    dynamic: tuple[str, ...] = ()
    proven_dynamic: tuple[str, ...] = ()
    failing_batch: int | None = None
    batch_failure: str = ""
    requested_dynamic: tuple[str, ...] = ()
    requested_opset: int = 0
    fixed_dims: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    model_patches: tuple[str, ...] = ()
    decomposed_operators: tuple[str, ...] = ()
    structure_only: bool = False
    traced: bool = False
    fixed_decisions: tuple[str, ...] = ()
    training_modules: tuple[str, ...] = ()
    stored_parameters: StoredParameters | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxResult:
    """The exported file and how far it can be trusted."""

    file: FileResult
    export: ExportResult
    parity: Parity
    performance: Performance | None
