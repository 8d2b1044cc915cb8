"""Loads weights from a file into a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.error_text import one_line
from reportgen.errors import ModelError
from reportgen.sources.weight_files import StateDicts, read_state_dicts

if TYPE_CHECKING:
    from torch import Tensor, nn

    State = Mapping[str, Tensor]

# keys under which training scripts store the state dict in a checkpoint, the first preferred
_WRAPPERS = ("", "state_dict", "model_state_dict", "model", "module")
# path components that wrappers add, wherever they wrap a module
_WRAPPING = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_forward_module")
_LISTED = 5


def load_weights(model: nn.Module, path: Path) -> tuple[str, ...]:
    """Load the tensors of `path` into `model`; keys and shapes must match exactly.

    One prefix by which all keys differ is removed or added, and tied weights may be stored once.
    Returns what was done beyond loading the file as it is, one sentence each.

    Raises:
        ModelError: the file is damaged, contains code, or does not match the model.
    """
    expected = model.state_dict()
    matches, notes = _choose(expected, read_state_dicts(path), path)
    if len(matches) > 1:
        raise ModelError(
            f"{path.name}: the keys under several prefixes match the model: "
            f"{_names([match.prefix for match in matches])}",
            hint="save only the part to load, without its prefix",
        )
    _check_match(expected, matches[0].state, path)
    try:
        model.load_state_dict(matches[0].state)
    except RuntimeError as error:
        raise ModelError(f"{path.name} does not match the model: {one_line(error)}") from error
    return tuple(f"{path.name}: {note}" for note in (*notes, matches[0].note) if note)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Match:
    """A state dict renamed to the model's keys, and a note on how."""

    state: State
    prefix: str = ""
    note: str = ""


def _choose(expected: State, found: StateDicts, path: Path) -> tuple[list[_Match], tuple[str, ...]]:
    """The matches of the state dict to load, and a note if it is one of several in the file."""
    matches = {key: _matches(expected, found[key]) for key in sorted(found, key=_rank)}
    fitting = [key for key in matches if matches[key]]
    candidates = fitting or list(matches)
    key = candidates[0]
    is_known = _rank(key) < len(_WRAPPERS)
    # under unknown names, the choice between several is the user's
    if len(candidates) > 1 and not is_known:
        number = len(fitting) or "none"
        raise ModelError(
            f"{path.name} contains {len(found)} state dicts, of which {number} "
            f"{'matches' if not fitting else 'match'} the model: {_names(list(found))}",
            hint=f"save the one to load: torch.save(torch.load({path.name!r})"
            f"{_subscript(key)}, 'weights.pth')",
        )
    others = [name for name in found if name != key]
    rest = f"; not loaded: {_names(others)}" if others else ""
    note = f"the weights under {key!r} were loaded{rest}" if others or not is_known else ""
    return matches[key] or [_Match(state=found[key])], (note,)


def _rank(key: str) -> int:
    """Position in `_WRAPPERS`, their number for any other key."""
    parts = key.split(".")
    is_known = all(part in _WRAPPERS for part in parts)
    return _WRAPPERS.index(parts[-1]) if is_known else len(_WRAPPERS)


def _matches(expected: State, state: State) -> list[_Match]:
    """Every way to give `state` exactly the keys of `expected`; one if it is clear."""
    same = _with_tied(expected, state)
    if same.keys() == expected.keys():
        return [_Match(state=same)]
    unwrapped = _with_tied(expected, {_without_wrappers(key): state[key] for key in state})
    if unwrapped.keys() == expected.keys():
        names = [part for part in _WRAPPING if any(part in key.split(".") for key in state)]
        note = f"the keys match the model without {_names(names)}"
        return [_Match(state=unwrapped, note=note)]
    longer = [_removed(prefix, expected, state) for prefix in _prefixes(expected, state)]
    found = [match for match in longer if match.state.keys() == expected.keys()]
    if len(found) > 1:
        # of equal modules with other sizes, such as the layers of an MLP, at most one fits
        return [match for match in found if _same_shapes(expected, match.state)] or found
    return found or [
        _Match(state=added, prefix=prefix, note=f"the keys match the model with {prefix!r} added")
        for prefix in _prefixes(state, expected)
        if (added := _with_tied(expected, {prefix + key: state[key] for key in state})).keys()
        == expected.keys()
    ]


def _prefixes(short: State, long: State) -> list[str]:
    """Every text that before a key of `short` gives one of `long`, in order."""
    starts = (
        (key[: dot.end()], key[dot.end() :]) for key in long for dot in re.finditer(r"\.", key)
    )
    return list(dict.fromkeys(start for start, rest in starts if rest in short))


def _removed(prefix: str, expected: State, state: State) -> _Match:
    taken = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    unused = [key for key in state if not key.startswith(prefix)]
    rest = f"; not used: {_names(unused)}" if unused else ""
    note = f"the keys match the model without their prefix {prefix!r}{rest}"
    return _Match(state=_with_tied(expected, taken), prefix=prefix, note=note)


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in _WRAPPING)


def _with_tied(expected: State, state: State) -> State:
    """`state` with the missing keys of tied weights, which a file may store under one name."""
    if expected.keys() <= state.keys():
        return state
    places = {
        key: (each.data_ptr(), each.dtype, each.shape, each.stride())
        for key, each in expected.items()
        if _shape(each) is not None and each.numel() and not each.is_meta
    }
    stored = {places[key]: state[key] for key in state if key in places}
    tied = {key: stored[place] for key, place in places.items() if place in stored}
    return tied | dict(state)


def _same_shapes(expected: State, state: State) -> bool:
    return all(_shape(expected[key]) == _shape(state[key]) for key in expected)


def _check_match(expected: State, given: State, path: Path) -> None:
    problems = [
        _listing("missing", [key for key in expected if key not in given]),
        _listing("unknown", [key for key in given if key not in expected]),
        _listing(
            "with a different shape",
            [
                f"{key} {tuple(given[key].shape)} instead of {tuple(expected[key].shape)}"
                for key in expected
                if key in given and _shape(given[key]) != _shape(expected[key])
            ],
        ),
    ]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        raise ModelError(
            f"{path.name} does not match the model: {found}",
            hint="check 'arguments': the file was saved from another architecture or size",
        )


def _shape(tensor: Any) -> tuple[int, ...] | None:
    from torch.nn.parameter import is_lazy

    # a lazy parameter raises for `shape`
    return None if is_lazy(tensor) else tuple(tensor.shape)


def _listing(kind: str, keys: list[str]) -> str:
    return f"{len(keys)} {kind}: {_names(keys, str)}" if keys else ""


def _names(keys: list[str], form: Any = repr) -> str:
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(form(key) for key in keys[:_LISTED]) + more


def _subscript(key: str) -> str:
    return "".join(f"[{part!r}]" for part in key.split("."))
