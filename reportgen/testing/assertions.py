"""`assert_budget`, `assert_onnx_parity` and `assert_same_structure`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from reportgen.comparable import ModuleRecord, joined
from reportgen.compare.modules import diff_modules
from reportgen.compare.wording import edit_line
from reportgen.errors import BaselineError
from reportgen.outcome import Done
from reportgen.python_api.analyze import analyze
from reportgen.python_api.inputs import Inputs
from reportgen.python_api.questions import check_onnx, estimate_memory
from reportgen.report import BudgetCheck, Report
from reportgen.sections import SECTIONS, layers, onnx
from reportgen.testing.update import updates_baselines
from reportgen.units import format_bytes, format_in_unit, format_integer

if TYPE_CHECKING:
    from torch import nn

_FORMAT = 1
_MOST_EDITS = 20  # in a message


def assert_budget(
    model: nn.Module,
    inputs: Inputs = None,
    *,
    peak_memory: Mapping[str, int] | None = None,
    mode: Literal["train", "inference"] = "train",
    precision: str = "fp32",
    optimizer: str = "adamw",
    baseline: str | Path | None = None,
    **budgets: Any,
) -> None:
    """Assert that a model keeps its budgets.

    Args:
        model: any `torch.nn.Module`.
        inputs: as for `reportgen.analyze`.
        peak_memory: for each GPU a batch size that must safely fit: `{"T4": 32}`.
        mode: the step that must fit.
        precision: of that step.
        optimizer: of a training step.
        baseline: a report, which budgets such as `"+2%"` refer to.
        budgets: as in a manifest: `parameters="30M"`, `macs="5G"`, `model_bytes="100 MiB"`; other
            metrics by their key: `**{"layers.buffers_bytes": "1 MiB"}`.

    Raises:
        AssertionError: a budget is exceeded; the message has the value, the limit and the excess.
        ReportgenError: an argument is not valid.
    """
    problems = list(_exceeded(model, inputs, budgets, baseline)) if budgets else []
    for gpu, batch in (peak_memory or {}).items():
        answer = estimate_memory(
            model, inputs, gpu=gpu, batch=batch, mode=mode, precision=precision,
            optimizer=optimizer,
        )  # fmt: skip
        fit = answer.gpus[0].fit
        if fit.safe_batch < batch:
            peak = format_bytes(answer.estimate.band_high_bytes)
            problems.append(
                f"a batch of {batch} does not safely fit {fit.gpu}: up to {peak} of "
                f"{format_bytes(fit.usable_bytes)}; a batch of {fit.safe_batch} does; the peak is "
                f"in {answer.estimate.peak_phase} of {answer.estimate.peak_module or 'the step'}"
            )
    if problems:
        raise AssertionError("\n".join(problems))


def _exceeded(
    model: nn.Module, inputs: Inputs, budgets: Mapping[str, Any], baseline: str | Path | None
) -> Iterator[str]:
    names = [layers.SECTION.name]
    if any(key.startswith(f"{onnx.SECTION.name}.") for key in budgets):
        names.append(onnx.SECTION.name)
    report = analyze(
        model,
        inputs,
        targets=(),
        sections=tuple(names),
        budgets=budgets,
        baseline=baseline,
        timings=False,
        progress=False,
    )
    [judged] = report.data.models
    for check in judged.budgets:
        if check.passed is not True:
            yield _budget_sentence(check)


def _budget_sentence(check: BudgetCheck) -> str:
    if check.value is None or check.limit is None:
        return f"{check.name}: {check.note or check.state}"
    over = abs(check.value - check.limit)
    text = f"{check.name}: {_full(check.value, check.unit)} instead of at most "
    if check.value < check.limit:
        text = f"{check.name}: {_full(check.value, check.unit)} instead of at least "
    text += f"{_full(check.limit, check.unit)}, off by {_full(over, check.unit)}"
    was = f"; the baseline has {_full(check.baseline, check.unit)}" if check.baseline else ""
    return text + was


def _full(value: float, unit: str) -> str:
    return format_in_unit(value, unit) if unit else format_integer(round(value))


def assert_onnx_parity(
    model: nn.Module, inputs: Inputs = None, *, batch: int | None = None, opset: int = 20
) -> None:
    """Assert that the model can be exported to ONNX and that the file computes the same.

    Args:
        model: any `torch.nn.Module`.
        inputs: as for `reportgen.analyze`.
        batch: batch size; None for that of `inputs`.
        opset: version of the ONNX operators.

    Raises:
        AssertionError: the export fails, or an output differs; the message says where.
        ReportgenError: an argument is not valid.
    """
    check = check_onnx(model, inputs, batch=batch, opset=opset, progress=False)
    if check.passed:
        return
    lines = [str(check)]
    for case in check.result.parity.cases if check.result else ():
        lines += [
            f"batch {case.batch}, seed {case.seed}, output {output.name!r}: "
            f"largest error {output.max_absolute_error}, allowed {output.absolute_tolerance:.1e} "
            f"and {output.relative_tolerance:.1e} of the value; {output.note}".rstrip("; ")
            for output in case.outputs
            if not output.passed
        ]
    raise AssertionError("\n".join(lines))


def assert_same_structure(model: nn.Module, baseline: str | Path) -> None:
    """Assert that modules, their arguments, parameters and buffers are as they were.

    Values of weights are not compared. `pytest --reportgen-update` writes the file, unless it is a
    report.

    Args:
        model: is only read, and not run.
        baseline: a file that this function wrote, or a `report.json` of one model.

    Raises:
        AssertionError: the structure changed; the message has a line for each change.
        BaselineError: the file is missing or not readable.
    """
    from reportgen.sections.layers.records import module_records

    path = Path(baseline)
    now = module_records(model)
    is_report = _is_report(path)
    if updates_baselines() and not is_report:
        _write(path, now)
        return
    edits = diff_modules(_read(path), now).edits
    if not edits:
        return
    changes = "1 change" if len(edits) == 1 else f"{len(edits)} changes"
    lines = [f"{changes} to the structure in {path.name}:"]
    for each in map(edit_line, edits[:_MOST_EDITS]):
        cost = f" ({each.cost})" if each.cost else ""
        lines.append(f"  {each.mark} {each.place or 'the model'}: {each.words}{cost}")
    if len(edits) > _MOST_EDITS:
        lines.append(f"  and {len(edits) - _MOST_EDITS} more")
    remedy = "build the report again" if is_report else "run pytest --reportgen-update"
    lines.append(f"if this is intended, {remedy}")
    raise AssertionError("\n".join(lines))


_RECORDS = TypeAdapter(tuple[ModuleRecord, ...])


def _write(path: Path, records: Sequence[ModuleRecord]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"format": _FORMAT, "structure": to_jsonable_python(records)}
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8", newline="\n")


def _read(path: Path) -> tuple[ModuleRecord, ...]:
    hint = "write it with pytest --reportgen-update"
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise BaselineError(f"{path}: no baseline: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise BaselineError(f"{path}: not JSON: {error}", hint=hint) from error
    if _is_report(path):
        return _records_of_report(path)
    try:
        return _RECORDS.validate_python(data["structure"])
    except (ValidationError, KeyError, TypeError) as error:
        raise BaselineError(f"{path}: not a structure of reportgen", hint=hint) from error


def _is_report(path: Path) -> bool:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and "models" in data


def _records_of_report(path: Path) -> tuple[ModuleRecord, ...]:
    from reportgen.compare.reading import read_report

    report: Report = read_report(path)
    known = {section.name: section for section in SECTIONS}
    if len(report.models) != 1:
        raise BaselineError(
            f"{path}: has {len(report.models)} models", hint="use the report of one model"
        )
    found = joined(
        known[each.name].comparable(each.outcome.result)
        for each in report.models[0].sections
        if isinstance(each.outcome, Done)
    )
    return found.modules
