"""What a reviewer should hear of how a file was exported."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.onnx.dims import dims_fixed_inside
from reportgen.sections.onnx.result import NO_MODULE, OnnxExport


@rule(
    "ONX030",
    Severity.ERROR,
    advice="derive sizes from x.shape in forward, or leave the dimension out of onnx.dynamic",
)
def dim_fixed_inside(onnx: OnnxExport) -> Iterator[Hit]:
    """A dimension is dynamic in the file's inputs, and the file works at one size of it only.

    The exporter wrote the example's size into a node. The file takes other sizes and then fails
    or computes something else, which only running it shows. Silent where the model keeps state:
    its results then differ from call to call, at whatever size.
    """
    second = onnx.parity.second_call
    if second is not None and second.state and not second.pytorch_repeats:
        return
    for dim, case in dims_fixed_inside(onnx.dynamic, onnx.parity.cases):
        size = case.dims.get(dim, case.batch)
        others = [f"{name} {length}" for name, length in case.dims.items() if name != dim]
        at = f"{dim} {size}" + (f" with {', '.join(others)}" if others else "")
        reason = case.note or "its results differ from PyTorch's"
        yield Hit(dim, f"{dim} is dynamic in name only: at {at} the file fails: {reason}")


@rule(
    "ONX031",
    Severity.WARNING,
    advice="give the dimension a size in dims at which the model also runs one smaller",
)
def dim_never_proven(onnx: OnnxExport) -> Iterator[Hit]:
    """A dimension is dynamic in the file, and the file was never compared at another size of it.

    PyTorch itself could not do the other size, or the manifest's size is 1.
    """
    fixed = {dim for dim, _ in dims_fixed_inside(onnx.dynamic, onnx.parity.cases)}
    if onnx.parity.passed is None:
        return
    for dim in onnx.dynamic:
        if dim != "batch" and dim not in fixed and dim not in onnx.proven_dynamic:
            yield Hit(dim, f"{dim} was compared at one size only")


@rule(
    "ONX032",
    Severity.NOTE,
    advice="export with weights on a machine that has the memory, before the file is shipped",
)
def structure_only(onnx: OnnxExport) -> Iterator[Hit]:
    """The file holds the model's structure; the weights are inputs of its graph.

    The weights have no memory here, or too little. The file can be read, checked and drawn;
    it cannot be compared or timed.
    """
    if onnx.structure_only:
        yield Hit("model.onnx", "the weights are not in the file, they are inputs of its graph")


@rule(
    "ONX033",
    Severity.NOTE,
    advice="make the same change in the model's arguments, so that what is exported is what runs",
)
def changed_for_export(onnx: OnnxExport) -> Iterator[Hit]:
    """The model could be exported only after a change, which was made for the comparison too."""
    for name in onnx.adaptations:
        why = next((attempt.error for attempt in onnx.tried if attempt.error), "")
        yield Hit(name, f"exported with {name}: {why}")


@rule(
    "ONX034",
    Severity.NOTE,
    advice="take this file, or give torch.onnx.export a custom_translation_table of your own",
)
def written_out_for_export(onnx: OnnxExport) -> Iterator[Hit]:
    """The file holds operators that PyTorch's exporter alone would have failed at.

    reportgen wrote them out by operators that the exporter has, exact up to rounding, and the
    file was compared with PyTorch as any other. A plain `torch.onnx.export` of this model ends
    in an error.
    """
    if onnx.written_out:
        names = ", ".join(onnx.written_out)
        yield Hit(
            "model.onnx",
            f"torch.onnx.export has no form of {names}: written out by other operators",
        )


@rule(
    "ONX035",
    Severity.WARNING,
    advice="name inputs that it takes in the manifest, put its weights where it says they lie, or "
    "run it where its operators and types exist",
)
def unrunnable_source(onnx: OnnxExport) -> Iterator[Hit]:
    """Onnxruntime on the CPU cannot run the ONNX file that is the source.

    No session opens for it, or its first run fails on inputs as the file declares them. What the
    report says of it was read from the file alone.
    """
    reason = onnx.parity.not_run
    if not onnx.exported and reason and reason != NO_MODULE:
        yield Hit("model.onnx", reason)


EXPORT_RULES = (
    dim_fixed_inside,
    dim_never_proven,
    structure_only,
    changed_for_export,
    written_out_for_export,
    unrunnable_source,
)
