"""The choices by score that a PyTorch model makes: top-k, argmax, sort, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Choice:
    """Indices chosen by score along the last axis.

    Attributes:
        operator: as torch calls it: `topk`.
        scores: what was compared, the axis of the choice last.
        indices: what was chosen, its axis last; of length 1 for a single one.
        axis: where that axis stands in the operator's own output.
        ordered: the scores decide the order of the indices.
        open_set: among equal scores any may be chosen.
    """

    operator: str
    scores: Tensor
    indices: Tensor
    axis: int
    ordered: bool
    open_set: bool


def record_choices(call: Callable[[], Any]) -> list[Choice]:
    """Every choice that a call makes, in its order; the call's own result is dropped."""
    from torch.utils._python_dispatch import TorchDispatchMode

    found: list[Choice] = []

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            name = func.overloadpacket.__name__
            read = _READERS.get((name, func._overloadname))
            arguments = _arguments(func, args, kwargs or {}) if read else {}
            if read and not arguments.get("stable"):  # a stable sort settles what comes first
                found.append(read(name, arguments, result))
            return result

    with Recorder():  # type: ignore[no-untyped-call]
        call()
    return found


def _arguments(func: Any, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of an operator by name, its defaults included."""
    named = {
        argument.name: argument.default_value
        for argument in func._schema.arguments
        if argument.has_default_value()
    }
    names = (argument.name for argument in func._schema.arguments)
    return named | dict(zip(names, args, strict=False)) | kwargs


def _many(name: str, arguments: dict[str, Any], result: Any) -> Choice:
    """Top-k and sort: `(values, indices)`, as many as asked for."""
    return _choice(
        name,
        arguments["self"],
        result[1],
        arguments["dim"],
        ordered=bool(arguments.get("sorted", True)),
    )


def _one(name: str, arguments: dict[str, Any], result: Any) -> Choice:
    """The place of one value along an axis, which may be gone from the indices."""
    scores, axis = arguments["self"], arguments["dim"]
    indices = result[1] if isinstance(result, tuple | list) else result
    if axis is None:
        return _choice(name, scores.reshape(-1), indices.reshape(1), 0, ordered=True)
    if not arguments["keepdim"] and scores.ndim:
        indices = indices.unsqueeze(axis)
    return _choice(name, scores, indices, axis, ordered=True)


def _suppression(name: str, arguments: dict[str, Any], result: Any) -> Choice:
    """Non-maximum suppression: which boxes are left is settled, equal scores may stand anyhow."""
    return _choice(name, arguments["scores"], result, 0, ordered=True, open_set=False)


def _choice(
    name: str, scores: Tensor, indices: Tensor, axis: int, *, ordered: bool, open_set: bool = True
) -> Choice:
    scores, indices = (t.reshape(1) if t.ndim == 0 else t for t in (scores, indices))
    return Choice(
        operator=name,
        scores=scores.detach().movedim(axis, -1).clone(),
        indices=indices.detach().movedim(axis, -1).clone(),
        axis=axis % indices.ndim,
        ordered=ordered,
        open_set=open_set,
    )


_READERS: dict[tuple[str, str], Callable[[str, dict[str, Any], Any], Choice]] = {
    ("topk", "default"): _many,
    ("sort", "default"): _many,
    ("sort", "stable"): _many,
    ("argmax", "default"): _one,
    ("argmin", "default"): _one,
    ("max", "dim"): _one,
    ("min", "dim"): _one,
    ("median", "dim"): _one,
    ("nanmedian", "dim"): _one,
    ("kthvalue", "default"): _one,
    ("mode", "default"): _one,
    ("nms", "default"): _suppression,
}
