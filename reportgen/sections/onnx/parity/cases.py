"""The cases of a parity check: which inputs, one run of each side, what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from reportgen.error_text import one_line
from reportgen.onnx.runtime import CannotRunError, Runtime, runtime_line
from reportgen.sections.onnx.parity.case import (
    Sides,
    call_again,
    call_tensors,
    copies,
    named_outputs,
)
from reportgen.sections.onnx.parity.compare import (
    Compared,
    compare,
    is_beyond,
    varies,
)
from reportgen.sections.onnx.parity.float64_reference import excuse_rounding
from reportgen.sections.onnx.parity.histogram import error_histogram
from reportgen.sections.onnx.parity.plans import Plan, do_seeds_matter
from reportgen.sections.onnx.parity.precision import computing_dtype
from reportgen.sections.onnx.parity.random_ops import find_draws
from reportgen.sections.onnx.parity.state import State
from reportgen.sections.onnx.parity.ties import excuse_ties
from reportgen.sections.onnx.result import (
    ErrorHistogram,
    OutputParity,
    ParityCase,
    SecondCall,
)

if TYPE_CHECKING:
    from torch import Tensor

    from reportgen.context import ModelContext


@dataclass(slots=True)
class Outcome:
    """What a row of cases showed.

    Attributes:
        cases: each case compared, in the order of the plans.
        unvarying: outputs for which a constant would have passed in every case.
        deaf: outputs that did not depend on the input in any two cases of the same size.
        notes: plans that PyTorch itself could not do.
        second: the second call in a row, where it was made.
        draws: where PyTorch draws random numbers, if it does.
        smallest: the first failing case of the smallest batch, with what both sides gave.
    """

    cases: tuple[ParityCase, ...] = ()
    unvarying: frozenset[str] = frozenset()
    deaf: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    second: SecondCall | None = None
    draws: tuple[str, ...] = ()
    smallest: Sides | None = None
    _worst: tuple[float, Sides] | None = None

    def retry(self, other: Outcome) -> None:
        """Take the place of these cases, but keep what was said of them."""
        self.cases, self.unvarying, self.deaf = other.cases, other.unvarying, other.deaf
        self.second, self.smallest, self.draws = other.second, other.smallest, other.draws
        self._worst = other._worst
        self.notes = tuple(dict.fromkeys((*self.notes, *other.notes)))

    @property
    def is_empty(self) -> bool:
        """Whether no output held a single element in any case: a detector found nothing."""
        outputs = [output for case in self.cases for output in case.outputs]
        return bool(outputs) and all(0 in output.shape for output in outputs)

    @property
    def passed(self) -> bool:
        """Whether every case did."""
        return all(case.passed for case in self.cases)

    def keep(self, case: ParityCase, sides: Sides) -> None:
        """Keep what both sides gave in this case, if it is the worst or the smallest failing."""
        if not case.outputs:
            return
        badness = max(map(_badness, case.outputs))
        if self._worst is None or badness > self._worst[0]:
            self._worst = badness, sides
        smaller = self.smallest is None or case.batch < self.smallest.plan.batch
        if not case.passed and smaller:
            self.smallest = sides

    def fail_at(self, sides: list[Sides]) -> None:
        """Only these cases fail after all; the smallest is run anew if it was another's place."""
        plans = [each.plan for each in sides]
        if self.smallest is None or self.smallest.plan in plans:
            return
        self.smallest = min(sides, key=lambda each: each.plan.batch, default=None)
        if self.smallest is not None:
            self.smallest.call_both()

    def histograms(self) -> tuple[ErrorHistogram, ...]:
        """How far the outputs of the worst case are off, element by element."""
        if self._worst is None:
            return ()
        sides = self._worst[1]
        made = (
            error_histogram(name, tensor, given, batch=sides.plan.batch, seed=sides.plan.seed)
            for (name, tensor), given in zip(sides.reference.items(), sides.found, strict=True)
        )
        perturbed = any(case.perturbed for case in self.cases)
        return tuple(replace(each, perturbed=perturbed) for each in made if each is not None)


def run_plans(
    context: ModelContext, runtime: Runtime, plans: list[Plan], *, perturbed: bool = False
) -> Outcome:
    """Compare the two sides on every plan that PyTorch itself can do.

    Every case meets the model as it was before the first: what a call changes in it is put back.
    The plain cases begin with a second call in a row on both sides, on the inputs of the first.

    Raises:
        CannotRunError: onnxruntime cannot take inputs of this kind, or forward gives no tensor.
    """
    outcome, seen, state = Outcome(), _Seen(context), State(context.model, whole=True)
    cases, notes, done = list[ParityCase](), list[str](), list[Sides]()
    computed = computing_dtype(context.model, context.examples(1))
    is_stateful = False
    for plan in plans:
        if is_stateful:
            state.restore()
        sides = Sides(context=context, plan=plan, runtime=runtime, state=state, computed=computed)
        try:
            output = sides.call()
            sides.reference = sides.named(output)
        except Exception as error:
            notes.append(_cannot(plan, error))
            continue
        if not sides.reference:
            raise CannotRunError(_no_tensor(output))
        if is_stateful:  # what it gives may be what it keeps, and change with the next call
            sides.reference = copies(sides.reference)
        case, compared = _run_case(sides)
        cases.append(replace(case, perturbed=perturbed))
        if len(cases) == 1:
            is_stateful = bool(state.changes())
            if not perturbed:
                outcome.second = call_again(sides)
                outcome.draws = _draws(sides, outcome.second)
        outcome.keep(cases[-1], sides)
        done.append(replace(sides, reference={}, found=[]))
        tensors = named_outputs(output)  # a size says nothing of the inputs' values
        seen.add(plan, [each for each in compared if each.parity.name in tensors], sides.reference)
    if not all(case.passed for case in cases):
        cases = list(excuse_rounding(cases, done))
        outcome.fail_at([each for each, case in zip(done, cases, strict=True) if not case.passed])
    if is_stateful:
        state.restore()
    unvarying = seen.unvarying()
    outcome.cases = tuple(_with_vacuous(case, unvarying) for case in cases)
    outcome.unvarying, outcome.deaf = unvarying, seen.deaf()
    outcome.notes = tuple(dict.fromkeys(notes))
    return outcome


