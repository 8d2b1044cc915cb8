"""Evaluation mode compared with training mode: outputs, operators, modules, memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

from reportgen.sections.behavior.fake_runs import FailedPassError, PassOutcome, RecordedPass
from reportgen.sections.behavior.result import (
    ModeStats,
    ModuleGroup,
    OperatorCounts,
    Probe,
    counted,
    forms,
    listed,
    make_probe,
)

_DIFFERENT_ARGUMENTS = "passes different arguments to its operators"
_BATCH_NORM = nn.modules.batchnorm._NormBase


def mode_stats(run: PassOutcome, saved_bytes: int | None = None) -> ModeStats:
    """The counts of one mode; None for a failed pass."""
    if isinstance(run, FailedPassError):
        return ModeStats(
            outputs=(), operators=None, written_bytes=None, saved_bytes=None, error=run.reason
        )
    return ModeStats(
        outputs=run.outputs,
        operators=run.record.operators.total(),
        written_bytes=run.record.written_bytes,
        saved_bytes=saved_bytes,
    )


def different_operators(
    evaluation: RecordedPass, training: PassOutcome
) -> tuple[OperatorCounts, ...]:
    """Operators whose number of calls differs between the modes, by name."""
    if isinstance(training, FailedPassError):
        return ()
    before, after = evaluation.record.operators, training.record.operators
    return tuple(
        OperatorCounts(operator=name, evaluation=before[name], training=after[name])
        for name in sorted(before | after)
        if before[name] != after[name]
    )


def different_modules(
    model: nn.Module, evaluation: RecordedPass, training: PassOutcome, *, repeatable: bool
) -> tuple[ModuleGroup, ...]:
    """Modules that run different operators in training mode, or in one mode only, by reason.

    If not `repeatable`, different operator arguments are ignored: they differ in one mode too.
    """
    if isinstance(training, FailedPassError):
        return ()
    groups: dict[tuple[str, str], list[str]] = {}
    for path, module in model.named_modules():
        reason = _difference(path, module, evaluation, training)
        if reason and (repeatable or not reason.startswith(_DIFFERENT_ARGUMENTS)):
            groups.setdefault((type(module).__name__, reason), []).append(path)
    return tuple(
        ModuleGroup(type=kind, reason=reason, paths=tuple(paths))
        for (kind, reason), paths in groups.items()
    )


def _difference(
    path: str, module: nn.Module, evaluation: RecordedPass, training: RecordedPass
) -> str:
    in_evaluation, in_training = evaluation.calls[path], training.calls[path]
    if in_evaluation == 0 or in_training == 0:
        idle_in = evaluation if in_training else training
        if in_evaluation == in_training or _parent_is_idle(path, idle_in):
            return ""
        return "runs in training mode only" if in_training else "runs in evaluation mode only"
    before = evaluation.record.by_module.get(path, Counter())
    after = training.record.by_module.get(path, Counter())
    if before == after:
        return ""
    known = _known_reason(module)
    if known:
        return known
    more = sorted({name for (name, _) in (after - before)})
    less = sorted({name for (name, _) in (before - after)})
    if more == less:
        return f"{_DIFFERENT_ARGUMENTS}: {listed(more, 3)}"
    names = listed(more, 3) if more else listed(less, 3)
    return f"runs {'other' if more and less else 'more' if more else 'fewer'} operators: {names}"


def _parent_is_idle(path: str, run: RecordedPass) -> bool:
    """Whether the parent module did not run either; then only the parent is reported."""
    return path != "" and run.calls[path.rpartition(".")[0]] == 0


def _known_reason(module: nn.Module) -> str:
    if isinstance(module, _BATCH_NORM):
        return _batch_norm_reason(module)
    rate = drop_rate(module)
    if rate is None:
        return ""
    # StochasticDepth of torchvision, DropPath of timm
    if "Depth" in type(module).__name__ or "Path" in type(module).__name__:
        return f"skips its branch with p = {rate:g}"
    return f"drops with p = {rate:g}"


def _batch_norm_reason(module: nn.modules.batchnorm._NormBase) -> str:
    if module.running_mean is None:
        return "normalizes with the statistics of the batch"
    how = "as their average" if module.momentum is None else f"with momentum {module.momentum:g}"
    return f"normalizes with the statistics of the batch and updates the running ones {how}"


def drop_rate(module: nn.Module) -> float | None:
    """The dropout probability of a module; None without one."""
    for name in ("p", "drop_prob", "dropout"):  # torch's and timm's names
        rate = getattr(module, name, None)
        if isinstance(rate, float | int) and not isinstance(rate, bool) and 0 <= rate <= 1:
            return float(rate)
    return None


def unusual_settings(model: nn.Module) -> tuple[str, ...]:
    """Unusual settings of dropout and normalization layers, one sentence each."""
    kinds: dict[str, list[str]] = {}
    for path, module in model.named_modules():
        for setting in _unusual_settings(module):
            kinds.setdefault(setting, []).append(path or "the model")
    return tuple(
        f"{counted(len(paths), setting)}: {listed(paths, 4)}" for setting, paths in kinds.items()
    )


def _unusual_settings(module: nn.Module) -> Iterator[str]:
    kind = type(module).__name__
    if isinstance(module, nn.modules.dropout._DropoutNd):
        if module.p == 0:
            yield f"{kind} never drops (p = 0)"
        elif module.p == 1:
            yield f"{kind} drops everything in training (p = 1)"
    # an InstanceNorm, of the same base class, keeps no running statistics by default
    if isinstance(module, _BATCH_NORM) and "Instance" not in kind:
        # not `track_running_stats`: changed after construction, it leaves the buffers as they are
        if module.running_mean is None:
            yield f"{kind} keeps no running statistics and uses the batch's in evaluation too"
        elif not module.track_running_stats:
            yield f"{kind} does not update its running statistics in training"
        elif module.momentum is None:
            yield f"{kind} averages its running statistics over all batches (momentum None)"


def modes_probe(
    evaluation: RecordedPass,
    training: PassOutcome,
    groups: tuple[ModuleGroup, ...],
    difference: str | None,
) -> Probe:
    """Whether both modes give the same; `difference` describes how the outputs differ."""
    if isinstance(training, FailedPassError):
        reason = f"The model cannot run in training mode: {training.reason}."
        return make_probe("modes_agree", "not run", reason, expected=False)
    same_form = [(o.key, o.dtype, o.shape) for o in evaluation.outputs] == [
        (o.key, o.dtype, o.shape) for o in training.outputs
    ]
    count = sum(len(group.paths) for group in groups)
    if not count and same_form:
        sentence = "No module behaves differently in training mode."
    else:
        changed = "the same form" if same_form else f"another form: {forms(training.outputs)}"
        sentence = f"{counted(count, 'module')} behave{'s' * (count == 1)} differently in training "
        sentence += f"mode; the outputs have {changed}{f' and {difference}' if difference else ''}."
    return make_probe(
        "modes_agree",
        "no" if count or not same_form else "yes",
        sentence,
        where=[path for group in groups for path in group.paths],
        expected=False,
    )
