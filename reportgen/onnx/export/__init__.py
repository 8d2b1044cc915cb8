"""A model as an ONNX file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.errors import SectionError
from reportgen.example_inputs import make_examples
from reportgen.onnx.export.arguments import ExportArguments, bind_arguments, output_names
from reportgen.onnx.export.capture import capture, export_mode, rewrite_for_export, translate
from reportgen.onnx.export.constant_weights import computed_weights, fold_computed_weights
from reportgen.onnx.export.diagnostics import (
    ExportFailure,
    explain_capture,
    explain_trace,
    explain_translation,
    opaque_modules,
    with_every_branch,
)
from reportgen.onnx.export.file_writer import name_values, write_model
from reportgen.onnx.export.model_patches import flattened_outputs, patched
from reportgen.onnx.export.strategy import Strategy, first_strategy, next_strategy
from reportgen.onnx.export.torchscript import trace
from reportgen.onnx.export.weightless import is_weightless, weights_to_inputs, without_weights

if TYPE_CHECKING:
    from torch import nn

    from reportgen.manifest import ModelSpec

STRUCTURE_ONLY = "the file is a structure only: the weights are inputs of the graph, not in it"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportAttempt:
    """One strategy that was tried; `error` is "" for the one that succeeded."""

    strategy: str
    error: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxFile:
    """An exported file: location, dynamic dimensions, and how the export succeeded.

    Attributes:
        path: the file; weights of more than 2 GB lie in `<name>.data` beside it.
        dynamic: the named dimensions that are symbolic in the file.
        strategy: the strategy that succeeded, as text.
        warnings: differences from what the manifest requested, one sentence each.
        asked: the named input dimensions that the manifest requests as dynamic.
        fixed_dims: why a dimension of `asked` is not symbolic, by its name.
        batch: the batch size of a file without a dynamic batch.
        attempts: every strategy in the order tried; the last one succeeded.
        model_patches: changes made to the model for the export. Outputs of the model are
            comparable with the file only within `apply_patches`.
        structure_only: whether the weights are inputs of the graph instead of being in the file,
            since they have no memory or too little; nothing can be compared or timed then.
        decomposed_operators: operators without a translation in torch's exporter, replaced by
            other operators in the file (`use_decompositions`).
        used: the strategy that succeeded; None for a file that was not exported here.
        fixed_decisions: `net.py:12: if x.sum() > 0:`, each line of Python that depends on a value
            or a size and whose outcome for the example inputs is fixed in a traced file.
    """

    path: Path
    dynamic: tuple[str, ...]
    strategy: str
    warnings: tuple[str, ...]
    asked: tuple[str, ...] = ()
    fixed_dims: dict[str, str] = field(default_factory=dict)
    batch: int | None = None
    attempts: tuple[ExportAttempt, ...] = ()
    model_patches: tuple[str, ...] = ()
    structure_only: bool = False
    decomposed_operators: tuple[str, ...] = ()
    used: Strategy | None = None
    fixed_decisions: tuple[str, ...] = ()
    computed: int = 0  # weights that were replaced by constants

    @contextmanager
    def apply_patches(self, model: nn.Module) -> Iterator[None]:
        """Apply the patches that `model` was exported with (cache off, …), undone on exit."""
        with patched(model, self.model_patches):
            yield


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Exported:
    """The exporter's onnx_ir model, before anything is named or written."""

    model: Any
    outputs: tuple[str, ...]
    arguments: ExportArguments
    strategy: Strategy
    dropped: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    decomposed_operators: tuple[str, ...] = ()
    fixed_decisions: tuple[str, ...] = ()
    computed: int = 0  # weights that were replaced by constants


@dataclass(slots=True)
class _Trail:
    """What was tried and why it failed, in order."""

    strategies: list[Strategy] = field(default_factory=list)
    failures: list[ExportFailure] = field(default_factory=list)

    def attempts(self) -> Iterator[ExportAttempt]:
        # not strict: a strategy that succeeds has no failure
        for strategy, failure in zip(self.strategies, self.failures, strict=False):
            yield ExportAttempt(strategy=strategy.describe(), error=failure.error)

    def main_failure(self) -> ExportFailure:
        """The failure to report: the first that no later strategy avoids."""
        # of those with the fewest dynamic dims: with more, the dims themselves may be the cause;
        # why the tracer failed too says less than why it was needed
        every = zip(self.strategies, self.failures, strict=True)
        pairs = [(how, why) for how, why in every if not how.traced]
        level = [why for how, why in pairs if how.dynamic == pairs[-1][0].dynamic]
        return next((why for why in level if why.kind not in _AVOIDABLE), level[-1])