def _draws(sides: Sides, second: SecondCall | None) -> tuple[str, ...]:
    """Where a call draws, if the first one moved torch's random state or chance showed in two."""
    by_chance = second is not None and not second.pytorch_repeats and not second.state
    if not by_chance and not sides.drew:
        return ()
    return find_draws(sides.context.model, sides.call_afresh)


def _run_case(sides: Sides) -> tuple[ParityCase, list[Compared]]:
    plan, reference = sides.plan, sides.reference
    try:
        sides.found = sides.run()
    except CannotRunError:
        raise
    except Exception as error:
        return _case(plan, [], f"onnxruntime fails: {runtime_line(error)}", passed=False), []
    if len(sides.found) != len(reference):
        note = f"PyTorch returns {len(reference)} tensors, the file {len(sides.found)}"
        return _case(plan, [], note, passed=False), []
    tolerance = sides.context.spec.onnx.tolerance
    compared = [
        compare(name, tensor, given, tolerance, sides.computed)
        for (name, tensor), given in zip(reference.items(), sides.found, strict=True)
    ]
    compared = excuse_ties(compared, list(reference.values()), sides.found, sides.call_afresh)
    outputs = [one.parity for one in compared]
    return _case(plan, outputs, "", passed=all(output.passed for output in outputs)), compared


def _case(plan: Plan, outputs: list[OutputParity], note: str, *, passed: bool) -> ParityCase:
    return ParityCase(
        batch=plan.batch,
        seed=plan.seed,
        perturbed=False,
        max_absolute_error=_worst([output.max_absolute_error for output in outputs]),
        max_relative_error=_worst([output.max_relative_error for output in outputs]),
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


def _worst(errors: list[float | None]) -> float | None:
    """The largest error; None when one of them is not finite, or there is none."""
    known = [error for error in errors if error is not None]
    return max(known) if known and len(known) == len(errors) else None


def _cannot(plan: Plan, error: Exception) -> str:
    sizes = {"batch": plan.batch, **plan.dims}
    text = ", ".join(f"{dim} {size}" for dim, size in sizes.items())
    return f"PyTorch itself fails at {text}: {type(error).__name__}: {one_line(error)}"


def _no_tensor(output: object) -> str:
    """Why an output of PyTorch cannot be compared."""
    return f"forward returns {type(output).__name__}, not a tensor: there is nothing to compare"


def _with_vacuous(case: ParityCase, unvarying: frozenset[str]) -> ParityCase:
    outputs = tuple(replace(output, vacuous=output.name in unvarying) for output in case.outputs)
    return replace(case, outputs=outputs)


class _Seen:
    """What the references of all cases were like, without keeping more than one of them."""

    def __init__(self, context: ModelContext) -> None:
        self._can_ask = do_seeds_matter(context.spec)
        self._ranges: dict[str, list[Compared]] = {}
        self._last: tuple[int, dict[str, int], dict[str, Tensor]] | None = None
        self._listened: set[str] = set()
        self._asked: set[str] = set()

    def add(self, plan: Plan, compared: list[Compared], reference: dict[str, Tensor]) -> None:
        last, self._last = self._last, (plan.batch, plan.dims, reference)
        for one in compared:
            name = one.parity.name
            self._ranges.setdefault(name, []).append(one)
            earlier = last[2].get(name) if last and last[:2] == (plan.batch, plan.dims) else None
            if not self._can_ask or earlier is None or earlier.numel() == 0:
                continue
            self._asked.add(name)
            tolerance = one.parity.absolute_tolerance, one.parity.relative_tolerance
            if is_beyond(reference[name], earlier, *tolerance):
                self._listened.add(name)

    def deaf(self) -> frozenset[str]:
        return frozenset(self._asked - self._listened)

    def unvarying(self) -> frozenset[str]:
        return frozenset(name for name, seen in self._ranges.items() if not _varies(seen))


def _varies(seen: list[Compared]) -> bool:
    """Whether some constant could not have passed in all cases; zero elements ask for none."""
    lows = [one.lowest for one in seen if one.lowest is not None]
    highs = [one.highest for one in seen if one.highest is not None]
    if not lows:
        return all(0 in one.parity.shape for one in seen)
    absolute = max(one.parity.absolute_tolerance for one in seen)
    relative = max(one.parity.relative_tolerance for one in seen)
    return varies(min(lows), max(highs), absolute, relative)


__all__ = ["CannotRunError", "Outcome", "call_tensors", "run_plans"]
