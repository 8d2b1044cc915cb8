"""The module graph as data: every call of a module without submodule calls, every function."""

from __future__ import annotations

from collections.abc import Iterable

from reportgen.comparable import Graph
from reportgen.sections.graphs.complete.builder import GraphBuilder, value_text
from reportgen.sections.graphs.trace import Call, Operation, TensorSource, Trace


def complete_module_graph(trace: Trace) -> Graph:
    """The modules that ran, the functions between them, inputs, outputs and parameters.

    Parameters are those that a function outside of the innermost modules reads.
    """
    return _ModuleGraph(trace).graph()


class _ModuleGraph:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._builder = GraphBuilder("modules")
        self._indexes: dict[int, int] = {}  # id of an operation or a source -> index of its node
        self._bytes: dict[int, int] = {}  # of results, by index

    def graph(self) -> Graph:
        for source in self._trace.sources:
            if source.kind == "input":
                self._source(source)
        self._members(self._trace.root)
        for output in self._trace.outputs:
            index = self._builder.add(
                f"output/{output.name}",
                "output",
                "output",
                outputs=(value_text(output.dtype, output.shape),),
            )
            self._connect([output.maker] if output.maker is not None else [], index)
        return self._builder.graph(figures={"bytes": self._bytes})

    def _members(self, call: Call) -> None:
        for member in call.members:
            if isinstance(member, Operation):
                self._parameters(member)
                index = self._builder.add_operation(
                    call.path,
                    member.name,
                    attributes=member.arguments,
                    outputs=_texts(member),
                )
                self._indexes[id(member)] = index
                self._bytes[index] = member.bytes
                self._connect(member.sources, index)
            elif member.is_leaf:
                self._leaf(member)
            else:
                self._members(member)

    def _leaf(self, call: Call) -> None:
        index = self._builder.add(
            call.path, call.title, "module", module=call.path, outputs=_texts(call)
        )
        self._bytes[index] = call.bytes
        for operation in call.operations():
            self._indexes[id(operation)] = index
            self._connect(operation.sources, index)

    def _parameters(self, operation: Operation) -> None:
        for source in operation.sources:
            if isinstance(source, TensorSource) and id(source) not in self._indexes:
                self._source(source)

    def _source(self, source: TensorSource) -> None:
        owner = source.name.rpartition(".")[0] if source.kind == "parameter" else ""
        self._indexes[id(source)] = self._builder.add(
            f"{source.kind}/{source.name}",
            source.kind,
            source.kind,
            module=owner,
            outputs=(value_text(source.dtype, source.shape),),
        )

    def _connect(self, sources: Iterable[Operation | TensorSource], index: int) -> None:
        known = [self._indexes[id(source)] for source in sources if id(source) in self._indexes]
        self._builder.connect(known, index)


def _texts(made: Operation | Call) -> tuple[str, ...]:
    return tuple(map(value_text, made.dtypes, made.shapes))
