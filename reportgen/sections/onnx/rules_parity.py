"""Rules on state, randomness and precision in the parity check."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.onnx.result import OnnxResult
from reportgen.units import format_error


@rule(
    "ONX020",
    Severity.WARNING,
    advice="pass the state in and out of forward, so that the file has it as inputs and outputs",
)
def stateful_model(onnx: OnnxResult) -> Iterator[Hit]:
    """The model keeps state that its output depends on, and the ONNX file does not.

    Two calls in a row on the same inputs differ in PyTorch, since the first changes a buffer or
    an attribute (a counter, a cache of keys and values), or a call after others on other inputs
    differs from the same call of a fresh model. The file answers every call as the first after
    the export.
    """
    second = onnx.parity.second_call
    if second is None or not second.depends_on_state:
        return
    where = second.state[0].path  # a finding has one place: the rest is in its sentence
    names = ", ".join(map(str, second.state))
    when = "on the same input" if not second.pytorch_repeats else "after others, on other inputs,"
    yield Hit(where, f"a second call {when} gives a different output: {names} changed")


@rule(
    "ONX021",
    Severity.NOTE,
    advice="run the file once on the hardware it is meant for",
)
def compared_in_another_dtype(onnx: OnnxResult) -> Iterator[Hit]:
    """The ONNX file itself was not run; a copy of the model in float32 was compared.

    onnxruntime has no CPU kernels for the model's own precision. The copy shows whether the
    export is right, not how the file rounds.
    """
    dtype = onnx.parity.compared_dtype
    if dtype:
        yield Hit("model.onnx", f"compared in {dtype}; the file itself was not run")


@rule(
    "ONX022",
    Severity.WARNING,
    advice="remove random operators from forward, or draw outside and pass the result in",
)
def unrepeatable_model(onnx: OnnxResult) -> Iterator[Hit]:
    """A second call of PyTorch gives a different output, though the model keeps no state.

    The model draws random numbers, so no file can match it.
    """
    second = onnx.parity.second_call
    if second is not None and not second.pytorch_repeats and not second.state:
        drawn = (
            f": {', '.join(onnx.parity.random_operators)}" if onnx.parity.random_operators else ""
        )
        yield Hit(
            "the model",
            f"a second call on the same input gives a different output: random numbers{drawn}",
        )


@rule(
    "ONX023",
    Severity.NOTE,
    advice="subtract, sum or normalize in float64 where values cancel, or scale them down first",
)
def float32_rounding_only(onnx: OnnxResult) -> Iterator[Hit]:
    """An output differs by more than its tolerance, but only by float32 rounding.

    Values cancel on the way, so that float32's rounding shows. The file is about as far from the
    same model in float64 as PyTorch's float32 is, and passes for that reason.
    """
    notes: dict[str, str] = {}
    for output in (output for case in onnx.parity.cases for output in case.outputs):
        if output.within_rounding:
            notes.setdefault(output.name, output.note)
    yield from (Hit(name, f"{name} is {note}") for name, note in notes.items())


@rule(
    "ONX024",
    Severity.WARNING,
    advice="compare deployments with `torch.backends.mha.set_fastpath_enabled(False)`, and do not "
    "use outputs at padded positions: mask them before pooling",
)
def fused_path_differs(onnx: OnnxResult) -> Iterator[Hit]:
    """PyTorch, as it runs for inference, returns something else than the ONNX file.

    In evaluation mode without gradients, `nn.TransformerEncoder` and `nn.MultiheadAttention` use a
    fused path, which returns zeros at padded positions. The exporter cannot trace it, so the file
    computes what the model computes in training.
    """
    fused = onnx.parity.fused_path
    if fused is None or fused.passed:
        return
    if fused.max_absolute_error is None:
        yield Hit(fused.output or "the model", f"with PyTorch's fused encoder path: {fused.note}")
        return
    yield Hit(
        fused.output,
        "PyTorch with its fused encoder path, as in inference, differs from the file by up to "
        f"{format_error(fused.max_absolute_error)}",
    )


@rule(
    "ONX025",
    Severity.WARNING,
    advice="move autocast out of forward, around the call of the model, and export without it",
)
def autocast_in_forward(onnx: OnnxResult) -> Iterator[Hit]:
    """The file has half-precision nodes because forward enters `torch.autocast` on the CPU.

    The exporter records the casts of the machine it runs on. onnxruntime has no CPU kernels for
    most of them, and some operators then get inputs of different dtypes, which is not valid.
    """
    if onnx.parity.autocast:
        yield Hit("model.onnx", f"half precision in the file comes from {onnx.parity.autocast}")


@rule(
    "ONX026",
    Severity.WARNING,
    advice="give the model trained weights, so that its scores are apart from each other",
)
def rows_chosen_by_rounding(onnx: OnnxResult) -> Iterator[Hit]:
    """Rows of an output are chosen by scores that are equal up to rounding.

    PyTorch itself returns other rows if its inputs and scores change by rounding, as a detector
    with random weights does. The rows cannot be compared then. What they are chosen from, the
    outputs of modules before the first selection, was compared instead.
    """
    if onnx.parity.passed is False:  # ONX001 reports that
        return
    outputs = [output for case in onnx.parity.cases for output in case.outputs]
    for name in dict.fromkeys(output.name for output in outputs if output.undecided):
        yield Hit(
            name,
            f"{name} could not be compared: its rows depend on rounding in PyTorch too; "
            f"{onnx.parity.before_selection}",
        )


PARITY_RULES = (
    stateful_model,
    compared_in_another_dtype,
    unrepeatable_model,
    float32_rounding_only,
    fused_path_differs,
    autocast_in_forward,
    rows_chosen_by_rounding,
)
