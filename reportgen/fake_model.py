"""Fake copies of a model: the same modules over tensors that have a shape and no data.

A pass of a fake copy costs no arithmetic and no memory, and leaves the model alone. A model whose
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

_RECURSION_LIMIT = 5_000  # Python's own is 1,000


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
    with _quiet():
        memo = _landed([*_held(model), *named_tensors(arguments).values()], fake)
        with FakeCopyMode(fake):
            double, copied = copy.deepcopy((model, arguments), memo)
        with fake:
            yield double, copied


def _landed(tensors: list[torch.Tensor], fake: FakeMode) -> dict[int, Any]:
    """For every one of `tensors` on the meta device a fake one on the CPU, by identity."""
    memo: dict[int, Any] = {}
    for tensor in tensors:
        if tensor.device.type == "meta" and id(tensor) not in memo and not is_lazy(tensor):
            with fake, torch.no_grad():
                made = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)
            if isinstance(tensor, nn.Parameter):
                made = nn.Parameter(made, requires_grad=tensor.requires_grad)
            memo[id(tensor)] = made
    return memo


def _held(model: nn.Module) -> Iterator[torch.Tensor]:
    """Every tensor that the modules hold, registered or not."""
    for module in modules_of(model):
        registered = (*module._parameters.values(), *module._buffers.values())
        for value in (*registered, *vars(module).values()):
            if isinstance(value, torch.Tensor):
                yield value


def has_data(model: nn.Module) -> bool:
    """Whether every parameter and buffer has values, and none is on the meta device."""
    return all(tensor.device.type != "meta" for tensor in _held(model))


def materialize_lazy(model: nn.Module, *attempts: Callable[[], Arguments]) -> nn.Module:
    """`model`; where it has lazy layers, a copy of it that has seen an input."""
    return run_once_on_copy(model, *attempts) if any(map(is_lazy, _held(model))) else model


def run_once_on_copy(model: nn.Module, *attempts: Callable[[], Arguments]) -> nn.Module:
    """A copy of `model` that has seen an input, with all that its first pass builds.

    The copy runs once on what `attempts` gives, in evaluation mode, the later ones only where
    the earlier fail; whatever the last one raises is raised.
    """
    for attempt in attempts[:-1]:
        with suppress(Exception):  # the model's own; the last attempt tells
            return _used(model, attempt())
    return _used(model, attempts[-1]())


def _used(model: nn.Module, arguments: Arguments) -> nn.Module:
    args, kwargs = copy.deepcopy(arguments)
    with _quiet(), torch.no_grad():
        double = copy.deepcopy(model, _asleep(model))
        set_mode(double, training=False)
        double(*args, **kwargs)
    modes = {name: module.training for name, module in model.named_modules()}
    for name, module in double.named_modules():
        module.training = modes.get(name, model.training)
    return double


def _asleep(model: nn.Module) -> dict[int, Any]:
    """Copies of the buffers of lazy layers, by identity: torch copies only lazy parameters."""
    make: Any = UninitializedBuffer  # its stub takes a tensor, it does not
    buffers = [held for held in _held(model) if isinstance(held, UninitializedBuffer)]
    return {id(b): make(b.requires_grad, device=b.device, dtype=b.data.dtype) for b in buffers}


@contextmanager
def eval_mode(model: nn.Module, arguments: Arguments) -> Iterator[tuple[nn.Module, Arguments]]:
    """The model itself in evaluation mode, and copied arguments; its state is restored."""
    with preserve_model_state(model), _quiet():
        set_mode(model, training=False)
        yield model, copy.deepcopy(arguments)


def set_mode(model: nn.Module, *, training: bool) -> None:
    """Switch to training or evaluation; a program that has no modes stays as it is."""
    with suppress(NotImplementedError):  # an exported program says so
        model.train(training)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, no moved random state, and room for the frames that watching adds."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION_LIMIT))
    try:
        with suppress_warnings(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        sys.setrecursionlimit(limit)


@contextmanager
def unfused_kernels(model: nn.Module, note: CostCallback = lambda *_: None) -> Iterator[None]:
    """Fused attention and recurrent kernels off: what they do is then seen.

    On fake tensors a recurrent layer is one operator instead, which is reported to `note`.

    Distributions do not validate their arguments meanwhile. Validation reads values, which a fake
    pass has not; and dynamo switches it off for the whole process, so that without this the way
    a model is counted would depend on whether another section had compiled something before.
    """
    validate = Distribution._validate_args
    fast_path = torch.backends.mha.get_fastpath_enabled()
    recurrent = any(isinstance(module, nn.RNNBase) for module in modules_of(model))
    torch.backends.mha.set_fastpath_enabled(False)
    Distribution.set_default_validate_args(False)
    with ExitStack() as undo:
        undo.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        undo.callback(Distribution.set_default_validate_args, validate)
        if recurrent:
            undo.enter_context(torch.backends.mkldnn.flags(enabled=False))
        compile_nothing(undo)
        undo.enter_context(fuse_recurrent_layers(model, note))
        yield


def compile_nothing(undo: ExitStack) -> None:
    """Run compiled parts of the model uncompiled, without loading the compiler for that."""
    script: Any = torch.jit  # its optimizer computes equal expressions once
    undo.enter_context(script.optimized_execution(False))
    if "torch._dynamo" in sys.modules:
        undo.enter_context(torch.compiler.set_stance("force_eager"))
    flex: Any = sys.modules.get("torch.nn.attention.flex_attention")
    switch = "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG"
    if flex is not None and hasattr(flex, switch):
        undo.callback(setattr, flex, switch, getattr(flex, switch))
        setattr(flex, switch, True)
