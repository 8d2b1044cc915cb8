"""The order of the examination: the file by itself, against PyTorch, against the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.export import OnnxFile
from reportgen.sections.onnx_export.file import FileFacts, read_facts, saved_file
from reportgen.sections.onnx_export.latency import measure_latency
from reportgen.sections.onnx_export.parity import check_parity, not_compared
from reportgen.sections.onnx_export.result import OnnxExport, Parity
from reportgen.sections.onnx_export.runtime import CannotRunError, Runtime
from reportgen.sections.onnx_export.training_mode import modules_in_training

if TYPE_CHECKING:
    from reportgen.sections.onnx_export.result import Latency
    from reportgen.study import Study


def examine_file(study: Study, file: OnnxFile) -> OnnxExport:
    """Everything the section says of an exported file; one onnxruntime session does it all."""
    facts = read_facts(file.path)
    parity, latency = _run(study, file)
    return _result(study, file, facts, parity, latency)


def _run(study: Study, file: OnnxFile) -> tuple[Parity, Latency | None]:
    try:
        runtime = Runtime(file.path)
    except CannotRunError as reason:
        return not_compared(str(reason)), None
    parity = check_parity(study, file, runtime)
    if not study.timings or parity.not_run:
        return parity, None
    return parity, measure_latency(study, file, runtime)


def _result(
    study: Study, file: OnnxFile, facts: FileFacts, parity: Parity, latency: Latency | None
) -> OnnxExport:
    return OnnxExport(
        file=saved_file(file.path, keep=study.spec.onnx.save),
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
        asked_dynamic=file.asked,
        asked_opset=study.spec.onnx.opset,
        external_file=facts.external_file,
        invalid=facts.invalid,
        values=facts.values,
        shaped_values=facts.shaped_values,
        functions=facts.functions,
        custom_operators=facts.custom_operators,
        random_operators=facts.random_operators,
        training_modules=modules_in_training(study.model),
    )
