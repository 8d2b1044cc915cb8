"""The cases of a parity check: which inputs, one run of each side, what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from reportgen.export.arguments import bind_arguments, output_name
from reportgen.inputs import Examples, make_examples
from reportgen.leaves import tensor_leaves
from reportgen.sections.onnx_export.compare import Compared, compare, is_beyond, varies
from reportgen.sections.onnx_export.result import OutputParity, ParityCase
from reportgen.sections.onnx_export.runtime import CannotRunError, Runtime, runtime_line

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reportgen.export import OnnxFile
    from reportgen.manifest import ModelSpec, Tolerance
    from reportgen.study import Study

_LARGEST_SECOND_BATCH = 4
_SECOND_BATCH = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The inputs of one case; `dims` are sizes that differ from the manifest's."""

    batch: int
    seed: int
    dims: dict[str, int] = field(default_factory=dict)

    def examples(self, spec: ModelSpec) -> Examples:
        """The inputs themselves."""
        if self.dims:
            spec = spec.model_copy(update={"dims": {**spec.dims, **self.dims}})
        return make_examples(spec, self.batch, self.seed)


@dataclass(slots=True)
class Outcome:
    """What a row of cases showed.

    Attributes:
        cases: each case compared, in the order of the plans.
        unvarying: outputs for which a constant would have passed in every case.
        deaf: outputs that did not depend on the input in any two cases of the same size.
        notes: plans that PyTorch itself could not do.
    """

    cases: tuple[ParityCase, ...] = ()
    unvarying: frozenset[str] = frozenset()
    deaf: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def retry(self, other: Outcome) -> None:
        """Take the place of these cases, but keep what was said of them."""
        self.cases, self.unvarying, self.deaf = other.cases, other.unvarying, other.deaf
        self.notes = tuple(dict.fromkeys((*self.notes, *other.notes)))

    @property
    def passed(self) -> bool:
        """Whether every case did."""
        return all(case.passed for case in self.cases)


def make_plans(spec: ModelSpec, file: OnnxFile) -> list[Plan]:
    """Two batch sizes and two seeds, and one case with the other dynamic dims one smaller.

    One of the sizes is 1, where a forgotten batch dimension shows; the other is the manifest's,
    or 3 when that is large or 1 itself. A file with a fixed batch is compared at that size.
    """
    seeds = (spec.seed, (spec.seed + 1) % 2**32)
    if file.batch is not None:
        batches: tuple[int, ...] = (file.batch,)
    else:
        usable = 1 < spec.batch <= _LARGEST_SECOND_BATCH
        batches = (1, spec.batch if usable else _SECOND_BATCH)
    plans = [Plan(batch=batch, seed=seed) for batch in batches for seed in seeds]
    smaller = {
        dim: spec.dims[dim] - 1 for dim in file.dynamic if dim != "batch" and spec.dims[dim] > 1
    }
    if smaller:
        plans.append(Plan(batch=batches[-1], seed=seeds[0], dims=smaller))
    return plans


def run_plans(
    study: Study, runtime: Runtime, plans: list[Plan], *, perturbed: bool = False
) -> Outcome:
    """Compare the two sides on every plan that PyTorch itself can do.

    Raises:
        CannotRunError: onnxruntime cannot take inputs of this kind.
    """
    cases, notes, seen = list[ParityCase](), list[str](), _Seen()
    tolerance = study.spec.onnx.tolerance
    for plan in plans:
        examples = plan.examples(study.spec)
        feed = runtime.feed(call_tensors(study, examples))
        try:
            reference = named_outputs(examples.call(study.model))
        except Exception as error:
            notes.append(_cannot(plan, error))
            continue
        case, compared = _run_case(plan, runtime, feed, reference, tolerance)
        cases.append(replace(case, perturbed=perturbed))
        seen.add(plan, compared, reference)
    unvarying = seen.unvarying()
    return Outcome(
        cases=tuple(_with_vacuous(case, unvarying) for case in cases),
        unvarying=unvarying,
        deaf=seen.deaf(),
        notes=tuple(dict.fromkeys(notes)),
    )


def call_tensors(study: Study, examples: Examples) -> dict[str, Tensor]:
    """The tensors of a call under the names and in the order of the exported file's inputs."""
    return bind_arguments(
        study.model, study.spec.inputs, examples.args, examples.kwargs, ()
    ).tensors()


def named_outputs(output: Any) -> dict[str, Tensor]:
    """Every tensor that a model returned, by the name it has in the file."""
    return {output_name(key): tensor for key, tensor in tensor_leaves(output).items()}


def _run_case(
    plan: Plan,
    runtime: Runtime,
    feed: dict[str, Any],
    reference: dict[str, Tensor],
    tolerance: Tolerance,
) -> tuple[ParityCase, list[Compared]]:
    import torch

    try:
        found = [torch.from_numpy(array) for array in runtime.run(feed)]
    except Exception as error:
        return _case(plan, [], f"onnxruntime fails: {runtime_line(error)}", passed=False), []
    if len(found) != len(reference):
        note = f"PyTorch returns {len(reference)} tensors, the file {len(found)}"
        return _case(plan, [], note, passed=False), []
    compared = [
        compare(name, tensor, given, tolerance)
        for (name, tensor), given in zip(reference.items(), found, strict=True)
    ]
    note = "" if compared else "the model returns no tensor"
    outputs = [one.parity for one in compared]
    return _case(plan, outputs, note, passed=all(output.passed for output in outputs)), compared


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


def _worst(errors: list[float | None]) -> float | None:
    """The largest error; None when one of them is not finite, or there is none."""
    known = [error for error in errors if error is not None]
    return max(known) if known and len(known) == len(errors) else None


def _cannot(plan: Plan, error: Exception) -> str:
    sizes = {"batch": plan.batch, **plan.dims}
    text = ", ".join(f"{dim} {size}" for dim, size in sizes.items())
    lines = str(error).strip().splitlines() or ["no message"]
    return f"PyTorch itself fails at {text}: {type(error).__name__}: {lines[0][:160]}"


def _with_vacuous(case: ParityCase, unvarying: frozenset[str]) -> ParityCase:
    outputs = tuple(replace(output, vacuous=output.name in unvarying) for output in case.outputs)
    return replace(case, outputs=outputs)


class _Seen:
    """What the references of all cases were like, without keeping more than one of them."""

    def __init__(self) -> None:
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
            if earlier is None or earlier.numel() == 0:
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


def repeats_differ(model: nn.Module, examples: Examples) -> bool:
    """Whether PyTorch disagrees with itself on the same inputs, called twice."""
    first = {name: tensor.clone() for name, tensor in named_outputs(examples.call(model)).items()}
    second = named_outputs(examples.call(model))
    return any(not _same(first[name], tensor) for name, tensor in second.items() if name in first)


def _same(a: Tensor, b: Tensor) -> bool:
    """Equality in which NaN equals itself."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


__all__ = [
    "CannotRunError",
    "Outcome",
    "Plan",
    "call_tensors",
    "make_plans",
    "named_outputs",
    "repeats_differ",
    "run_plans",
]
