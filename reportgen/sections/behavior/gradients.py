"""Gradients: which parameters a backward pass in training mode reaches, and whether finite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reportgen.example_inputs import Examples
from reportgen.fake_model import set_mode
from reportgen.pytree import named_tensors
from reportgen.sections.behavior.activations import ActivationRecorder
from reportgen.sections.behavior.fake_runs import (
    FailedPassError,
    PassOutcome,
    RecordedPass,
    SavedTensors,
)
from reportgen.sections.behavior.op_record import OpRecord
from reportgen.sections.behavior.result import (
    Activations,
    Probe,
    counted,
    listed,
    make_probe,
    not_run,
)
from reportgen.sections.behavior.runner import (
    NamedTensors,
    ProbeNotRunError,
    ProbePassError,
    ProbeRunner,
    copied,
    describe_difference,
    is_finite,
    tensors_of,
)
from reportgen.sections.behavior.state import changed_names, copy_buffers
from reportgen.sources.weightless import seed_everything
from reportgen.tracing.leaf_gradients import gradients_of
from reportgen.tracing.running_modules import RunningModules
from reportgen.tracing.tensors import storage_of

_PROBES = ("gradients", "finite_gradients")
_PASSES = 3  # a backward pass is counted as two forward passes: gradients of inputs and weights


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TrainingProbes:
    """What a forward and a backward pass in training mode showed.

    Attributes:
        probes: the probes of the gradients.
        difference: how the outputs differ from evaluation mode, as text; None if unknown.
        changed_buffers: names; None if no training pass was run.
        saved_bytes: bytes that autograd saves for the backward pass; None if unknown.
        activations: of the pass in training mode; None if none was run.
        backward_error: why the backward pass of training mode failed; "" if it did not.
    """

    probes: tuple[Probe, ...]
    difference: str | None = None
    changed_buffers: tuple[str, ...] | None = None
    saved_bytes: int | None = None
    activations: Activations | None = None
    backward_error: str = ""


class BackwardFailedError(ProbeNotRunError):
    """The backward pass raised; `reason` gives the error."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"the backward pass fails: {reason}")


def probe_training(
    runner: ProbeRunner,
    examples: Examples,
    evaluated: NamedTensors | None,
    training: PassOutcome,
    fake_backward: Callable[[], PassOutcome] | None,
) -> TrainingProbes:
    """Forward and backward; in evaluation mode if the model does not run in training mode.

    Args:
        runner: runs the model.
        examples: the inputs.
        evaluated: the outputs in evaluation mode, if known.
        training: a pass in training mode with operator counts.
        fake_backward: runs a backward pass with fake tensors, used if the real one is too
            expensive; None if the model has no fake copy.
    """
    in_training = isinstance(training, RecordedPass)
    try:
        return _probe_values(runner, examples, evaluated, training=in_training)
    except ProbeNotRunError as reason:
        skipped = _not_run(reason)
    if isinstance(training, FailedPassError) or fake_backward is None:
        return TrainingProbes(probes=skipped)
    return _probe_fake(runner.model, skipped, training, fake_backward())


def _probe_values(
    runner: ProbeRunner, examples: Examples, evaluated: NamedTensors | None, *, training: bool
) -> TrainingProbes:
    model = runner.model
    try:
        runner.reserve(
            _PASSES * runner.batch,
            copies_of_results=runner.batch,  # upper bound: autograd saves at most every result
            held_bytes=_gradient_bytes(model),
        )
        saved = SavedTensors(model)
        before = copy_buffers(model)
        outputs, read, activations = _forward(runner, examples, saved, training=training)
        changed = changed_names(copy_buffers(model), before)
        probes, backward_error = _probes(runner, outputs, read, training=training)
    finally:
        set_mode(model, training=False)
    if not training:
        return TrainingProbes(probes=probes)
    comparable = evaluated is not None and _have_same_form(evaluated, outputs)
    return TrainingProbes(
        probes=probes,
        difference=_difference(evaluated, outputs) if comparable and evaluated else None,
        changed_buffers=changed,
        saved_bytes=saved.bytes,
        activations=activations,
        backward_error=backward_error,
    )


def _probe_fake(
    model: nn.Module, skipped: tuple[Probe, ...], training: RecordedPass, backward: PassOutcome
) -> TrainingProbes:
    """Which parameters a backward pass with fake tensors reaches."""
    if isinstance(backward, FailedPassError):
        return TrainingProbes(probes=skipped)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    ran = [name for name in trainable if name in training.read]
    if not ran or backward.reached is None:
        return TrainingProbes(probes=skipped, saved_bytes=backward.saved_bytes)
    missing = [name for name in ran if name not in backward.reached]
    probe = _reaching(missing, [], len(ran), " (with fake tensors)", expected=True)
    return TrainingProbes(probes=(probe, *skipped[1:]), saved_bytes=backward.saved_bytes)


def _probes(
    runner: ProbeRunner, outputs: NamedTensors, read: set[int], *, training: bool
) -> tuple[tuple[Probe, ...], str]:
    """The probes, and the error of the backward pass."""
    try:
        return _backward(runner, outputs, read, training=training), ""
    except ProbeNotRunError as reason:
        failed = reason.reason if isinstance(reason, BackwardFailedError) else ""
        return _not_run(reason), failed


