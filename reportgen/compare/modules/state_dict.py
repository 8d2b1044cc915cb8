"""Whether a checkpoint of the old model loads into the new one, and with which renames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from reportgen.comparable import ModuleRecord, StateTensor
from reportgen.compare.modules.tree import PARAMETRIZATIONS
from reportgen.compare.result import (
    Conversion,
    ModulesDiff,
    PathPair,
    ShapeMismatch,
    StateDictDiff,
)

# These wrappers remove their name from the keys that they save.
_NOT_IN_KEYS = ("_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
_NO_DOT = "\u2024"  # in paths, for a dot in a name of a module
# Names of one tensor in the two forms of weight normalization and the like.
_PLAIN_NAMES = {"original0": "_g", "original1": "_v", "original": "_orig"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    """A tensor of a state dict and the module that registers it."""

    key: str
    record: ModuleRecord
    tensor: StateTensor


def diff_state_dict(
    old: Sequence[ModuleRecord], new: Sequence[ModuleRecord], modules: ModulesDiff
) -> StateDictDiff:
    """Whether a state dict of the old model loads with `strict=True`, by what is known to be equal.

    Args:
        old: modules of the old model.
        new: modules of the new model.
        modules: what `diff_modules` found.
    """
    before = {entry.key: entry for entry in _entries(old)}
    after = {entry.key: entry for entry in _entries(new)}
    shapes_before = {key: entry.tensor.shape for key, entry in before.items()}
    shapes_after = {key: entry.tensor.shape for key, entry in after.items()}
    sources, conversions = _sources(before, after, modules)
    conversions += _copies(after, {*sources, *_made(conversions)}, sources)
    made = _made(conversions)
    used = {*sources.values(), *(key for each in conversions for key in each.old)}
    missing = tuple(key for key in after if key not in before)
    unexpected = tuple(key for key in before if key not in after)
    mismatched = tuple(
        ShapeMismatch(key=key, old=shapes_before[key], new=shape)
        for key, shape in shapes_after.items()
        if key in before and shapes_before[key] != shape
    )
    renamed = tuple(PathPair(old=a, new=b) for b, a in sources.items() if a != b)
    without = tuple(key for key in after if key not in sources and key not in made)
    loads = not (missing or unexpected or mismatched)
    return StateDictDiff(
        loads=loads,
        verdict=_verdict(loads and not renamed, bool(without), bool(conversions)),
        missing=missing,
        unexpected=unexpected,
        mismatched=mismatched,
        renamed=renamed,
        conversions=tuple(conversions),
        without_source=without,
        unused=tuple(key for key in before if key not in used),
        rename_map=_rename_map({a: b for b, a in sources.items()}, before),
    )


def _verdict(
    loads: bool, is_incomplete: bool, converts: bool
) -> Literal["loads", "rename", "convert", "cannot"]:
    if loads:
        return "loads"
    if is_incomplete:
        return "cannot"
    return "convert" if converts else "rename"


def _entries(records: Iterable[ModuleRecord]) -> Iterator[_Entry]:
    for record in records:
        for tensor in record.tensors:
            if tensor.persistent:
                key = f"{record.path}.{tensor.name}".lstrip(".").replace(_NO_DOT, ".")
                for wrapper in _NOT_IN_KEYS:
                    key = key.replace(wrapper, "")
                yield _Entry(key=key, record=record, tensor=tensor)


def _made(conversions: Iterable[Conversion]) -> set[str]:
    return {key for each in conversions for key in each.new}


def _sources(
    before: Mapping[str, _Entry], after: Mapping[str, _Entry], modules: ModulesDiff
) -> tuple[dict[str, str], list[Conversion]]:
    """The old key of each new key whose tensor is the same one, and what must be converted."""
    sources: dict[str, str] = {}
    conversions: list[Conversion] = []
    at_new = _by_place(after.values())
    paired = {pair.old: pair.new for pair in modules.pairs}
    for (path, name), old in _by_place(before.values()).items():
        new = at_new.get((paired[path], name)) if path in paired else None
        if new is None:
            continue
        how = _conversion(old, new)
        if how is None and old.tensor.shape == new.tensor.shape:
            sources[new.key] = old.key
        elif how is not None:
            conversions.append(how)
    for group in modules.regrouped:
        conversions += _regroupings(group.old, group.new, before, after)
    return sources, conversions


def _by_place(entries: Iterable[_Entry]) -> dict[tuple[str, str], _Entry]:
    """Entries by module and name; a reparametrized weight's under those of its module."""
    found: dict[tuple[str, str], _Entry] = {}
    for entry in entries:
        path, name = entry.record.path, entry.tensor.name
        owner, marker, weight = path.rpartition(f"{PARAMETRIZATIONS}.")
        if marker and name in _PLAIN_NAMES and "." not in weight:
            path, name = owner.removesuffix("."), f"{weight}{_PLAIN_NAMES[name]}"
        found[path, name] = entry
    return found


