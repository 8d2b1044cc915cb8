"""Runs the parity check and decides whether agreement proves anything."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reportgen.errors import ReportgenError, SectionError
from reportgen.model_state import preserve_model_state
from reportgen.onnx.export import export_onnx
from reportgen.onnx.runtime import OnnxRuntimeError, Runtime
from reportgen.sections.onnx.parity.case import (
    CasePlan,
    describe_plans,
    make_plans,
    seeds_change_inputs,
)
from reportgen.sections.onnx.parity.cases import CaseResults, run_plans
from reportgen.sections.onnx.parity.compare import elements_by_dtype
from reportgen.sections.onnx.parity.divergence.bisect import find_divergence
from reportgen.sections.onnx.parity.fused_path import has_fused_path
from reportgen.sections.onnx.parity.perturb import run_perturbed, zero_parameters
from reportgen.sections.onnx.parity.selection import (
    BeforeSelection,
    Selecting,
    compare_before_selection,
    find_selection,
)
from reportgen.sections.onnx.parity_result import (
    Divergence,
    FusedPath,
    OutputParity,
    Parity,
    ParityCase,
    SecondCall,
    smallest_failure,
)
from reportgen.sections.onnx.stored_parameters import modules_in_training
from reportgen.units import format_error, format_shape

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reportgen.context import ModelContext
    from reportgen.manifest import InputSpec, ModelSpec
    from reportgen.onnx.export import OnnxFile
    from reportgen.tracing.autocast import AutocastRegion


_MOST_NAMES = 4
_HALF = ("bfloat16", "float16")


def check_parity(
    context: ModelContext,
    file: OnnxFile,
    runtime: Runtime,
    *,
    compared_dtype: str = "",
    note: str = "",
) -> Parity:
    """Compare the file with PyTorch on two batch sizes and three seeds.

    If an output does not vary or does not depend on the input, the comparison is repeated with
    seeded perturbed parameters on both sides. If an output fails, the first module and node that
    differ are searched for.

    Args:
        compared_dtype: the dtype of the copy that is compared instead of the model.
        note: a sentence to put before the notes of the comparison.
    """
    plans = make_plans(context.spec, file, context.model)
    fused = has_fused_path(context.model)
    # torch.export refuses models that go on to compute with what they select
    traced = file.used is not None and file.used.traced
    selecting = find_selection(file.path) if traced else None
    run = partial(run_plans, context, runtime, has_fused_path=fused, selects=selecting is not None)
    try:
        with as_exported():
            zeros = zero_parameters(context.model)
            # a constant in place of the model might pass: torchvision's ViT has a head of zeros
            plain = run(plans, first_if_constant=bool(zeros) and not selecting)
            if plain.notes and file.batch is None:  # batch norm in train mode, or a bare squeeze
                plans = [replace(plan, batch=2) if plan.batch == 1 else plan for plan in plans]
                plans = list({(p.batch, p.seed, *p.dims.items()): p for p in plans}.values())
                first_notes, plain = plain.notes, run(plans)
                plain.notes = tuple(dict.fromkeys((*first_notes, *plain.notes)))
            if not plain.cases:
                return not_compared("; ".join(plain.notes))
            before = _before_selection(selecting, plain, zeros) if selecting else None
            perturbed = None if before else _perturbed(context, file, plans, plain, zeros)
            if plain.is_partial and perturbed is None:
                plain = run(plans)
            cases = (*plain.cases, *(perturbed.cases if perturbed else ()))
            notes = (
                note,
                *_notes(context, file, plain, perturbed, zeros),
                before.describe() if before else "",
            )
            failing, final = smallest_failure(cases), perturbed or plain
            all_sizes = final if plain.is_partial else plain
            return Parity(
                passed=plain.passed and final.passed,
                vacuous=_is_vacuous(final)
                or any(map(_is_undecided, plain.cases))
                or (before is not None and plain.is_empty),
                cases=cases,
                note="; ".join(filter(None, notes)),
                compared=describe_plans(
                    [CasePlan(batch=c.batch, seed=c.seed, dims=c.dims) for c in all_sizes.cases]
                ),
                compared_dtype=compared_dtype,
                failure=_failure(*failing) if failing else "",
                divergence=_divergence(failing, plain, file),
                second_call=plain.second,
                fused_path=plain.fused_path,
                random_operators=plain.random_operators,
                histograms=final.histograms(),
                before_selection=before.describe() if before else "",
            )
    except OnnxRuntimeError as error:
        return not_compared(str(error))


def _before_selection(
    selecting: Selecting, plain: CaseResults, zeros: Mapping[str, Tensor]
) -> BeforeSelection | None:
    """What the selected rows are chosen from, if the rows themselves are weak evidence.

    If that differs, the cases of `plain` that rest on it fail.
    """
    pairs = list(zip(plain.cases, plain.case_runs, strict=True))
    chosen = [run for case, run in pairs if _is_undecided(case)]
    if not chosen and plain.passed and (_weak_evidence(plain) or zeros):
        chosen = [run for _, run in pairs]
    if not chosen:
        return None
    # each costs two calls and a run of every node; the last one has other sizes, if any has
    before = compare_before_selection((*chosen[:1], *chosen[1:][-1:]), selecting)
    if before.failure:
        fail = partial(_failed_before, why=before.failure)
        plain.cases = tuple(fail(case) if run in chosen else case for case, run in pairs)
    return before


def _is_undecided(case: ParityCase) -> bool:
    return any(output.undecided for output in case.outputs)


def _failed_before(case: ParityCase, *, why: str) -> ParityCase:
    outputs = tuple(
        replace(o, passed=False, note=why) if o.undecided or 0 in o.shape else o
        for o in case.outputs
    )
    return replace(case, passed=False, outputs=outputs, note=why)


def _divergence(
    failing: tuple[ParityCase, OutputParity | None] | None, plain: CaseResults, file: OnnxFile
) -> Divergence | None:
    if failing is None:
        return None
    case, output = failing
    # with perturbed parameters the file would not be the one to search
    if output is None or plain.smallest is None or case.perturbed:
        return None
    return find_divergence(plain.smallest, file, output)


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
    """A parity that was not run, with the reason."""
    return Parity(passed=None, vacuous=False, cases=(), note="", not_run=reason)


@contextmanager
def as_exported() -> Iterator[None]:
    """Compute without gradients and without fused attention kernels, which round differently."""
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
    plans: list[CasePlan],
    plain: CaseResults,
    zeros: Mapping[str, Tensor],
) -> CaseResults | None:
    """The cases with perturbed parameters, if the plain ones are weak evidence."""
    if not plain.passed or not (
        plain.unvarying | plain.input_independent or plain.is_empty or zeros
    ):
        return None
    if plain.is_partial:
        return run_perturbed(context, file, plans, tuple(zeros.values()))
    # one size of the other dims is enough here: only the parameters differ
    done = {(case.batch, case.seed) for case in plain.cases if not case.dims}
    usable = [plan for plan in plans if (plan.batch, plan.seed) in done and not plan.dims]
    return run_perturbed(context, file, usable, tuple(zeros.values()))


def _is_vacuous(outcome: CaseResults) -> bool:
    outputs = [output for case in outcome.cases for output in case.outputs]
    names = {output.name for output in outputs}
    # an index or a mask may well be the same for every input
    floats = {o.name for o in outputs if "float" in o.dtype or "complex" in o.dtype}
    return bool(outcome.unvarying & floats) or (bool(names) and names <= outcome.unvarying)


def _notes(
    context: ModelContext,
    file: OnnxFile,
    plain: CaseResults,
    perturbed: CaseResults | None,
    zeros: Collection[str],
) -> Iterator[str]:
    yield from dict.fromkeys((*plain.notes, *(perturbed.notes if perturbed else ())))
    if not seeds_change_inputs(context.spec):
        yield "every seed gives the same inputs"
    if file.batch is not None and "batch" in file.asked:
        yield f"compared at a batch of {file.batch} only, which is fixed in the file"
    if perturbed is not None:
        why = _weak_evidence(plain) or _describe_zeros(zeros)
        yield f"{why}, so the comparison was repeated with perturbed parameters"
        if still := _weak_evidence(perturbed):
            yield f"with these, still {still}"
    yield from _rounding_notes((*plain.cases, *(perturbed.cases if perturbed else ())))
    if not plain.passed and (modules := modules_in_training(context.model)):
        yield f"in train mode: {', '.join(modules)}"
    if plain.random_operators:
        yield f"PyTorch draws random numbers: {', '.join(plain.random_operators)}"
    if plain.second is not None:
        yield from _second_call_notes(plain.second)
    if plain.fused_path is not None and not plain.fused_path.passed:
        yield _fused_path_note(plain.fused_path)


def _rounding_notes(cases: tuple[ParityCase, ...]) -> Iterator[str]:
    names = {output.name for case in cases for output in case.outputs if output.within_rounding}
    if names:
        verb = "differs" if len(names) == 1 else "differ"
        yield (
            f"{', '.join(sorted(names))} {verb} by more than the tolerance, but not by more than "
            "PyTorch's own float32 does from float64: this is rounding"
        )


def _second_call_notes(second: SecondCall) -> Iterator[str]:
    names = ", ".join(map(str, second.state))
    if second.state and not second.pytorch_repeats:
        yield f"the model keeps state, the file does not: a second call changes {names}"
    elif second.depends_on_state:
        yield (
            "the model keeps state, the file does not: after calls on other inputs the output "
            f"differs; a call changes {names}"
        )
    elif second.state:
        yield f"every call changes {names}, and the output does not depend on it"
    elif not second.pytorch_repeats:
        yield "PyTorch's own output differs between two calls with the same inputs"
    if not second.file_repeats:
        yield "the file's own output differs between two calls with the same inputs"


def _fused_path_note(fused: FusedPath) -> str:
    off = "compared with PyTorch's fused encoder path off, as it was exported; with it on, "
    if fused.max_absolute_error is None:
        return f"{off}{fused.note}"
    return (
        f"{off}PyTorch's {fused.output} differs from the file by up to "
        f"{format_error(fused.max_absolute_error)} (batch {fused.batch}, seed {fused.seed})"
    )


def _weak_evidence(outcome: CaseResults) -> str:
    """Outputs that a wrong file could match: `a does not vary, b and c do not depend on …`."""
    # what does not vary does not depend on the input either: one reason for each
    input_independent = outcome.input_independent - outcome.unvarying
    reasons = (
        _outputs_do(outcome.unvarying, "not vary"),
        _outputs_do(input_independent, "not depend on the input"),
        "every output is empty" if outcome.is_empty else "",
    )
    return ", ".join(filter(None, reasons))


def _describe_zeros(names: Collection[str]) -> str:
    """Parameters of zeros that may hide an error: `gate holds only zeros, …`."""
    *most, last = names
    shown = [*most, last][:_MOST_NAMES]
    more = f" and {len(most) + 1 - _MOST_NAMES} more" if len(most) >= _MOST_NAMES else ""
    verb, what = ("hold", "what they multiply") if most else ("holds", "what it multiplies")
    return f"{', '.join(shown)}{more} {verb} only zeros, which may hide {what}"


def _outputs_do(names: Collection[str], what: str) -> str:
    """`a does …`, `a and b do …`; nothing without names."""
    *most, last = sorted(names) or [""]
    both = f"{', '.join(most)} and {last}" if most else last
    return f"{both} {'do' if most else 'does'} {what}" if names else ""


def compare_in_float32(context: ModelContext, reason: str) -> Parity:
    """Compare a half-precision model, whose own file cannot be run, in float32.

    A float32 model that computes in half precision by itself, in `torch.autocast("cpu")`, is
    exported again without it. Others are not compared, for `reason`: why onnxruntime cannot run
    the file.
    """
    dtype = half_precision_of(context.model, context.spec)
    if dtype is not None:
        with preserve_model_state(context.model):
            # in place: hooks and closures may refer to the model's own layers
            context.model.float()  # float32 holds every half-precision value
            reason = f"not runnable in {dtype} on CPU onnxruntime ({reason})"
            how = "compared in float32 instead, exported again with the same values"
            return _compare_wide(context, reason, how)
    region = _autocast_on_cpu(context)
    if region is None:
        return not_compared(reason)
    from reportgen.tracing.autocast import autocast_disabled

    with autocast_disabled():
        reason = f"not runnable on CPU onnxruntime because of {region} ({reason})"
        how = "compared in float32 instead, exported without autocast"
        parity = _compare_wide(context, reason, how)
    return replace(parity, autocast=str(region))


def _compare_wide(context: ModelContext, reason: str, how: str) -> Parity:
    context.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".float32-", dir=context.folder))
    try:
        spec = in_float32(context.spec)
        wide = replace(context, spec=spec, folder=folder)
        file = export_onnx(wide.model, wide.spec, folder)
        runtime = Runtime(file.path)
        parity = check_parity(
            wide, file, runtime, compared_dtype="float32", note=f"{reason}; {how}"
        )
    # the model's own forward may fail, where it makes tensors in half precision by itself
    except (SectionError, OnnxRuntimeError, ReportgenError, RuntimeError, TypeError) as error:
        parity = not_compared(str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if parity.not_run:
        return not_compared(f"{reason}; in float32 it fails too ({parity.not_run})")
    return parity


def _autocast_on_cpu(context: ModelContext) -> AutocastRegion | None:
    """The first region of `torch.autocast` that the model enters on the CPU."""
    import torch

    from reportgen.tracing.autocast import recording_autocast

    try:
        with (
            as_exported(),
            torch.compiler.set_stance("force_eager"),
            recording_autocast() as found,
        ):
            context.examples(1).call(context.model)
    except Exception:  # the model's own code: any class
        return None
    return next((region for region in found if region.device == "cpu"), None)


def half_precision_of(model: nn.Module, spec: ModelSpec) -> str | None:
    """The half precision of most of a model's parameters, or else of its inputs; or None."""
    halves = [name for name, _ in elements_by_dtype(model).most_common() if name in _HALF]
    inputs = [dtype for item in spec.inputs for dtype in _dtypes(item) if dtype in _HALF]
    return next(iter((*halves, *inputs)), None)


def in_float32(spec: ModelSpec) -> ModelSpec:
    """The manifest entry with every input of half precision in float32."""
    inputs = tuple(map(_widened, spec.inputs))
    return spec.model_copy(update={"inputs": inputs})


def _dtypes(item: InputSpec) -> tuple[str, ...]:
    parts = (*(item.items or ()), *(item.fields or {}).values())
    return (item.dtype, *(dtype for part in parts for dtype in _dtypes(part)))


def _widened(item: InputSpec) -> InputSpec:
    changes: dict[str, object] = {}
    if item.dtype in _HALF:
        changes["dtype"] = "float32"
    if item.items is not None:
        changes["items"] = tuple(map(_widened, item.items))
    if item.fields is not None:
        changes["fields"] = {key: _widened(part) for key, part in item.fields.items()}
    return item.model_copy(update=changes)
