"""Fake copies of a model: the same modules over tensors that have a shape and no data.

A pass of a fake copy costs no arithmetic and no memory, and does not touch the model. A model whose
control flow depends on values cannot run on one; `eval_mode` runs the model itself instead.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode
from torch.distributions import Distribution
from torch.nn.parameter import UninitializedBuffer, is_lazy

from reportgen.cuda_memory.tracing.fake_copy import FakeMode, suppress_warnings
from reportgen.model_state import preserve_model_state
from reportgen.pytree import modules_of, named_tensors
from reportgen.tracing.fused_recurrent import CostCallback, fuse_recurrent_layers

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

# Wrapped forwards and hooks add frames per nesting level; Python's limit is 1,000 frames.
_RECURSION_LIMIT = 5_000


class ValuesNeededError(Exception):
    """A cost depends on values, and a fake pass has none."""


@contextmanager
def fake_copy(model: nn.Module, arguments: Arguments) -> Iterator[tuple[nn.Module, Arguments]]:
    """A copy of model and arguments with fake tensors; the block runs in their fake mode.

    Tensors on the meta device, as in very large models, are fake CPU tensors in the copy.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in modules_of(model)):
        raise ValuesNeededError(
            "TorchScript keeps its own tensors and cannot be copied without data"
        )
    fake = FakeMode()
    with _without_side_effects():
        memo = _fake_cpu_tensors([*_tensors_of(model), *named_tensors(arguments).values()], fake)
        with FakeCopyMode(fake):
            double, copied = copy.deepcopy((model, arguments), memo)
        with fake:
            yield double, copied


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