def _not_run(reason: ProbeNotRunError) -> tuple[Probe, ...]:
    return tuple(not_run(name, str(reason)) for name in _PROBES)


def _gradient_bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def _have_same_form(a: NamedTensors, b: NamedTensors) -> bool:
    return list(a) == list(b) and all(t.shape == b[key].shape for key, t in a.items())


def _difference(whole: NamedTensors, outputs: NamedTensors) -> str:
    difference = describe_difference(
        {key: tensor.detach() for key, tensor in outputs.items()}, whole
    )
    return f"differ: {difference}" if difference else "agree within rounding"


def _forward(
    runner: ProbeRunner, examples: Examples, saved: SavedTensors, *, training: bool
) -> tuple[NamedTensors, set[int], Activations]:
    """The outputs with their autograd graph, the storages that operators read, and values."""
    set_mode(runner.model, training=training)
    seed_everything(runner.seed)
    running = RunningModules(runner.model)
    running.in_other_threads.append(saved.watching)
    record = OpRecord(running)
    inputs = copied(examples)
    activations = ActivationRecorder(runner.model, running)
    watching = activations.recording(tensors_of(inputs))
    try:
        with (
            torch.enable_grad(),
            running.watching(),
            saved.watching(),
            record.recorder(),
            watching,
        ):
            outputs = named_tensors(inputs.call(runner.model))
    except Exception as error:
        raise ProbePassError(error, running.path) from error
    return outputs, record.read, activations.result()


def _backward(
    runner: ProbeRunner, outputs: NamedTensors, read: set[int], *, training: bool
) -> tuple[Probe, ...]:
    trainable = {n: p for n, p in runner.model.named_parameters() if p.requires_grad}
    if not trainable:
        raise ProbeNotRunError("the model has no trainable parameter")
    ran = {name: p for name, p in trainable.items() if storage_of(p) in read}
    if not ran:
        raise ProbeNotRunError("no operator reads a trainable parameter")
    grads = _gradients(runner, outputs, ran)
    missing = [name for name, grad in grads.items() if grad is None]
    found = {name: grad for name, grad in grads.items() if grad is not None}
    zero = [name for name, grad in found.items() if _is_zero(grad)]
    broken = [name for name, grad in found.items() if not is_finite(_values(grad))]
    how = "" if training else " (in evaluation mode, since the model does not run in training mode)"
    return (
        _reaching(missing, zero, len(ran), how, expected=training),
        _finite(broken, len(found), how),
    )


def _gradients(
    runner: ProbeRunner, outputs: NamedTensors, parameters: dict[str, nn.Parameter]
) -> dict[str, Tensor | None]:
    """Gradients of a seeded random combination of all outputs, by name."""
    # The plain sum of a softmax or a normalization is constant: its gradients would be zero.
    generator = torch.Generator().manual_seed(runner.seed)
    terms = []
    for tensor in outputs.values():
        if tensor.requires_grad:
            plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            weights = torch.randn(plain.shape, generator=generator).to(plain.dtype)
            # outputs of different dtypes cannot be stacked
            terms.append((plain * weights).sum().to(torch.float64))
    if not terms:
        return dict.fromkeys(parameters)
    try:
        total = torch.stack(terms).sum()
        found = gradients_of([total], [torch.ones_like(total)], list(parameters.values()))
    except Exception as error:
        raise BackwardFailedError(FailedPassError(error, "").reason) from error
    return dict(zip(parameters, found, strict=True))


def _is_zero(gradient: Tensor) -> bool:
    values = _values(gradient)
    return not values.sum() and not values.any()  # the sum is the fast check


def _values(gradient: Tensor) -> Tensor:
    # of an embedding with sparse=True; coalesced, because equal indices are summed
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _reaching(
    missing: list[str], zero: list[str], total: int, how: str, *, expected: bool
) -> Probe:
    evidence = (
        (f"exactly zero for these inputs: {counted(len(zero), 'parameter')}, {listed(zero)}",)
        if zero
        else ()
    )
    if not missing:
        sentence = f"A backward pass reaches all {total:,} trainable parameters that ran{how}."
        return make_probe("gradients", "yes", sentence, evidence)
    if len(missing) == total:
        sentence = f"No output carries a gradient back to any of {total:,} parameters{how}."
    else:
        sentence = (
            f"{len(missing):,} of {total:,} trainable parameters that ran "
            f"get{'s' * (len(missing) == 1)} no gradient{how}: {listed(missing)}."
        )
    return make_probe("gradients", "no", sentence, evidence, missing, expected=expected)


def _finite(broken: list[str], total: int, how: str) -> Probe:
    if total == 0:
        return not_run("finite_gradients", "the backward pass gives no gradient")
    if not broken:
        return make_probe("finite_gradients", "yes", f"No gradient contains NaN or infinity{how}.")
    return make_probe(
        "finite_gradients",
        "no",
        f"{len(broken):,} of {total:,} gradients contain{'s' * (len(broken) == 1)} NaN or "
        f"infinity{how}: {listed(broken)}.",
        where=broken,
    )
