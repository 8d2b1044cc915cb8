"""What the modules of a traced pass are for: a layer, a norm, an activation or a dropout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

from reportgen.sections.graphs.trace import Call, Trace

if TYPE_CHECKING:
    from torch import nn

Role = Literal[
    "linear",
    "convolution",
    "batch norm",
    "instance norm",
    "norm",
    "dropout",
    "rectifier",
    "sigmoid",
    "softmax",
    "identity",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleRole:
    """A module of torch.nn, or of a subclass, that ran.

    Attributes:
        path: of the module.
        role: what it is for.
        inputs: features or channels that it takes; 0 if it does not fix them.
        outputs: features or channels that it returns; 0 if it does not fix them.
        bias: whether it adds a bias that is trained.
        trainable: whether its weight is trained.
        rate: of a dropout.
    """

    path: str
    role: Role
    inputs: int = 0
    outputs: int = 0
    bias: bool = False
    trainable: bool = False
    rate: float = 0.0


def roles_of(trace: Trace) -> tuple[ModuleRole, ...]:
    """The roles of all modules that ran, each path once, in execution order."""
    found: dict[str, ModuleRole] = {}
    for call in _calls(trace.root):
        role = _role(call.module)
        if role is not None:
            found.setdefault(call.path, _described(call.path, call.module, role))
    return tuple(found.values())


def _calls(call: Call) -> Iterator[Call]:
    yield call
    for member in call.members:
        if isinstance(member, Call):
            yield from _calls(member)


@cache
def _classes() -> dict[type[nn.Module], Role]:
    from torch import nn

    kinds: dict[type[nn.Module], Role] = {
        nn.Linear: "linear",
        nn.modules.conv._ConvNd: "convolution",
        nn.modules.batchnorm._BatchNorm: "batch norm",
        nn.modules.instancenorm._InstanceNorm: "instance norm",
        nn.modules.dropout._DropoutNd: "dropout",
        nn.Identity: "identity",
    }
    kinds |= dict.fromkeys((nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), "norm")
    kinds |= dict.fromkeys((nn.ReLU, nn.ReLU6), "rectifier")
    return kinds | {nn.Sigmoid: "sigmoid", nn.Softmax: "softmax"}


def _role(module: nn.Module) -> Role | None:
    return next((role for kind, role in _classes().items() if isinstance(module, kind)), None)


def _described(path: str, module: nn.Module, role: Role) -> ModuleRole:
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    names = {
        "linear": ("in_features", "out_features"),
        "convolution": ("in_channels", "out_channels"),
    }.get(role, ("num_features", "num_features"))
    inputs, outputs = (getattr(module, name, 0) for name in names)
    rate = getattr(module, "p", 0.0) if role == "dropout" else 0.0
    return ModuleRole(
        path=path,
        role=role,
        inputs=inputs if isinstance(inputs, int) else 0,
        outputs=outputs if isinstance(outputs, int) else 0,
        bias=bool(getattr(bias, "requires_grad", False)),
        trainable=bool(getattr(weight, "requires_grad", False)),
        rate=float(rate),
    )
