"""What the ONNX section finds: the file, its parity with PyTorch, its latency."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from reportgen.sections.onnx.file_result import FileDetails, Speed

NO_MODULE = "there is no PyTorch module to compare the file with"


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """An input or output of the graph; a symbolic dimension is its name, `?` one without.

    Where the file does not say how many dimensions there are, the shape is `("…",)`.
    """

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
        within_rounding: it passes beyond the tolerance, since PyTorch's own float32 is as far
            from float64 as the file is.
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
    within_rounding: bool = False


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
class ErrorBin:
    """How many elements are off by so much."""

    label: str
    elements: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorHistogram:
    """How far the elements of one output are off, in the case where it is worst.

    Attributes:
        elements: those that are finite on both sides; the bins count no others.
        max_ulp: the largest distance in units in the last place: how many numbers of the
            output's dtype lie between the two sides.
        ulps: elements by that distance, in powers of four and more.
        relative: elements by `|found - y| / |y|`, in powers of ten.
    """

    output: str
    dtype: str
    batch: int
    seed: int
    elements: int
    max_ulp: int
    ulps: tuple[ErrorBin, ...]
    relative: tuple[ErrorBin, ...]
    perturbed: bool = False  # with seeded perturbed parameters


@dataclass(frozen=True, kw_only=True, slots=True)
class SecondCall:
    """Both sides called a second time in a row on the same inputs.

    Attributes:
        pytorch_repeats: PyTorch gives the same outputs again, within the tolerances.
        file_repeats: the file does so bit for bit.
        state: what the model changed in itself: `steps (buffer)`, `attn.cache (attribute)`.
    """

    pytorch_repeats: bool
    file_repeats: bool
    state: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """Where the file leaves PyTorch on its way to the smallest output that fails.

    Attributes:
        cause: `optimizer` (the file agrees when onnxruntime does not optimize it), `kernel`
            (onnxruntime computes a node otherwise than the standard says), `model` (it does
            something else while it is exported), `file` (the nodes themselves compute something
            else) or `unknown`.
        module: path of the first module whose output differs while its inputs agree;
            "" for the model itself, or where none was found.
        module_type: its class; "" where none was found.
        node: the first node that differs, by name, and `operator`, its type; "" if unknown.
        nodes: every node that came into question, in the order of the file: `MatMul node_3`.
        max_absolute_error: of the module's output, None where not finite or not found.
        sentences: what was found out, for a reader.
    """

    output: str
    batch: int
    seed: int
    cause: str
    module: str = ""
    module_type: str = ""
    node: str = ""
    operator: str = ""
    nodes: tuple[str, ...] = ()
    max_absolute_error: float | None = None
    sentences: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """All cases together.

    Attributes:
        passed: None when nothing could be compared; `not_run` then says why.
        vacuous: an output of floating-point numbers, or every output, does not vary even with
            perturbed parameters.
        note: what a reader must know of the comparison, in sentences.
        compared: which seeds and batch sizes, in words.
        compared_dtype: the dtype of a copy of the model that was compared in place of it,
            since onnxruntime on the CPU cannot run the file itself; "" for the file itself.
        failure: the smallest failing output of the smallest failing case, in words.
        divergence: where that output goes wrong; None when nothing fails or it was not found.
        second_call: None when it was not made.
        draws: where PyTorch draws random numbers: `aten.rand_like in noise at net.py:12`.
        histograms: one for each output of floating-point numbers.
    """

    passed: bool | None
    vacuous: bool
    cases: tuple[ParityCase, ...]
    note: str
    not_run: str = ""
    compared: str = ""
    compared_dtype: str = ""
    failure: str = ""
    divergence: Divergence | None = None
    second_call: SecondCall | None = None
    draws: tuple[str, ...] = ()
    histograms: tuple[ErrorHistogram, ...] = ()

    def smallest_failure(self) -> tuple[ParityCase, OutputParity | None] | None:
        """The first failing case of the smallest batch, and its failing output of least elements.

        None if every case passed; without an output where the case failed as a whole.
        """
        failing = [case for case in self.cases if not case.passed]
        if not failing:
            return None
        case = min(failing, key=lambda case: (case.perturbed, case.batch))
        outputs = [output for output in case.outputs if not output.passed]
        return case, min(outputs, key=lambda output: prod(output.shape), default=None)


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
class StoredParameters:
    """How many of the model's parameters are in the file; each tied tensor counts once.

    Attributes:
        found: elements of parameters that stand in the file, by name or by contents.
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
class NodeCost:
    """The multiply-adds of the file's nodes, counted from the file alone.

    Attributes:
        batch: the batch size counted for.
        macs: of all nodes that could be counted.
        uncounted: operators that could not be, and why.
        modules: multiply-adds by the path of the module that the nodes come from.
    """

    batch: int
    macs: int
    uncounted: dict[str, str]
    modules: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """One strategy of exporting; `error` is "" for the one that succeeded."""

    strategy: str
    error: str


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
        stored: whether the model's parameters are in the file; None without a model.
        cost: the file's multiply-adds, an independent count of the model's.
        exported: whether the file was made from a PyTorch module; otherwise it is the source.
        details: the file by itself: what it stores, who can run it, what could be smaller.
        speed: latency by batch and threads, and where the time goes; None without timings.
        tried: every strategy of exporting in the order tried; the last one succeeded.
        adaptations: what was changed in the model for export and comparison (`cache off`).
        written_out: operators without a form in torch's exporter, put in as other operators.
        structure_only: the weights are inputs of the graph instead of being in the file.
        proven_dynamic: those of `dynamic` at which the file agreed at more than one size.
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
    stored: StoredParameters | None = None
    cost: NodeCost | None = None
    exported: bool = True
    details: FileDetails | None = None
    speed: Speed | None = None
    tried: tuple[Tried, ...] = ()
    adaptations: tuple[str, ...] = ()
    written_out: tuple[str, ...] = ()
    structure_only: bool = False
    proven_dynamic: tuple[str, ...] = ()
