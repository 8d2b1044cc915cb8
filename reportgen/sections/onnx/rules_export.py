"""Rules on the export."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.onnx.parity_result import NO_MODULE, dims_fixed_inside
from reportgen.sections.onnx.result import OnnxResult

_SHOWN = 5  # operators of a domain
_LIBRARIES = {
    "ai.onnx.contrib": "onnxruntime-extensions' (onnxruntime_extensions.get_library_path())",
    "com.microsoft.extensions": "onnxruntime-extensions' "
    "(onnxruntime_extensions.get_library_path())",
    "mmdeploy": "mmdeploy's (mmdeploy_onnxruntime_ops)",
    "mmcv": "mmcv's (mmcv.ops.get_onnxruntime_op_path())",
}
"""By domain, or its first part: whose library it is, and where to find it."""


@rule(
    "ONX030",
    Severity.ERROR,
    advice="derive sizes from x.shape in forward, or export the dimension with a fixed size "
    "(in the manifest: leave it out of onnx.dynamic)",
)
def dim_fixed_inside(onnx: OnnxResult) -> Iterator[Hit]:
    """A dimension is dynamic in the file's inputs, and the file works at one size of it only.

    The exporter wrote the example's size into a node. The file takes other sizes and then fails
    or computes something else, which only running it shows. Silent where the model keeps state:
    its results then differ from call to call, at whatever size. A file that is the source is run
    at two batch sizes.
    """
    if onnx.export.failing_batch is not None:
        at = f"at batch {onnx.export.failing_batch} the file fails"
        yield Hit("batch", f"batch is declared dynamic, but {at}: {onnx.export.batch_failure}")
    second = onnx.parity.second_call
    if second is not None and second.state and not second.pytorch_repeats:
        return
    for dim, case in dims_fixed_inside(onnx.export.dynamic, onnx.parity.cases):
        size = case.dims.get(dim, case.batch)
        others = [f"{name} {length}" for name, length in case.dims.items() if name != dim]
        at = f"{dim} {size}" + (f" with {', '.join(others)}" if others else "")
        reason = case.note or "its results differ from PyTorch's"
        yield Hit(dim, f"{dim} is declared dynamic, but at {at} the file fails: {reason}")


@rule(
    "ONX031",
    Severity.WARNING,
    advice="give the dimension a size in dims at which the model also runs one smaller",
)
def dim_never_proven(onnx: OnnxResult) -> Iterator[Hit]:
    """A dimension is dynamic in the file, and the file was never compared at another size of it.

    PyTorch itself could not do the other size, or the manifest's size is 1.
    """
    # ONX030 reports these
    fixed = {dim for dim, _ in dims_fixed_inside(onnx.export.dynamic, onnx.parity.cases)}
    if onnx.parity.passed is None:  # ONX008 and ONX035 say that nothing was compared
        return
    for dim in onnx.export.dynamic:
        if dim != "batch" and dim not in fixed and dim not in onnx.export.proven_dynamic:
            yield Hit(dim, f"{dim} was compared at one size only")


@rule(
    "ONX032",
    Severity.NOTE,
    advice="export with weights on a machine that has the memory, before the file is shipped",
)
def structure_only(onnx: OnnxResult) -> Iterator[Hit]:
    """The file holds the model's structure; the weights are inputs of its graph.

    The weights have no memory here, or too little. The file can be read, checked and drawn;
    it cannot be compared or timed.
    """
    if onnx.export.structure_only:
        yield Hit("model.onnx", "the weights are not in the file, they are inputs of its graph")


@rule(
    "ONX033",
    Severity.NOTE,
    advice="make the same change in the model's arguments, so that what is exported is what runs",
)
def changed_for_export(onnx: OnnxResult) -> Iterator[Hit]:
    """The model could be exported only after a change, which was made for the comparison too."""
    for name in onnx.export.model_patches:
        # the first failure: what the patch is for
        why = next((attempt.error for attempt in onnx.export.attempts if attempt.error), "")
        yield Hit(name, f"exported with {name}: {why}")


@rule(
    "ONX034",
    Severity.NOTE,
    advice="use this file, or pass torch.onnx.export a custom_translation_table",
)
def decomposed_operators(onnx: OnnxResult) -> Iterator[Hit]:
    """The file contains operators that PyTorch's exporter does not support.

    reportgen decomposed them into supported operators, exact up to rounding, and compared the file
    with PyTorch as usual. A plain `torch.onnx.export` of this model raises an error.
    """
    if onnx.export.decomposed_operators:
        names = ", ".join(onnx.export.decomposed_operators)
        yield Hit(
            "model.onnx",
            f"torch.onnx.export does not support {names}: decomposed into other operators",
        )


@rule(
    "ONX035",
    Severity.WARNING,
    advice="name valid inputs in the manifest, put its external weights beside it, or run it on a "
    "runtime that supports its operators and types",
)
def unrunnable_source(onnx: OnnxResult) -> Iterator[Hit]:
    """Onnxruntime on the CPU cannot run the ONNX file that is the source.

    No session opens for it, or its first run fails on inputs as the file declares them. What the
    report says of it was read from the file alone.
    """
    reason = onnx.parity.not_run
    if onnx.export.failing_batch is not None or onnx.file.library_operators:
        return  # ONX030 and ONX036 report these
    if not onnx.export.from_module and reason and reason != NO_MODULE:
        yield Hit("model.onnx", reason)


@rule(
    "ONX036",
    Severity.WARNING,
    advice="wherever the file runs, load the library first: "
    "session_options.register_custom_ops_library(PATH)",
)
def missing_operator_library(onnx: OnnxResult) -> Iterator[Hit]:
    """The file uses operators that only a library of custom operators has.

    Their domains belong neither to ONNX nor to onnxruntime, which refuses the file until the
    library is loaded. The file was read, but not run.
    """
    by_domain: dict[str, list[str]] = {}
    for operator in onnx.file.library_operators:
        domain, _, name = operator.rpartition(".")
        by_domain.setdefault(domain, []).append(name)
    for domain, names in by_domain.items():
        listed = ", ".join(names[:_SHOWN]) + ", …" * (len(names) > _SHOWN)
        library = _LIBRARIES.get(domain.partition(".")[0], _LIBRARIES.get(domain, ""))
        whose = f", {library}" if library else f" for the domain {domain}"
        yield Hit(domain, f"{listed}: onnxruntime needs a library of custom operators{whose}")


_MOST_DECISIONS = 3


@rule(
    "ONX037",
    Severity.WARNING,
    advice="compare the file with PyTorch on inputs of each kind that it must handle, or write the "
    "control flow with torch.where, torch.cond or torch.while_loop",
)
def control_flow_fixed(onnx: OnnxResult) -> Iterator[Hit]:
    """Control flow that depends on values is fixed to the path that the example inputs take.

    torch.export refuses such a model. The file was made by the TorchScript tracer instead
    (`torch.onnx.export(dynamo=False)`), which records one run: branches, loop counts and Python
    numbers taken from tensors are constants in the file, whatever its inputs are.
    """
    if not onnx.export.traced:
        return
    fixed = onnx.export.fixed_decisions
    more = len(fixed) - _MOST_DECISIONS
    shown = "; ".join(fixed[:_MOST_DECISIONS]) + (f"; and {more} more lines" if more > 0 else "")
    yield Hit(
        "model.onnx",
        "control flow is fixed to the path of the example inputs" + (f": {shown}" if fixed else ""),
    )


EXPORT_RULES = (
    dim_fixed_inside,
    dim_never_proven,
    structure_only,
    changed_for_export,
    decomposed_operators,
    unrunnable_source,
    missing_operator_library,
    control_flow_fixed,
)
