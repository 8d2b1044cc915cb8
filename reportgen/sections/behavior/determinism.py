"""Determinism: two evaluation passes over the same inputs, and the state that they change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from reportgen.errors import SectionError
from reportgen.example_inputs import Examples
from reportgen.known_failures import known_failure
from reportgen.pytree import named_tensors
from reportgen.sections.behavior.result import (
    Probe,
    capitalized,
    listed,
    make_probe,
    module_at,
    not_run,
)
from reportgen.sections.behavior.runner import (
    CallRecorder,
    NamedTensors,
    ProbeNotRunError,
    ProbeRunner,
    copied,
    copies,
    describe_difference,
    is_finite,
    is_same,
)
from reportgen.sections.behavior.state import Snapshot
from reportgen.tracing.tensors import version_of

_PROBES = ("repeatable", "finite", "inputs_kept", "stateless")

RandomOperators = Mapping[tuple[str, str], int]
"""(operator, module path) -> number of calls."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RepeatedPasses:
    """The probes of two passes, and the outputs of the first for later probes."""

    probes: tuple[Probe, ...]
    outputs: NamedTensors | None
    repeatable: bool


def probe_repetition(
    runner: ProbeRunner, examples: Examples, random: RandomOperators
) -> RepeatedPasses:
    """Compare two passes in evaluation mode."""
    try:
        runner.reserve(2 * runner.batch)
        before = Snapshot(runner.model)
        inputs = copied(examples)
        first = copies(named_tensors(runner.evaluate(inputs)))
        between = Snapshot(runner.model)
        finite = _FirstNotFinite()
        # not seeded: with the same seed, random operators would give the same output
        again = runner.evaluate(copied(examples), finite, seeded=False)
        second = copies(named_tensors(again))
        after = Snapshot(runner.model)
    except ProbeNotRunError as reason:
        # fake tensors have no values, so that the passes for shapes did not find it
        if known := known_failure(reason):
            raise SectionError(
                f"the model's forward pass fails: {known.text}", hint=known.hint
            ) from reason
        return RepeatedPasses(
            probes=tuple(not_run(name, str(reason)) for name in _PROBES),
            outputs=None,
            repeatable=False,
        )
    # The first pass may fill caches, as attributes; a change in the second one is no cache.
    changed = tuple(
        dict.fromkeys((*between.registered_changed_since(before), *after.changed_since(between)))
    )
    difference = describe_difference(first, second)
    remedy = _observer_remedy(runner.model, changed)
    probes: tuple[Probe, ...] = (
        _differing(runner, examples, random, difference, changed)
        if difference
        else _agreeing(first, second),
        _finite(runner, first, finite.path),
        _inputs_kept(examples, inputs),
        _stateless(changed),
    )
    probes = tuple(
        replace(probe, remedy=remedy)
        if probe.verdict == "no" and probe.name in ("repeatable", "stateless")
        else probe
        for probe in probes
    )
    return RepeatedPasses(probes=probes, outputs=first, repeatable=not difference)


class _FirstNotFinite:
    """Records the first module that returned NaN or infinity."""

    def __init__(self) -> None:
        self.path: str | None = None
        self._last: tuple[int, ...] = ()

    def __call__(self, path: str, _: nn.Module, output: Any) -> None:
        for tensor in named_tensors(output).values():
            if self.path is None and not self._was_last(tensor) and not is_finite(tensor):
                self.path = path

    def _was_last(self, tensor: Tensor) -> bool:
        """Whether the previous call returned the same tensor, as in a `Sequential`."""
        this = (id(tensor), version_of(tensor))
        was, self._last = this == self._last, this
        return was


def _observer_remedy(model: nn.Module, changed: tuple[str, ...]) -> str:
    """How to stop quantization observers, if nothing else changes in an evaluation pass."""
    from torch.ao.quantization import FakeQuantizeBase

    observing = tuple(
        f"{path}."
        for path, module in model.named_modules()
        if isinstance(module, FakeQuantizeBase) and bool(module.observer_enabled[0])
    )
    if not changed or not all(name.startswith(observing) for name in changed):
        return ""
    return (
        "the observers of quantization-aware training are on: switch them off with "
        "model.apply(torch.ao.quantization.disable_observer)"
    )


