"""The result of the behavior section, and phrases shared by the sentences of its probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from reportgen.units import format_shape

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]
Verdict = Literal["yes", "no", "not run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One property of the model, checked by running it.

    Attributes:
        name: the probe's key: `repeatable`, `batch_of_one`, `size_height_and_width`.
        claim: the property that a `yes` confirms, as a heading.
        verdict: whether the property holds; `not run` if it was not checked.
        sentence: the answer in one sentence; the reason if `not run`.
        evidence: observations, one line each.
        where: paths of modules, or names of parameters, buffers, inputs or dimensions.
        expected: whether a `no` is a problem; otherwise it is only a property.
        remedy: what to do about a `no`, where the cause is known; "" for the rule's own advice.
    """

    name: str
    claim: str
    verdict: Verdict
    sentence: str
    evidence: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    expected: bool = True
    remedy: str = ""


_CLAIMS = {
    "repeatable": "Two evaluation passes give the same output",
    "finite": "Outputs are finite",
    "inputs_kept": "Inputs are not modified",
    "stateless": "Evaluation leaves buffers unchanged",
    "batch_of_one": "Batch size 1 matches batch size n",
    "independent": "Samples are independent",
    "gradients": "Every parameter gets a gradient",
    "finite_gradients": "Gradients are finite",
    "modes_agree": "Same output in train and eval mode",
    "batches": "Any batch size runs",
}


def make_probe(
    name: str,
    verdict: Verdict,
    sentence: str,
    evidence: tuple[str, ...] = (),
    where: Sequence[str] = (),
    *,
    expected: bool = True,
) -> Probe:
    """The probe `name`, with its claim."""
    return Probe(
        name=name,
        claim=_CLAIMS[name],
        verdict=verdict,
        sentence=sentence,
        evidence=evidence,
        where=tuple(where),
        expected=expected,
    )


def not_run(name: str, reason: str) -> Probe:
    """The probe `name`, which was not run for `reason`."""
    return make_probe(name, "not run", f"{capitalized(reason)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputForm:
    """One tensor that a forward pass returns."""

    key: str  # path in the output structure; "" if the output is one tensor
    dtype: str
    shape: Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class ModeStats:
    """Counts of one forward pass of a small batch in evaluation or training mode."""

    outputs: tuple[OutputForm, ...]
    operators: int | None  # calls of operators, views included
    written_bytes: int | None  # results of all operators, without views and in-place ones
    saved_bytes: int | None  # saved for the backward pass, without parameters and buffers
    error: str = ""  # why the model does not run in this mode


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorCounts:
    """An operator with different numbers of calls in the two modes."""

    operator: str
    evaluation: int
    training: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleGroup:
    """Modules of one type that differ in training mode for the same reason."""

    type: str
    reason: str
    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Autocast:
    """A `torch.autocast` region for another device than the CPU, which this analysis runs on."""

    device: str  # "cuda"
    dtype: str  # "float16"
    module: str  # path of the module that enters it; "" for the model itself
    place: str  # "model.py:19"; "" if unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class LargeActivation:
    """The first layer whose output is very large; both values to two digits."""

    path: str
    root_mean_square: float
    of_inputs: float  # root mean square of the model's inputs, at least 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Activations:
    """What is unusual about the values inside a pass in training mode.

    Attributes:
        exploding: the first layer with parameters whose output is very large.
        dead: paths of rectifiers that returned only zeros for inputs that were not zero.
        saturated: paths of modules whose softmax gave nearly everything to one entry.
    """

    exploding: LargeActivation | None = None
    dead: tuple[str, ...] = ()
    saturated: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Behavior:
    """Evaluation mode compared with training mode, and the result of every probe.

    Attributes:
        batch: samples per pass.
        seed: seed of the inputs and of the random operators.
        method: `fake` if modes and sizes were compared with fake tensors.
        evaluation: a pass in evaluation mode.
        training: a pass in training mode.
        operators: operators whose number of calls differs between the modes.
        modules: modules that behave differently in training mode.
        changed_buffers: names of buffers that a training pass changes; None if none was run.
        remarks: unusual settings of dropout and normalization, one sentence each.
        probes: in reading order.
        autocast: regions that have no effect on the CPU.
        random_weights: the model is randomly initialized.
        activations: what is unusual about the values inside; None if no real pass was run.
        constant_outputs: names of all outputs, if none of them depends on the input.
        single_value_norms: paths of batch norms of feature maps that get one value per channel
            and sample.
        backward_error: why the backward pass fails; "" if it does not or was not run.
    """

    batch: int
    seed: int
    method: Literal["fake", "real"]
    evaluation: ModeStats
    training: ModeStats
    operators: tuple[OperatorCounts, ...]
    modules: tuple[ModuleGroup, ...]
    changed_buffers: tuple[str, ...] | None
    remarks: tuple[str, ...]
    probes: tuple[Probe, ...]
    autocast: tuple[Autocast, ...] = ()
    random_weights: bool = False
    activations: Activations | None = None
    constant_outputs: tuple[str, ...] = ()
    single_value_norms: tuple[str, ...] = ()
    backward_error: str = ""

    def probe(self, name: str) -> Probe | None:
        """The probe called `name`; None if it does not apply to this model."""
        return next((probe for probe in self.probes if probe.name == name), None)


_SHOWN_NAMES = 6


def listed(names: Sequence[str], most: int = _SHOWN_NAMES) -> str:
    """`a, b, c and 12 more`."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def joined(words: Sequence[str]) -> str:
    """`1, 2 and 3`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def capitalized(text: str) -> str:
    """The text with an upper-case first letter, unless it begins with a module path or name."""
    first = text.partition(" ")[0]
    # dots and underscores mark a path or an identifier, which is case-sensitive
    return text if any(mark in first for mark in "._") else text[:1].upper() + text[1:]


def counted(number: int, word: str) -> str:
    """`1 module`, `2 modules`; a phrase of several words gets `3 × phrase`."""
    if " " in word:
        return f"{number:,} × {word}"
    return f"{number:,} {word}{'s' * (number != 1)}"


def forms(outputs: Sequence[OutputForm]) -> str:
    """`logits 2 × 10, aux 2 × 10`."""
    return listed([f"{o.key or 'output'} {format_shape(o.shape)}" for o in outputs], 4)


def module_at(model: nn.Module, path: str) -> str:
    """`blocks.0.drop (Dropout)`; for the model itself, `the forward of Net itself`."""
    if not path:
        return f"the forward of {type(model).__name__} itself"
    return f"{path} ({type(model.get_submodule(path)).__name__})"
