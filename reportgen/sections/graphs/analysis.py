"""Traces the model once and draws its module, autograd and ONNX graphs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reportgen.drawing.dot import graphviz
from reportgen.drawing.graph import DrawnGraph
from reportgen.drawing.svg import SvgPicture
from reportgen.error_text import one_line, shown_text
from reportgen.errors import SectionError
from reportgen.forward_failure import explain_failure
from reportgen.known_failures import known_failure
from reportgen.model_state import preserve_model_state
from reportgen.sections.graphs.autograd import autograd_graph, full_autograd_graph, no_gradient
from reportgen.sections.graphs.complete.autograd import complete_autograd_graph
from reportgen.sections.graphs.complete.modules import complete_module_graph
from reportgen.sections.graphs.complete.onnx import complete_onnx_graph
from reportgen.sections.graphs.complete.onnx_facts import OnnxFacts, onnx_facts
from reportgen.sections.graphs.complete.onnx_modules import module_classes
from reportgen.sections.graphs.complete.stored import StoredGraph, pack_graph, unpack_graph
from reportgen.sections.graphs.draw import Drawer, drawer_into
from reportgen.sections.graphs.modules import module_graph
from reportgen.sections.graphs.onnx_graph import graph_of_model
from reportgen.sections.graphs.result import Drawing, Graphs, missing
from reportgen.sections.graphs.roles import roles_of
from reportgen.sections.graphs.trace import NoBackwardError, Trace, trace_forward
from reportgen.viewer.layout import GraphLayout, graph_layouts

if TYPE_CHECKING:
    from torch import nn

    from reportgen.comparable import Graph
    from reportgen.context import Context, ModelContext, OnnxFileContext

_BATCH = 2  # with 1, `squeeze` would remove the batch dimension
_FULL_AUTOGRAD_BOXES = 40  # a larger autograd graph has one box per module
_SHOWN_NAMES = 3  # parameters named in a note


def analyze(context: ModelContext) -> Graphs:
    """Draw the context's modules, its autograd graph and its ONNX file into its folder.

    Without graphviz there are no drawings, and the viewer's layouts are in execution order.

    Raises:
        SectionError: forward raises or returns a generator.
    """
    with drawer_into(context.folder, context.name) as drawer:
        with preserve_model_state(context.model) as model:
            traced = _traced(context, model)
            _require_consumed_output(traced.trace)
            complete, roles = _complete(traced), roles_of(traced.trace)
            totals = {graph.name: len(graph.nodes) for graph in complete}
            modules = _modules(drawer, traced, totals.get("modules"))
            autograd = _autograd(drawer, traced, totals.get("autograd"))
            layouts = _layouts(complete)
        del traced  # frees the autograd graph before the export
        file = _onnx(drawer, context)
        return Graphs(
            modules=modules,
            autograd=autograd,
            onnx=file.drawing,
            complete=complete + file.complete,
            layouts=layouts + _layouts(file.complete),
            onnx_facts=file.facts,
            roles=roles,
            loss=shown_text(context.spec.loss.text),
        )


GRAPH_KINDS = ("modules", "autograd", "onnx")
"""The graphs that `draw_graph` draws."""


def draw_graph(context: ModelContext, kind: str) -> SvgPicture:
    """One graph of the model, alone.

    Args:
        context: the model; an ONNX file is exported to its folder.
        kind: one of `GRAPH_KINDS`.

    Raises:
        SectionError: graphviz is missing or exceeds its time, forward raises, or the model has no
            such graph.
    """
    with graphviz() as programs, preserve_model_state(context.model) as model:
        drawer = Drawer(graphviz=programs, write=lambda name, _content: name, subject=context.name)
        if kind == "onnx":
            graph = graph_of_model(context.onnx_proto(context.onnx_file().path))
        else:
            traced = _traced(context, model)
            _require_consumed_output(traced.trace)
            graph = module_graph(traced.trace) if kind == "modules" else _autograd_graph(traced)
        shown = drawer.picture(graph, name=kind, title=f"{kind.capitalize()} graph")
        if shown is None:
            raise SectionError(
                f"graphviz did not lay this graph out within {drawer.seconds:g} s",
                hint="draw another kind of graph, or a part of the model",
            )
        return shown


def _autograd_graph(traced: _TracedModel) -> DrawnGraph:
    if traced.gradient_error:
        raise SectionError(f"the forward pass fails with gradients: {traced.gradient_error}")
    graph = full_autograd_graph(traced.trace)
    return graph if graph.size <= _FULL_AUTOGRAD_BOXES else autograd_graph(traced.trace)


def analyze_structure(context: ModelContext) -> Graphs:
    """The module graph as data and the roles of its modules: what the rules read, not drawn.

    Raises:
        SectionError: forward raises.
    """
    with preserve_model_state(context.model) as model:
        traced = _traced(context, model)
        undrawn = missing("not drawn")
        return Graphs(
            modules=undrawn,
            autograd=undrawn,
            onnx=undrawn,
            complete=(pack_graph(complete_module_graph(traced.trace)),),
            roles=roles_of(traced.trace),
            loss=shown_text(context.spec.loss.text),
        )


def analyze_file(context: OnnxFileContext) -> Graphs:
    """Draw the operators of an ONNX file; it has no module and no autograd graph."""
    absent = missing("the source is an ONNX file without a PyTorch module")
    with drawer_into(context.folder, context.name) as drawer:
        sizes = {**context.spec.dims, "batch": context.batch}
        file = _drawn(drawer, context, context.file.path, sizes)
    return Graphs(
        modules=absent,
        autograd=absent,
        onnx=file.drawing,
        complete=file.complete,
        layouts=_layouts(file.complete),
        onnx_facts=file.facts,
    )


def complete_graphs(context: Context, kind: str) -> tuple[Graph, ...]:
    """The complete graph of `kind`, and others that come with it: no drawing, no file.

    Raises:
        SectionError: forward raises, or the export fails.
    """
    from reportgen.context import ModelContext, OnnxFileContext

    if kind == "onnx" or isinstance(context, OnnxFileContext):
        sizes = {**context.spec.dims, "batch": context.batch}
        return (complete_onnx_graph(context.onnx_proto(_file_path(context)), sizes),)
    assert isinstance(context, ModelContext)
    with preserve_model_state(context.model) as model:
        traced = _traced(context, model)
        _require_consumed_output(traced.trace)
        return tuple(map(unpack_graph, _complete(traced)))


def facts_of_file(context: Context) -> OnnxFacts:
    """What a reader wants to know of the context's ONNX file beyond its graph."""
    return _facts(context, _file_path(context))


