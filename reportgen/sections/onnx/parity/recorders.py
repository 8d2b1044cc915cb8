"""Records one call of a model: module outputs, random operators, selections by score."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from reportgen.onnx.export.source_location import is_library_file, short_path
from reportgen.pytree import named_tensors
from reportgen.tracing.op_recorder import OpRecorder
from reportgen.tracing.running_modules import RunningModules, calling_back

if TYPE_CHECKING:
    from torch import Tensor, nn


MOST_BYTES = 512 * 2**20  # of outputs kept at a time

Call = Callable[[], Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModuleCall:
    """One call of one module, with copies of the tensors that it returned.

    Attributes:
        path: of the module, "" for the model itself.
        number: of earlier calls of the module.
        training: whether it was in train mode.
    """

    path: str
    number: int
    training: bool
    tensors: tuple[Tensor, ...]


def record_module_outputs(
    model: nn.Module,
    call: Call,
    within: str = "",
    most_bytes: int = MOST_BYTES,
    paths: Collection[str] | None = None,
) -> tuple[list[ModuleCall], bool]:
    """The calls of all modules below `within`, or of those in `paths`, in the order they ended.

    If their outputs take more than `most_bytes`, the deepest modules are left out; also returns
    whether any were.
    """
    sizes: dict[int, int] = {}
    below = f"{within}." if within else ""

    def is_wanted(path: str) -> bool:
        return path.startswith(below) and (paths is None or path in paths)

    def add_size(path: str, _: nn.Module, output: Any) -> None:
        if is_wanted(path):
            depth = path.count(".")
            size = sum(tensor.nbytes for tensor in named_tensors(output).values())
            sizes[depth] = sizes.get(depth, 0) + size

    # a call for the sizes alone: the outputs themselves may not fit into memory
    with calling_back(model, add_size):
        call()
    deepest, total = -1, 0
    for depth in sorted(sizes):
        total += sizes[depth]
        if total > most_bytes and deepest >= 0:
            break
        deepest = depth
    calls: list[ModuleCall] = []
    numbers: dict[str, int] = {}

    def keep(path: str, module: nn.Module, output: Any) -> None:
        if is_wanted(path) and path.count(".") <= deepest:
            # a later module may write into them (ReLU in place)
            tensors = tuple(t.detach().clone() for t in named_tensors(output).values())
            number = numbers[path] = numbers.get(path, -1) + 1
            calls.append(
                ModuleCall(path=path, number=number, training=module.training, tensors=tensors)
            )

    with calling_back(model, keep):
        call()
    return calls, deepest < max(sizes, default=-1)


def record_tensors(call: Call, callback: Callable[[Tensor], None]) -> None:
    """Call `callback` with every tensor that an operator returns during `call`."""

    def on_operator(_func: Any, _args: Any, _kwargs: Any, result: Any) -> None:
        for tensor in named_tensors(result).values():
            callback(tensor)

    with OpRecorder(on_operator):
        call()


_MOST = 5  # places listed


def find_random_operators(model: nn.Module, call: Callable[[], Any]) -> tuple[str, ...]:
    """`aten.rand_like in noise at net.py:12` for every random operator of one call.

    Each location is listed once; beyond five only their number.
    """
    import torch

    found: dict[str, None] = {}
    running = RunningModules(model)

    def on_operator(func: Any, _args: Any, _kwargs: Any, _result: Any) -> None:
        random = torch.Tag.nondeterministic_seeded in getattr(func, "tags", ())
        if random and running.is_inside:  # not the operators that make random inputs
            found[f"{func.overloadpacket}{_in(running.path)}{_at()}"] = None

    recorder = partial(OpRecorder, on_operator)
    running.in_other_threads.append(recorder)  # dispatch modes hold for one thread only
    with running.watching(), recorder():
        call()
    places = list(found)
    more = len(places) - _MOST
    return (*places[:_MOST], *([f"{more} other places"] if more > 0 else []))


def _in(path: str) -> str:
    return f" in {path}" if path else ""


def _at() -> str:
    """The innermost running line of the model's own code."""
    for frame in reversed(traceback.extract_stack()):
        if not is_library_file(frame.filename):
            return f" at {short_path(frame.filename)}:{frame.lineno}"
    return ""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Selection:
    """Indices chosen by score along the last axis.

    Attributes:
        operator: its name in torch: `topk`.
        scores: the compared values, the axis of the selection last.
        indices: the selected ones, their axis last; of length 1 for a single one.
        axis: position of that axis in the operator's output.
        ordered: the scores determine the order of the indices.
        open_set: among equal scores any may be selected.
    """

    operator: str
    scores: Tensor
    indices: Tensor
    axis: int
    ordered: bool
    open_set: bool


def record_selections(call: Callable[[], Any]) -> list[Selection]:
    """Every selection of one call, in order."""
    found: list[Selection] = []

    def on_operator(func: Any, args: Any, kwargs: Any, result: Any) -> None:
        name, overload = getattr(func, "_opname", ""), getattr(func, "_overloadname", "")
        read = _READERS.get((name, overload))
        arguments = _arguments(func, args, kwargs) if read else {}
        if read and not arguments.get("stable"):  # a stable sort defines the order of equal scores
            found.append(read(name, arguments, result))

    with OpRecorder(on_operator):
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


def _many(name: str, arguments: dict[str, Any], result: Any) -> Selection:
    """Top-k and sort: `(values, indices)`."""
    return _selection(
        name,
        arguments["self"],
        result[1],
        arguments["dim"],
        ordered=bool(arguments.get("sorted", True)),
    )


def _one(name: str, arguments: dict[str, Any], result: Any) -> Selection:
    """The position of one value along an axis, which the indices may have lost (keepdim=False)."""
    scores, axis = arguments["self"], arguments["dim"]
    indices = result[1] if isinstance(result, tuple | list) else result
    if axis is None:  # argmax over all elements
        return _selection(name, scores.reshape(-1), indices.reshape(1), 0, ordered=True)
    if not arguments["keepdim"] and scores.ndim:
        indices = indices.unsqueeze(axis)
    return _selection(name, scores, indices, axis, ordered=True)


def _suppression(name: str, arguments: dict[str, Any], result: Any) -> Selection:
    # the set of boxes is determined, only the order of equal scores is not
    return _selection(name, arguments["scores"], result, 0, ordered=True, open_set=False)


def _selection(
    name: str, scores: Tensor, indices: Tensor, axis: int, *, ordered: bool, open_set: bool = True
) -> Selection:
    scores, indices = (t.reshape(1) if t.ndim == 0 else t for t in (scores, indices))
    return Selection(
        operator=name,
        scores=scores.detach().movedim(axis, -1).clone(),
        indices=indices.detach().movedim(axis, -1).clone(),
        axis=axis % indices.ndim,
        ordered=ordered,
        open_set=open_set,
    )


_READERS: dict[tuple[str, str], Callable[[str, dict[str, Any], Any], Selection]] = {
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
