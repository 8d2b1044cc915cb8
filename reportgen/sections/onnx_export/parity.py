"""onnxruntime against PyTorch: do they agree, and does their agreement prove anything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from reportgen.sections.onnx_export.cases import (
    Outcome,
    Plan,
    make_plans,
    repeats_differ,
    run_plans,
)
from reportgen.sections.onnx_export.perturb import run_perturbed
from reportgen.sections.onnx_export.result import OutputParity, Parity
from reportgen.sections.onnx_export.runtime import CannotRunError, Runtime
from reportgen.sections.onnx_export.training_mode import modules_in_training

if TYPE_CHECKING:
    from reportgen.export import OnnxFile
    from reportgen.study import Study


def check_parity(study: Study, file: OnnxFile, runtime: Runtime) -> Parity:
    """Compare the two on two batch sizes and two seeds.

    Where an output does not vary, or does not depend on the input, a file with anything in place
    of the model would pass; the comparison is then repeated with seeded perturbed parameters on
    both sides (torchvision's ViT has a head of zeros).
    """
    plans = make_plans(study.spec, file)
    try:
        with as_exported():
            plain = run_plans(study, runtime, plans)
            if plain.notes and file.batch is None:  # batch norm in train mode, or a bare squeeze
                plans = [replace(plan, batch=2) if plan.batch == 1 else plan for plan in plans]
                plain.retry(run_plans(study, runtime, plans))
            if not plain.cases:
                return not_compared("; ".join(plain.notes))
            perturbed = _perturbed(study, file, plans, plain)
            notes = tuple(_notes(study, file, plans, plain, perturbed))
    except CannotRunError as reason:
        return not_compared(str(reason))
    final = perturbed or plain
    return Parity(
        passed=plain.passed and final.passed,
        vacuous=_is_vacuous(final),
        cases=(*plain.cases, *(perturbed.cases if perturbed else ())),
        note="; ".join(notes),
    )


def not_compared(reason: str) -> Parity:
    """A parity of which nothing is known, and why."""
    return Parity(passed=None, vacuous=False, cases=(), note="", not_run=reason)


@contextmanager
def as_exported() -> Iterator[None]:
    """Compute without gradients and with plain attention: the fused kernels round otherwise."""
    import torch

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _perturbed(study: Study, file: OnnxFile, plans: list[Plan], plain: Outcome) -> Outcome | None:
    """The cases with perturbed parameters, where the plain ones prove too little."""
    if not plain.passed or not plain.unvarying | plain.deaf:
        return None
    done = {(case.batch, case.seed) for case in plain.cases if not case.dims}
    usable = [plan for plan in plans if (plan.batch, plan.seed) in done and not plan.dims]
    return run_perturbed(study, file, usable)


def _is_vacuous(outcome: Outcome) -> bool:
    outputs = [output for case in outcome.cases for output in case.outputs]
    names = {output.name for output in outputs}
    floats = {output.name for output in outputs if _is_float(output)}
    return bool(outcome.unvarying & floats) or (bool(names) and names <= outcome.unvarying)


def _is_float(output: OutputParity) -> bool:
    return "float" in output.dtype or "complex" in output.dtype


def _notes(
    study: Study,
    file: OnnxFile,
    plans: list[Plan],
    plain: Outcome,
    perturbed: Outcome | None,
) -> Iterator[str]:
    yield from plain.notes
    if file.batch is not None and "batch" in file.asked:
        yield f"compared at a batch of {file.batch} only, which is fixed in the file"
    if perturbed is not None:
        names = ", ".join(sorted(plain.unvarying | plain.deaf))
        why = "does not vary" if plain.unvarying else "does not depend on the input"
        yield f"{names} {why}, so it was compared again with perturbed parameters"
        yield from _still(perturbed)
    if not plain.passed:
        done = {(case.batch, case.seed) for case in plain.cases}
        yield from _reasons(study, [plan for plan in plans if (plan.batch, plan.seed) in done])


def _still(perturbed: Outcome) -> Iterator[str]:
    if perturbed.unvarying:
        names = ", ".join(sorted(perturbed.unvarying))
        yield f"{names} does not vary with these either"
    elif perturbed.deaf:
        names = ", ".join(sorted(perturbed.deaf))
        yield f"{names} does not depend on the input"


def _reasons(study: Study, plans: list[Plan]) -> Iterator[str]:
    """What usually makes two sides disagree, where the model shows it."""
    if modules := modules_in_training(study.model):
        yield f"in train mode: {', '.join(modules)}"
    if repeats_differ(study.model, plans[-1].examples(study.spec)):
        yield "PyTorch's own output differs between two calls with the same inputs"
