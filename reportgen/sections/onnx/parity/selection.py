"""Outputs whose rows are chosen by score, and the values that they are chosen from.

A detector sorts thousands of candidates. Where their scores are equal up to rounding, as with
random weights, PyTorch and the file choose different ones, and neither is wrong. Then, and where
nothing is chosen at all, what modules compute before the first selection is compared instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils._python_dispatch import TorchDispatchMode

from reportgen.sections.onnx.parity.case import CaseRun, call_tensors
from reportgen.sections.onnx.parity.compare import Compared, excess, is_beyond, tolerances
from reportgen.sections.onnx.parity.divergence.intermediates import (
    FileGraph,
    Match,
    load_file_graph,
    match_modules,
    read_values,
)
from reportgen.sections.onnx.parity.recorders import record_module_outputs
from reportgen.sections.onnx.parity.ties import have_same_values
from reportgen.sections.onnx.parity_result import OutputParity

if TYPE_CHECKING:
    from torch import Tensor

_SELECTING = frozenset({"TopK", "NonMaxSuppression", "NonZero", "Unique", "Compress"})
_SCORES = {"topk": 0, "sort": 0, "argsort": 0, "nms": 1}  # operator: position of its scores
_SIZES = frozenset({"Shape", "Size"})  # sizes of the inputs are no values of theirs
_ROUNDING = 1e-5  # of the largest value: what float32 loses over many layers
_SEED = 30_000
_DEEPEST = 2  # dots in a module's path: heads and backbones stand there, not their layers
_BY_ROUNDING = (
    "PyTorch's own rows change if its scores change by rounding: they are too close to tell the "
    "two apart"
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selecting:
    """A file that chooses among computed values.

    Attributes:
        graph: the file.
        chosen: every value that a selection was part of computing.
    """

    graph: FileGraph
    chosen: frozenset[str]

    def modules_before(self) -> frozenset[str]:
        """The outer modules in which nothing selected is computed."""
        before, after = set[str](), set[str]()
        for node in self.graph.nodes:
            is_after = not self.chosen.isdisjoint(node.proto.output)
            (after if is_after else before).update(node.modules)
        return frozenset(path for path in before - after if path.count(".") <= _DEEPEST)


def find_selection(path: Path) -> Selecting | None:
    """The file, if it contains an operator that selects by value, and one output depends on it."""
    graph = load_file_graph(path)
    computed = {value.name for value in graph.model.graph.input} - graph.initializers
    chosen: set[str] = set()
    for node in graph.nodes:
        read = set(read_values(node.proto))
        if read & chosen or (node.proto.op_type in _SELECTING and read & computed):
            chosen.update(node.proto.output)
        elif read & computed and node.proto.op_type not in _SIZES:
            computed.update(node.proto.output)
    return Selecting(graph=graph, chosen=frozenset(chosen)) if chosen & {*graph.outputs} else None


def accept_undecided(compared: list[Compared], case_run: CaseRun) -> list[Compared]:
    """`compared`, with failing outputs passed whose rows rounding decides in PyTorch itself.

    Costs a call of PyTorch, with noise of the size of rounding in its inputs and in what it sorts.
    """
    if all(one.parity.passed for one in compared):
        return compared
    try:
        case_run.state.restore()
        with _NoisyScores():
            other = case_run.named(_with_noise(case_run).call(case_run.context.model))
    except Exception:  # the noise may lead a model to an error of its own
        return compared
    # the outputs of one selection have the same rows: what is stable in one may be so by luck
    rows = {one.parity.shape[:1] for one in compared if _changes(one.parity, case_run, other)}
    return [_undecided(one) if one.parity.shape[:1] in rows else one for one in compared]


def _changes(output: OutputParity, case_run: CaseRun, other: dict[str, Tensor]) -> bool:
    """Whether an output that fails has other rows in `other`, a call with noise."""
    if output.passed or output.name not in other:
        return False
    reference, given = case_run.reference[output.name], other[output.name]
    limits = output.absolute_tolerance, output.relative_tolerance
    # rows in another order are ties, which `accept_ties` can compare
    in_order = is_beyond(reference, given, *limits)
    return in_order and not have_same_values(reference, given, *limits)


def _undecided(one: Compared) -> Compared:
    if one.parity.passed:
        return one
    parity = replace(
        one.parity,
        passed=True,
        undecided=True,
        max_absolute_error=None,
        max_relative_error=None,
        note=_BY_ROUNDING,
    )
    return replace(one, parity=parity)


def _with_noise(case_run: CaseRun) -> Any:
    import torch
    from torch.utils._pytree import tree_map_only

    generator = torch.Generator().manual_seed(_SEED)
    examples = case_run.examples()
    args, kwargs = tree_map_only(
        torch.Tensor, lambda tensor: _noisy(tensor, generator), (examples.args, examples.kwargs)
    )
    return replace(examples, args=args, kwargs=kwargs)


def _noisy(tensor: Tensor, generator: Any) -> Tensor:
    import torch

    if not tensor.is_floating_point() or tensor.numel() == 0:
        return tensor
    scale = _ROUNDING * tensor.abs().nan_to_num(posinf=0.0).max()
    return tensor + scale * torch.randn(tensor.shape, generator=generator).to(tensor.dtype)


class _NoisyScores(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds noise to what PyTorch's operators sort or suppress by."""

    def __init__(self) -> None:
        import torch

        super().__init__()  # type: ignore[no-untyped-call]
        self._generator = torch.Generator().manual_seed(_SEED)

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        place = _SCORES.get(getattr(func, "_opname", ""))
        given = list(args)
        if place is not None and place < len(given):
            given[place] = _noisy(given[place], self._generator)
        return func(*given, **(kwargs or {}))


