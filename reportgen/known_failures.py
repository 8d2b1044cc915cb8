"""Causes of a model's errors that PyTorch's message does not name, found in the traceback."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from reportgen.error_text import one_line, user_frame

_NO_GPU = re.compile(
    r"Found no NVIDIA driver|not compiled with (CUDA|XPU) enabled|No (CUDA|HIP|XPU) GPUs are"
    r"|without ATen_cuda|CUDA driver initialization failed|support for mps devices"
    r"|two devices, (cuda|mps|xpu)|on (cuda|mps|xpu)(:\d+)?, (but|different from)"
    r"|torch\.cuda\.\w+Tensor"
)
_STORED_ON_GPU = re.compile(r"deserialize object on a \w+ device")
_OUT_OF_BOUNDS = re.compile(r"index (-?\d+) is out of bounds for dimension (\d+) with size (\d+)")
_EMBEDDING = ("embedding", "embedding_bag")
_RANGE_HINT = "set `high` of the integer inputs in the manifest, or check how the index is computed"


@dataclass(frozen=True, slots=True)
class KnownFailure:
    """The cause of an error that torch's message does not name.

    Attributes:
        text: the cause in one line with its place.
        hint: what to do.
        by_inputs: whether the values of one input are the cause, so that no other batch runs.
    """

    text: str
    hint: str
    by_inputs: bool = False


def known_failure(error: BaseException) -> KnownFailure | None:
    """The cause of `error` or of what caused it; None if torch's own message must do."""
    current: BaseException | None = error
    for _ in range(10):  # causes may form a circle
        if current is None:
            return None
        for recognize in (_needs_gpu, _index_out_of_range, _too_large, _relative_path):
            if (found := recognize(current)) is not None:
                return found
        current = current.__cause__
    return None


def failure_text(error: BaseException, limit: int = 300) -> str:
    """The cause of `error` if it is known, else its type and message; with the user's line."""
    if known := known_failure(error):
        return known.text
    return f"{type(error).__name__}: {one_line(error, limit)}{_place(error)}"


def failure_hint(error: BaseException, otherwise: str) -> str:
    """What to do about `error` if its cause is known, else `otherwise`."""
    known = known_failure(error)
    return known.hint if known else otherwise


def _place(error: BaseException) -> str:
    place = user_frame(error)
    return f" ({place})" if place else ""


def _needs_gpu(error: BaseException) -> KnownFailure | None:
    text = str(error)
    if _STORED_ON_GPU.search(text):
        return KnownFailure(
            f"the model loads a file that was saved on a GPU{_place(error)}; reportgen runs on "
            "the CPU",
            "pass map_location='cpu' to torch.load",
        )
    if not _NO_GPU.search(text):
        return None
    return KnownFailure(
        f"the model moves itself to a GPU{_place(error)}; reportgen runs on the CPU",
        "remove .cuda() and device='cuda', or use the device of an input or a parameter: x.device",
    )


def _too_large(error: BaseException) -> KnownFailure | None:
    if "Storage size calculation overflowed" not in str(error):
        return None
    return KnownFailure(
        f"a tensor would have more bytes than 64 bits can count{_place(error)}",
        "lower the model's batch, or the sizes of its inputs",
    )


def _relative_path(error: BaseException) -> KnownFailure | None:
    if not isinstance(error, FileNotFoundError) or not isinstance(error.filename, str):
        return None
    if error.filename.startswith("/") or not (place := _place(error)):
        return None
    return KnownFailure(
        f"the model's code opens {error.filename!r}, which does not exist{place}",
        "a relative path starts at the folder where reportgen was started; in the code, use "
        "Path(__file__).parent / ... instead",
    )


def _index_out_of_range(error: BaseException) -> KnownFailure | None:
    if bounds := _OUT_OF_BOUNDS.search(str(error)):
        return KnownFailure(
            f"index {bounds[1]} is out of range: dimension {bounds[2]} of the indexed tensor has "
            f"size {bounds[3]}{_place(error)}",
            _RANGE_HINT,
        )
    if "index out of range in self" not in str(error):
        return None
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    lookup = next((f for f in reversed(frames) if f.f_code.co_name in _EMBEDDING), None)
    if lookup is None:
        return None
    indices: Any = lookup.f_locals.get("input")
    weight: Any = lookup.f_locals.get("weight")
    if not (_is_tensor(indices) and _is_tensor(weight) and indices.numel()):
        return None
    return _outside_table(frames, indices, weight, _place(error))


def _outside_table(frames: list[FrameType], indices: Any, weight: Any, place: str) -> KnownFailure:
    rows, low, high = len(weight), int(indices.min()), int(indices.max())
    name = next(_argument_names(frames, indices), "")
    what = f"input {name!r}" if name else "an index"
    table = next(_parameter_names(frames, weight), "").removesuffix(".weight")
    reached = f"is {low}" if low < 0 else f"reaches {high}"
    key = "low: 0" if low < 0 else f"high: {rows}"
    return KnownFailure(
        f"{what} {reached}, but the embedding {table} has {rows} rows{place}".replace("  ", " "),
        f"set `{key}` for {name!r} in the manifest" if name else _RANGE_HINT,
        by_inputs=bool(name),
    )


def _argument_names(frames: list[FrameType], tensor: Any) -> Iterator[str]:
    """Arguments of the outermost forward that share the memory of `tensor`."""
    forward = next((f for f in frames if f.f_code.co_name == "forward" and _module(f)), None)
    if forward is None:
        return
    memory = tensor.untyped_storage().data_ptr()
    for name in forward.f_code.co_varnames[: forward.f_code.co_argcount]:
        value: Any = forward.f_locals.get(name)
        if _is_tensor(value) and value.untyped_storage().data_ptr() == memory:
            yield name


def _parameter_names(frames: list[FrameType], weight: Any) -> Iterator[str]:
    model: Any = next((module for frame in frames if (module := _module(frame))), None)
    for name, parameter in model.named_parameters() if model is not None else ():
        if parameter is weight:
            yield name


def _module(frame: FrameType) -> Any:
    torch = sys.modules["torch"]
    found = frame.f_locals.get("self")
    return found if isinstance(found, torch.nn.Module) else None


def _is_tensor(value: object) -> bool:
    return isinstance(value, sys.modules["torch"].Tensor)
