"""The order of the analysis: the file itself, parity with PyTorch, performance."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.example_inputs import make_examples
from reportgen.onnx.export import OnnxFile
from reportgen.onnx.mapped_weights import mapped_weights
from reportgen.onnx.model import OnnxModel, OnnxNodes
from reportgen.onnx.runtime import OnnxRuntimeError, Runtime, feed_for, session_error_text
from reportgen.sections.onnx.file_result import NodeCost
from reportgen.sections.onnx.inspection.analysis import Inspection, inspect_file
from reportgen.sections.onnx.parity.analysis import check_parity, compare_in_float32, not_compared
from reportgen.sections.onnx.parity.case import call_tensors
from reportgen.sections.onnx.parity_result import NO_MODULE, Parity, proven_dims
from reportgen.sections.onnx.performance.latency import (
    LATENCY_SHARE,
    measure_latency,
    measure_performance,
)
from reportgen.sections.onnx.performance.profile import NodeOrigins, node_origins
from reportgen.sections.onnx.result import ExportResult, OnnxResult, Performance
from reportgen.sections.onnx.source_sizes import batch_failure
from reportgen.sections.onnx.stored_parameters import find_parameters, modules_in_training

if TYPE_CHECKING:
    from reportgen.context import ModelContext, OnnxFileContext
    from reportgen.onnx.runtime import Feed


def analyze_exported(context: ModelContext, file: OnnxFile) -> OnnxResult:
    """Inspect an exported file, compare it with PyTorch and time it."""
    spec = context.spec
    proto = context.onnx_proto(file.path)  # parsed once for everything below
    with file.apply_patches(context.model), mapped_weights(proto, file.path) as mapped:
        stored = find_parameters(context.model, proto)  # before inspect_file drops the weights
        inspected = inspect_file(
            proto,
            file.path,
            mapped=mapped,
            keep=spec.onnx.save,
            count_macs=lambda inferred: _count_macs(context, file, inferred),
        )
        parity, performance = _run(context, replace(file, path=mapped), inspected, proto)
        return OnnxResult(
            file=inspected.result,
            export=ExportResult(
                strategy=file.strategy,
                attempts=file.attempts,
                dynamic=file.dynamic,
                proven_dynamic=proven_dims(file.dynamic, parity.cases),
                requested_dynamic=file.asked,
                requested_opset=spec.onnx.opset,
                fixed_dims=file.fixed_dims,
                warnings=file.warnings,
                model_patches=file.model_patches,
                decomposed_operators=file.decomposed_operators,
                structure_only=file.structure_only,
                traced=file.used is not None and file.used.traced,
                fixed_decisions=file.fixed_decisions,
                training_modules=modules_in_training(context.model),
                stored_parameters=stored,
            ),
            parity=parity,
            performance=performance,
        )


def analyze_source(context: OnnxFileContext) -> OnnxResult:
    """Inspect and time an ONNX file that comes without a PyTorch module."""
    path, feed = context.file.path, context.feed()
    proto = context.onnx_proto(path)

    def count_macs(inferred: Any) -> NodeCost:
        model = OnnxModel(path, inferred)
        return _cost_of(
            model.nodes(model.symbol_sizes(feed), lambda: feed, costs_only=True), context.batch
        )

    with mapped_weights(proto, path) as mapped:
        inspected = inspect_file(proto, path, mapped=mapped, keep=False, count_macs=count_macs)
        performance, reason, failing = _run_source(context, mapped, proto, inspected)
    size, failure = failing or (None, "")
    return OnnxResult(
        file=inspected.result,
        export=ExportResult(
            from_module=False,
            requested_opset=inspected.result.opset,
            failing_batch=size,
            batch_failure=failure,
        ),
        parity=not_compared(reason or NO_MODULE),
        performance=performance,
    )


def _count_macs(context: ModelContext, file: OnnxFile, inferred: Any) -> NodeCost:
    """The cost at the manifest's batch, or at the batch that is fixed in the file."""
    batch = file.batch or context.batch
    # some exporters list initializers as inputs too: they need not be fed
    stored = {tensor.name for tensor in inferred.graph.initializer}
    names = [value.name for value in inferred.graph.input if value.name not in stored]

    def feed() -> Feed:
        return feed_for(names, call_tensors(context, context.examples(batch)))

    sizes = {**context.spec.dims, "batch": batch}
    make_feed = None if file.structure_only else feed  # its weights could not be fed
    nodes = OnnxModel(file.path, inferred).nodes(
        sizes, make_feed, costs_only=True, dearer_branch=True
    )
    return _cost_of(nodes, batch)