def _agreeing(first: NamedTensors, second: NamedTensors) -> Probe:
    if not first:
        return not_run("repeatable", "the model returns no tensor to compare")
    exactly = all(is_same(tensor, second[key]) for key, tensor in first.items())
    how = "bit for bit" if exactly else "within rounding"
    sentence = f"Two evaluation passes over the same inputs agree {how}."
    return make_probe("repeatable", "yes", sentence)


def _differing(
    runner: ProbeRunner,
    examples: Examples,
    random: RandomOperators,
    difference: str,
    changed: tuple[str, ...],
) -> Probe:
    path = _first_difference(runner, examples)
    first = f", first in {module_at(runner.model, path)}" if path is not None else ""
    evidence = [
        f"{operator} draws random numbers in {module_at(runner.model, place)}, "
        f"{times} time{'s' * (times != 1)} in one pass"
        for (operator, place), times in random.items()
    ]
    if changed:
        evidence.append(f"a pass changes {listed(changed)}")
    if not evidence:
        evidence.append("no random PyTorch operator runs and no state change was detected")
    return make_probe(
        "repeatable",
        "no",
        f"Two evaluation passes over the same inputs differ: {difference}{first}.",
        tuple(evidence[:8]),
        (path,) if path is not None else tuple(place for _, place in random),
    )


def _first_difference(runner: ProbeRunner, examples: Examples) -> str | None:
    """The first module to return whose results differ in two more passes; None for none."""
    recorders = CallRecorder(), CallRecorder()
    try:
        runner.reserve(2 * runner.batch, copies_of_results=2 * runner.batch)
        for number, recorder in enumerate(recorders):
            runner.evaluate(copied(examples), recorder, seeded=number == 0)
    except ProbeNotRunError:
        return None
    for one, other in zip_longest(*(recorder.calls for recorder in recorders)):
        if (
            one is None
            or other is None
            or one[0] != other[0]
            or describe_difference(one[1], other[1])
        ):
            return str((one or other)[0])
    return None


def _finite(runner: ProbeRunner, outputs: NamedTensors, path: str | None) -> Probe:
    bad = [key or "the output" for key, tensor in outputs.items() if not is_finite(tensor)]
    first = "" if path is None else f"first seen in the result of {module_at(runner.model, path)}"
    if not bad:
        inside = (f"only intermediate results contain NaN or infinity: {first}",) if first else ()
        return make_probe("finite", "yes", "No output contains NaN or infinity.", inside)
    return make_probe(
        "finite",
        "no",
        f"{capitalized(listed(bad))} contain{'s' * (len(bad) == 1)} NaN or infinity"
        f"{f', {first}' if first else ''}.",
        _kinds(outputs),
        (path,) if path is not None else (),
    )


def _kinds(outputs: NamedTensors) -> tuple[str, ...]:
    lines = []
    for key, tensor in outputs.items():
        if not is_finite(tensor):
            wide = tensor.to_dense() if tensor.is_sparse else tensor
            nan, infinite = int(wide.isnan().sum()), int(wide.isinf().sum())
            lines.append(
                f"{key or 'the output'}: {nan:,} NaN and {infinite:,} infinite "
                f"of {tensor.numel():,} numbers"
            )
    return tuple(lines[:6])


def _inputs_kept(before: Examples, after: Examples) -> Probe:
    """`after` are the inputs after the pass."""
    names = _changed_inputs(before, after)
    if not names:
        return make_probe("inputs_kept", "yes", "The forward pass does not modify its inputs.")
    return make_probe(
        "inputs_kept",
        "no",
        f"The forward pass writes into its input{'s' * (len(names) > 1)} {listed(names)}.",
        where=names,
    )


def _changed_inputs(before: Examples, after: Examples) -> list[str]:
    old, new = before.tensors(), after.tensors()
    names = [
        name
        for name in dict.fromkeys((*old, *new))
        if name not in old or name not in new or not is_same(old[name], new[name])
    ]
    if not names and _structure(before) != _structure(after):
        names.append("(its lists or dicts)")
    return names


def _structure(examples: Examples) -> Any:
    """The inputs with None in place of tensors, which cannot be compared with `==`."""
    return pytree.tree_map_only(Tensor, lambda _: None, (examples.args, examples.kwargs))


def _stateless(changed: tuple[str, ...]) -> Probe:
    if not changed:
        return make_probe(
            "stateless", "yes", "An evaluation pass changes no parameter, buffer or attribute."
        )
    return make_probe(
        "stateless", "no", f"An evaluation pass changes {listed(changed)}.", where=changed
    )
