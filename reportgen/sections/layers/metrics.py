"""What others use of the layers section: metrics, cross-checked counts, module records."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.comparable import Comparable, ModuleRecord
from reportgen.metrics import COMPARISON, FigureCount, Method, Metric
from reportgen.sections.layers.result import Layers

_ROWS = "rows of the layer table"
_TENSORS = {"fake": "fake tensors", "real": "real tensors"}


def metrics_of(result: Layers) -> tuple[Metric, ...]:
    """Parameters, bytes and cost; all of them counts."""
    # of a cost that could not be counted at all, 0 is no bound worth a number; after a failure the
    # cost is that of the layers before
    is_known = result.failure is None and bool(result.macs or not result.lower_bound)
    per_sample = result.macs / result.batch if result.batch and is_known else None
    return (
        Metric(
            key="layers.parameters",
            label="Parameters",
            value=result.parameters,
            direction="lower",
            table=COMPARISON,
            definition="unique numbers, tied tensors once",
        ),
        Metric(
            key="layers.trainable_parameters",
            label="Trainable parameters",
            value=result.trainable_parameters,
        ),
        Metric(
            key="layers.parameter_bytes",
            label="Weights",
            value=result.parameter_bytes,
            unit="bytes",
            direction="lower",
            table=COMPARISON,
            definition="the bytes that the parameters take",
        ),
        Metric(
            key="layers.model_bytes",
            label="Weights and buffers",
            value=result.parameter_bytes + result.buffers_bytes,
            unit="bytes",
            direction="lower",
        ),
        Metric(
            key="layers.macs_per_sample",
            label="MACs / sample",
            value=per_sample,
            lower_bound=result.lower_bound,
            direction="lower",
            table=COMPARISON,
            note="forward pass",
            definition="multiply-adds of one forward pass divided by its batch size; "
            "1 MAC = 2 FLOPs",
        ),
        Metric(
            key="layers.macs",
            label="MACs",
            value=result.macs if is_known else None,
            lower_bound=result.lower_bound,
            direction="lower",
        ),
        Metric(
            key="layers.flops",
            label="FLOPs",
            value=result.flops if is_known else None,
            lower_bound=result.lower_bound,
            direction="lower",
        ),
    )


def methods_of(result: Layers) -> tuple[Method, ...]:
    """Elements and bytes of tensors, and operators by their formulas."""
    in_file = result.method == "file"
    tool = "onnx" if in_file else "torch"
    what = "initializers of the file" if in_file else "distinct tensors in model.parameters()"
    logical = ", quantized weights by their logical number" if result.quantized_parameters else ""
    calls = (
        "all nodes of the file, with inferred shapes"
        if in_file
        else f"all operators of one forward pass on {_TENSORS[result.method]}"
    )
    return (
        Method(
            keys=("layers.parameters", "layers.trainable_parameters"),
            text=f"Elements of the {what}{logical}; trainable: those that require a gradient",
            tools=(tool,),
            inputs="",
        ),
        Method(
            keys=("layers.parameter_bytes", "layers.model_bytes"),
            text=f"Bytes of the {what}; weights and buffers: plus the bytes of all buffers",
            tools=(tool,),
            inputs="",
        ),
        Method(
            keys=("layers.macs_per_sample", "layers.macs", "layers.flops"),
            text=f"Multiply-adds of {calls}, each by its formula; 1 MAC = 2 FLOPs",
            tools=(tool,),
            batch=result.batch,
        ),
    )


def counts_of(result: Layers) -> tuple[FigureCount, ...]:
    """Parameters and MACs, each counted in two ways; none for an ONNX file without a module."""
    return () if result.method == "file" else tuple(_counts(result))


def _counts(result: Layers) -> Iterator[FigureCount]:
    yield FigureCount(
        figure="parameters",
        by="the model's tensors, each once",
        value=result.parameters,
        unused=result.unused_parameters,
    )
    yield FigureCount(figure="parameters", by=_ROWS, value=result.parameters_of_rows)
    if result.failure is not None:  # the counts end at different places
        return
    yield FigureCount(
        figure="macs",
        by="torch's operators",
        value=result.macs,
        batch=result.batch,
        uncounted={each.operator: "no formula" for each in result.uncounted},
        by_module={layer.path: layer.macs for layer in result.layers},
    )
    yield FigureCount(figure="macs", by=_ROWS, value=result.macs_of_rows)


def comparable_of(result: Layers) -> Comparable:
    """The modules; none for an ONNX file, and none of a report that does not have their records."""
    if result.method == "file" or not all(layer.class_name for layer in result.layers):
        return Comparable()
    return Comparable(
        modules=tuple(
            ModuleRecord(
                path=layer.path,
                type=layer.class_name,
                attributes=layer.attributes,
                computed=layer.computed,
                tensors=layer.tensors,
                parameters=layer.own_parameters,
                # after a failure they are those of the layers before
                macs=layer.own_macs // result.batch if result.failure is None else None,
                shared_with=layer.shared_with or "",
                source=layer.source,
                call=layer.call,
            )
            for layer in result.layers
        )
    )


def files_of(result: Layers) -> tuple[str, ...]:
    """The two tables."""
    return result.table_file, result.summary_file