def export_onnx(
    model: nn.Module, spec: ModelSpec, folder: Path, *, start: Strategy | None = None
) -> OnnxFile:
    """Export `model` to `folder/model.onnx` with the options of its manifest entry.

    Strategies are tried in order until one succeeds; which comes next depends on why the last
    one failed (`strategy`). The same model gives the same bytes in every process and on every
    path. The file appears whole or not at all. Call it within `preserve_model_state`:
    tracing runs the model. A model with weights on meta is exported as a structure only.
    `start` is the strategy to try first, if that is known from another export of the model.

    Raises:
        SectionError: no strategy succeeded; the error lists every attempt and its cause.
    """
    asked = _asked_dims(spec)
    trail = _Trail()
    strategy = start or first_strategy(asked, spec.batch, weightless=is_weightless(model))
    with export_mode():
        upcoming: Strategy | None = strategy
        while upcoming is not None:
            trail.strategies.append(upcoming)
            outcome = _attempt(model, spec, upcoming)
            if isinstance(outcome, _Exported):
                return _finish(outcome, asked, trail, folder, spec.onnx.opset)
            trail.failures.append(outcome)
            upcoming = next_strategy(upcoming, outcome, model, spec.batch, trail.strategies)
        why = trail.main_failure()
        if not trail.strategies[-1].weightless:  # a draft export runs the model
            why = with_every_branch(why, model, partial(_bind, model, spec, trail.strategies[-1]))
    raise _unable(why, trail)


def _unable(why: ExportFailure, trail: _Trail) -> SectionError:
    seen: list[str] = []  # most strategies fail for one reason, which is written out once
    lines = list(why.details)
    # where the model itself fails, how its export was tried explains nothing
    tells = len(trail.failures) > 1 and why.kind != "own"
    for attempt in trail.attempts() if tells else ():
        error = "the same" if attempt.error in seen else attempt.error
        seen.append(attempt.error)
        lines.append(f"tried {attempt.strategy}: {error}")
    return SectionError(why.error, hint=why.hint, details=tuple(lines))


def _at_batch(why: ExportFailure, batch: int) -> ExportFailure:
    # the user has never seen this batch size: the manifest names another
    said = why.error.replace("forward pass fails", f"forward pass fails at batch {batch}", 1)
    return replace(why, error=said) if why.kind == "own" else why


def _asked_dims(spec: ModelSpec) -> tuple[str, ...]:
    # `onnx.dynamic` names the batch by default, also for models whose inputs have none
    used = {dim for item in spec.inputs for dim in item.named_dims()}
    return tuple(dim for dim in spec.onnx.dynamic if dim in used)


def _attempt(model: nn.Module, spec: ModelSpec, strategy: Strategy) -> _Exported | ExportFailure:
    """Run torch's exporter once; the model is restored before anything is written."""
    try:
        arguments = _bind(model, spec, strategy)
    except ValueError:  # frozen TorchScript has no signature to bind to
        if closed := opaque_modules(model):
            return closed
        raise
    if strategy.traced:
        return _attempt_trace(model, spec, strategy, arguments)
    dropped: set[str] = set()
    with ExitStack() as changes:
        changes.enter_context(patched(model, strategy.model_patches))
        if strategy.weightless:
            arguments = changes.enter_context(without_weights(model, arguments))
        if strategy.flattened:
            dropped = changes.enter_context(flattened_outputs(model))
        try:
            captured = capture(model, arguments, strict=strategy.strict)
        except Exception as error:  # torch.export and the model's own code raise any class
            why = explain_capture(error, model, arguments, runnable=not strategy.weightless)
            return why if strategy.batch == spec.batch else _at_batch(why, strategy.batch)
        try:
            rewrite_for_export(captured)
            # the optimizer folds constants and fails on fake weights: they become inputs first
            program, decomposed_operators = _translated(captured, spec.onnx.opset, strategy)
            weights = weights_to_inputs(program.model) if strategy.weightless else ()
            if strategy.weightless:
                program.optimize()
        except Exception as error:  # whatever torch's translations raise on unexpected arguments
            return explain_translation(error, model, captured, spec.onnx.opset)
    return _Exported(
        model=program.model,
        outputs=output_names(program.exported_program),
        arguments=arguments,
        strategy=strategy,
        dropped=tuple(sorted(dropped)),
        weights=weights,
        computed=computed_weights(program.exported_program),
        decomposed_operators=decomposed_operators,
    )


