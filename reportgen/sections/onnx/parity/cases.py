"""Runs the cases of a parity check and collects their results."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from reportgen.known_failures import failure_text, known_failure
from reportgen.onnx.runtime import OnnxRuntimeError, Runtime, session_error_text
from reportgen.sections.onnx.parity.case import (
    CasePlan,
    CaseRun,
    call_again,
    copies,
    named_outputs,
    one_larger,
    seeds_change_inputs,
)
from reportgen.sections.onnx.parity.compare import (
    Compared,
    compare,
    computing_dtype,
    is_beyond,
    varies,
)
from reportgen.sections.onnx.parity.float64_reference import accept_rounding
from reportgen.sections.onnx.parity.fused_path import compare_fused, worse_of
from reportgen.sections.onnx.parity.histogram import error_histogram
from reportgen.sections.onnx.parity.recorders import find_random_operators
from reportgen.sections.onnx.parity.selection import accept_undecided
from reportgen.sections.onnx.parity.state import State
from reportgen.sections.onnx.parity.ties import accept_ties
from reportgen.sections.onnx.parity_result import (
    ErrorHistogram,
    FusedPath,
    OutputParity,
    ParityCase,
    SecondCall,
)

if TYPE_CHECKING:
    from torch import Tensor

    from reportgen.context import ModelContext


@dataclass(slots=True)
class CaseResults:
    """The results of several cases.

    Attributes:
        cases: each case compared, in the order of the plans.
        unvarying: outputs for which a constant would have passed in every case.
        input_independent: outputs that were equal in all cases of the same size.
        notes: errors of plans at which PyTorch itself fails.
        second: the second call in a row, where it was made.
        fused_path: PyTorch with its fused path, where it was compared.
        random_operators: PyTorch's operators that draw random numbers, with their locations.
        smallest: the first failing case of the smallest batch, with the outputs of both.
        case_runs: the runs of `cases`, in the same order, without their outputs.
        is_partial: only the first plan was run, because its outputs prove nothing.
    """

    cases: tuple[ParityCase, ...] = ()
    unvarying: frozenset[str] = frozenset()
    input_independent: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    second: SecondCall | None = None
    fused_path: FusedPath | None = None
    random_operators: tuple[str, ...] = ()
    smallest: CaseRun | None = None
    case_runs: tuple[CaseRun, ...] = ()
    is_partial: bool = False
    _worst: tuple[float, CaseRun] | None = None
    _fused_batches: set[int] = field(default_factory=set)

    @property
    def is_empty(self) -> bool:
        """Whether every output was empty in every case: a detector found nothing."""
        outputs = [output for case in self.cases for output in case.outputs]
        return bool(outputs) and all(0 in output.shape for output in outputs)

    @property
    def passed(self) -> bool:
        """Whether every case passed."""
        return all(case.passed for case in self.cases)

    def keep(self, case: ParityCase, case_run: CaseRun) -> None:
        """Keep the outputs of this case if it is the worst or the smallest failing one."""
        if not case.outputs:
            return
        badness = max(map(_badness, case.outputs))
        if self._worst is None or badness > self._worst[0]:
            self._worst = badness, case_run
        smaller = self.smallest is None or case.batch < self.smallest.plan.batch
        if not case.passed and smaller:
            self.smallest = case_run

    def call_again(self, case_run: CaseRun | None) -> None:
        """Call PyTorch and the file a second time on the inputs of this case, unless it is None."""
        if case_run is not None:
            self.second = call_again(case_run)
            self.random_operators = _random_operators(case_run, self.second)

    def add_fused_path(self, case_run: CaseRun, case: ParityCase | None) -> None:
        """Compare the case with PyTorch's fused path as well, the first one of each batch size."""
        if case is not None and case.batch not in self._fused_batches:
            self._fused_batches.add(case.batch)
            case_run.reference = copies(case_run.reference)  # may alias the state
            self.fused_path = worse_of(self.fused_path, compare_fused(case_run, case))

    def fail_at(self, case_runs: list[CaseRun]) -> None:
        """Reduce the failures to these cases; the smallest is run again if it changed."""
        plans = [each.plan for each in case_runs]
        if self.smallest is None or self.smallest.plan in plans:
            return
        self.smallest = min(case_runs, key=lambda each: each.plan.batch, default=None)
        if self.smallest is not None:
            self.smallest.call_both()

    def histograms(self) -> tuple[ErrorHistogram, ...]:
        """The errors of the worst case, by element."""
        if self._worst is None:
            return ()
        case_run = self._worst[1]
        made = (
            error_histogram(name, tensor, given, batch=case_run.plan.batch, seed=case_run.plan.seed)
            for (name, tensor), given in zip(
                case_run.reference.items(), case_run.found, strict=True
            )
        )
        perturbed = any(case.perturbed for case in self.cases)
        return tuple(replace(each, perturbed=perturbed) for each in made if each is not None)


