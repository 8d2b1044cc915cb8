"""What the ONNX section finds: the file, its parity with PyTorch, its latency."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """An input or output of the graph; a symbolic dimension is its name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputParity:
    """One output compared. An error is None where it is not finite; `note` then says why.

    Attributes:
        max_relative_error: the largest absolute error over the largest magnitude in PyTorch's
            output. Dividing element by element would let one value near zero decide.
        absolute_tolerance: with `relative_tolerance` what an element may be off by:
            `absolute_tolerance + relative_tolerance * |PyTorch's value|`.
        vacuous: PyTorch's output does not vary by more than that, so a file that always gives
            the same value would pass, and agreement proves nothing.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    max_absolute_error: float | None
    max_relative_error: float | None
    absolute_tolerance: float
    relative_tolerance: float
    passed: bool
    vacuous: bool
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityCase:
    """onnxruntime against PyTorch on one batch of one seed.

    Attributes:
        perturbed: parameters were perturbed (seeded), since an output did not vary.
        dims: the sizes of the dynamic dimensions other than batch, where they differ from
            the manifest's.
        note: what went wrong or was seen in the case as a whole.
    """

    batch: int
    seed: int
    perturbed: bool
    max_absolute_error: float | None
    max_relative_error: float | None
    passed: bool
    outputs: tuple[OutputParity, ...]
    dims: dict[str, int] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """All cases together.

    Attributes:
        passed: None when nothing could be compared; `not_run` then says why.
        vacuous: an output of floating-point numbers, or every output, does not vary even with
            perturbed parameters.
        note: what a reader must know of the comparison, in sentences.
    """

    passed: bool | None
    vacuous: bool
    cases: tuple[ParityCase, ...]
    note: str
    not_run: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """Measured by a clock on this machine, milliseconds; left out by `--no-timings`."""

    batch: int
    runs: int
    threads: int
    median: float
    p10: float
    p90: float


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxExport:
    """The exported file and how far it can be trusted.

    Attributes:
        file: `model.onnx`, None when the manifest asks not to keep it.
        bytes: size on disk, external data included.
        opset: version of the standard operator set in the file.
        nodes: operators in the graph, subgraphs and functions included.
        operators: how often each operator occurs, most frequent first; those outside the
            standard domain carry theirs (`com.microsoft.Gelu`).
        initializer_bytes: what the stored weights and constants take.
        dynamic: the named dimensions that are dynamic in the file.
        strategy: how the export succeeded, in words.
        warnings: what the exporter could not do as asked.
        asked_dynamic: the named dimensions of the inputs that the manifest wants dynamic.
        asked_opset: the opset that the manifest wants.
        external_file: where the weights lie when they do not fit into the file.
        invalid: what the ONNX checker objects to; "" when the file passes it in full.
        values: intermediate values of the main graph.
        shaped_values: those of them whose shape is known after shape inference.
        functions: how many local functions the file defines.
        custom_operators: operators outside the standard domain.
        random_operators: operators that draw random numbers, with the path of their module.
        training_modules: modules that behave as in training (dropout, batch norm), by path.
    """

    file: str | None
    bytes: int
    opset: int
    ir_version: int
    producer: str
    nodes: int
    operators: dict[str, int]
    initializers: int
    initializer_bytes: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    dynamic: tuple[str, ...]
    strategy: str
    parity: Parity
    latency_ms: Latency | None
    warnings: tuple[str, ...]
    asked_dynamic: tuple[str, ...] = ()
    asked_opset: int = 0
    external_file: str | None = None
    invalid: str = ""
    values: int = 0
    shaped_values: int = 0
    functions: int = 0
    custom_operators: tuple[str, ...] = ()
    random_operators: tuple[str, ...] = ()
    training_modules: tuple[str, ...] = ()
