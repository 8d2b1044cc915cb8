"""A model's twin: the same modules over tensors without data, for questions about shapes.

What runs on a twin costs no arithmetic and no memory, and the model itself is not touched.
A model whose course depends on values has no such twin; it can be lent instead.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.distributions import Distribution

from reportgen.loan import undisturbed

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_RECURSION_LIMIT = 5_000  # Python's own is 1,000


class ValuesNeededError(Exception):
    """A cost depends on values, and a fake pass has none."""


@contextmanager
def twin(model: nn.Module, arguments: Arguments) -> Iterator[tuple[nn.Module, Arguments]]:
    """A copy of model and arguments with fake tensors, in which fake arithmetic is on."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValuesNeededError(
            "TorchScript keeps its own tensors and cannot be copied without data"
        )
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with _quiet():
        with FakeCopyMode(fake):
            double, copied = copy.deepcopy((model, arguments))
        with fake:
            yield double, copied


@contextmanager
def lent(model: nn.Module, arguments: Arguments) -> Iterator[tuple[nn.Module, Arguments]]:
    """The model itself, in evaluation mode, and copied arguments; given back as it was."""
    with undisturbed(model), _quiet():
        yield model.eval(), copy.deepcopy(arguments)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings, no moved random state, and room for the frames that watching adds."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _RECURSION_LIMIT))
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.setrecursionlimit(limit)


@contextmanager
def countable(model: nn.Module) -> Iterator[None]:
    """Fused attention and recurrent kernels off: what they do is then seen.

    Distributions do not validate their arguments meanwhile. Validation reads values, which a fake
    pass has not; and dynamo switches it off for the whole process, so that without this the way
    a model is counted would depend on whether another section had compiled something before.
    """
    validate = Distribution._validate_args
    fast_path = torch.backends.mha.get_fastpath_enabled()
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    torch.backends.mha.set_fastpath_enabled(False)
    Distribution.set_default_validate_args(False)
    try:
        with torch.backends.mkldnn.flags(enabled=False) if recurrent else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        Distribution.set_default_validate_args(validate)