def run_plans(
    context: ModelContext,
    runtime: Runtime,
    plans: list[CasePlan],
    *,
    perturbed: bool = False,
    has_fused_path: bool = False,
    selects: bool = False,
    first_if_constant: bool = False,
) -> CaseResults:
    """Compare the file with PyTorch on every plan at which PyTorch itself runs.

    Every case starts with the model's original state. Without `perturbed`, the first case is
    followed by a second call of PyTorch and of the file on the same inputs. With `has_fused_path`
    the first case of each batch size is compared with that path as well. If the file `selects` rows
    by score, those that rounding decides are accepted. With `first_if_constant`, nothing is run
    after a first case whose outputs a constant would match.

    Raises:
        OnnxRuntimeError: onnxruntime does not support such inputs, or forward returns no tensor.
    """
    outcome, seen, state = (
        CaseResults(),
        _OutputVariation(context),
        State(context.model, copy_parameters=True),
    )
    cases, notes, done = list[ParityCase](), list[str](), list[CaseRun]()
    computed = computing_dtype(context.model, context.examples(1))
    is_stateful = False
    waiting = list(plans)  # grows where only a larger size runs
    for plan in waiting:
        if is_stateful:
            state.restore()
        case_run = CaseRun(
            context=context, plan=plan, runtime=runtime, state=state, computed=computed
        )
        try:
            output = case_run.call()
            case_run.reference = case_run.named(output)
        except Exception as error:  # the model's own code: any class
            # fewer nodes than the edges of a graph name do not run, more do
            waiting += (larger := one_larger(plan, context.spec))
            notes += [] if larger else [_pytorch_failure(plan, error, is_first=not cases)]
            continue
        if not case_run.reference:
            raise OnnxRuntimeError(
                f"forward returns {type(output).__name__}, not a tensor: nothing to compare"
            )
        if is_stateful:  # the output may alias the model's state, which the next call changes
            case_run.reference = copies(case_run.reference)
        case, compared = _run_case(case_run, selects=selects)
        cases.append(replace(case, perturbed=perturbed))
        if len(cases) == 1:  # most models keep no state, and need no restoring before each case
            is_stateful = bool(state.changes())
            outcome.call_again(None if perturbed else case_run)
        outcome.add_fused_path(case_run, case if has_fused_path else None)
        outcome.keep(cases[-1], case_run)
        # without outputs: those of all cases together may not fit into memory
        done.append(replace(case_run, reference={}, found=[]))
        tensors = named_outputs(output)  # sizes do not depend on the inputs' values
        of_tensors = [each for each in compared if each.parity.name in tensors]
        seen.add(plan, of_tensors, case_run.reference)
        if first_if_constant and case.passed and seen.unvarying():
            outcome.is_partial = len(plans) > 1
            break
    if not all(case.passed for case in cases):  # costs a few more calls of every case
        cases = list(accept_rounding(cases, done))
        outcome.fail_at([each for each, case in zip(done, cases, strict=True) if not case.passed])
    if is_stateful:
        state.restore()
    unvarying = seen.unvarying()
    outcome.case_runs = tuple(done)
    outcome.cases = tuple(_with_vacuous(case, unvarying) for case in cases)
    outcome.unvarying, outcome.input_independent = unvarying, seen.input_independent()
    outcome.notes = tuple(dict.fromkeys(notes))
    return outcome


def _random_operators(case_run: CaseRun, second: SecondCall | None) -> tuple[str, ...]:
    """Where PyTorch draws random numbers, if its RNG state moved or two calls differ."""
    # a generator of the model's own moves without torch's default one
    by_chance = second is not None and not second.pytorch_repeats and not second.state
    if not by_chance and not case_run.drew:
        return ()
    return find_random_operators(case_run.context.model, case_run.call_restored)


