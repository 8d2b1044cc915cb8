"""Layers analysis: trace the model, count parameters and cost, write the two tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from torch.nn.parameter import is_lazy

from reportgen.code_location import source_root
from reportgen.errors import SectionError
from reportgen.fake_model import Arguments, materialize_lazy, run_once_on_copy
from reportgen.known_failures import failure_hint
from reportgen.sections.layers.cost.roofline import rooflines
from reportgen.sections.layers.modules import parameters_by_name, unregistered, walk
from reportgen.sections.layers.moe import active_parameters, find_experts
from reportgen.sections.layers.result import (
    Failure,
    ForwardBackwardCost,
    Layer,
    Layers,
    StoredValues,
    TorchinfoTotals,
)
from reportgen.sections.layers.stored_values import stored_values
from reportgen.sections.layers.tables import (
    layers_csv,
    summary_text,
    torchinfo_forward_backward_bytes,
)
from reportgen.sections.layers.tracing.backward import ForwardBackward
from reportgen.sections.layers.tracing.forward import ForwardTrace, trace_fake
from reportgen.sections.layers.tracing.measure import (
    Measured,
    error_text,
    measure,
    measure_forward,
)
from reportgen.sections.layers.tree import (
    Weights,
    build_layers,
    find_unused_parameters,
    rows_parameters,
    weigh,
)
from reportgen.torchinfo_summary import TorchinfoSummary, summarize_fake_copy
from reportgen.tracing.tensors import dtype_name, tensor_bytes
from reportgen.units import format_integer, format_share
from reportgen.visible_text import visible

if TYPE_CHECKING:
    from torch import nn

    from reportgen.context import ModelContext
    from reportgen.example_inputs import Examples


class LayersAnalysis:
    """The analysis of the model of one context."""

    def __init__(self, context: ModelContext, *, forward_only: bool = False) -> None:
        self._context = context
        self._measure = measure_forward if forward_only else measure
        self._forward_only = forward_only
        self._examples: dict[int, Examples] = {}
        self._model: nn.Module = self._materialized(context.model)
        self._built: tuple[str, ...] = ()  # parameters that the first pass created: "name (size)"

    def result(self) -> Layers:
        """The result; writes `layers.csv` and `summary.txt`."""
        measured = self._measured()
        result = self._figures(measured)
        input_bytes = self._input_bytes(measured.batch)
        self._context.write(result.table_file, layers_csv(result.layers))
        self._context.write(
            result.summary_file,
            visible(summary_text(self._model, measured, result, input_bytes)),
        )
        return result

    def layers(self) -> Layers:
        """The result alone, without files."""
        return self._figures(self._measured())

    def _materialized(self, model: nn.Module) -> nn.Module:
        """The model, or a copy with its lazy layers materialized."""
        batch = self._context.batch
        try:
            model = materialize_lazy(
                model, lambda: self._arguments(1), lambda: self._arguments(batch)
            )
        except Exception as error:  # from the model
            raise SectionError(
                "the shapes of lazy layers are unknown, because the forward pass fails: "
                f"{error_text(error)}",
                hint=failure_hint(
                    error,
                    "check the inputs of the model: order, names, shapes and dtypes",
                ),
            ) from error
        for name, parameter in parameters_by_name(walk(model)).items():
            if is_lazy(parameter):
                raise SectionError(
                    f"{name} belongs to a lazy layer that the forward pass does not call, so its "
                    "size is unknown",
                    hint="call the layer in forward, or delete it",
                )
        return model

    def _measured(self) -> Measured:
        """Trace the model; if its first pass creates parameters, trace a copy that ran once."""
        batch = self._context.batch
        measured = self._measure(self._model, self._arguments, batch, self._torchinfo)
        if not measured.trace.added:
            return measured
        try:
            completed = run_once_on_copy(
                self._model, lambda: self._arguments(1), lambda: self._arguments(batch)
            )
            again = self._measure(completed, self._arguments, batch, self._torchinfo)
        except Exception:  # from the model, which may run only once; the first trace is valid
            return measured
        if again.trace.added or again.failure:  # every pass adds parameters, or only one succeeds
            return measured
        self._model, self._built = completed, measured.trace.added
        return again

    def _torchinfo(self, model: nn.Module) -> TorchinfoSummary:
        if model is self._context.model:
            return self._context.torchinfo()
        return summarize_fake_copy(model, partial(self._arguments, self._context.batch))

    def _inputs(self, batch: int) -> Examples:
        if batch not in self._examples:
            self._examples[batch] = self._context.examples(batch)
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
        trace, weights, spec = measured.trace, weigh(self._model), self._context.spec
        both = measured.both if isinstance(measured.both, ForwardBackward) else None
        layers = build_layers(
            self._model,
            trace,
            both.flops if both else None,
            count_zeros=spec.weights is not None,
            with_digests=spec.weights is not None or spec.source.kind == "pt2",
            root=source_root(spec.source),
        )
        unused = find_unused_parameters(self._model, trace)
        flops = sum(trace.flops.values())
        experts = find_experts(self._model, trace.choices, trace.first_read)
        ideal, moved = self._ideal_bytes(measured), trace.operator_bytes
        complete = measured.failure is None
        inputs = self._inputs(measured.batch).tensors()
        return Layers(
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
            lower_bound=bool(trace.uncounted) or not complete,
            layers=layers,
            tied=weights.tied,
            unused_parameters=unused,
            train_only_parameters=self._train_only_parameters(measured, unused),
            unregistered=(*unregistered(self._model), *trace.unregistered_calls),
            operator_bytes=trace.operator_bytes,
            torchinfo=_torchinfo_totals(measured, layers),
            forward_backward=_forward_backward_cost(measured.both),
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
            flops_per_byte=flops / moved if complete and moved else None,
            ideal_flops_per_byte=flops / ideal if complete and ideal else None,
            parameters_of_rows=rows_parameters(self._model, layers),
            macs_of_rows=sum(layer.own_macs for layer in layers),
            masked_parameters=weights.masked,
            failure=_failure(measured),
            stored_values=StoredValues()
            if self._forward_only
            else stored_values(self._context.model, spec),
            input_dtypes={name: dtype_name(tensor) for name, tensor in inputs.items()},
            rooflines=rooflines(
                self._context.targets if complete else (),
                trace.work,
                both.work if both else None,
                measured.batch,
            ),
            notes=(
                *self._context.source_notes,
                *_cost_notes(measured, weights, layers),
                *_structure_notes(trace, weights, self._built),
                *_sparsity_notes(weights, layers),
            ),
        )

    def _ideal_bytes(self, measured: Measured) -> int:
        """Bytes of used parameters, inputs and outputs, each once: the minimum with full fusion."""
        named = parameters_by_name(walk(self._model))
        used = {id(named[name]): named[name] for name in measured.trace.used if name in named}
        weights = sum(map(tensor_bytes, used.values()))
        return weights + self._input_bytes(measured.batch) + measured.trace.output_bytes

    def _train_only_parameters(
        self, measured: Measured, unused: tuple[str, ...]
    ) -> tuple[str, ...]:
        """The `unused` parameters that a pass in training mode reads."""
        if not unused or measured.method == "real":  # a fake copy does not run, see `measure`
            return ()
        batch = max(2, measured.batch)  # batch norm cannot train on one sample
        try:
            trace = trace_fake(self._model, self._arguments(batch), training=True)
        except Exception:  # some models require targets in training mode
            return ()
        still_unused = set(find_unused_parameters(self._model, trace))
        return tuple(name for name in unused if name not in still_unused)


def _constants_in(value: object, key: str) -> Iterator[tuple[str, object]]:
    """Strings, numbers, booleans and None among the inputs, with the keys of `named_tensors`."""
    if value is None or isinstance(value, str | int | float | bool):
        yield key, value
    children: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    for name, child in children:
        yield from _constants_in(child, f"{key}.{name}" if key else str(name))


def _failure(measured: Measured) -> Failure | None:
    failure = measured.failure
    if failure is None:
        return None
    place = f" ({failure.place})" if failure.place else ""
    return Failure(module=failure.module, message=f"{failure.reason}{place}", hint=failure.hint)


def _torchinfo_totals(measured: Measured, layers: tuple[Layer, ...]) -> TorchinfoTotals:
    summary = measured.torchinfo
    return TorchinfoTotals(
        parameters=summary.parameters,
        macs=summary.macs,
        activation_bytes=summary.activation_bytes,
        error=summary.error,
        forward_backward_bytes=torchinfo_forward_backward_bytes(layers),
    )


def _forward_backward_cost(both: ForwardBackward | str) -> ForwardBackwardCost:
    if isinstance(both, str):
        return ForwardBackwardCost(note=both)
    return ForwardBackwardCost(
        macs=both.all_flops // 2,
        flops=both.all_flops,
        operator_bytes=both.operator_bytes,
        note=both.note,
        uncounted=both.uncounted,
        lower_bound=bool(both.uncounted),
    )


def _cost_notes(measured: Measured, weights: Weights, layers: tuple[Layer, ...]) -> list[str]:
    """How the figures were counted, and why other tools report different ones."""
    trace, torchinfo = measured.trace, measured.torchinfo
    macs = sum(trace.flops.values()) // 2
    notes = [measured.note]
    if trace.uncounted:
        names = ", ".join(item.operator for item in trace.uncounted[:5])
        notes.append(
            f"no FLOP formula, so not counted: {names}; "
            "add one with reportgen.register_flops(operator, formula)"
        )
    if isinstance(measured.both, ForwardBackward) and measured.both.uncounted:
        names = ", ".join(item.operator for item in measured.both.uncounted[:5])
        notes.append(f"no FLOP formula in the backward pass: {names}")
    if trace.conventional:
        names = ", ".join(trace.conventional[:5])
        notes.append(
            f"{names}: counted to leading order by the real operations of the classic algorithm "
            "(an FFT of n complex numbers is 5·n·log2 n, of n real ones half of it); two "
            "operations are one multiply-add"
        )
    if any(row.kernel and row.own_macs and "complex" in row.dtype for row in layers):
        notes.append("a complex convolution counts as the three real ones that PyTorch runs for it")
    if trace.complex_products:
        notes.append("a complex multiply-add counts as one, as in torch.utils.flop_counter")
    if weights.quantized_parameters:
        notes.append(
            f"{weights.quantized_parameters:,} parameters are quantized: counted by their logical "
            "number and their packed bytes, without scales and zero points"
        )
    bypassed = [row.path for row in layers if row.executed_via == "forward"]
    if bypassed:
        notes.append(f"hooks were bypassed by a direct .forward(): {', '.join(bypassed[:5])}")
    if torchinfo.parameters not in (None, weights.parameters):
        notes.append(
            f"torchinfo counts {torchinfo.parameters:,} parameters; "
            f"{weights.parameters:,} is the number of distinct registered ones"
        )
    if torchinfo.macs not in (None, macs):
        notes.append(
            f"torchinfo counts {torchinfo.macs:,} multiply-adds from the sizes of layers; "
            f"{macs:,} is the sum over the operators that ran, which includes attention, "
            "functional and repeated products, and excludes biases and embedding look-ups"
        )
    return notes


def _structure_notes(trace: ForwardTrace, weights: Weights, built: tuple[str, ...]) -> list[str]:
    """What the parameter counts do not show about the structure of the model."""
    notes = []
    if built:
        notes.append(
            f"the first forward pass creates parameters, which are counted here: {_some(built)}; "
            "optimizers and checkpoints miss them before that pass: create them in __init__"
        )
    if trace.added:
        notes.append(
            f"every forward pass adds parameters, which are not counted: {_some(trace.added)}; "
            "create them in __init__, or run the model once before the analysis"
        )
    if trace.threaded:
        notes.append("modules run in separate threads; their calls are listed by path")
    if weights.torchscript_constants:
        notes.append(
            f"TorchScript holds {weights.torchscript_constants:,} numbers as constants of its "
            "code (freezing does that to weights); they are not counted as parameters"
        )
    if trace.to_numpy:
        places = _some(tuple(path or "the model itself" for path in trace.to_numpy))
        notes.append(f"NumPy computes with tensors in {places}; its operations are not counted")
    groups = tuple(" and ".join(group) for group in weights.overlapping)
    if groups:
        notes.append(
            "distinct parameters share memory without being tied, so each is counted, saved and "
            f"given optimizer state: {_some(groups)}"
        )
    return notes


def _sparsity_notes(weights: Weights, layers: tuple[Layer, ...]) -> list[str]:
    """How many parameters pruning masks remove, and how many given ones are exactly zero."""
    notes = []
    if weights.masked:
        notes.append(
            f"pruning masks remove {format_integer(weights.masked)} of "
            f"{format_integer(weights.parameters)} parameters; they are stored, computed with and "
            "counted until torch.nn.utils.prune.remove, and then remain as zeros"
        )
    owners = [row for row in layers if row.zero_share and row.shared_with is None]
    zeros = round(sum((row.zero_share or 0) * row.own_parameters for row in owners))
    if zeros:
        most = sorted(owners, key=lambda row: -(row.zero_share or 0) * row.own_parameters)[:5]
        named = ", ".join(f"{row.path or 'the model'} ({row.zero_share:.1%})" for row in most)
        share = format_share(zeros, weights.parameters)
        notes.append(f"{share} of the given weights are exactly 0; most of them in {named}")
    return notes


def _some(items: tuple[str, ...]) -> str:
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(items[:5]) + more
