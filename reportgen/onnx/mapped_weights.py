"""A copy of an ONNX file whose weights onnxruntime maps into memory.

Each session parses the whole file and copies its weights, which takes 1 to 3 s for every GB, and a
report opens six sessions. Weights in a file of their own are mapped, in no time.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import BinaryIO

_WORTHWHILE = 32 * 2**20  # bytes of a file; smaller ones are read as quickly
_LARGEST = 10**9  # bytes of a file; another copy on disk is not worth it
_WEIGHT = 4096  # elements of an initializer; those of smaller ones may decide shapes
_PAGE = 4096  # onnxruntime maps what starts at a multiple of this
_NAME = "weights.bin"


@contextmanager
def mapped_weights(model: Any, path: Path) -> Iterator[Path]:
    """The copy, in a folder that goes away; `path` itself where a copy gains nothing.

    Args:
        model: the parsed file, an `onnx.ModelProto` with its weights; not changed.
        path: the file.
    """
    if not _WORTHWHILE <= path.stat().st_size <= _LARGEST:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            copy = _copy(model, Path(folder, path.name))
        except OSError:  # the disk is full, say
            copy = path
        yield copy


def _copy(model: Any, path: Path) -> Path:
    import onnx

    copied = onnx.ModelProto()
    _copy_fields(model, copied, without="graph")
    _copy_fields(model.graph, copied.graph, without="initializer")
    with path.with_name(_NAME).open("wb") as weights:
        for tensor in model.graph.initializer:
            target = copied.graph.initializer.add()
            if _is_weight(tensor):
                _write_apart(tensor, target, weights)
            else:
                target.CopyFrom(tensor)
    path.write_bytes(copied.SerializeToString())
    return path


def _is_weight(tensor: Any) -> bool:
    # not by the length of the contents: protobuf copies them to tell it
    return bool(tensor.HasField("raw_data")) and math.prod(tensor.dims) >= _WEIGHT


def _copy_fields(message: Any, copied: Any, *, without: str) -> None:
    for field, value in message.ListFields():
        if field.name == without:
            continue
        target = getattr(copied, field.name)
        if field.is_repeated:
            target.extend(value)
        elif field.message_type is None:
            setattr(copied, field.name, value)
        else:
            target.CopyFrom(value)


def _write_apart(tensor: Any, copied: Any, weights: BinaryIO) -> None:
    import onnx

    copied.name, copied.data_type = tensor.name, tensor.data_type
    copied.dims.extend(tensor.dims)
    weights.seek(-weights.tell() % _PAGE, 1)
    raw = tensor.raw_data
    entries = {"location": _NAME, "offset": weights.tell(), "length": len(raw)}
    copied.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        copied.external_data.add(key=key, value=str(value))
    weights.write(raw)
