"""Fake copies of a model: the same modules over tensors that have a shape and no data.

A pass of a fake copy costs no arithmetic and no memory, and does not touch the model. A model whose
control flow depends on values cannot run on one; `eval_mode` runs the model itself instead.
"""

from __future__ import annotations

import copy
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensor
from torch.distributions import Distribution
from torch.nn.parameter import UninitializedBuffer, is_lazy

from reportgen.cuda_memory.tracing.fake_copy import FakeMode, suppress_warnings
from reportgen.cuda_memory.tracing.output_cache import OutputCache
from reportgen.model_state import parts_of_model, preserve_model_state
from reportgen.pytree import modules_of, named_tensors
from reportgen.tracing.fused_recurrent import CostCallback, fuse_recurrent_layers
from reportgen.tracing.tensors import parts_of, storage_of, tensors_in

T = TypeVar("T")
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# Wrapped forwards and hooks add frames per nesting level; Python's limit is 1,000 frames.
_RECURSION_LIMIT = 5_000


class ValuesNeededError(Exception):
    """A cost depends on values, and a fake pass has none."""


class ReachedOriginalError(ValuesNeededError):
    """A pass of a fake copy reached the original: a closure or hook refers to its modules."""

    def __init__(self) -> None:
        super().__init__("a function (a closure, a hook) refers to the model's own layers")


@contextmanager
def fake_copy(model: nn.Module, arguments: Arguments) -> Iterator[tuple[nn.Module, Arguments]]:
    """A copy of model and arguments with fake tensors; the block runs in their fake mode.

    Tensors on the meta device, as in very large models, are fake CPU tensors in the copy.
    `copy.deepcopy` does not copy functions, so the hooks of a copy may call modules of the
    original. The first pass that does so raises `ReachedOriginalError`; later blocks yield the
    model itself, with fake tensors in place of its own until the block ends.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules_of(model)):
        raise ValuesNeededError(
            "TorchScript keeps its own tensors and cannot be copied without data"
        )
    fake = _GuardedFakeMode(model)
    with ExitStack() as undo:
        undo.enter_context(_without_side_effects())
        memo = _fake_cpu_tensors([*_tensors_of(model), *named_tensors(arguments).values()], fake)
        if _is_bound_to_itself(model):
            undo.enter_context(preserve_model_state(model))
            copied: Arguments = _replace_tensors(model, arguments, fake, memo)
            double = model
        else:
            with FakeCopyMode(fake):
                double, copied = copy.deepcopy((model, arguments), memo)
            undo.enter_context(_refusing_calls_of(model))
        with fake:
            yield double, copied


_bound_to_themselves: dict[int, weakref.ref[nn.Module]] = {}  # not a set: modules may be unhashable


def _is_bound_to_itself(model: nn.Module) -> bool:
    """Whether a pass of a copy of `model` has reached the original before."""
    found = _bound_to_themselves.get(id(model))
    return found is not None and found() is model


def run_on_fake_copy(run: Callable[[], T]) -> T:
    """`run()`, which makes a `fake_copy`; a second time if the first reached the original."""
    try:
        return run()
    except ReachedOriginalError:  # this time `fake_copy` yields the model itself
        return run()


_results = OutputCache()  # the passes of several sections repeat the same calls


class _GuardedFakeMode(FakeMode):  # type: ignore[no-untyped-call]
    """Refuses operators that read a parameter of the original model."""

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self._original = original
        self._forbidden = {storage_of(part) for p in original.parameters() for part in parts_of(p)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator on fake tensors."""
        read = (t for t in tensors_in([args, kwargs or {}]) if not isinstance(t, FakeTensor))
        if any(storage_of(part) in self._forbidden for tensor in read for part in parts_of(tensor)):
            _raise_reached(self._original)
        run = partial(super().__torch_dispatch__, func, types, args, kwargs)
        return _results.result(func, args, kwargs or {}, run)


def _raise_reached(model: nn.Module) -> None:
    _bound_to_themselves[id(model)] = weakref.ref(model)
    raise ReachedOriginalError


@contextmanager
def _refusing_calls_of(model: nn.Module) -> Iterator[None]:
    """Raise `ReachedOriginalError` if a module of `model` itself is called."""
    own = set(map(id, modules_of(model)))

    def refuse(module: nn.Module, _: Any) -> None:
        if id(module) in own:
            _raise_reached(model)

    handle = nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


def _replace_tensors(
    model: nn.Module, arguments: Arguments, fake: FakeMode, memo: dict[int, Any]
) -> Arguments:
    """Put fake tensors into the modules and containers of `model`; returns copied arguments."""
    parts = parts_of_model(model)
    with FakeCopyMode(fake):
        made = {
            id(part): copy.deepcopy(part, memo) for part in parts if isinstance(part, torch.Tensor)
        }
        copied: Arguments = copy.deepcopy(arguments, memo)
    for part in parts:
        holder = vars(part) if isinstance(part, nn.Module) else part
        items: Iterable[tuple[Any, Any]] = ()
        if isinstance(holder, dict):
            items = list(holder.items())
        elif isinstance(holder, list):
            items = list(enumerate(holder))
        for key, value in items:
            if id(value) in made:
                holder[key] = made[id(value)]
    return copied


