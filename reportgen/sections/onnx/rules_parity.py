"""Rules on state, randomness and precision in the parity check."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.onnx.result import OnnxResult


@rule(
    "ONX020",
    Severity.WARNING,
    advice="pass the state in and out of forward, so that the file has it as inputs and outputs",
)
def stateful_model(onnx: OnnxResult) -> Iterator[Hit]:
    """The model keeps state that its output depends on, and the ONNX file does not.

    Two calls in a row on the same inputs differ in PyTorch, since the first changes a buffer or
    an attribute (a counter, a cache of keys and values). The file answers every call as the
    first after the export.
    """
    second = onnx.parity.second_call
    if second is None or second.pytorch_repeats or not second.state:
        return
    where = second.state[0].path  # a finding has one place: the rest is in its sentence
    names = ", ".join(map(str, second.state))
    yield Hit(where, f"a second call on the same input gives a different output: {names} changed")


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


PARITY_RULES = (
    stateful_model,
    compared_in_another_dtype,
    unrepeatable_model,
    float32_rounding_only,
)