def _translated(captured: Any, opset: int, strategy: Strategy) -> tuple[Any, tuple[str, ...]]:
    try:
        return translate(captured, opset, optimize=not strategy.weightless)
    except Exception:
        # without weights there is nothing to compute
        if strategy.weightless or not fold_computed_weights(captured):
            raise
    return translate(captured, opset)


def _attempt_trace(
    model: nn.Module, spec: ModelSpec, strategy: Strategy, arguments: ExportArguments
) -> _Exported | ExportFailure:
    try:
        with patched(model, strategy.model_patches):
            traced = trace(model, arguments, spec.onnx.opset)
    except Exception as error:  # the tracer, the exporter and the model's own code: any class
        return explain_trace(error)
    return _Exported(
        model=traced.model,
        outputs=traced.outputs,
        arguments=arguments,
        strategy=strategy,
        fixed_decisions=traced.fixed_decisions,
    )


def _bind(model: nn.Module, spec: ModelSpec, strategy: Strategy) -> ExportArguments:
    examples = make_examples(spec, strategy.batch, spec.seed)
    return bind_arguments(model, spec.inputs, examples.args, examples.kwargs, strategy.dynamic)


def _finish(
    exported: _Exported, asked: tuple[str, ...], trail: _Trail, folder: Path, opset: int
) -> OnnxFile:
    model, strategy = exported.model, exported.strategy
    name_values(model, exported.arguments, exported.outputs)
    dynamic = exported.arguments.symbolic_dims(model)
    path = write_model(model, folder / "model.onnx")
    words = strategy.describe(dynamic)  # a dynamic dim may have become a constant all the same
    return OnnxFile(
        path=path,
        dynamic=dynamic,
        strategy=words,
        warnings=tuple(_warnings(exported, asked, dynamic, trail, opset)),
        asked=asked,
        fixed_dims=_fixed_dims(asked, dynamic, trail),
        batch=None if "batch" in dynamic else strategy.batch,
        attempts=(*trail.attempts(), ExportAttempt(strategy=words, error="")),
        model_patches=strategy.model_patches,
        structure_only=strategy.weightless,
        decomposed_operators=exported.decomposed_operators,
        used=strategy,
        fixed_decisions=exported.fixed_decisions,
    )


def _warnings(
    exported: _Exported,
    asked: tuple[str, ...],
    dynamic: tuple[str, ...],
    trail: _Trail,
    opset: int,
) -> Iterator[str]:
    # the exporter translates to opset 18 or newer; the converter down may refuse and leave it so
    found = int(exported.model.opset_imports.get("", opset))
    if found != opset:
        yield f"asked for opset {opset}, the exporter produced {found}"
    if exported.strategy.weightless:
        yield f"{STRUCTURE_ONLY} ({len(exported.weights)} of them)"
    patches = exported.strategy.model_patches
    outputs = [why.error for why in trail.failures if why.kind == "output"]
    if patches or exported.strategy.flattened:
        yield from dict.fromkeys(outputs)
    if patches:
        changes = " and the ".join(_CHANGES[name] for name in patches)
        compared = "" if exported.strategy.weightless else " and compared"
        yield f"exported{compared} with the {changes}"
    if computed := exported.computed:
        yield f"weights that the model computes from its parameters are constants ({computed})"
    if exported.dropped:
        lost_classes = ", ".join(exported.dropped)
        yield f"left out of the file, because they contain no reachable tensor: {lost_classes}"
    yield from dict.fromkeys(_fixed_dims(asked, dynamic, trail).values())


def _fixed_dims(asked: tuple[str, ...], dynamic: tuple[str, ...], trail: _Trail) -> dict[str, str]:
    lost = [dim for dim in asked if dim not in dynamic]
    reason = next((f": {why.error}" for why in trail.failures if why.kind in _OF_DIMS), "")
    return dict.fromkeys(lost, f"{' and '.join(lost)} could not be made dynamic{reason}")


_AVOIDABLE = ("output", "attention", "experts")  # for these the next strategy removes the cause
_OF_DIMS = ("dims", "own", "unknown")  # after these the next strategy leaves fewer dims dynamic
_CHANGES = {
    "cache off": "cache off (use_cache=False)",
    "batched experts": "experts as one batched product (_experts_implementation=batched_mm)",
    "eager attention": "attention computed by plain operators (_attn_implementation=eager)",
    "eval mode": "modules in train mode put into eval mode",
}
