"""TensorBoard's tensors as NumPy arrays, without TensorFlow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_ELEMENTS = 1 << 22
"""A larger tensor is not decoded: one value can stand for any shape, so that 30 bytes of a file
could require any amount of memory."""

# Numbers of DataType in tensorboard/compat/proto/types.proto.
_FLOAT, _STRING, _BFLOAT16, _HALF = 1, 7, 14, 19

# DataType -> (NumPy type, field of TensorProto that holds single values)
_TYPES = {
    _FLOAT: ("<f4", "float_val"),
    2: ("<f8", "double_val"),
    3: ("<i4", "int_val"),
    4: ("<u1", "int_val"),
    5: ("<i2", "int_val"),
    6: ("<i1", "int_val"),
    9: ("<i8", "int64_val"),
    10: ("?", "bool_val"),
    _BFLOAT16: ("<u2", "half_val"),
    17: ("<u2", "int_val"),
    _HALF: ("<u2", "half_val"),
    22: ("<u4", "uint32_val"),
    23: ("<u8", "uint64_val"),
}

# Protobuf has no types below 32 bits: int_val holds int8 to int32, half_val the bits of a float16.
_FIELDS = {
    "float_val": "f4",
    "double_val": "f8",
    "int_val": "i4",
    "half_val": "i4",
    "int64_val": "i8",
    "bool_val": "?",
    "uint32_val": "u4",
    "uint64_val": "u8",
}


class MalformedTensor(Exception):
    """A tensor whose content does not fit its type, its shape or the plugin that it is for."""


def tensor_shape(tensor: Any) -> tuple[int, ...]:
    """The shape of a `TensorProto`.

    Raises:
        MalformedTensor: unknown or too large.
    """
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if any(size < 0 for size in shape) or math.prod(shape) > MAX_ELEMENTS:
        raise MalformedTensor
    return shape


def tensor_scalar(tensor: Any) -> float:
    """The only value of a tensor of any rank.

    Raises:
        MalformedTensor: not a number, or not exactly one.
    """
    # The usual case first: it needs no array for each point.
    values = tensor.float_val
    if len(values) == 1 and tensor.dtype == _FLOAT and not tensor.tensor_shape.dim:
        return float(values[0])
    array = tensor_array(tensor)
    if array.size != 1:
        raise MalformedTensor
    return float(array.reshape(())[()])


def tensor_array(tensor: Any) -> NDArray[np.float64]:
    """A numeric `TensorProto` as float64 in its shape.

    The last of fewer values than elements stands for all that follow, as in TensorFlow.

    Raises:
        MalformedTensor: another type, too few bytes, or too large.
    """
    shape = tensor_shape(tensor)
    if tensor.dtype not in _TYPES:
        raise MalformedTensor
    kind, field = _TYPES[tensor.dtype]
    try:
        if tensor.tensor_content:
            flat = np.frombuffer(tensor.tensor_content, dtype=kind)
            return _as_float64(flat, tensor.dtype).reshape(shape)
        flat = np.array(list(getattr(tensor, field)), dtype=_FIELDS[field]).astype(kind)
        return _repeated(_as_float64(flat, tensor.dtype), math.prod(shape)).reshape(shape)
    except ValueError as error:
        raise MalformedTensor from error


def tensor_strings(tensor: Any) -> tuple[list[bytes], tuple[int, ...]]:
    """The strings of a DT_STRING tensor in row-major order, and its shape.

    Raises:
        MalformedTensor: another type, or a number of strings that does not fit the shape.
    """
    shape = tensor_shape(tensor)
    strings = list(tensor.string_val)
    if tensor.dtype != _STRING or len(strings) != math.prod(shape):
        raise MalformedTensor
    return strings, shape


def _as_float64(flat: NDArray[Any], dtype: int) -> NDArray[np.float64]:
    if dtype == _HALF:
        flat = flat.view("<f2")
    elif dtype == _BFLOAT16:
        # NumPy has no bfloat16, which is the upper half of a float32.
        flat = (flat.astype(np.uint32) << np.uint32(16)).view("<f4")
    # Signaling NaNs raise a warning when they are converted.
    with np.errstate(invalid="ignore"):
        return flat.astype(np.float64)


def _repeated(flat: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """`flat` with its last value repeated until there are `count` values."""
    missing = count - flat.size if flat.size else 0
    return np.concatenate([flat, np.full(missing, flat[-1])]) if missing > 0 else flat
