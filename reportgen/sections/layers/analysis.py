"""From a context to the result: measure, weigh, compare, write the tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from torch.nn.parameter import is_lazy

from reportgen.errors import SectionError
from reportgen.fake_model import Arguments, materialize_lazy, run_once_on_copy
from reportgen.sections.layers.backward import ForwardBackward
from reportgen.sections.layers.measure import Measured, in_words, measure
from reportgen.sections.layers.memory_traffic import tensor_bytes
from reportgen.sections.layers.modules import parameters_by_name, unregistered, walk
from reportgen.sections.layers.moe import active_parameters, find_experts
from reportgen.sections.layers.notes import notes_of, structural_notes
from reportgen.sections.layers.result import Layers
from reportgen.sections.layers.roofline import rooflines
from reportgen.sections.layers.tables import (
    flat_rows,
    flat_table,
    forward_backward_bytes,
    layers_csv,
    plain_tree,
    tree_totals,
)
from reportgen.sections.layers.trace import trace_fake
from reportgen.sections.layers.tree import build_layers, never_ran, rows_parameters, weigh

if TYPE_CHECKING:
    from torch import nn

    from reportgen.context import ModelContext
    from reportgen.example_inputs import Examples


class Analysis:
    """One analysis of one context's model."""

    def __init__(self, context: ModelContext) -> None:
        self._study = context
        self._examples: dict[int, Examples] = {}
        self._model: nn.Module = self._awake(context.model)
        self._built: tuple[str, ...] = ()  # parameters that the first pass makes, with their sizes

    def result(self) -> Layers:
        """Everything the section says; the tables are written on the way."""
        measured = self._measured()
        result = self._figures(measured)
        input_bytes = self._input_bytes(measured.batch)
        self._study.write(result.table_file, layers_csv(result.layers))
        self._study.write(
            result.summary_file, _summary_text(self._model, measured, result, input_bytes)
        )
        return result

    def _awake(self, model: nn.Module) -> nn.Module:
        """The model, its lazy layers materialized in a copy."""
        batch = self._study.batch
        try:
            model = materialize_lazy(
                model, lambda: self._arguments(1), lambda: self._arguments(batch)
            )
        except Exception as error:  # the model's own
            raise SectionError(
                f"lazy layers have no shape before they see an input, and the model's forward "
                f"pass fails: {in_words(error)}",
                hint="check the model's `inputs` in the manifest: order, names, shapes and dtypes",
            ) from error
        for name, parameter in parameters_by_name(walk(model)).items():
            if is_lazy(parameter):
                raise SectionError(
                    f"{name} belongs to a lazy layer that the forward pass does not reach, so "
                    "that its size is unknown",
                    hint="call the layer in forward, or delete it",
                )
        return model

    def _measured(self) -> Measured:
        """What is measured; of a model that its first pass completes, once it is complete."""
        batch = self._study.batch
        measured = measure(self._model, self._arguments, batch)
        if not measured.trace.added:
            return measured
        try:
            whole = run_once_on_copy(
                self._model, lambda: self._arguments(1), lambda: self._arguments(batch)
            )
            again = measure(whole, self._arguments, batch)
        except Exception:  # the model's own, and what is known without stands
            return measured
        if again.trace.added:  # more in every pass: it is never complete
            return measured
        self._model, self._built = whole, measured.trace.added
        return again

    def _inputs(self, batch: int) -> Examples:
        if batch not in self._examples:
            self._examples[batch] = self._study.examples(batch)
        return self._examples[batch]

    def _arguments(self, batch: int) -> Arguments:
        examples = self._inputs(batch)
        return examples.args, examples.kwargs

    def _constants(self, batch: int) -> dict[str, str]:
        examples = self._inputs(batch)
        given = dict(zip(examples.names, examples.args, strict=True)) | examples.kwargs
        return {key: repr(value) for key, value in _constants_in(given, "")}

    def _input_bytes(self, batch: int) -> int:
        return sum(map(tensor_bytes, self._inputs(batch).tensors().values()))

    def _figures(self, measured: Measured) -> Layers:
        trace, torchinfo, weights = measured.trace, measured.torchinfo, weigh(self._model)
        both = measured.both if isinstance(measured.both, ForwardBackward) else None
        layers = build_layers(self._model, trace, both.flops if both else None)
        idle = never_ran(self._model, trace)
        flops = sum(trace.flops.values())
        experts = find_experts(self._model, trace.choices, trace.first_read)
        ideal = self._ideal_bytes(measured)
        inputs = self._inputs(measured.batch).tensors()
        result = Layers(
            batch=measured.batch,
            input_shapes={name: tuple(tensor.shape) for name, tensor in inputs.items()},
            input_constants=self._constants(measured.batch),
            output_shapes=trace.outputs,
            parameters=weights.parameters,
            trainable_parameters=weights.trainable_parameters,
            quantized_parameters=weights.quantized_parameters,
            buffers=weights.buffers,
            buffers_bytes=weights.buffers_bytes,
            parameter_bytes=weights.parameter_bytes,
            bytes_by_dtype=weights.bytes_by_dtype,
            macs=flops // 2,
            flops=flops,
            uncounted=trace.uncounted,
            layers=layers,
            tied=weights.tied,
            never_ran=idle,
            training_only=self._training_only(measured, idle),
            unregistered=(*unregistered(self._model), *trace.strangers),
            operator_bytes=trace.operator_bytes,
            forward_backward_bytes=forward_backward_bytes(layers),
            torchinfo_parameters=torchinfo.parameters,
            torchinfo_macs=torchinfo.macs,
            torchinfo_activation_bytes=torchinfo.activation_bytes,
            torchinfo_error=torchinfo.error,
            table_file="layers.csv",
            summary_file="summary.txt",
            method=measured.method,
            parameters_by_path=weights.by_path,
            frozen=weights.frozen,
            quantized_bytes=weights.quantized_bytes,
            experts=experts,
            active_parameters=active_parameters(weights.parameters, experts),
            operator_calls=trace.work.total(),
            ideal_bytes=ideal,
            flops_per_byte=flops / trace.operator_bytes if trace.operator_bytes else None,
            ideal_flops_per_byte=flops / ideal if ideal else None,
            forward_backward_macs=both.all_flops // 2 if both else None,
            forward_backward_flops=both.all_flops if both else None,
            forward_backward_operator_bytes=both.operator_bytes if both else None,
            forward_backward_note=both.note if both else str(measured.both),
            forward_backward_uncounted=both.uncounted if both else (),
            parameters_of_rows=rows_parameters(self._model, layers),
            macs_of_rows=sum(layer.own_macs for layer in layers),
            rooflines=rooflines(
                self._study.targets, trace.work, both.work if both else None, measured.batch
            ),
        )
        structure = structural_notes(measured.trace, weights, self._built)
        notes = (*notes_of(result, measured), *structure)
        return replace(result, notes=(*self._study.source_notes, *notes))

    def _ideal_bytes(self, measured: Measured) -> int:
        """Used parameters, inputs and outputs, each once: what no fusion can save."""
        named = parameters_by_name(walk(self._model))
        used = {id(named[name]): named[name] for name in measured.trace.used if name in named}
        weights = sum(map(tensor_bytes, used.values()))
        return weights + self._input_bytes(measured.batch) + measured.trace.output_bytes

    def _training_only(self, measured: Measured, idle: tuple[str, ...]) -> tuple[str, ...]:
        """Of the `idle` parameters, those that a pass in training mode reads."""
        if not idle or measured.method == "real":
            return ()
        batch = max(2, measured.batch)  # batch norm refuses to train on one sample
        try:
            trace = trace_fake(self._model, self._arguments(batch), training=True)
        except Exception:  # some models want targets in training mode: then nothing is known
            return ()
        still_idle = set(never_ran(self._model, trace))
        return tuple(name for name in idle if name not in still_idle)