def _conversion(old: _Entry, new: _Entry) -> Conversion | None:
    """How the tensor must be changed; None if it must not, or cannot."""
    a, b = old.tensor.shape, new.tensor.shape
    kinds = {old.record.type, new.record.type}
    if kinds == {"Conv1D", "Linear"} and old.tensor.name == "weight" and a == b[::-1]:
        return Conversion(kind="transpose", old=(old.key,), new=(new.key,))
    if a != b and [n for n in a if n != 1] == [n for n in b if n != 1]:
        return Conversion(kind="reshape", old=(old.key,), new=(new.key,), sizes=b)
    return None


def _regroupings(
    old: tuple[str, ...],
    new: tuple[str, ...],
    before: Mapping[str, _Entry],
    after: Mapping[str, _Entry],
) -> Iterator[Conversion]:
    """One conversion for each tensor of modules that were split or merged."""
    is_split = len(old) == 1
    several = after if is_split else before
    parts = [
        {e.tensor.name: e for e in several.values() if e.record.path == path}
        for path in (new if is_split else old)
    ]
    [one] = old if is_split else new
    for entry in (before if is_split else after).values():
        if entry.record.path != one:
            continue
        pieces = [part[entry.tensor.name] for part in parts]
        matrix = len(entry.tensor.shape) > 1
        dim = 1 if matrix and entry.record.type == "Conv1D" else 0
        keys = tuple(piece.key for piece in pieces)
        yield Conversion(
            kind="split" if is_split else "merge",
            old=(entry.key,) if is_split else keys,
            new=keys if is_split else (entry.key,),
            dim=dim,
            sizes=tuple(piece.tensor.shape[dim] for piece in pieces),
        )


def _copies(
    after: Mapping[str, _Entry], filled: set[str], sources: Mapping[str, str]
) -> list[Conversion]:
    """New names of tensors that have a source under another name, such as those of a tie."""
    groups: dict[str, list[str]] = {}
    for key, entry in after.items():
        groups.setdefault(entry.tensor.tied_to or key, []).append(key)
    return [
        Conversion(kind="copy", old=(sources[source],), new=(key,))
        for keys in groups.values()
        for source in [next((key for key in keys if key in sources), "")]
        for key in keys
        if source and key not in filled
    ]


def _rename_map(new_of: Mapping[str, str], before: Iterable[str]) -> dict[str, str | None]:
    """Few prefixes that rename the old keys, the longest one counting; None drops a key.

    Keys without a prefix in the map are unchanged; the map is empty if all are.
    """
    wanted = {key: new_of.get(key) for key in before}
    rules: dict[str, str | None] = {}
    for key, new in wanted.items():
        if new is not None and new != _renamed(key, rules):
            prefix, replacement = _prefixes(key, new)
            rules.setdefault(prefix, replacement)
    kept = {prefix for key, new in wanted.items() if new is not None for prefix in _above(key)}
    for key, new in wanted.items():
        if new != _renamed(key, rules):
            # a whole module that is left out is one rule
            rules[next((p for p in _above(key) if new is None and p not in kept), key)] = new
    keys = sorted(wanted)
    for one, other in pairwise(keys):  # `weight` also begins `weight_g`
        if one in rules and other.startswith(one):
            rules.setdefault(other, wanted[other])
    return {old: new for old, new in rules.items() if old != new or len(rules) > 1}


def _above(key: str) -> Iterator[str]:
    """`a.`, `a.b.` of `a.b.weight`."""
    parts = key.split(".")[:-1]
    yield from (f"{'.'.join(parts[:end])}." for end in range(1, len(parts) + 1))


def _prefixes(old: str, new: str) -> tuple[str, str]:
    """`layer1.`, `stages.0.` of `layer1.conv.weight`, `stages.0.conv.weight`."""
    left, right = old.split("."), new.split(".")
    common = 0
    while common < min(len(left), len(right)) and left[-1 - common] == right[-1 - common]:
        common += 1
    if not common:
        return old, new
    return "".join(f"{each}." for each in left[:-common]), "".join(
        f"{each}." for each in right[:-common]
    )


def _renamed(key: str, rules: Mapping[str, str | None]) -> str | None:
    """`key` by the longest rule that begins it: itself or some of its modules."""
    prefix = key
    while prefix not in rules:
        if not prefix:
            return key
        prefix = prefix.rstrip(".").rpartition(".")[0]
        prefix += "." if prefix else ""
    replacement = rules[prefix]
    return None if replacement is None else f"{replacement}{key[len(prefix) :]}"
