"""The changes of a model in words, shared by all formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from reportgen.compare.result import Edit, EditKind, ModelComparison, StateDictDiff
from reportgen.findings import Severity
from reportgen.units import format_count

_MOST_PARTS = 5  # of the sentence about a model
_MOST_KEYS = 3  # named in a sentence

# A mark that reads without color, and in a terminal.
_MARKS: dict[EditKind, str] = {
    "added": "+",
    "removed": "−",
    "moved": "→",
    "renamed": "→",
    "shifted": "→",
    "wrapped": "→",
    "unwrapped": "→",
    "exchanged": "⇄",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EditLine:
    """One change as a line: a mark, the path or paths, what happened, and what it costs."""

    mark: str
    place: str
    words: str
    cost: str
    source: str


def edit_line(edit: Edit) -> EditLine:
    """`Δ layer3.0.conv2: stride 1 → 2`."""
    words = "; ".join(filter(None, [_words(edit), edit.note]))
    return EditLine(
        mark=_MARKS.get(edit.kind, "Δ"),
        place=_place(edit),
        words=words,
        cost=", ".join(_cost(edit)),
        source=edit.source,
    )


def _place(edit: Edit) -> str:
    old, new = edit.old, edit.new
    if old is None or new is None or old == new:
        place = _named(old if new is None else new)
    elif edit.kind == "exchanged":
        place = f"{_named(old)} ⇄ {_named(new)}"
    else:
        place = f"{_named(old)} → {_named(new)}"
    return f"{place} and {len(edit.also)} more" if edit.also else place


def _named(path: str | None) -> str:
    return path or "(the model)"


def _words(edit: Edit) -> str:
    kind = edit.type or "module"
    pair = f"{edit.before} → {edit.after}"
    size = f", {edit.modules} modules" if edit.modules > 1 else ""
    match edit.kind:
        case "added" | "removed":
            return f"{edit.kind} {kind}{size}"
        case "shifted":
            return f"indices {pair}"
        case "type":
            return pair
        case "changed":
            return f"{edit.field} {pair}"
        case "repeated":
            return f"{pair} equal {kind} blocks"
        case "wrapped" | "unwrapped" | "tied" | "untied":
            return _relation(edit, kind)
        case "weights":
            return "other values of the weights"
        case _:
            return f"{edit.kind}: {pair}" if edit.before or edit.after else edit.kind


def _relation(edit: Edit, kind: str) -> str:
    """Where a module is now inside of, or which one it is the same as."""
    if edit.kind == "wrapped":
        return f"{'' if edit.old else 'the whole old model is '}now inside {kind}"
    if edit.kind == "unwrapped":
        return f"no longer inside {kind}"
    what = edit.field or "the module"
    if edit.kind == "tied":
        return f"{what} is now the same as {edit.after}"
    return f"{what} is no longer the same as {edit.before}"


def _cost(edit: Edit) -> Iterator[str]:
    if edit.parameters:
        yield f"{signed(edit.parameters)} parameters"
    if edit.macs:
        yield f"{signed(edit.macs)} MACs per sample"


def signed(value: float, form: Callable[[float], str] = format_count) -> str:
    """`+1.2 M`, `−340`; `form` formats the size."""
    return f"{'+' if value > 0 else '−'}{form(abs(value))}"


def signed_percent(percent: float | None) -> str:
    """`+4.2 %`; "" if it is unknown, `<0.1 %` close to zero."""
    if percent is None:
        return ""
    if abs(percent) < 0.05:
        return f"{'+' if percent > 0 else '−'}<0.1 %"
    digits = 1 if abs(percent) < 1000 else 0
    return f"{'+' if percent > 0 else '−'}{abs(percent):,.{digits}f} %"


def checkpoint_sentence(diff: StateDictDiff) -> str:
    """Whether a checkpoint of the old model loads into the new one."""
    if diff.verdict == "loads":
        return "A checkpoint of the baseline loads as it is."
    if diff.verdict in ("rename", "convert"):
        return f"A checkpoint of the baseline loads with {_joined(list(_steps(diff)))}."
    keys = diff.without_source or diff.unused
    named = ", ".join(keys[:_MOST_KEYS]) + (" and others" if len(keys) > _MOST_KEYS else "")
    why = "has no source for" if diff.without_source else "has no place for"
    return (
        f"A checkpoint of the baseline does not load: the new model {why} "
        f"{_tensors(len(keys))} ({named})."
    )


def _steps(diff: StateDictDiff) -> Iterator[str]:
    """What must be done to an old checkpoint before it loads."""
    if diff.renamed:
        yield f"{len(diff.renamed):,} renamed key{'s' * (len(diff.renamed) != 1)}"
    if diff.conversions:
        kinds = ", ".join(dict.fromkeys(each.kind for each in diff.conversions))
        yield f"{_tensors(len(diff.conversions))} converted ({kinds})"
    if diff.unused:
        yield f"{_tensors(len(diff.unused))} left out"


def _joined(parts: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _tensors(number: int) -> str:
    return f"{number:,} tensor{'s' * (number != 1)}"


def model_sentence(model: ModelComparison) -> str:
    """What a reviewer must know of one model; made of the rows that are shown below it."""
    if model.status == "added":
        return "is not in the baseline"
    if model.status == "removed":
        return "is only in the baseline"
    parts = list(_parts(model))
    if not parts:
        return "unchanged" if model.status == "unchanged" else "changed in details"
    more = len(parts) - _MOST_PARTS
    return ", ".join(parts[:_MOST_PARTS]) + (f" and {more} more" if more > 0 else "")


def _parts(model: ModelComparison) -> Iterator[str]:
    headline = [each for each in model.metrics if each.headline]
    for verdict in ("worse", "better", "changed"):
        for change in headline:
            if change.verdict == verdict:
                yield f"{change.label} {_difference(change.percent, change.new_text)}"
    errors = [f for f in model.findings.new if f.severity is Severity.ERROR]
    warnings = [f for f in model.findings.new if f.severity is Severity.WARNING]
    yield from _numbered(len(errors), "new error")
    yield from _numbered(len(warnings), "new warning")
    yield from _numbered(len(model.findings.fixed), "fixed finding")
    if model.modules:
        yield from _numbered(len(model.modules.edits), "structural change")
    if model.state_dict and model.state_dict.verdict == "cannot":
        yield "old checkpoints do not load"
    yield from _numbered(len(model.fits), "changed safe batch", "changed safe batches")
    yield from _numbered(len(model.curves), "other training curve")


def _difference(percent: float | None, text: str) -> str:
    return signed_percent(percent) or f"now {text}"


def _numbered(number: int, word: str, plural: str = "") -> Iterator[str]:
    if number:
        yield f"{number:,} {word if number == 1 else plural or f'{word}s'}"


def comparison_sentence(models: Sequence[ModelComparison]) -> str:
    """How many models changed."""
    counts = {
        status: sum(model.status == status for model in models)
        for status in ("changed", "added", "removed")
    }
    if not any(counts.values()):
        return "Nothing changed."
    parts = [
        f"{counts['changed']} of {len(models)} models changed" if counts["changed"] else "",
        f"{counts['added']} added" if counts["added"] else "",
        f"{counts['removed']} removed" if counts["removed"] else "",
    ]
    return f"{', '.join(filter(None, parts))}."