def _constants_in(value: object, key: str) -> Iterator[tuple[str, object]]:
    """Strings, numbers, truth values and None among the inputs, keyed like the tensors."""
    if value is None or isinstance(value, str | int | float | bool):
        yield key, value
    children: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    for name, child in children:
        yield from _constants_in(child, f"{key}.{name}" if key else str(name))


def _summary_text(model: nn.Module, measured: Measured, result: Layers, input_bytes: int) -> str:
    rows = flat_rows(model, measured.trace.calls, measured.batch)
    flat = flat_table(
        rows,
        parameters=result.parameters,
        trainable=result.trainable_parameters,
        parameter_bytes=result.parameter_bytes,
        input_bytes=input_bytes,
        batch=measured.batch,
    )
    torchinfo = measured.torchinfo
    if torchinfo.error is None:
        tree = f"The tree as torchinfo prints it (MB of 1,000,000 bytes)\n\n{torchinfo.table}\n"
    else:
        tree = f"torchinfo fails on this model ({torchinfo.error}); the tree as reportgen counts it\n\n"
        tree += plain_tree(result.layers)
    return (
        "Layers in the order in which they ran, sizes for one sample (MB of 1,048,576 bytes)\n\n"
        f"{flat}\n{tree}\n"
        f"The totals as reportgen counts them, batch of {result.batch}\n\n"
        f"{tree_totals(result, input_bytes)}"
    )
