"""The autograd graph as data: every function of a backward pass and every parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.comparable import Graph
from reportgen.sections.graphs.autograd import needed_functions
from reportgen.sections.graphs.complete.builder import GraphBuilder, value_text
from reportgen.sections.graphs.trace import Trace, dtype_name

if TYPE_CHECKING:
    from torch.autograd.graph import Node as Function


def complete_autograd_graph(trace: Trace) -> Graph:
    """Every function that the outputs depend on, in forward order.

    A parameter and its `AccumulateGrad` are one node.
    """
    builder = GraphBuilder("autograd")
    makers = {f: o.call.path for o in trace.root.operations() for f in o.functions}
    indexes: dict[Function, int] = {}
    for function in needed_functions(trace):
        indexes[function] = _add(builder, trace, function, makers.get(function, ""))
        sources = (before for before, _ in function.next_functions)
        builder.connect((indexes[s] for s in sources if s in indexes), indexes[function])
    for output in trace.outputs:
        if output.function is not None:
            text = value_text(output.dtype, output.shape)
            index = builder.add(f"output/{output.name}", "output", "output", outputs=(text,))
            builder.connect([indexes[output.function]], index)
    return builder.graph()


def _add(builder: GraphBuilder, trace: Trace, function: Function, module: str) -> int:
    operator = type(function).__name__
    variable = getattr(function, "variable", None)
    if variable is None:
        return builder.add_operation(module, operator)
    name = trace.names.get(id(variable), "")  # "" for an input that requires a gradient
    return builder.add(
        f"parameter/{name}" if name else "input",
        operator,
        "parameter" if name else "input",
        module=name.rpartition(".")[0],
        outputs=(value_text(dtype_name(variable), variable.shape),),
    )
