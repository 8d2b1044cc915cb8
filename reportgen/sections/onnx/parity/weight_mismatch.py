"""Weights of a node that are not those of the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reportgen.sections.onnx.parity.intermediates import Inside, Node, read_values
from reportgen.units import format_error

if TYPE_CHECKING:
    from torch import Tensor, nn

_ROUNDING = 1e-5  # of the largest value: what multiplying a batch norm in may cost


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangedWeight:
    """A stored tensor that is not what the model has.

    Attributes:
        told: which, and how far it is off, in words.
        module: the path of the module that has it; "" where that is the node's own.
    """

    told: str
    module: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Original:
    """What a stored tensor may have been made of.

    Attributes:
        surely: it can have been made of nothing else, so that any difference is one.
    """

    words: str
    value: Tensor
    surely: bool
    module: str = ""
    rounding: float = 0.0


def changed_weights(inside: Inside, node: Node, model: nn.Module) -> list[ChangedWeight]:
    """The stored tensors of a node that are not the parameters whose names they bear.

    Convolutions into which a batch norm was multiplied are compared with that product. A tensor
    without a name of its own is compared with the matrices of the node's module, also transposed,
    and told of if it is almost one of them.
    """
    import torch

    found = []
    for name in read_values(node.proto):
        array = inside.initializer(name) if name in inside.initializers else None
        if array is None or array.dtype.kind != "f":
            continue
        stored = torch.from_numpy(array.copy())
        originals = [
            one for one in _originals(name, node, model) if one.value.shape == stored.shape
        ]
        told = [_compared(stored, original) for original in originals]
        if told and all(told):  # one that is equal clears it
            found.append(next(filter(None, told)))
    return [changed for changed in found if changed.told]


def _originals(name: str, node: Node, model: nn.Module) -> Iterator[_Original]:
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    if name in own:
        value = own[name].detach()
        scale = _scale(model, node.modules[-1])
        if scale is None or name.startswith(f"{node.modules[-1]}."):
            yield _Original(words=f"the file's {name}", value=value, surely=True)
        elif node.proto.op_type == "Conv" and scale.numel() == value.shape[0] and value.ndim > 1:
            yield _Original(
                words=f"the file's {name}, the batch norm {node.modules[-1]} multiplied in,",
                value=value * scale.reshape(-1, *[1] * (value.ndim - 1)),
                surely=True,
                module=name.rpartition(".")[0],
                rounding=_ROUNDING,
            )
        return
    module = f"{node.modules[-1]}." if node.modules[-1] else ""
    for path, tensor in own.items():
        if path.startswith(module) and tensor.ndim == 2:
            value, words = tensor.detach(), f"{name}, the file's {path}"
            yield _Original(words=words, value=value, surely=False)
            yield _Original(words=f"{words} transposed,", value=value.T, surely=False)


def _scale(model: nn.Module, path: str) -> Tensor | None:
    """What a batch norm in eval mode multiplies each channel with; None for other modules."""
    from torch.nn.modules.batchnorm import _BatchNorm

    module = dict(model.named_modules()).get(path)
    if not isinstance(module, _BatchNorm) or module.running_var is None:
        return None
    scale = (module.running_var + module.eps).rsqrt()
    return (scale if module.weight is None else scale * module.weight).detach()


def _compared(stored: Tensor, original: _Original) -> ChangedWeight | None:
    """The difference in words; None if there is none, no words if it may be another tensor."""
    apart = (stored.double() - original.value.double()).abs()
    largest = float(original.value.abs().max()) if apart.numel() else 0.0
    count = int((apart > original.rounding * largest).sum())
    if count == 0:
        return None
    if not original.surely and count > stored.numel() // 2:
        return ChangedWeight(told="", module="")
    return ChangedWeight(
        told=(
            f"{original.words} differs from the model's own in {count} of {stored.numel()} "
            f"values, by up to {format_error(float(apart.max()))}"
        ),
        module=original.module,
    )