def _fake_cpu_tensors(tensors: list[torch.Tensor], fake: FakeMode) -> dict[int, Any]:
    """A fake CPU tensor for each of `tensors` on the meta device, by id: a deepcopy memo."""
    memo: dict[int, Any] = {}
    for tensor in tensors:
        if tensor.device.type == "meta" and id(tensor) not in memo and not is_lazy(tensor):
            with fake, torch.no_grad():
                made = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)
            if isinstance(tensor, nn.Parameter):
                made = nn.Parameter(made, requires_grad=tensor.requires_grad)
            memo[id(tensor)] = made
    return memo


def _tensors_of(model: nn.Module) -> Iterator[torch.Tensor]:
    """Parameters, buffers and tensor attributes of all modules."""
    for module in modules_of(model):
        registered = (*module._parameters.values(), *module._buffers.values())
        for value in (*registered, *vars(module).values()):
            if isinstance(value, torch.Tensor):
                yield value


def has_data(model: nn.Module) -> bool:
    """Whether every parameter and buffer has values, and none is on the meta device."""
    return all(tensor.device.type != "meta" for tensor in _tensors_of(model))


def materialize_lazy(model: nn.Module, *attempts: Callable[[], Arguments]) -> nn.Module:
    """`model`; if it has lazy layers, a copy of it after one pass, see `run_once_on_copy`."""
    return run_once_on_copy(model, *attempts) if any(map(is_lazy, _tensors_of(model))) else model


def run_once_on_copy(model: nn.Module, *attempts: Callable[[], Arguments]) -> nn.Module:
    """A copy of `model` after one pass in evaluation mode, with all that its first pass builds.

    Tries the arguments that `attempts` return, in order, until a pass succeeds.

    Raises:
        Exception: whatever the pass of the last attempt raises.
    """
    for attempt in attempts[:-1]:
        with suppress(Exception):  # the error of the last attempt is raised
            return _copy_after_one_pass(model, attempt())
    return _copy_after_one_pass(model, attempts[-1]())


def _copy_after_one_pass(model: nn.Module, arguments: Arguments) -> nn.Module:
    args, kwargs = copy.deepcopy(arguments)
    with _without_side_effects(), torch.no_grad():
        double = copy.deepcopy(model, _copies_of_lazy_buffers(model))
        set_mode(double, training=False)
        double(*args, **kwargs)
    # flag by flag: `train(flag)` would set the same one in all modules
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in double.named_modules():
        module.training = modes.get(name, model.training)
    return double


def _copies_of_lazy_buffers(model: nn.Module) -> dict[int, Any]:
    # Unlike UninitializedParameter, UninitializedBuffer has no `__deepcopy__`: copying it raises.
    make: Any = UninitializedBuffer  # its type stub requires a tensor
    buffers = [t for t in _tensors_of(model) if isinstance(t, UninitializedBuffer)]
    return {id(b): make(b.requires_grad, device=b.device, dtype=b.data.dtype) for b in buffers}


@contextmanager
def eval_mode(model: nn.Module, arguments: Arguments) -> Iterator[tuple[nn.Module, Arguments]]:
    """The model itself in evaluation mode, and copied arguments; its state is restored."""
    with preserve_model_state(model), _without_side_effects():
        set_mode(model, training=False)
        yield model, copy.deepcopy(arguments)


def set_mode(model: nn.Module, *, training: bool) -> None:
    """Switch to training or evaluation mode; an exported program without modes is unchanged."""
    with suppress(NotImplementedError):  # `train` and `eval` of an exported program raise it
        model.train(training)


@contextmanager
def _without_side_effects() -> Iterator[None]:
    """No warnings, restored random state, and a recursion limit for deep models."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION_LIMIT))
    try:
        # `devices=[]`: only the CPU's generator; models are on the CPU
        with suppress_warnings(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        sys.setrecursionlimit(limit)


@contextmanager
def unfused_kernels(model: nn.Module, note: CostCallback = lambda *_: None) -> Iterator[None]:
    """Disable fused attention and recurrent kernels, so that their operators are visible.

    On fake tensors a recurrent layer is one operator instead, which is reported to `note`.
    """
    mha = torch.backends.mha
    with ExitStack() as undo:
        undo.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)
        # Validating the arguments of distributions reads values, which fake tensors lack. Dynamo
        # disables it for the whole process: counts must not depend on an earlier compilation.
        undo.callback(Distribution.set_default_validate_args, Distribution._validate_args)
        Distribution.set_default_validate_args(False)
        if any(isinstance(module, nn.RNNBase) for module in modules_of(model)):
            # `aten.mkldnn_rnn_layer` has no formula in torch.utils.flop_counter
            undo.enter_context(torch.backends.mkldnn.flags(enabled=False))
        compile_nothing(undo)
        undo.enter_context(fuse_recurrent_layers(model, note))
        yield


def compile_nothing(undo: ExitStack) -> None:
    """Run compiled parts of the model uncompiled until `undo` closes."""
    script: Any = torch.jit
    # TorchScript's optimizer merges equal expressions, whose operators would then count once.
    undo.enter_context(script.optimized_execution(False))
    if "torch._dynamo" in sys.modules:  # else nothing is compiled; importing it takes a second
        undo.enter_context(torch.compiler.set_stance("force_eager"))
    flex: Any = sys.modules.get("torch.nn.attention.flex_attention")
    switch = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
    if flex is not None and hasattr(flex, switch):
        undo.callback(setattr, flex, switch, getattr(flex, switch))
        setattr(flex, switch, True)
