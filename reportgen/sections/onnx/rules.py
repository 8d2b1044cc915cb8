"""Rules of the ONNX section."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.onnx.parity_result import OutputParity, ParityCase, smallest_failure
from reportgen.sections.onnx.result import OnnxResult
from reportgen.sections.onnx.rules_export import EXPORT_RULES
from reportgen.sections.onnx.rules_file import FILE_RULES
from reportgen.sections.onnx.rules_parity import PARITY_RULES
from reportgen.sections.onnx.rules_patterns import PATTERN_RULES
from reportgen.units import format_error

OLDEST_OPSET = 17  # the first with LayerNormalization


@rule(
    "ONX001",
    Severity.ERROR,
    advice="do not deploy the file; start with the case that is named",
)
def parity_failing(onnx: OnnxResult) -> Iterator[Hit]:
    """The ONNX file's outputs differ from the PyTorch model's.

    Each case runs both on the same inputs. An element fails when it is off by more than
    `absolute + relative * |PyTorch's value|`; NaN and Inf must be at the same positions, and
    integers and booleans must be equal. The failing output of fewest elements of the smallest
    failing case is named, with the first module and node that differ on the way to it.
    """
    parity = onnx.parity
    failing = [case for case in parity.cases if not case.passed]
    smallest = smallest_failure(parity.cases)
    if smallest is None:
        return
    first, worst = smallest
    count = f"{len(failing)} of {len(parity.cases)} cases fail"
    reason = f" ({parity.note})" if parity.note else ""
    place = f"; {'; '.join(parity.divergence.sentences)}" if parity.divergence else ""
    where = worst.name if worst else "model.onnx"
    yield Hit(where, f"{count}; at {_case(first)} {_failure(first, worst)}{reason}{place}")


@rule(
    "ONX002",
    Severity.WARNING,
    advice="give the model trained weights, or inputs on which the output varies",
)
def vacuous_parity(onnx: OnnxResult) -> Iterator[Hit]:
    """The ONNX file agrees with PyTorch only because an output does not vary.

    A file that returns a constant would pass too, so agreement proves nothing. The output does not
    vary with perturbed parameters either.
    """
    if not onnx.parity.vacuous:
        return
    for name in _unvarying(onnx):
        yield Hit(name, f"{name} does not vary with the input, so agreement proves nothing")
    for name in _empty(onnx) if onnx.parity.before_selection else ():
        yield Hit(
            name,
            f"{name} is empty for every input, so agreement proves nothing; "
            f"{onnx.parity.before_selection}",
        )


@rule(
    "ONX003",
    Severity.WARNING,
    advice="derive sizes from x.shape in forward, or set onnx.dynamic to what the file must do",
)
def static_dimension(onnx: OnnxResult) -> Iterator[Hit]:
    """A dimension that the manifest makes dynamic is fixed in the ONNX file.

    The file then works at one size only. `onnx: {dynamic: []}` in the manifest says that this
    is wanted.
    """
    for dim in onnx.export.requested_dynamic:
        if dim not in onnx.export.dynamic:
            yield Hit(dim, onnx.export.fixed_dims.get(dim, f"{dim} is fixed in the file"))


@rule(
    "ONX004",
    Severity.WARNING,
    advice=f"export with opset {OLDEST_OPSET} or later; the exporter's own choice is best",
    bad='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 11]>
            main (float[N,4] x) => (float[N,4] y) {
                y = Relu (x)
            }
        """)
    ''',
    good='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4] x) => (float[N,4] y) {
                y = Relu (x)
            }
        """)
    ''',
)
def old_opset(onnx: OnnxResult) -> Iterator[Hit]:
    """The file uses an operator set from before opset 17 (ONNX 1.12, June 2022).

    Older sets lack LayerNormalization and other operators as a whole; runtimes then see dozens
    of small nodes, which are slower and round differently.
    """
    # a file may import no standard set, or use no operator of it
    is_used = any("." not in operator for operator in onnx.file.operators)
    if is_used and 0 < onnx.file.opset < OLDEST_OPSET:
        yield Hit("model.onnx", f"opset {onnx.file.opset} is older than {OLDEST_OPSET}")


@rule(
    "ONX005",
    Severity.ERROR,
    advice="if a weights file is missing, put it beside the model; otherwise report it to PyTorch; "
    "a different opset may work",
)
def invalid_file(onnx: OnnxResult) -> Iterator[Hit]:
    """The ONNX checker rejects the file.

    The full check covers every node against its operator's definition, and shape inference in
    strict mode. onnxruntime may still load such a file; other tools will not.
    """
    if onnx.file.invalid:
        cause = f"; the cause is {onnx.parity.autocast}" if onnx.parity.autocast else ""
        yield Hit("model.onnx", f"{onnx.file.invalid}{cause}")


@rule(
    "ONX006",
    Severity.WARNING,
    advice="make sure that every runtime the file is meant for has these operators",
)
def custom_operators(onnx: OnnxResult) -> Iterator[Hit]:
    """The file uses operators outside the ONNX standard that it does not define itself.

    ONNX has domains beside the standard one, as `ai.onnx.ml` for classical models.
    """
    for operator in onnx.file.custom_operators:
        if operator in onnx.file.library_operators:  # ONX036 reports it
            continue
        is_onnx = operator.startswith("ai.onnx.")  # ai.onnx.ml, ai.onnx.preview.training
        beside = "in an ONNX domain that many runtimes do not implement"
        yield Hit(operator, f"{operator} is {beside if is_onnx else 'not a standard operator'}")


