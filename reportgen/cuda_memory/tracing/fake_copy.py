"""Fake copies of a model and its inputs: the same modules over tensors without data."""

from __future__ import annotations

import copy
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from ..errors import UntraceableModelError


class _State(threading.local):
    def __init__(self) -> None:
        self.in_kernel = False
        self.entered: list[Any] = []


_aten = torch.ops.aten
_SAME_DTYPE = {  # products: their kernels refuse operands of several dtypes, the fake ones do not
    _aten.addbmm.default,
    _aten.addmm.default,
    _aten.addmv.default,
    _aten.baddbmm.default,
    _aten.bmm.default,
    _aten.convolution.default,
    _aten.dot.default,
    _aten.linear.default,
    _aten.mm.default,
    _aten.mv.default,
}


def _require_one_dtype(func: Any, args: tuple[Any, ...]) -> None:
    """Raise what a real pass raises if the operands of a product differ in dtype."""
    dtypes = dict.fromkeys(arg.dtype for arg in args if isinstance(arg, torch.Tensor))
    if len(dtypes) > 1:
        names = " and ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise RuntimeError(
            f"{func.overloadpacket.__name__} expected operands of one dtype, but got {names}"
        )


class FakeMode(FakeTensorMode):  # type: ignore[no-untyped-call]
    """A `FakeTensorMode` with separate state for each thread.

    In torch's mode the threads share it: an operator that runs while another thread is in a kernel
    fails, or its tensors appear on the meta device.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        self._state = _State()  # first: the base class assigns both properties below
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator; some higher-order operators look up the exact class of the mode."""
        if isinstance(func, HigherOrderOperator):
            from torch._higher_order_ops.utils import registered_hop_fake_fns

            known: Any = registered_hop_fake_fns  # its annotation names another class
            if func not in known:
                return func.python_key_table[FakeTensorMode](self, *args, **(kwargs or {}))
        elif func in _SAME_DTYPE:
            _require_one_dtype(func, args)
        return super().__torch_dispatch__(func, types, args, kwargs or {})

    @property
    def in_kernel_invocation(self) -> bool:
        """Whether this thread is inside a meta kernel."""
        return self._state.in_kernel

    @in_kernel_invocation.setter
    def in_kernel_invocation(self, value: bool) -> None:
        self._state.in_kernel = value

    @property
    def enter_stack(self) -> list[Any]:
        """The entries of this thread into the mode."""
        return self._state.entered

    @enter_stack.setter
    def enter_stack(self, value: list[Any]) -> None:
        self._state.entered = value


Tensor = torch.Tensor
MakeInputs = Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]

LOW_PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}


def fake_copy(model: nn.Module, fake: FakeMode, *, precision: str) -> nn.Module:
    """Copy the model with fake CPU tensors as parameters and buffers.

    No weight is read, so weights may be real, on `meta`, or larger than memory. Tied
    weights stay tied. In pure low precision floating tensors take that type.
    """
    _check_supported_on_cuda(model)
    convert = _Converter(fake, LOW_PRECISION.get(precision))
    # with a memo of every tensor, deepcopy copies the modules and no data
    return _copied(model, {id(tensor): convert(tensor) for tensor in _state(model)})


def _copied(model: nn.Module, tensors: dict[int, Any]) -> nn.Module:
    """A copy of `model` in which `tensors`, by the id of the original, are the state."""
    # each attempt has a memo of its own: deepcopy leaves half-made copies in it when it fails
    try:
        return copy.deepcopy(model, dict(tensors))
    except Exception:  # an attribute that cannot be copied: a lock, an open file, a non-leaf tensor
        return _rebuilt(model, dict(tensors))


def _check_supported_on_cuda(model: nn.Module) -> None:
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        raise UntraceableModelError(
            "the model has uninitialized lazy parameters", "run it once on an example input"
        )
    # unbound, here and below: an attribute called modules or buffers must not hide the method
    for module in nn.Module.modules(model):
        if ".ao.nn.quantized" in type(module).__module__:
            raise UntraceableModelError(
                f"{type(module).__name__} is a quantized CPU layer without a CUDA kernel",
                "estimate the model before quantization",
            )


