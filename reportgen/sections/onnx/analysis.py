"""The order of the analysis: the file by itself, against PyTorch, against the clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from reportgen.example_inputs import make_examples
from reportgen.onnx.export import OnnxFile
from reportgen.onnx.model import read_nodes, symbol_sizes
from reportgen.onnx.runtime import CannotRunError, Runtime, runtime_line
from reportgen.sections.onnx.dims import proven_dims
from reportgen.sections.onnx.inspection.file import FileFacts, read_facts, saved_file
from reportgen.sections.onnx.node_cost import cost_of_export, cost_of_nodes
from reportgen.sections.onnx.parity.analysis import check_parity, not_compared
from reportgen.sections.onnx.parity.case import call_tensors
from reportgen.sections.onnx.parity.float32_fallback import compare_in_float32
from reportgen.sections.onnx.performance.latency import measure_latency
from reportgen.sections.onnx.performance.speed import measure_speed
from reportgen.sections.onnx.result import NO_MODULE, OnnxExport, Parity, Tried
from reportgen.sections.onnx.training_mode import modules_in_training
from reportgen.sections.onnx.weights import find_parameters

if TYPE_CHECKING:
    from reportgen.context import ModelContext, OnnxFileContext
    from reportgen.manifest import ModelSpec
    from reportgen.onnx.runtime import Feed
    from reportgen.sections.onnx.file_result import Speed
    from reportgen.sections.onnx.result import Latency


def analyze_file(context: ModelContext, file: OnnxFile) -> OnnxExport:
    """Everything the section says of an exported file; one onnxruntime session does it all."""
    facts = read_facts(file.path)
    with file.as_exported(context.model):
        parity, latency, speed = _run(context, file, facts)
        return replace(
            _result(context.spec, file, facts, parity, latency),
            speed=speed,
            training_modules=modules_in_training(context.model),
            stored=find_parameters(context.model, file.path),
            cost=cost_of_export(context, file, [port.name for port in facts.inputs]),
        )


def examine_source(context: OnnxFileContext) -> OnnxExport:
    """What can be said of a file without a module: it is run, and compared with nothing.

    Its own opset and dimensions are those asked for, since nobody asked for others.
    """
    file = context.file
    facts = read_facts(file.path)
    feed = context.feed()
    nodes = read_nodes(file.path, symbol_sizes(file.path, feed), lambda: feed)
    latency, speed, reason = _time_source(context)
    parity = not_compared(reason or NO_MODULE)
    return replace(
        _result(context.spec, file, facts, parity, latency),
        file=None,
        asked_opset=facts.opset,
        exported=False,
        speed=speed,
        cost=cost_of_nodes(nodes, context.batch),
    )


def _time_source(context: OnnxFileContext) -> tuple[Latency | None, Speed | None, str]:
    """Latency and speed, or why onnxruntime cannot run the file."""
    if context.why_not_runnable:
        return None, None, context.why_not_runnable
    try:
        runtime = Runtime(context.file.path)
        runtime.run(context.feed())
    except CannotRunError as error:
        return None, None, str(error)
    except Exception as error:  # onnxruntime's classes have no common one of their own
        return None, None, f"onnxruntime fails: {runtime_line(error)}"
    if not context.timings:
        return None, None, ""
    latency = measure_latency(runtime, context.feed, context.batch)
    if latency is None:
        return None, None, ""
    dynamic = "batch" in file_dims(context)
    return (
        latency,
        measure_speed(context.file.path, context.feed, runtime, latency, dynamic=dynamic),
        "",
    )


def file_dims(context: OnnxFileContext) -> tuple[str, ...]:
    """The named dimensions of the file's inputs."""
    used = [dim for item in context.spec.inputs for dim in item.named_dims()]
    return tuple(dict.fromkeys(used))


def _run(
    context: ModelContext, file: OnnxFile, facts: FileFacts
) -> tuple[Parity, Latency | None, Speed | None]:
    if file.structure_only:
        return not_compared("the file holds the structure only, without weights"), None, None
    if not facts.outputs:  # onnxruntime refuses such a file in words of its own
        return not_compared("the model returns no tensor, there is nothing to compare"), None, None
    try:
        runtime = Runtime(file.path)
    except CannotRunError as reason:
        return compare_in_float32(context, not_compared(str(reason))), None, None
    parity = check_parity(context, file, runtime)
    if parity.not_run:
        return compare_in_float32(context, parity), None, None
    if not context.timings:
        return parity, None, None
    return parity, *_time(context, file, runtime)


def _time(
    context: ModelContext, file: OnnxFile, runtime: Runtime
) -> tuple[Latency | None, Speed | None]:
    def make_feed(batch: int) -> Feed:
        examples = make_examples(context.spec, batch, context.spec.seed)
        return runtime.feed(call_tensors(context, examples))

    latency = measure_latency(runtime, make_feed, file.batch or context.batch)
    if latency is None:
        return None, None
    return latency, measure_speed(
        file.path, make_feed, runtime, latency, dynamic=file.batch is None
    )


def _result(
    spec: ModelSpec, file: OnnxFile, facts: FileFacts, parity: Parity, latency: Latency | None
) -> OnnxExport:
    return OnnxExport(
        file=saved_file(file.path, keep=spec.onnx.save),
        bytes=facts.bytes,
        opset=facts.opset,
        ir_version=facts.ir_version,
        producer=facts.producer,
        nodes=facts.nodes,
        operators=facts.operators,
        initializers=facts.initializers,
        initializer_bytes=facts.initializer_bytes,
        inputs=facts.inputs,
        outputs=facts.outputs,
        dynamic=file.dynamic,
        strategy=file.strategy,
        parity=parity,
        latency_ms=latency,
        warnings=file.warnings,
        tried=tuple(Tried(strategy=a.strategy, error=a.error) for a in file.tried),
        adaptations=file.adaptations,
        written_out=file.written_out,
        structure_only=file.structure_only,
        proven_dynamic=proven_dims(file.dynamic, parity.cases),
        asked_dynamic=file.asked,
        asked_opset=spec.onnx.opset,
        external_file=facts.external_file,
        invalid=facts.invalid,
        values=facts.values,
        shaped_values=facts.shaped_values,
        functions=facts.functions,
        custom_operators=facts.custom_operators,
        random_operators=facts.random_operators,
        details=facts.details,
    )
