"""Findings of the behavior section: documented, pure functions of the result."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.behavior.result import Behavior


def _failed(result: Behavior, *names: str) -> Iterator[Hit]:
    """A hit for the first of the probes `names` whose answer is no."""
    for name in names:
        probe = result.probe(name)
        if probe is not None and probe.verdict == "no" and probe.expected:
            where = probe.where[0] if probe.where else ""
            yield Hit(where=where, message=probe.sentence, advice=probe.remedy)
            return


@rule(
    "BEH001",
    Severity.WARNING,
    advice="pass training=self.training to functional dropout, or draw the noise outside the model",
)
def non_deterministic_evaluation(result: Behavior) -> Iterator[Hit]:
    """Two evaluation passes over the same inputs give different outputs.

    Usually a functional dropout without `training=self.training`, noise drawn inside the
    forward pass, or state that one pass leaves for the next. Such a model cannot be compared
    with its export, and its metrics cannot be reproduced.
    """
    yield from _failed(result, "repeatable")


@rule(
    "BEH002",
    Severity.WARNING,
    advice="keep samples apart: reduce and normalize over every dim but the batch",
)
def batch_dependent_results(result: Behavior) -> Iterator[Hit]:
    """The output for a sample depends on the other samples of its batch, in evaluation mode.

    The usual causes are batch normalization without running statistics, a softmax, mean or
    cumulative sum over the batch dim, and a reshape that mixes samples. The answer to a request
    then depends on which other requests happen to share its batch.
    """
    yield from _failed(result, "independent", "batch_of_one")


@rule(
    "BEH003",
    Severity.WARNING,
    advice="keep state out of the forward pass, or change it only `if self.training`",
)
def stateful_evaluation(result: Behavior) -> Iterator[Hit]:
    """An evaluation pass changes parameters, buffers or attributes of the model.

    Attributes that are filled once, such as a cache of positions, are not reported. A model that
    changes in every pass cannot be shared between threads, and a saved copy depends on how often
    it was called.
    """
    yield from _failed(result, "stateless")


@rule(
    "BEH004",
    Severity.WARNING,
    advice="look for detach, no_grad, .data or a rounding between it and the output; or freeze it",
)
def parameters_without_gradient(result: Behavior) -> Iterator[Hit]:
    """A trainable parameter is read by the forward pass, but gets no gradient.

    The autograd graph between it and the outputs is cut: by `detach`, `no_grad`, `.data`, or an
    operator without a derivative such as argmax. The parameter keeps its initial value while the
    optimizer holds state for it. Models that do not run in training mode without targets are
    skipped: their losses may provide these gradients.
    """
    yield from _failed(result, "gradients")


@rule(
    "BEH005",
    Severity.WARNING,
    advice="guard logarithms, roots and divisions; or give the input's true range (low, high)",
)
def non_finite_outputs(result: Behavior) -> Iterator[Hit]:
    """An output contains NaN or infinity for random inputs of the manifest's range.

    The first module whose result is not finite is named. Without a range in the manifest, inputs
    are standard normal numbers, including negative ones.
    """
    yield from _failed(result, "finite")


@rule(
    "BEH006",
    Severity.WARNING,
    advice="clone the input first, or use the operator that is not in place",
)
def inputs_modified_in_place(result: Behavior) -> Iterator[Hit]:
    """A forward pass writes into its own inputs.

    The caller's tensor is changed after the call: a second call on the same batch, an ensemble or
    a loss that compares with the input then works on changed values.
    """
    yield from _failed(result, "inputs_kept")


@rule(
    "BEH007",
    Severity.WARNING,
    advice="add a small epsilon under roots, norms and divisions, also where `where` hides them",
)
def non_finite_gradients(result: Behavior) -> Iterator[Hit]:
    """The gradient of a parameter contains NaN or infinity in the first backward pass.

    Typical causes are the root or the norm of an exact zero, and a `torch.where` that hides a
    division by zero from the output but not from the gradient. One optimizer step destroys the
    weights. If the outputs are not finite, only `non-finite-outputs` is reported.
    """
    outputs = result.probe("finite")
    if outputs is None or outputs.verdict != "no":
        yield from _failed(result, "finite_gradients")


@rule(
    "BEH008",
    Severity.NOTE,
    advice="compare outputs and parity on the device once; autocast around the call of the model "
    "instead of inside it would keep its precision the caller's choice",
)
def autocast_for_another_device(result: Behavior) -> Iterator[Hit]:
    """The forward pass enters `torch.autocast` for a device that this analysis does not run on.

    PyTorch disables such a region on the CPU, so operators, outputs and the exported file are
    those of the weights' own precision. On the device the region computes in lower precision.
    """
    for region in result.autocast:
        at = f" at {region.place}" if region.place else ""
        yield Hit(
            region.module,
            f'torch.autocast("{region.device}"){at} has no effect on the CPU: on '
            f"{region.device} this part computes in {region.dtype}",
        )


RULES = (
    non_deterministic_evaluation,
    batch_dependent_results,
    stateful_evaluation,
    parameters_without_gradient,
    non_finite_outputs,
    inputs_modified_in_place,
    non_finite_gradients,
    autocast_for_another_device,
)