class _Converter:
    """Converts real or meta tensors to fake ones; shared storages stay shared."""

    def __init__(self, fake: FakeMode, dtype: torch.dtype | None) -> None:
        self._fake = fake
        self._dtype = dtype
        self._bases: dict[tuple[int, torch.dtype], Tensor] = {}

    def __call__(self, tensor: Tensor) -> Tensor:
        dtype = self._dtype if self._dtype and tensor.is_floating_point() else tensor.dtype
        with self._fake, torch.no_grad():
            made = self._view(tensor, dtype)
            if isinstance(tensor, nn.Parameter):
                return nn.Parameter(made, requires_grad=tensor.requires_grad)
            return made

    def _view(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        if tensor.layout is not torch.strided:  # a sparse tensor has no single storage to share
            return torch.empty(tensor.shape, dtype=dtype)
        storage = tensor.untyped_storage()
        elements = storage.nbytes() // tensor.element_size()
        if elements <= tensor.numel():
            return torch.empty_strided(tensor.size(), tensor.stride(), dtype=dtype)
        key = (storage._cdata, dtype)
        if key not in self._bases:
            self._bases[key] = torch.empty(elements, dtype=dtype)
        return self._bases[key].as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def _state(model: nn.Module) -> Iterator[Tensor]:
    for module in nn.Module.modules(model):
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is not None:
                yield tensor


def _rebuilt(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A structural copy for models that deepcopy cannot copy; other attributes are shared."""
    known = memo.get(id(model))
    if isinstance(known, nn.Module):
        return known
    made = model.__class__.__new__(model.__class__)
    memo[id(model)] = made
    made.__dict__.update(model.__dict__)
    for field in ("_parameters", "_buffers"):
        state = model.__dict__[field]
        made.__dict__[field] = {
            name: None if tensor is None else memo[id(tensor)] for name, tensor in state.items()
        }
    made.__dict__["_modules"] = {
        name: None if child is None else _rebuilt(child, memo)
        for name, child in model._modules.items()
    }
    return made


def fake_inputs(
    make_inputs: MakeInputs, batch: int, fake: FakeMode, *, precision: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Example inputs as fake CPU tensors.

    `make_inputs` runs in the fake mode first, so that a large batch takes no memory.
    """
    try:
        with fake:
            args, kwargs = make_inputs(batch)
    except Exception:  # it needs values, as to draw lengths or to load a file
        args, kwargs = real_inputs(make_inputs, batch)
    return new_fake_inputs(args, fake, precision), new_fake_inputs(kwargs, fake, precision)


def map_tensors(convert: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Nested lists, tuples and dicts with `convert` applied to every tensor in them."""
    # not torch's tree_map, which takes a subclass of dict or list for a leaf
    if isinstance(value, Tensor):
        return convert(value)
    if isinstance(value, (list, tuple)):
        items = [map_tensors(convert, item) for item in value]
        if hasattr(value, "_fields"):  # a named tuple takes its items one by one
            return type(value)(*items)
        return type(value)(items)
    if isinstance(value, dict):
        return {key: map_tensors(convert, item) for key, item in value.items()}
    return value


def real_inputs(make_inputs: MakeInputs, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The inputs that `make_inputs` returns outside of any mode."""
    try:
        return make_inputs(batch)
    except Exception as err:
        raise UntraceableModelError(
            f"the example inputs for batch {batch} cannot be made: {err}",
            "make_inputs(batch) must return positional and keyword arguments",
        ) from err


def new_fake_inputs(value: Any, fake: FakeMode, precision: str = "fp32") -> Any:
    """Nested inputs with a new fake CPU tensor in place of each tensor."""

    def renew(tensor: Tensor) -> Tensor:
        low = LOW_PRECISION.get(precision) if tensor.is_floating_point() else None
        dtype = low or tensor.dtype
        with fake:
            if isinstance(tensor, FakeTensor) and tensor.fake_mode is not fake:
                return torch.empty(tuple(tensor.shape), dtype=dtype)
            made = torch.empty_strided(tuple(tensor.shape), tensor.stride(), dtype=dtype)
            return made.requires_grad_(tensor.requires_grad)

    return map_tensors(renew, value)


def real_copy(model: nn.Module, precision: str) -> nn.Module:
    """A copy of the model, in bf16 or fp16 for the pure low precisions."""
    made = _copied(model, {id(tensor): copy.deepcopy(tensor) for tensor in _state(model)})
    return made.to(LOW_PRECISION[precision]) if precision in LOW_PRECISION else made


def clone_inputs(value: Any, precision: str) -> Any:
    """Nested real inputs with every tensor copied, floating ones in the step's precision."""

    def clone(tensor: Tensor) -> Tensor:
        low = LOW_PRECISION.get(precision) if tensor.is_floating_point() else None
        with torch.no_grad():  # `detach` would show the original to the recorder
            return torch.empty_like(tensor, dtype=low, requires_grad=False).copy_(tensor)

    return map_tensors(clone, value)


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Suppress warnings, and the log of fake tensors; errors are reported as exceptions."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
