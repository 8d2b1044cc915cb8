"""Searches for the first module, and in it the first node, that differs from PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.onnx.runtime import Runtime, session_error_text
from reportgen.sections.onnx.parity.case import (
    CaseRun,
    call_tensors,
    captured_output,
    retraced_output,
)
from reportgen.sections.onnx.parity.compare import excess, is_beyond, tolerances
from reportgen.sections.onnx.parity.divergence.intermediates import (
    FileGraph,
    Match,
    agreeing_inputs,
    load_file_graph,
    match_modules,
    upstream,
)
from reportgen.sections.onnx.parity.divergence.suspects import Suspects, find_suspects
from reportgen.sections.onnx.parity.recorders import record_module_outputs
from reportgen.sections.onnx.parity_result import CallError, Divergence, OutputParity
from reportgen.units import format_error

if TYPE_CHECKING:
    from torch import Tensor

    from reportgen.onnx.export import OnnxFile
    from reportgen.onnx.export.strategy import Strategy
    from reportgen.onnx.runtime import Feed

_OTHER_PATH = (
    "with these inputs as the example, the exported file agrees: control flow, or a number that "
    "Python takes from a tensor, is fixed to that of other example inputs"
)
_GRADUAL = 10  # a module is blamed alone only if the error grows in it by more than this factor


def find_divergence(case_run: CaseRun, file: OnnxFile, output: OutputParity) -> Divergence | None:
    """Find the first module and node at which the file differs from PyTorch.

    First the file is run without onnxruntime's optimizer. If the output still fails, the outputs
    of all modules are compared, and around the first that differs the values of all nodes are
    compared with those of PyTorch's operators. The program captured by torch.export shows whether
    the model itself behaves differently during export. Costs a few runs of PyTorch and of the
    file. None if both outputs are equal.
    """
    traced = file.used if file.used is not None and file.used.traced else None
    search = _DivergenceSearch(case_run=case_run, path=file.path, output=output, traced=traced)
    try:
        if search.agrees():
            return None
        return search.optimizer() or search.tracing(search.modules())
    except Exception as error:  # a failed search must not fail the comparison
        return search.not_found(f"the search failed: {session_error_text(error)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _DivergenceSearch:
    case_run: CaseRun
    path: Path
    output: OutputParity
    traced: Strategy | None = None

    def _divergence(self, cause: str, *sentences: str, **fields: Any) -> Divergence:
        return Divergence(
            output=self.output.name,
            batch=self.case_run.plan.batch,
            seed=self.case_run.plan.seed,
            cause=cause,
            sentences=sentences,
            **fields,
        )

    def not_found(self, sentence: str) -> Divergence:
        """A search without a result, for the reason in `sentence`."""
        return self._divergence("unknown", sentence)

    def agrees(self) -> bool:
        """Whether the outputs agree: one that is all NaN fails without a difference."""
        reference = self.case_run.reference[self.output.name]
        return self._judge(reference, self.case_run.found[self._place()])[0]

    def optimizer(self) -> Divergence | None:
        """The finding that the optimizer causes the difference; None if it does not."""
        if not self._agrees_at("none"):
            return None
        levels = ("basic", "extended")
        level = next((level for level in levels if not self._agrees_at(level)), "all")
        return self._divergence(
            "optimizer",
            "the difference comes from onnxruntime's graph optimizer: without it the file agrees",
            f"it appears at optimization level '{level}'",
        )

    def modules(self) -> Divergence:
        """The first module that differs, and in it the first node."""
        # outputs of all modules may not fit into memory: then the outer ones are searched first
        file_graph, feed = load_file_graph(self.path), self._feed()
        end = file_graph.outputs[self._place()]
        matches: dict[str, Match] = {}
        first, within = None, ""
        while True:
            calls, is_partial = record_module_outputs(
                self.case_run.context.model, self.case_run.call_and_restore, within
            )
            matches |= match_modules(file_graph, calls, feed, self._judge)
            first = _first_wrong(file_graph, end, matches)
            if not is_partial or first is None or first.call.path == within:
                break
            within = first.call.path
        value = first.value if first else end
        suspects = find_suspects(
            file_graph,
            value,
            {name for name, match in matches.items() if match.agrees},
            feed,
            self.case_run.context.model,
            self.case_run.call_and_restore,
            self._judge,
        )
        return self._blame(file_graph, first, matches, suspects)

    def tracing(self, found: Divergence) -> Divergence:
        """`found`, or the model as the cause, if it behaves differently during export."""
        # other causes are proven already, and capturing the model takes long
        if found.cause not in ("file", "unknown"):
            return found
        reference = self.case_run.reference[self.output.name]
        if self.traced is not None:
            other = retraced_output(self.case_run, self.traced, self.output.name)
            is_path = other is not None and self._judge(reference, other)[0]
            return replace(found, cause="model", sentences=(_OTHER_PATH,)) if is_path else found
        captured = captured_output(self.case_run, self.output.name)
        if captured is None or self._judge(reference, captured)[0]:
            return found
        sentence = (
            "the program captured by torch.export differs from the model too, before any "
            "conversion to ONNX: the model's Python code behaves differently during export"
        )
        return replace(found, cause="model", sentences=(sentence, *found.sentences[:1]))

    def _blame(
        self, file_graph: FileGraph, first: Match | None, matches: dict[str, Match], found: Suspects
    ) -> Divergence:
        named = found.module or (first.call.path if first else found.node.modules[-1])
        modules = dict(self.case_run.context.model.named_modules())
        kind = type(modules[named]).__name__ if named in modules else ""
        where = f"{named or 'the model itself'} ({kind})" if kind else named
        return self._divergence(
            found.cause,
            _about_module(where, file_graph, first, matches),
            _about_nodes(found),
            *found.sentences,
            module=named,
            module_type=kind,
            node=found.node.proto.name,
            operator=found.node.proto.op_type,
            nodes=tuple(node.label for node in found.nodes),
            max_absolute_error=_largest(first.reference, first.found) if first else None,
            calls=tuple(_call_errors(file_graph, matches.values())),
        )

    def _feed(self) -> Feed:
        return self.case_run.runtime.feed(
            call_tensors(self.case_run.context, self.case_run.examples())
        )

    def _place(self) -> int:
        return list(self.case_run.reference).index(self.output.name)

    def _agrees_at(self, level: str) -> bool:
        import torch

        found = Runtime(self.path, optimization=level).run(self._feed())[self._place()]
        reference = self.case_run.reference[self.output.name]
        return self._judge(reference, torch.from_numpy(found))[0]

    def _judge(self, reference: Tensor, found: Tensor) -> tuple[bool, float]:
        """Whether a value is PyTorch's, and its error as a multiple of the tolerance."""
        requested = self.case_run.context.spec.onnx.tolerance
        allowed = tolerances(reference, requested, self.case_run.computed)
        share = excess(reference, found, *allowed)
        return not is_beyond(reference, found, *allowed), share


