"""What the behavior section says of a model, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]
Verdict = Literal["yes", "no", "not run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One question put to the model by running it, and its answer.

    Attributes:
        name: the probe's key: `repeatable`, `batch_of_one`, `size_height_and_width`.
        claim: what a `yes` says, as a heading.
        verdict: whether it holds; `not run` where it could not be asked, with the reason.
        sentence: the answer in one sentence.
        evidence: what was seen, a line each.
        where: the places in question: paths of modules, names of parameters, buffers or inputs.
        expected: whether a sound model says yes; a `no` is only a property otherwise.
    """

    name: str
    claim: str
    verdict: Verdict
    sentence: str
    evidence: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    expected: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputForm:
    """One tensor that a forward pass returns."""

    key: str  # where in the output it stands; "" for an output that is one tensor
    dtype: str
    shape: Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Mode:
    """One forward pass of a tiny batch in evaluation or in training mode."""

    outputs: tuple[OutputForm, ...]
    operators: int | None  # calls of operators, views included
    written_bytes: int | None  # results of all operators that are no views and not in place
    saved_bytes: int | None  # kept for the backward pass, parameters and buffers left out
    error: str = ""  # why the model does not run in this mode


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorCounts:
    """An operator that is called more often in one mode than in the other."""

    operator: str
    evaluation: int
    training: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleGroup:
    """Modules of one type that behave differently in training mode for one reason."""

    type: str
    reason: str
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Behavior:
    """How the model behaves in its two modes and under every probe.

    Attributes:
        batch: how many samples the probes run at once.
        seed: of the inputs and of whatever the model draws.
        method: `fake` where modes and sizes were compared on shapes alone.
        evaluation: a pass in evaluation mode.
        training: a pass in training mode.
        operators: those whose number differs between the modes.
        modules: those that behave differently in training mode.
        changed_buffers: what a training pass changes, by name; None where none was run.
        remarks: settings of dropout and normalization that surprise, a sentence each.
        probes: in reading order.
    """

    batch: int
    seed: int
    method: Literal["fake", "real"]
    evaluation: Mode
    training: Mode
    operators: tuple[OperatorCounts, ...]
    modules: tuple[ModuleGroup, ...]
    changed_buffers: tuple[str, ...] | None
    remarks: tuple[str, ...]
    probes: tuple[Probe, ...]

    def probe(self, name: str) -> Probe | None:
        """The probe called `name`; None where this model was not asked."""
        return next((probe for probe in self.probes if probe.name == name), None)