def _facts(context: Context, path: Path) -> OnnxFacts:
    from reportgen.context import OnnxFileContext

    model = context.onnx_proto(path)
    facts = onnx_facts(model, path.parent)
    if isinstance(context, OnnxFileContext):  # others have the modules themselves
        return replace(facts, classes=module_classes(model.graph))
    return facts


def _file_path(context: Context) -> Path:
    from reportgen.context import ModelContext, OnnxFileContext

    if isinstance(context, OnnxFileContext):
        return context.file.path
    assert isinstance(context, ModelContext)
    return context.onnx_file().path


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _TracedModel:
    """A traced forward pass, its batch size, and why autograd did not record it ("" if it did)."""

    trace: Trace
    batch: int
    gradient_error: str = ""


def _traced(context: ModelContext, model: nn.Module) -> _TracedModel:
    batch = min(context.batch, _BATCH)
    try:
        return _trace(context, model, batch)
    except Exception as error:  # whatever the model raises
        if batch < context.batch:
            try:
                return _trace(context, model, context.batch)
            except Exception as again:  # it fails at the manifest's batch too
                raise _forward_failed(again) from again
        raise _forward_failed(error) from error


def _trace(context: ModelContext, model: nn.Module, batch: int) -> _TracedModel:
    """A forward pass recorded by autograd; without gradients, and with the error, if that fails.

    A model that calls `backward` in forward needs the saved tensors that the first pass drops.
    """
    try:
        try:
            trace = _pass(context, model, batch)
        except NoBackwardError:
            trace = _pass(context, model, batch, backward=True)
        return _TracedModel(trace=trace, batch=batch)
    except Exception as error:  # any error of the model; it may support inference only
        trace = _pass(context, model, batch, gradients=False, backward=True)
        return _TracedModel(trace=trace, batch=batch, gradient_error=_error_line(error))


