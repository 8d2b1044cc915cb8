"""The `parity` part of the result: onnxruntime's outputs against PyTorch's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

NO_MODULE = "there is no PyTorch module to compare the file with"


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputParity:
    """One output compared. An error is None if it is not finite; `note` then gives the reason.

    Attributes:
        max_relative_error: the largest absolute error over the largest magnitude in PyTorch's
            output. Dividing element by element would let one value near zero decide.
        absolute_tolerance: an element's error may be at most
            `absolute_tolerance + relative_tolerance * |PyTorch's value|`.
        vacuous: PyTorch's output does not vary by more than that, so a file that returns
            a constant would pass, and agreement proves nothing.
        nan_values: how many of PyTorch's values are NaN.
        within_rounding: it passes despite an error beyond the tolerance, since PyTorch's own
            float32 is as far from float64 as the file is.
        undecided: its rows are chosen by scores that are equal up to rounding, in PyTorch too, so
            the output itself was not compared.
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
    nan_values: int = 0
    within_rounding: bool = False
    undecided: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ParityCase:
    """onnxruntime against PyTorch on one batch of one seed.

    Attributes:
        perturbed: parameters were perturbed (seeded), since an output did not vary.
        dims: the sizes of the dynamic dimensions other than batch that differ from the
            manifest's.
        note: an error or observation of the case as a whole.
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
    """The number of elements with an error in one range."""

    label: str
    elements: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ErrorHistogram:
    """The errors of one output by element, in its worst case.

    Attributes:
        elements: those that are finite on both sides; the bins count no others.
        max_ulp: the largest distance in units in the last place: how many numbers of the
            output's dtype lie between the two values.
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
class StateChange:
    """A buffer, parameter or attribute (`kind`) of the model that a call changed."""

    path: str
    kind: str

    def __str__(self) -> str:
        return f"{self.path} ({self.kind})"


@dataclass(frozen=True, kw_only=True, slots=True)
class SecondCall:
    """Both sides called a second time in a row on the same inputs.

    Attributes:
        pytorch_repeats: PyTorch returns the same outputs again, within the tolerances.
        file_repeats: the file returns the same bits again.
        state: what the calls changed in the model.
        calls_are_independent: after calls on other inputs, PyTorch returns the same outputs as a
            model that was not called before; None if that was not tried, since a call changes
            nothing, or fails.
    """

    pytorch_repeats: bool
    file_repeats: bool
    state: tuple[StateChange, ...]
    calls_are_independent: bool | None = None

    @property
    def depends_on_state(self) -> bool:
        """Whether earlier calls change what a later one returns."""
        return bool(self.state) and not (
            self.pytorch_repeats and self.calls_are_independent is not False
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedPath:
    """The file against PyTorch with its fused encoder path, in the case that differs most.

    Attributes:
        output: the output that differs most; "" if PyTorch fails.
        max_absolute_error: None if not finite, or if PyTorch fails; `note` gives the reason.
    """

    passed: bool
    batch: int
    seed: int
    output: str
    max_absolute_error: float | None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallError:
    """One output of one call of a module, compared with a value of the file.

    Attributes:
        path: of the module; "" for the model itself.
        call: the number of earlier calls of the module.
        node: the name of the node of the file that makes the value.
        max_absolute_error: None if not finite.
        agrees: it is within the tolerance.
    """

    path: str
    call: int
    node: str
    max_absolute_error: float | None
    agrees: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """Where the file diverges from PyTorch on the way to the smallest failing output.

    Attributes:
        cause: `optimizer` (the file agrees when onnxruntime does not optimize it), `kernel`
            (onnxruntime computes a node differently from the standard), `model` (it behaves
            differently during export), `file` (the nodes themselves compute something else) or
            `unknown`.
        module: path of the first module whose output differs while its inputs agree;
            "" for the model itself, or if none was found.
        module_type: its class; "" if none was found.
        node: the first node that differs, by name, and `operator`, its type; "" if unknown.
        nodes: every suspected node, in the order of the file: `MatMul node_3`.
        max_absolute_error: of the module's output; None if not finite or not found.
        sentences: the findings in words.
        calls: every output of a module that was found in the file, in the order of the calls.
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
    calls: tuple[CallError, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """All cases together.

    Attributes:
        passed: None if nothing could be compared, for the reason in `not_run`.
        vacuous: an output of floating-point numbers, or every output, does not vary even with
            perturbed parameters.
        note: remarks on the comparison.
        compared: the seeds and batch sizes, in words.
        compared_dtype: the dtype of a copy of the model that was compared instead, since
            onnxruntime on the CPU cannot run the file itself; "" for the file itself.
        autocast: the `torch.autocast` inside forward because of which it cannot, in words.
        failure: the smallest failing output of the smallest failing case, in words.
        divergence: where that output goes wrong; None if nothing fails or it was not found.
        second_call: None if it was not made.
        fused_path: None if the model has no module with a fused path.
        random_operators: PyTorch's random operators: `aten.rand_like in noise at net.py:12`.
        histograms: one for each output of floating-point numbers.
        before_selection: what was compared instead of rows that are chosen by score, in words;
            "" if the outputs themselves decide.
    """

    passed: bool | None
    vacuous: bool
    cases: tuple[ParityCase, ...]
    note: str
    not_run: str = ""
    compared: str = ""
    compared_dtype: str = ""
    autocast: str = ""
    failure: str = ""
    divergence: Divergence | None = None
    second_call: SecondCall | None = None
    fused_path: FusedPath | None = None
    random_operators: tuple[str, ...] = ()
    histograms: tuple[ErrorHistogram, ...] = ()
    before_selection: str = ""


def smallest_failure(
    cases: Iterable[ParityCase],
) -> tuple[ParityCase, OutputParity | None] | None:
    """The first failing case of the smallest batch, and its failing output with fewest elements.

    None if every case passed; no output if the case failed as a whole.
    """
    failing = [case for case in cases if not case.passed]
    if not failing:
        return None
    # the model's own parameters before perturbed ones: the first is what is deployed
    case = min(failing, key=lambda case: (case.perturbed, case.batch))
    outputs = [output for output in case.outputs if not output.passed]
    return case, min(outputs, key=lambda output: prod(output.shape), default=None)


def proven_dims(dynamic: tuple[str, ...], cases: Iterable[ParityCase]) -> tuple[str, ...]:
    """The dims of `dynamic` for which the file agreed with PyTorch at more than one size."""
    passed = [case for case in cases if case.passed]
    batches = {case.batch for case in passed}
    others = {dim for case in passed for dim in case.dims}  # sizes that are not the manifest's
    return tuple(dim for dim in dynamic if (len(batches) > 1 if dim == "batch" else dim in others))


def dims_fixed_inside(
    dynamic: tuple[str, ...], cases: Iterable[ParityCase]
) -> tuple[tuple[str, ParityCase], ...]:
    """Dims declared dynamic at whose other sizes the file fails, each with a failing case."""
    usual, other = list[ParityCase](), list[ParityCase]()
    for case in cases:
        (other if case.dims else usual).append(case)
    found = [
        (dim, case)
        for case in other
        # a file that fails at the usual sizes too has another error
        if not case.passed and any(one.passed and one.batch == case.batch for one in usual)
        for dim in case.dims
    ]
    if "batch" in dynamic:
        good = {case.batch for case in usual if case.passed}
        # a size fixed in a node stops the run; other numbers have other reasons
        stopped = [case for case in usual if not case.passed and not case.outputs]
        found += [("batch", case) for case in stopped if good - {case.batch}]
    return tuple(dict(reversed(found)).items())  # of each dim the first case