def _first_wrong(file_graph: FileGraph, end: str, matches: dict[str, Match]) -> Match | None:
    """The earliest module output that differs, on a path to `end` on which all values differ."""
    agreeing = {name for name, match in matches.items() if match.agrees}
    wrong = [matches[name] for name in upstream(file_graph, end, agreeing) if name in matches]
    wrong = [match for match in wrong if not match.agrees]
    return min(wrong, key=lambda match: file_graph.maker[match.value].place, default=None)


def _call_errors(file_graph: FileGraph, matches: Iterable[Match]) -> Iterator[CallError]:
    for match in matches:
        yield CallError(
            path=match.call.path,
            call=match.call.number,
            node=file_graph.maker[match.value].proto.name,
            max_absolute_error=_largest(match.reference, match.found),
            agrees=match.agrees,
        )


def _about_module(
    where: str, file_graph: FileGraph, first: Match | None, matches: dict[str, Match]
) -> str:
    if first is None:
        return f"the outputs of all submodules agree; the difference arises in {where} itself"
    error = _largest(first.reference, first.found)
    by = f"by up to {format_error(error)}" if error is not None else "in NaN or Inf"
    before = max(
        (match.excess for match in agreeing_inputs(file_graph, first.value, matches)), default=0.0
    )
    # its inputs pass, but are nearly as far off: rounding adds up over the modules
    if before and first.excess < _GRADUAL * before:
        return (
            f"the difference grows from module to module, and {where} is the first beyond the "
            f"tolerance, {by}"
        )
    mode = "; it is in train mode" if first.call.training else ""
    return f"{where} is the first module whose output differs, {by}; its inputs agree{mode}"


def _about_nodes(found: Suspects) -> str:
    operator = f" of {found.node.torch_operator}" if found.node.torch_operator else ""
    if len(found.nodes) == 1 or found.is_certain:
        return f"the first diverging node is {found.node.label}{operator}"
    names = ", ".join(node.label for node in found.nodes)
    return f"the first diverging node is one of these{operator}: {names}"


def _largest(reference: Tensor, found: Tensor) -> float | None:
    apart = (reference.double() - found.double()).abs()
    largest = float(apart.max()) if apart.numel() else 0.0
    return largest if largest < float("inf") else None  # NaN is not less either
