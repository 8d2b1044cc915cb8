"""Where a file leaves PyTorch: the first module, and in it the first node, that differs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.onnx.runtime import Runtime, runtime_line
from reportgen.sections.onnx.parity.case import Sides, call_tensors
from reportgen.sections.onnx.parity.compare import excess, is_beyond, tolerances
from reportgen.sections.onnx.parity.intermediates import Inside, look_inside
from reportgen.sections.onnx.parity.matching import (
    Match,
    came_in,
    match_modules,
    upstream,
)
from reportgen.sections.onnx.parity.module_calls import record_modules
from reportgen.sections.onnx.parity.suspects import Suspects, find_suspects
from reportgen.sections.onnx.parity.tracing import captured_output
from reportgen.sections.onnx.result import Divergence, OutputParity
from reportgen.units import format_error

if TYPE_CHECKING:
    from torch import Tensor

    from reportgen.onnx.runtime import Feed

_GRADUAL = 10  # a module is said to be the place where the error grows by more than this


def find_divergence(sides: Sides, path: Path, output: OutputParity) -> Divergence | None:
    """Follow a failing output back to where the two sides part.

    First without onnxruntime's optimizer. If the output still fails, what every module gives in
    the file is compared with what it gives in PyTorch, and around the first that differs every
    node with the operators of PyTorch. The program that torch.export captures tells whether the
    model itself does otherwise there. Costs a few runs of each side. None where the two sides
    give the same: an output that is NaN throughout fails, and is no difference.
    """
    search = _Search(sides=sides, path=path, output=output)
    try:
        if search.is_agreed():
            return None
        return search.optimizer() or search.tracing(search.modules())
    except Exception as error:  # a search that fails is no failure of the comparison
        return search.told("unknown", f"the place was not found: {runtime_line(error)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Search:
    sides: Sides
    path: Path
    output: OutputParity

    def told(self, cause: str, *sentences: str, **fields: Any) -> Divergence:
        """What came of it."""
        return Divergence(
            output=self.output.name,
            batch=self.sides.plan.batch,
            seed=self.sides.plan.seed,
            cause=cause,
            sentences=sentences,
            **fields,
        )

    def is_agreed(self) -> bool:
        """Whether the file gives what PyTorch does as it was run, whatever that is."""
        reference = self.sides.reference[self.output.name]
        return self._judge(reference, self.sides.found[self._place()])[0]

    def optimizer(self) -> Divergence | None:
        """The finding that the file agrees as it stands; None if it does not."""
        if not self._agrees_at("none"):
            return None
        levels = ("basic", "extended")
        level = next((level for level in levels if not self._agrees_at(level)), "all")
        return self.told(
            "optimizer",
            "the difference comes from onnxruntime's optimizer: run without it, the file agrees",
            f"it appears with the optimizations of level '{level}'",
        )

    def modules(self) -> Divergence:
        """The first module that differs, and in it the first node."""
        inside, feed = look_inside(self.path), self._feed()
        end = inside.outputs[self._place()]
        matches: dict[str, Match] = {}
        first, within = None, ""
        while True:
            calls, is_partial = record_modules(
                self.sides.context.model, self.sides.call_and_forget, within
            )
            matches |= match_modules(inside, calls, feed, self._judge)
            first = _first_wrong(inside, end, matches)
            if not is_partial or first is None or first.call.path == within:
                break
            within = first.call.path
        value = first.value if first else end
        suspects = find_suspects(
            inside,
            value,
            {name for name, match in matches.items() if match.agrees},
            feed,
            self.sides.context.model,
            self.sides.call_and_forget,
            self._judge,
        )
        return self._blame(inside, first, matches, suspects)

    def tracing(self, found: Divergence) -> Divergence:
        """`found`, or the model itself to blame, where it does something else while exported."""
        if found.cause not in ("file", "unknown"):
            return found
        captured = captured_output(self.sides, self.output.name)
        reference = self.sides.reference[self.output.name]
        if captured is None or self._judge(reference, captured)[0]:
            return found
        told = (
            "the program that torch.export captures gives the wrong values too, before any ONNX: "
            "the model's Python does something else while it is exported than when it runs"
        )
        return replace(found, cause="model", sentences=(told, *found.sentences[:1]))

    def _blame(
        self, inside: Inside, first: Match | None, matches: dict[str, Match], found: Suspects
    ) -> Divergence:
        named = found.module or (first.call.path if first else found.node.modules[-1])
        modules = dict(self.sides.context.model.named_modules())
        kind = type(modules[named]).__name__ if named in modules else ""
        where = f"{named or 'the model itself'} ({kind})" if kind else named
        return self.told(
            found.cause,
            _about_module(where, inside, first, matches),
            _about_nodes(found),
            *found.sentences,
            module=named,
            module_type=kind,
            node=found.node.proto.name,
            operator=found.node.proto.op_type,
            nodes=tuple(node.told for node in found.nodes),
            max_absolute_error=_largest(first.reference, first.found) if first else None,
        )

    def _feed(self) -> Feed:
        return self.sides.runtime.feed(call_tensors(self.sides.context, self.sides.examples()))

    def _place(self) -> int:
        return list(self.sides.reference).index(self.output.name)

    def _agrees_at(self, level: str) -> bool:
        import torch

        found = Runtime(self.path, optimization=level).run(self._feed())[self._place()]
        reference = self.sides.reference[self.output.name]
        return self._judge(reference, torch.from_numpy(found))[0]

    def _judge(self, reference: Tensor, found: Tensor) -> tuple[bool, float]:
        """Whether a value of the file is PyTorch's, and how much of the tolerance it takes."""
        asked = self.sides.context.spec.onnx.tolerance
        allowed = tolerances(reference, asked, self.sides.computed)
        share = excess(reference, found, *allowed)
        return not is_beyond(reference, found, *allowed), share


def _first_wrong(inside: Inside, end: str, matches: dict[str, Match]) -> Match | None:
    """The earliest output of a module that differs, on a way to the end where all do."""
    agreeing = {name for name, match in matches.items() if match.agrees}
    wrong = [matches[name] for name in upstream(inside, end, agreeing) if name in matches]
    wrong = [match for match in wrong if not match.agrees]
    return min(wrong, key=lambda match: inside.maker[match.value].place, default=None)


def _about_module(
    where: str, inside: Inside, first: Match | None, matches: dict[str, Match]
) -> str:
    if first is None:
        return f"the outputs of all modules within agree; the difference arises in {where} itself"
    error = _largest(first.reference, first.found)
    by = f"by up to {format_error(error)}" if error is not None else "in NaN or Inf"
    before = max((match.excess for match in came_in(inside, first.value, matches)), default=0.0)
    if before and first.excess < _GRADUAL * before:
        return (
            f"the difference grows from module to module, and {where} is the first beyond the "
            f"tolerance, {by}"
        )
    mode = "; it is in train mode" if first.call.training else ""
    return f"{where} is the first module whose output differs, {by}; what comes in agrees{mode}"


def _about_nodes(found: Suspects) -> str:
    operator = f" of {found.node.torch_operator}" if found.node.torch_operator else ""
    if len(found.nodes) == 1 or found.is_certain:
        return f"the first diverging node is {found.node.told}{operator}"
    names = ", ".join(node.told for node in found.nodes)
    return f"the first diverging node is among those{operator}: {names}"


def _largest(reference: Tensor, found: Tensor) -> float | None:
    apart = (reference.double() - found.double()).abs()
    largest = float(apart.max()) if apart.numel() else 0.0
    return largest if largest < float("inf") else None