def _cost_of(nodes: OnnxNodes, batch: int) -> NodeCost:
    modules: Counter[str] = Counter()
    for node in nodes.nodes:
        if node.macs:
            modules[node.module] += node.macs
    return NodeCost(
        batch=batch,
        macs=nodes.macs,
        uncounted=dict(sorted(nodes.uncounted.items())),
        modules=dict(sorted(modules.items())),
    )


_SourceRun = tuple["Performance | None", str, "tuple[int, str] | None"]
"""The performance or why the file cannot be run, and the batch size at which it fails."""


def _run_source(
    context: OnnxFileContext, path: Path, proto: Any, inspected: Inspection
) -> _SourceRun:
    if context.why_not_runnable:
        return None, context.why_not_runnable, None
    try:
        runtime = Runtime(path)
    except OnnxRuntimeError as error:
        return None, str(error), None
    failing = batch_failure(runtime, proto, context.feed, context.batch)
    try:
        runtime.run(context.feed())
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        return None, f"onnxruntime fails: {session_error_text(error)}", failing
    origins = node_origins(proto, inspected.optimized_graph)
    return _time_source(context, runtime, origins), "", failing


def _time_source(
    context: OnnxFileContext, runtime: Runtime, origins: NodeOrigins | None
) -> Performance | None:
    if not context.timings:
        return None
    seconds = context.spec.limits.timing
    latency = measure_latency(runtime, context.feed, context.batch, seconds * LATENCY_SHARE)
    if latency is None:
        return None
    dynamic = any("batch" in item.named_dims() for item in context.spec.inputs)
    return measure_performance(
        runtime,
        origins,
        context.feed,
        latency,
        dynamic=dynamic,
        seconds=seconds,
    )


def _run(
    context: ModelContext, file: OnnxFile, inspected: Inspection, proto: Any
) -> tuple[Parity, Performance | None]:
    if file.structure_only:
        return not_compared("the file contains the structure only, without weights"), None
    if not inspected.result.outputs:  # onnxruntime's error for such a file does not name the cause
        return not_compared("the model returns no tensor to compare"), None
    try:
        runtime = Runtime(file.path)
    except OnnxRuntimeError as error:
        return compare_in_float32(context, str(error)), None
    parity = check_parity(context, file, runtime)
    # a session may open and then refuse the inputs: NumPy has no bfloat16
    if parity.not_run:
        return compare_in_float32(context, parity.not_run), None
    if not context.timings:
        return parity, None
    origins = node_origins(proto, inspected.optimized_graph)
    context.wait_for_quiet()
    return parity, _time_exported(context, file, runtime, origins)


def _time_exported(
    context: ModelContext, file: OnnxFile, runtime: Runtime, origins: NodeOrigins | None
) -> Performance | None:
    def make_feed(batch: int) -> Feed:
        examples = make_examples(context.spec, batch, context.spec.seed)
        return runtime.feed(call_tensors(context, examples))

    seconds = context.spec.limits.timing
    batch = file.batch or context.batch
    latency = measure_latency(runtime, make_feed, batch, seconds * LATENCY_SHARE)
    if latency is None:
        return None
    return measure_performance(
        runtime,
        origins,
        make_feed,
        latency,
        dynamic=file.batch is None,
        seconds=seconds,
    )
