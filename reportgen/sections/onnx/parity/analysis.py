"""onnxruntime against PyTorch: do they agree, and does their agreement prove anything."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from reportgen.onnx.runtime import CannotRunError, Runtime
from reportgen.sections.onnx.parity.bisect import find_divergence
from reportgen.sections.onnx.parity.cases import Outcome, run_plans
from reportgen.sections.onnx.parity.perturb import hiding_parameters, run_perturbed
from reportgen.sections.onnx.parity.plans import Plan, do_seeds_matter, make_plans, told
from reportgen.sections.onnx.result import OutputParity, Parity, ParityCase, SecondCall
from reportgen.sections.onnx.training_mode import modules_in_training
from reportgen.units import format_error, format_shape

if TYPE_CHECKING:
    from torch import Tensor

    from reportgen.context import ModelContext
    from reportgen.onnx.export import OnnxFile

_MOST_NAMES = 4


def check_parity(context: ModelContext, file: OnnxFile, runtime: Runtime) -> Parity:
    """Compare the two on two batch sizes and three seeds.

    Where an output does not vary, or does not depend on the input, a file with anything in place
    of the model would pass; the comparison is then repeated with seeded perturbed parameters on
    both sides (torchvision's ViT has a head of zeros). Where an output fails, the place where
    the two sides part is looked for.
    """
    plans = make_plans(context.spec, file, context.model)
    try:
        with as_exported():
            plain = run_plans(context, runtime, plans)
            if plain.notes and file.batch is None:  # batch norm in train mode, or a bare squeeze
                plans = [replace(plan, batch=2) if plan.batch == 1 else plan for plan in plans]
                plans = list({(p.batch, p.seed, *p.dims.items()): p for p in plans}.values())
                plain.retry(run_plans(context, runtime, plans))
            if not plain.cases:
                return not_compared("; ".join(plain.notes))
            hiding = hiding_parameters(context.model) if plain.passed else {}
            perturbed = _perturbed(context, file, plans, plain, hiding)
            parity = _parity(context, file, plain, perturbed, hiding)
            return _with_failure(parity, plain, file)
    except CannotRunError as reason:
        return not_compared(str(reason))


def _parity(
    context: ModelContext,
    file: OnnxFile,
    plain: Outcome,
    perturbed: Outcome | None,
    hiding: Collection[str],
) -> Parity:
    final = perturbed or plain
    done = [Plan(batch=case.batch, seed=case.seed, dims=case.dims) for case in plain.cases]
    return Parity(
        passed=plain.passed and final.passed,
        vacuous=_is_vacuous(final),
        cases=(*plain.cases, *(perturbed.cases if perturbed else ())),
        note="; ".join(_notes(context, file, plain, perturbed, hiding)),
        compared=told(done),
        second_call=plain.second,
        draws=plain.draws,
        histograms=final.histograms(),
    )


def _with_failure(parity: Parity, plain: Outcome, file: OnnxFile) -> Parity:
    """`parity` with its smallest failure in words, and where that comes from."""
    failing = parity.smallest_failure()
    if failing is None:
        return parity
    case, output = failing
    parity = replace(parity, failure=_failure(case, output))
    if output is None or plain.smallest is None or case.perturbed:
        return parity
    return replace(parity, divergence=find_divergence(plain.smallest, file.path, output))


def _failure(case: ParityCase, output: OutputParity | None) -> str:
    dims = "".join(f", {dim} {size}" for dim, size in case.dims.items())
    where = f"at batch {case.batch}{dims}, seed {case.seed}"
    if output is None:
        return f"{where} {case.note}"
    name = f"{output.name} ({format_shape(output.shape)})"
    if output.max_absolute_error is None:
        return f"{where} {name}: {output.note}"
    return (
        f"{where} {name} is off by up to {format_error(output.max_absolute_error)}: {output.note}"
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


def _perturbed(
    context: ModelContext,
    file: OnnxFile,
    plans: list[Plan],
    plain: Outcome,
    hiding: Mapping[str, Tensor],
) -> Outcome | None:
    """The cases with perturbed parameters, where the plain ones prove too little."""
    if not plain.passed or not (plain.unvarying | plain.deaf or plain.is_empty or hiding):
        return None
    done = {(case.batch, case.seed) for case in plain.cases if not case.dims}
    usable = [plan for plan in plans if (plan.batch, plan.seed) in done and not plan.dims]
    return run_perturbed(context, file, usable, tuple(hiding.values()))


def _is_vacuous(outcome: Outcome) -> bool:
    outputs = [output for case in outcome.cases for output in case.outputs]
    names = {output.name for output in outputs}
    floats = {output.name for output in outputs if _is_float(output)}
    return bool(outcome.unvarying & floats) or (bool(names) and names <= outcome.unvarying)


def _is_float(output: OutputParity) -> bool:
    return "float" in output.dtype or "complex" in output.dtype


def _notes(
    context: ModelContext,
    file: OnnxFile,
    plain: Outcome,
    perturbed: Outcome | None,
    hiding: Collection[str],
) -> Iterator[str]:
    yield from plain.notes
    if not do_seeds_matter(context.spec):
        yield "every seed gives the same inputs"
    if file.batch is not None and "batch" in file.asked:
        yield f"compared at a batch of {file.batch} only, which is fixed in the file"
    if perturbed is not None:
        why = _proving_little(plain) or _hiding(hiding)
        yield f"{why}, so all was compared again with perturbed parameters"
        yield from _still(perturbed)
    yield from _within_rounding((*plain.cases, *(perturbed.cases if perturbed else ())))
    if not plain.passed and (modules := modules_in_training(context.model)):
        yield f"in train mode: {', '.join(modules)}"
    if plain.draws:
        yield f"PyTorch draws random numbers: {', '.join(plain.draws)}"
    if plain.second is not None:
        yield from _about_second_call(plain.second)


def _within_rounding(cases: tuple[ParityCase, ...]) -> Iterator[str]:
    names = {output.name for case in cases for output in case.outputs if output.within_rounding}
    if names:
        verb = "differs" if len(names) == 1 else "differ"
        yield (
            f"{', '.join(sorted(names))} {verb} by more than the tolerance and no more than "
            "PyTorch's own float32 does from float64: that is rounding"
        )


def _about_second_call(second: SecondCall) -> Iterator[str]:
    names = ", ".join(second.state)
    if second.state and not second.pytorch_repeats:
        yield f"the model keeps state, which the file does not: a second call changes {names}"
    elif second.state:
        yield f"every call changes {names}, and the output does not depend on it"
    elif not second.pytorch_repeats:
        yield "PyTorch's own output differs between two calls with the same inputs"
    if not second.file_repeats:
        yield "the file's own output differs between two calls with the same inputs"


def _proving_little(outcome: Outcome) -> str:
    """Which outputs a wrong file could give too: `a does not vary, b and c do not depend on …`."""
    deaf = outcome.deaf - outcome.unvarying
    said = (
        _that(outcome.unvarying, "not vary"),
        _that(deaf, "not depend on the input"),
        "every output is empty" if outcome.is_empty else "",
    )
    return ", ".join(filter(None, said))


def _hiding(names: Collection[str]) -> str:
    """Which parameters of zeros may hide a fault: `gate holds nothing but zeros, …`."""
    *most, last = names
    shown = [*most, last][:_MOST_NAMES]
    more = f" and {len(most) + 1 - _MOST_NAMES} more" if len(most) >= _MOST_NAMES else ""
    verb, what = ("hold", "what they multiply") if most else ("holds", "what it multiplies")
    return f"{', '.join(shown)}{more} {verb} nothing but zeros, which may hide {what}"


def _still(perturbed: Outcome) -> Iterator[str]:
    if still := _proving_little(perturbed):
        yield f"with these, too, {still}"


def _that(names: Collection[str], what: str) -> str:
    """`a does …`, `a and b do …`; nothing without names."""
    *most, last = sorted(names) or [""]
    both = f"{', '.join(most)} and {last}" if most else last
    return f"{both} {'do' if most else 'does'} {what}" if names else ""