@rule(
    "ONX007",
    Severity.WARNING,
    advice="remove dropout and sampling from forward, or draw outside and pass the result in",
    bad='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4] x) => (float[N,4] y) {
                a = RandomNormalLike (x)
                y = Add (x, a)
            }
        """)
    ''',
    good='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4] x) => (float[N,4] y) {
                y = Add (x, x)
            }
        """)
    ''',
)
def random_operators(onnx: OnnxResult) -> Iterator[Hit]:
    """The file draws random numbers, so two runs on the same input differ."""
    for operator in onnx.file.random_operators:
        yield Hit(operator, f"{operator} draws random numbers in every run")


@rule(
    "ONX008",
    Severity.WARNING,
    advice="compare the two where both can run, and return tensors from forward",
)
def unchecked_file(onnx: OnnxResult) -> Iterator[Hit]:
    """The ONNX file was not compared with PyTorch.

    onnxruntime on the CPU could not run it: mostly a dtype such as bfloat16 for which it has no
    kernels. Or the model returns no tensor.
    """
    needs_library = bool(onnx.file.library_operators)  # ONX036 reports it
    if onnx.parity.not_run and onnx.export.from_module and not needs_library:
        yield Hit("model.onnx", f"not compared with PyTorch: {onnx.parity.not_run}")


@rule(
    "ONX009",
    Severity.WARNING,
    advice="find the origin of the NaN in the model; the ONNX file reproduces it",
)
def non_finite_output(onnx: OnnxResult) -> Iterator[Hit]:
    """PyTorch's output has NaN values, and the ONNX file has them at the same places.

    The two agree, so the export is right; the model is not.
    """
    seen: set[str] = set()  # one finding per output, not per case
    for case in onnx.parity.cases:
        for output in case.outputs:
            if output.passed and output.nan_values and output.name not in seen:
                seen.add(output.name)
                yield Hit(output.name, output.note)


@rule(
    "ONX010",
    Severity.WARNING,
    advice="call model.eval() in the factory, or take the module out of train mode",
)
def training_mode(onnx: OnnxResult) -> Iterator[Hit]:
    """Modules were in train mode when the model was exported.

    Dropout then drops at inference, and batch norm uses the statistics of each batch.
    """
    for module in onnx.export.training_modules:
        yield Hit(module, f"{module} was exported in train mode")


@rule(
    "ONX011",
    Severity.NOTE,
    advice="copy both files together, and keep their names",
)
def external_data(onnx: OnnxResult) -> Iterator[Hit]:
    """The weights do not fit into the ONNX file (2 GB) and lie in a second one beside it."""
    if onnx.file.external_file:
        yield Hit(onnx.file.external_file, f"the weights are in {onnx.file.external_file}")


@rule(
    "ONX012",
    Severity.WARNING,
    advice="set onnx.opset to a version that the exporter knows",
)
def opset_not_honored(onnx: OnnxResult) -> Iterator[Hit]:
    """The exported opset is not the one that the manifest requests."""
    if onnx.export.requested_opset and onnx.file.opset != onnx.export.requested_opset:
        yield Hit(
            "model.onnx", f"requested opset {onnx.export.requested_opset}, got {onnx.file.opset}"
        )


@rule(
    "ONX013",
    Severity.WARNING,
    advice="find out why PyTorch fails at the other batch size; the file declares any",
)
def a_single_batch_size(onnx: OnnxResult) -> Iterator[Hit]:
    """The batch is dynamic in the file, and the two sides could be compared at one size only.

    Two sizes are tried. Where PyTorch itself fails at one of them, the model does not do what
    its file promises, and what the file does there is unknown.
    """
    batches = {case.batch for case in onnx.parity.cases}
    if "batch" in onnx.export.dynamic and len(batches) == 1:
        reason = f": {onnx.parity.note}" if onnx.parity.note else ""
        yield Hit("batch", f"compared at batch {batches.pop()} only{reason}")


RULES = (
    parity_failing,
    vacuous_parity,
    static_dimension,
    old_opset,
    invalid_file,
    custom_operators,
    random_operators,
    unchecked_file,
    non_finite_output,
    training_mode,
    external_data,
    opset_not_honored,
    a_single_batch_size,
    *FILE_RULES,
    *PARITY_RULES,
    *EXPORT_RULES,
    *PATTERN_RULES,
)


def _unvarying(onnx: OnnxResult) -> list[str]:
    """Names of the outputs that vary in no case, perturbed ones included."""
    # ONX026 reports the others: their rows are chosen by rounding
    outputs = [o for case in onnx.parity.cases for o in case.outputs if not o.undecided]
    # an output that varies in one case, perhaps the perturbed one, was compared for good there
    varying = {output.name for output in outputs if not output.vacuous}
    return sorted({output.name for output in outputs} - varying)


def _empty(onnx: OnnxResult) -> list[str]:
    """Names of the outputs without elements in every case."""
    outputs = [output for case in onnx.parity.cases for output in case.outputs]
    filled = {output.name for output in outputs if 0 not in output.shape}
    return sorted({output.name for output in outputs} - filled)


def _case(case: ParityCase) -> str:
    dims = "".join(f", {dim} {size}" for dim, size in case.dims.items())
    return f"batch {case.batch}{dims}, seed {case.seed}"


def _failure(case: ParityCase, output: OutputParity | None) -> str:
    if output is None:
        return case.note
    if output.max_absolute_error is None:
        return f"{output.name}: {output.note}"
    error = format_error(output.max_absolute_error)
    return f"{output.name} is off by up to {error}: {output.note}"
