"""Results of fake operators, from the shapes that the same call returned before.

A fake convolution takes 126 µs, most of it for finding the shape of its output, and a view 90; from
here they take 12 and 25. The traces of one model repeat the same calls: in every iteration, for
every precision and with checkpointing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

import torch
from torch._subclasses.fake_tensor import FakeTensor

T = TypeVar("T")

_CPU = torch.device("cpu")
_PLAIN = (int, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)
_IMPURE_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_MOST_KNOWN = 100_000  # one model makes some hundred; a process may analyze any number


class _UnknownError(Exception):
    """The call has no key, or its result no description."""


class _PaddedError(Exception):
    """The result has more storage than its shape and strides need."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Output:
    """The metadata of a dense tensor of its own."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def make(self, inputs: list[FakeTensor]) -> FakeTensor:
        return _beside(
            inputs[0],
            lambda: torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device="meta"),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _View:
    """The metadata of a dense tensor in the storage of input number `source`."""

    source: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    def make(self, inputs: list[FakeTensor]) -> FakeTensor:
        storage = inputs[self.source].untyped_storage()

        def make() -> torch.Tensor:
            meta = torch.empty(0, dtype=self.dtype, device="meta")
            return meta.set_(storage, self.offset, self.shape, self.strides)

        return _beside(inputs[0], make)


def empty_beside(tensor: FakeTensor, shape: tuple[int, ...], dtype: torch.dtype) -> FakeTensor:
    """A new tensor in the mode of `tensor`, in a third of the time of `torch.empty`."""
    return _beside(tensor, lambda: torch.empty(shape, dtype=dtype, device="meta"))


def _beside(tensor: FakeTensor, make_meta: Callable[[], torch.Tensor]) -> FakeTensor:
    """The fake CPU tensor of what `make_meta` makes, in the mode of `tensor`."""
    return FakeTensor(tensor.fake_mode, without_dispatch(make_meta), _CPU)


def without_dispatch(run: Callable[[], T]) -> T:
    """`run()`, of which no mode sees an operator: it would make fakes of real and meta tensors."""
    guard = torch._C._DisableTorchDispatch()
    result = run()
    del guard
    return result


class OutputCache:
    """Answers calls whose arguments had the same shapes, strides, types and other values.

    Operators that change an argument are left out.
    """

    def __init__(self) -> None:
        self._pure: dict[Any, bool] = {}
        self._known: dict[Any, Any] = {}  # a description, or why there is none

    def result(self, func: Any, args: Any, kwargs: dict[str, Any], run: Callable[[], Any]) -> Any:
        """What `run()` returns, or tensors of the same metadata."""
        pure = self._pure.get(func)
        if pure is None:
            pure = self._pure[func] = _is_pure(func)
        if not pure:
            return run()
        tensors: list[FakeTensor] = []
        try:
            values = _key(args, tensors), _key(tuple(kwargs.items()), tensors)
        except _UnknownError:
            return run()
        # division of whole numbers, say, has the default type
        key = (func, *values, torch.get_default_dtype())
        known = self._known.get(key)
        if known is None:
            result = _run_uncached(tensors, run)
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = _description_of(result, tensors)
            return result
        if known is _PaddedError:
            return _run_uncached(tensors, run)
        if known is _UnknownError or not tensors:
            return run()
        return _made(known, tensors)


def _run_uncached(tensors: list[FakeTensor], run: Callable[[], Any]) -> Any:
    """Run without torch's own cache, whose results have a smaller storage where rows are padded."""
    if not tensors:
        return run()
    mode = tensors[0].fake_mode
    before, mode.cache_enabled = mode.cache_enabled, False
    try:
        return run()
    finally:
        mode.cache_enabled = before


def _is_pure(func: Any) -> bool:
    schema = getattr(func, "_schema", None)
    return (
        schema is not None
        and func.namespace == "aten"
        and not schema.is_mutable
        and not _IMPURE_TAGS.intersection(func.tags)
    )


def _key(value: Any, tensors: list[FakeTensor]) -> Any:
    """A hashable stand-in; puts the tensors that it meets into `tensors`.

    Raises:
        _UnknownError: a value of another kind, or a tensor whose metadata do not tell all.
    """
    if isinstance(value, torch.Tensor):
        if not _is_plain(value):
            raise _UnknownError
        tensors.append(value)
        return (value.shape, value.stride(), value.storage_offset(), value.dtype)
    if isinstance(value, (list, tuple)):
        return tuple([_key(item, tensors) for item in value])
    if isinstance(value, (bool, float)):  # 1, 1.0 and True are equal, but promote differently
        return (type(value), value)
    if isinstance(value, _PLAIN):
        return value
    raise _UnknownError


def _is_plain(value: Any) -> TypeGuard[FakeTensor]:
    """Whether shape, strides, offset and type tell all about a tensor."""
    return (
        isinstance(value, FakeTensor)
        # the value of a constant is known, and an operator may hand it on
        and value.constant is None
        and value.layout is torch.strided
        and value.fake_device == _CPU  # tensors of two devices do not go together
        and not value.is_conj()
        and not value.is_neg()
    )


def _description_of(result: Any, inputs: list[FakeTensor]) -> Any:
    """Of a tensor, or of a tuple or list of tensors; an error class if a copy would differ."""
    places = [tensor.untyped_storage()._cdata for tensor in inputs]
    sources = {place: index for index, place in reversed(list(enumerate(places)))}
    try:
        return _described(result, inputs, sources)
    except (_UnknownError, _PaddedError) as error:
        return type(error)


def _described(result: Any, inputs: list[FakeTensor], sources: dict[int, int]) -> Any:
    """`sources` are the inputs by the address of their storage; -1 stands for an output."""
    if isinstance(result, (tuple, list)):
        items = [_described(item, inputs, sources) for item in result]
        # a decomposition may return a named tuple, which takes no list
        return items if isinstance(result, list) else tuple(items)
    if result is None:
        return None
    if not _is_plain(result) or any(result is each for each in inputs):
        raise _UnknownError
    storage = result.untyped_storage()
    shape, strides, dtype = tuple(result.shape), result.stride(), result.dtype
    source = sources.get(storage._cdata)
    if source == -1:  # two outputs share it
        raise _UnknownError
    if source is not None:
        offset = int(result.storage_offset())
        return _View(source=source, offset=offset, shape=shape, strides=strides, dtype=dtype)
    sources[storage._cdata] = -1
    made = _Output(shape=shape, strides=strides, dtype=dtype)
    if made.make([result]).untyped_storage().nbytes() != storage.nbytes():
        raise _PaddedError
    return made


def _made(known: Any, inputs: list[FakeTensor]) -> Any:
    if isinstance(known, (_Output, _View)):
        return known.make(inputs)
    if known is None:
        return None
    return type(known)([_made(item, inputs) for item in known])