def _run_case(case_run: CaseRun, *, selects: bool) -> tuple[ParityCase, list[Compared]]:
    plan, reference = case_run.plan, case_run.reference
    try:
        case_run.found = case_run.run()
    except OnnxRuntimeError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base class
        return _case(plan, [], f"onnxruntime fails: {session_error_text(error)}", passed=False), []
    if len(case_run.found) != len(reference):
        note = f"PyTorch returns {len(reference)} tensors, the file {len(case_run.found)}"
        return _case(plan, [], note, passed=False), []
    tolerance = case_run.context.spec.onnx.tolerance
    compared = [
        compare(name, tensor, given, tolerance, case_run.computed)
        for (name, tensor), given in zip(reference.items(), case_run.found, strict=True)
    ]
    if selects:  # first, since a detector has hundreds of selections in which ties are looked for
        compared = accept_undecided(compared, case_run)
    compared = accept_ties(
        compared, list(reference.values()), case_run.found, case_run.call_restored
    )
    outputs = [one.parity for one in compared]
    return _case(plan, outputs, "", passed=all(output.passed for output in outputs)), compared


def _case(plan: CasePlan, outputs: list[OutputParity], note: str, *, passed: bool) -> ParityCase:
    return ParityCase(
        batch=plan.batch,
        seed=plan.seed,
        perturbed=False,
        max_absolute_error=_largest_error([output.max_absolute_error for output in outputs]),
        max_relative_error=_largest_error([output.max_relative_error for output in outputs]),
        passed=passed,
        outputs=tuple(outputs),
        dims=plan.dims,
        note=note,
    )


def _badness(output: OutputParity) -> float:
    """The largest error as a multiple of the absolute tolerance; failing outputs come first."""
    error = math.inf if output.max_absolute_error is None else output.max_absolute_error
    share = error / output.absolute_tolerance if output.absolute_tolerance else error
    return share if output.passed else math.inf


def _largest_error(errors: list[float | None]) -> float | None:
    """The largest error; None when one of them is not finite, or there is none."""
    known = [error for error in errors if error is not None]
    return max(known) if known and len(known) == len(errors) else None


def _pytorch_failure(plan: CasePlan, error: Exception, *, is_first: bool) -> str:
    known = known_failure(error)
    if known and known.by_inputs and is_first:  # one reason, not one for every size
        raise OnnxRuntimeError(f"PyTorch itself fails: {known.text}") from error
    sizes = {"batch": plan.batch, **plan.dims}
    text = ", ".join(f"{dim} {size}" for dim, size in sizes.items())
    return f"PyTorch itself fails at {text}: {failure_text(error)}"


def _with_vacuous(case: ParityCase, unvarying: frozenset[str]) -> ParityCase:
    outputs = tuple(replace(output, vacuous=output.name in unvarying) for output in case.outputs)
    return replace(case, outputs=outputs)


class _OutputVariation:
    """How PyTorch's outputs vary over all cases, without keeping more than one of them."""

    def __init__(self, context: ModelContext) -> None:
        self._seeds_matter = seeds_change_inputs(context.spec)
        self._ranges: dict[str, list[Compared]] = {}
        self._last: tuple[int, dict[str, int], dict[str, Tensor]] | None = None
        self._input_dependent: set[str] = set()
        self._checked: set[str] = set()

    def add(self, plan: CasePlan, compared: list[Compared], reference: dict[str, Tensor]) -> None:
        last, self._last = self._last, (plan.batch, plan.dims, reference)
        for one in compared:
            name = one.parity.name
            self._ranges.setdefault(name, []).append(one)
            earlier = last[2].get(name) if last and last[:2] == (plan.batch, plan.dims) else None
            if not self._seeds_matter or earlier is None or earlier.numel() == 0:
                continue
            self._checked.add(name)
            tolerance = one.parity.absolute_tolerance, one.parity.relative_tolerance
            if is_beyond(reference[name], earlier, *tolerance):
                self._input_dependent.add(name)

    def input_independent(self) -> frozenset[str]:
        return frozenset(self._checked - self._input_dependent)

    def unvarying(self) -> frozenset[str]:
        return frozenset(name for name, seen in self._ranges.items() if not _varies(seen))


def _varies(seen: list[Compared]) -> bool:
    """Whether no constant could have passed in all cases."""
    lows = [one.lowest for one in seen if one.lowest is not None]
    highs = [one.highest for one in seen if one.highest is not None]
    if not lows:  # an empty output proves as little as a constant, but is noted apart (`is_empty`)
        return all(0 in one.parity.shape for one in seen)
    absolute = max(one.parity.absolute_tolerance for one in seen)
    relative = max(one.parity.relative_tolerance for one in seen)
    return varies(min(lows), max(highs), absolute, relative)
