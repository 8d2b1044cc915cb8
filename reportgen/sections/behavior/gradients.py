"""One backward pass of a tiny batch in training mode: which parameters it reaches, and how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reportgen.example_inputs import Examples
from reportgen.fake_model import set_mode
from reportgen.pytree import named_tensors
from reportgen.sections.behavior.fake_runs import CannotRunError, FakeRun, Outcome, Saved
from reportgen.sections.behavior.op_recorder import Recorder, Running, storage_of
from reportgen.sections.behavior.result import Probe, Verdict, capitalized, counted, listed
from reportgen.sections.behavior.runner import (
    Bench,
    Leaves,
    NotRunError,
    PassFailedError,
    copied,
    how_far,
    is_finite,
)
from reportgen.sections.behavior.state import buffers_of, changed_names
from reportgen.sources.weightless import seed_everything

_CLAIMS = {
    "gradients": "Every parameter gets a gradient",
    "finite_gradients": "Gradients are finite",
}
_PASSES = 3  # a forward pass and a backward pass of twice its work


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trained:
    """What a forward and a backward pass in training mode showed.

    Attributes:
        probes: those of the gradients.
        difference: of the outputs in both modes, in words; None where it is not known.
        changed_buffers: by name; None where no training pass was run.
        saved_bytes: what autograd keeps for the backward pass; None likewise.
    """

    probes: tuple[Probe, ...]
    difference: str | None
    changed_buffers: tuple[str, ...] | None
    saved_bytes: int | None


def probe_training(
    bench: Bench, examples: Examples, whole: Leaves | None, *, training: bool
) -> Trained:
    """Forward and backward; in evaluation mode where the model does not run in training mode.

    `whole` are the outputs in evaluation mode.
    """
    model = bench.model
    try:
        bench.pay(
            _PASSES * bench.batch,
            copies_of_results=bench.batch,  # at most what all operators write is kept
            held_bytes=_gradient_bytes(model),
        )
        saved = Saved(model)
        before = buffers_of(model)
        outputs, read = _forward(bench, examples, saved, training=training)
        changed = changed_names(buffers_of(model), before)
        probes = _probes(bench, outputs, read, training=training)
    except NotRunError as reason:
        return Trained(
            probes=_not_run(reason), difference=None, changed_buffers=None, saved_bytes=None
        )
    finally:
        set_mode(model, training=False)
    if not training:
        return Trained(probes=probes, difference=None, changed_buffers=None, saved_bytes=None)
    comparable = whole is not None and _have_same_form(whole, outputs)
    return Trained(
        probes=probes,
        difference=_difference(whole, outputs) if comparable and whole else None,
        changed_buffers=changed,
        saved_bytes=saved.bytes,
    )


def reach_on_shapes(
    model: nn.Module, trained: Trained, training: FakeRun, backward: Outcome
) -> Trained:
    """`trained` with what a backward pass without values tells, where a real one was too much.

    `training` is a counted pass in training mode, which says what ran.
    """
    if isinstance(backward, CannotRunError):
        return trained
    trained = replace(trained, saved_bytes=backward.saved_bytes)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    ran = [name for name in trainable if name in training.read]
    if not ran or backward.reached is None:
        return trained
    missing = [name for name in ran if name not in backward.reached]
    probe = replace(_reaching(missing, [], len(ran), " (on shapes alone)"), expected=True)
    return replace(trained, probes=(probe, *trained.probes[1:]))


def _probes(bench: Bench, outputs: Leaves, read: set[int], *, training: bool) -> tuple[Probe, ...]:
    try:
        return _backward(bench, outputs, read, training=training)
    except NotRunError as reason:
        return _not_run(reason)


def _not_run(reason: NotRunError) -> tuple[Probe, ...]:
    sentence = f"{capitalized(str(reason))}."
    return tuple(_probe(name, "not run", sentence) for name in _CLAIMS)


def _gradient_bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)


def _have_same_form(a: Leaves, b: Leaves) -> bool:
    return list(a) == list(b) and all(t.shape == b[key].shape for key, t in a.items())


def _difference(whole: Leaves, outputs: Leaves) -> str:
    apart = how_far({key: tensor.detach() for key, tensor in outputs.items()}, whole)
    return f"differ: {apart}" if apart else "agree within rounding"


def _forward(
    bench: Bench, examples: Examples, saved: Saved, *, training: bool
) -> tuple[Leaves, set[int]]:
    """The outputs with their graph, and the storages that operators read."""
    set_mode(bench.model, training=training)
    seed_everything(bench.seed)
    running = Running(bench.model)
    running.watchers.append(saved)
    recorder = Recorder(running)
    try:
        with torch.enable_grad(), running.watching(), saved.watching(), recorder:
            outputs = named_tensors(copied(examples).call(bench.model))
    except Exception as error:
        raise PassFailedError(error, running.path) from error
    return outputs, recorder.read


def _backward(
    bench: Bench, outputs: Leaves, read: set[int], *, training: bool
) -> tuple[Probe, ...]:
    trainable = {n: p for n, p in bench.model.named_parameters() if p.requires_grad}
    if not trainable:
        raise NotRunError("the model has no trainable parameter")
    ran = {name: p for name, p in trainable.items() if storage_of(p) in read}
    if not ran:
        raise NotRunError("no operator reads a trainable parameter")
    grads = _gradients(bench, outputs, ran)
    missing = [name for name, grad in grads.items() if grad is None]
    found = {name: grad for name, grad in grads.items() if grad is not None}
    zero = [name for name, grad in found.items() if _is_zero(grad)]
    broken = [name for name, grad in found.items() if not is_finite(_values(grad))]
    how = "" if training else " (in evaluation mode, since the model does not run in training mode)"
    return (
        _reaching(missing, zero, len(ran), how),
        _finite(broken, len(found), how),
    )


def _gradients(
    bench: Bench, outputs: Leaves, parameters: dict[str, nn.Parameter]
) -> dict[str, Tensor | None]:
    """Gradients of a fixed random combination of all outputs, by name.

    Random, since the sum of a softmax or of a normalization is constant, with no gradient at all.
    """
    generator = torch.Generator().manual_seed(bench.seed)
    terms = []
    for tensor in outputs.values():
        if tensor.requires_grad:
            plain = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            weights = torch.randn(plain.shape, generator=generator).to(plain.dtype)
            terms.append((plain * weights).sum().to(torch.float64))
    if not terms:
        return dict.fromkeys(parameters)
    try:
        found = torch.autograd.grad(
            torch.stack(terms).sum(), list(parameters.values()), allow_unused=True
        )
    except Exception as error:
        reason = CannotRunError(error, "").reason
        raise NotRunError(f"the backward pass fails: {reason}") from error
    return dict(zip(parameters, found, strict=True))


def _is_zero(gradient: Tensor) -> bool:
    values = _values(gradient)
    return not values.sum() and not values.any()  # the sum is the quick answer


def _values(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient


def _probe(
    name: str,
    verdict: Verdict,
    sentence: str,
    evidence: tuple[str, ...] = (),
    where: Sequence[str] = (),
) -> Probe:
    return Probe(
        name=name,
        claim=_CLAIMS[name],
        verdict=verdict,
        sentence=sentence,
        evidence=evidence,
        where=tuple(where),
    )


def _reaching(missing: list[str], zero: list[str], total: int, how: str) -> Probe:
    evidence = (
        (f"exactly zero for these inputs: {counted(len(zero), 'parameter')}, {listed(zero)}",)
        if zero
        else ()
    )
    if not missing:
        sentence = f"A backward pass reaches all {total:,} trainable parameters that ran{how}."
        return _probe("gradients", "yes", sentence, evidence)
    if len(missing) == total:
        sentence = f"No output carries a gradient back to any of {total:,} parameters{how}."
    else:
        sentence = (
            f"{len(missing):,} of {total:,} trainable parameters that ran "
            f"get{'s' * (len(missing) == 1)} no gradient{how}: {listed(missing)}."
        )
    return replace(_probe("gradients", "no", sentence, evidence, missing), expected=not how)


def _finite(broken: list[str], total: int, how: str) -> Probe:
    if total == 0:
        return _probe("finite_gradients", "not run", "The backward pass gives no gradient.")
    if not broken:
        return _probe("finite_gradients", "yes", f"No gradient contains NaN or infinity{how}.")
    return _probe(
        "finite_gradients",
        "no",
        f"{len(broken):,} of {total:,} gradients contain{'s' * (len(broken) == 1)} NaN or "
        f"infinity{how}: {listed(broken)}.",
        where=broken,
    )
