"""How the three graphs of a context are read and drawn."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reportgen.error_text import one_line
from reportgen.errors import SectionError
from reportgen.model_state import preserve_model_state
from reportgen.sections.graphs.autograd import autograd_graph, full_autograd_graph, no_gradient
from reportgen.sections.graphs.draw import Drawer, file_writer
from reportgen.sections.graphs.graphviz_runner import graphviz
from reportgen.sections.graphs.modules import module_graph
from reportgen.sections.graphs.onnx_graph import onnx_graph
from reportgen.sections.graphs.result import Drawing, Graphs, missing
from reportgen.sections.graphs.trace import NoBackwardError, Trace, trace_forward

if TYPE_CHECKING:
    from torch import nn

    from reportgen.context import ModelContext, OnnxFileContext

_BATCH = 2  # enough to draw, and no dimension of one to be squeezed away
_CLASSIC = 40  # boxes up to which autograd is drawn node by node
_TOLD = 3  # parameters named in a note


def analyze(context: ModelContext) -> Graphs:
    """Draw the context's modules, its autograd graph and its ONNX file into its folder.

    Raises:
        SectionError: graphviz is missing, or the model's forward pass raises or gives a generator.
    """
    with graphviz() as programs:
        drawer = Drawer(graphviz=programs, write=file_writer(context.folder), subject=context.name)
        with preserve_model_state(context.model) as model:
            trace, batch = _traced(context, model)
            _refuse_what_nobody_ran(trace)
            modules = _modules(drawer, trace, batch)
            autograd = _autograd(drawer, trace)
        del trace
        return Graphs(modules=modules, autograd=autograd, onnx=_onnx(drawer, context))


def analyze_file(context: OnnxFileContext) -> Graphs:
    """Draw the nodes of an ONNX file; there is nothing else to draw of one.

    Raises:
        SectionError: graphviz is missing.
    """
    absent = missing("the source is an ONNX file, which holds no PyTorch module")
    with graphviz() as programs:
        drawer = Drawer(graphviz=programs, write=file_writer(context.folder), subject=context.name)
        drawing = _drawn(drawer, context.file.path)
    return Graphs(modules=absent, autograd=absent, onnx=drawing)


def _traced(context: ModelContext, model: nn.Module) -> tuple[Trace, int]:
    """One forward pass at a small batch, or at the manifest's where the model wants that."""
    batch = min(context.batch, _BATCH)
    try:
        return _trace(context, model, batch), batch
    except Exception as error:  # whatever the model raises
        if batch < context.batch:
            try:
                return _trace(context, model, context.batch), context.batch
            except Exception as again:  # the same at the batch that was asked for
                raise _forward_failed(again) from again
        raise _forward_failed(error) from error


def _trace(context: ModelContext, model: nn.Module, batch: int) -> Trace:
    """A pass that autograd records, or else one as in inference, with the reason.

    A model that takes gradients itself needs what the first pass does not keep.
    """
    try:
        try:
            return _pass(context, model, batch)
        except NoBackwardError:
            return _pass(context, model, batch, backward=True)
    except Exception as error:  # the model's own; it may only be fit for inference
        trace = _pass(context, model, batch, gradients=False, backward=True)
        return replace(trace, no_gradients=_told(error))


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
        warnings.simplefilter("ignore")  # the model's own, told by no other section twice
        return trace_forward(
            model,
            examples.args,
            examples.kwargs,
            examples.names,
            gradients=gradients,
            backward=backward,
        )


def _forward_failed(error: Exception) -> SectionError:
    of_the_model = isinstance(error, RecursionError | NotImplementedError)
    of_the_compiler = type(error).__module__.startswith("torch._dynamo")
    return SectionError(
        f"the model's forward pass raises {_told(error)}",
        hint="run forward with the manifest's inputs by hand to see the whole story"
        if of_the_model or of_the_compiler
        else "do the manifest's inputs have the names, shapes and dtypes that forward takes?",
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__


def _refuse_what_nobody_ran(trace: Trace) -> None:
    if trace.returned in ("generator", "coroutine"):
        raise SectionError(
            f"forward returns a {trace.returned} that nobody has run: no module was called",
            hint="return what it yields, in a list or a tuple",
        )


def _modules(drawer: Drawer, trace: Trace, batch: int) -> Drawing:
    return drawer.draw(
        module_graph(trace), name="modules", title="Module graph", note=f"shapes at batch {batch}"
    )


def _autograd(drawer: Drawer, trace: Trace) -> Drawing:
    if trace.no_gradients:
        return missing(f"the forward pass fails with gradients: {trace.no_gradients}")
    try:
        graph = full_autograd_graph(trace)
        total = graph.size
        if total > _CLASSIC:
            graph = autograd_graph(trace)
    except SectionError as error:
        return missing(error.error)
    note = _without_gradient(trace)
    return drawer.draw(graph, name="autograd", title="Autograd graph", note=note, total=total)


def _without_gradient(trace: Trace) -> str:
    names = no_gradient(trace)
    if not names:
        return ""
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return f"no gradient reaches {', '.join(names[:_TOLD])}{more}"


def _onnx(drawer: Drawer, context: ModelContext) -> Drawing:
    try:
        file = context.onnx_file()
    except SectionError as error:
        return missing(error.error)
    return _drawn(drawer, file.path)


def _drawn(drawer: Drawer, path: Path) -> Drawing:
    return drawer.draw(onnx_graph(path), name="onnx", title="ONNX graph")