def _pass(
    context: ModelContext,
    model: nn.Module,
    batch: int,
    *,
    gradients: bool = True,
    backward: bool = False,
) -> Trace:
    examples = context.examples(batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the model's own warnings
        return trace_forward(
            model,
            examples.args,
            examples.kwargs,
            examples.names,
            gradients=gradients,
            backward=backward,
        )


def _forward_failed(error: Exception) -> SectionError:
    found = explain_failure(error)
    of_the_compiler = type(error).__module__.startswith("torch._dynamo")
    return SectionError(
        f"the model's forward pass fails: {found}",
        hint="run forward with the manifest's inputs by hand to see the full traceback"
        if of_the_compiler  # no other inputs would avoid it
        else found.hint,
    )


def _error_line(error: Exception) -> str:
    if known := known_failure(error):
        return known.text
    return f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__


def _require_consumed_output(trace: Trace) -> None:
    if trace.returned in ("generator", "coroutine"):
        raise SectionError(
            f"forward returns a {trace.returned} that was never consumed: no module was called",
            hint="return the yielded values in a list or a tuple",
        )


def _modules(drawer: Drawer, traced: _TracedModel, total: int | None) -> Drawing:
    note = f"shapes at batch {traced.batch}"
    graph = module_graph(traced.trace)
    return drawer.draw(graph, name="modules", title="Module graph", note=note, total=total)


def _autograd(drawer: Drawer, traced: _TracedModel, total: int | None) -> Drawing:
    if traced.gradient_error:
        return missing(f"the forward pass fails with gradients: {traced.gradient_error}")
    trace = traced.trace
    try:
        graph = full_autograd_graph(trace)
        if graph.size > _FULL_AUTOGRAD_BOXES:
            graph = autograd_graph(trace)
    except SectionError as error:
        return missing(error.error)
    note = _without_gradient(trace)
    return drawer.draw(graph, name="autograd", title="Autograd graph", note=note, total=total)


def _without_gradient(trace: Trace) -> str:
    names = no_gradient(trace)
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return f"no gradient reaches {', '.join(names[:_SHOWN_NAMES])}{more}"


def _complete(traced: _TracedModel) -> tuple[StoredGraph, ...]:
    modules = complete_module_graph(traced.trace)
    autograd = () if traced.gradient_error else (complete_autograd_graph(traced.trace),)
    return tuple(pack_graph(graph) for graph in (modules, *autograd) if graph.nodes)


def _layouts(complete: tuple[StoredGraph, ...]) -> tuple[GraphLayout, ...]:
    return tuple(layout for graph in complete for layout in graph_layouts(unpack_graph(graph)))


@dataclass(frozen=True, kw_only=True, slots=True)
class _OnnxParts:
    """What comes from the ONNX file."""

    drawing: Drawing
    complete: tuple[StoredGraph, ...] = ()
    facts: OnnxFacts | None = None


def _onnx(drawer: Drawer, context: ModelContext) -> _OnnxParts:
    try:
        file = context.onnx_file()
    except SectionError as error:
        return _OnnxParts(drawing=missing(error.error))
    sizes = {**context.spec.dims, "batch": file.batch or context.batch}
    return _drawn(drawer, context, file.path, sizes)


def _drawn(drawer: Drawer, context: Context, path: Path, sizes: Mapping[str, int]) -> _OnnxParts:
    proto = context.onnx_proto(path)
    complete = complete_onnx_graph(proto, sizes)
    drawn, total = graph_of_model(proto), len(complete.nodes)
    return _OnnxParts(
        drawing=drawer.draw(drawn, name="onnx", title="ONNX graph", total=total),
        complete=(pack_graph(complete),),
        facts=_facts(context, path),
    )