@dataclass(frozen=True, kw_only=True, slots=True)
class BeforeSelection:
    """What was compared before the first selection, in all cases together.

    Attributes:
        modules: paths of the modules whose outputs the rows are chosen from.
        failure: the first of them that differs, in words; "" if all agree.
    """

    modules: tuple[str, ...]
    failure: str

    def describe(self) -> str:
        """A sentence for the notes of the comparison."""
        if not self.modules:
            return "no module could be compared before the selection"
        names = ", ".join(self.modules[:_MOST_NAMES])
        more = len(self.modules) - _MOST_NAMES
        listed = f"{names} and {more} more" if more > 0 else names
        return self.failure or f"what the rows are chosen from agrees: the outputs of {listed}"


_MOST_NAMES = 4


def compare_before_selection(case_runs: Iterable[CaseRun], selecting: Selecting) -> BeforeSelection:
    """Compare the module outputs that the first selections read, in each of these cases."""
    modules: dict[str, None] = {}
    for case_run in case_runs:
        matches = _matches(case_run, selecting)
        for value in _first_met(selecting, matches):
            match = matches[value]
            modules[match.call.path or "the model itself"] = None
            if not match.agrees:
                failure = (
                    f"{match.call.path or 'the model itself'} differs before anything is selected, "
                    f"by {match.excess:.3g} times the tolerance at seed {case_run.plan.seed}"
                )
                return BeforeSelection(modules=tuple(modules), failure=failure)
    return BeforeSelection(modules=tuple(modules), failure="")


def _matches(case_run: CaseRun, selecting: Selecting) -> dict[str, Match]:
    """The outputs of modules in the file that no selection was part of."""
    feed = case_run.runtime.feed(call_tensors(case_run.context, case_run.examples()))
    model = case_run.context.model
    paths = selecting.modules_before()
    # a detector's masks are hundreds of megabytes: only what can be compared is recorded
    calls, _ = record_module_outputs(model, case_run.call_and_restore, paths=paths)
    matches = match_modules(selecting.graph, calls, feed, _judge_of(case_run))
    return {name: match for name, match in matches.items() if name not in selecting.chosen}


def _judge_of(case_run: CaseRun) -> Callable[[Tensor, Tensor], tuple[bool, float]]:
    requested = case_run.context.spec.onnx.tolerance

    def judge(reference: Tensor, found: Tensor) -> tuple[bool, float]:
        limits = tolerances(reference, requested, case_run.computed)
        return not is_beyond(reference, found, *limits), excess(reference, found, *limits)

    return judge


def _first_met(selecting: Selecting, matches: dict[str, Match]) -> list[str]:
    """The matched values that are met first on the way back from the file's outputs."""
    graph = selecting.graph
    met: dict[str, None] = {}
    seen, open_ = set(graph.outputs), list(graph.outputs)
    while open_:
        name = open_.pop()
        if name in matches:
            met[name] = None
        elif name in graph.maker:
            fresh = set(read_values(graph.maker[name].proto)) - seen
            seen |= fresh
            open_.extend(sorted(fresh))
    return sorted(met, key=lambda name: graph.maker[name].place)
