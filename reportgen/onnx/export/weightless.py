"""Exports of models whose weights have no memory: the structure alone.

The weights become inputs of the graph, which is valid ONNX for checkers, viewers and shape
inference; an initializer without data is not. The metadata of such an input names its kind
(parameter or buffer).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from reportgen.pytree import modules_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reportgen.onnx.export.arguments import ExportArguments

_KIND = "pkg.torch.export.graph_signature.InputSpec.kind"
_OWN = "USER_INPUT"
_SMALL = 1 << 20  # buffers up to this many bytes keep their values, which may decide shapes


def is_weightless(model: nn.Module) -> bool:
    """Whether a parameter of the model has no memory."""
    return any(parameter.device.type == "meta" for parameter in model.parameters())


@contextmanager
def without_weights(model: nn.Module, arguments: ExportArguments) -> Iterator[ExportArguments]:
    """Replace the weights of `model` by fake tensors; yields the arguments as fake tensors."""
    # not on meta: the model could not mix them with the CPU tensors that it makes itself
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv
    from torch.utils._pytree import tree_map_only

    # torch.export takes over this mode: it requires a ShapeEnv, and small buffers stay real
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    made: dict[int, Any] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            with mode:
                fake_tensor = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
            made[id(tensor)] = fake_tensor
        found: Tensor = made[id(tensor)]
        return found

    before = [(m, dict(m._parameters), dict(m._buffers)) for m in modules_of(model)]
    try:
        for module, parameters, buffers in before:
            for name, parameter in parameters.items():
                if parameter is not None:
                    module._parameters[name] = _parameter(fake(parameter), parameter, made)
            for name, buffer in buffers.items():
                if buffer is not None and _is_dropped(buffer):
                    module._buffers[name] = fake(buffer)
        yield replace(
            arguments,
            args=tree_map_only(torch.Tensor, fake, arguments.args),
            kwargs=tree_map_only(torch.Tensor, fake, arguments.kwargs),
        )
    finally:
        for module, parameters, buffers in before:
            module._parameters.update(parameters)
            module._buffers.update(buffers)


def _parameter(fake_tensor: Tensor, parameter: Any, made: dict[int, Any]) -> Any:
    """`fake_tensor` as a parameter, the same one for every use: tied weights stay tied."""
    from torch import nn

    if not isinstance(fake_tensor, nn.Parameter):
        # integer parameters exist too, and cannot require gradients
        made[id(parameter)] = nn.Parameter(fake_tensor, requires_grad=False)
    return made[id(parameter)]


def _is_dropped(buffer: Tensor) -> bool:
    return buffer.device.type == "meta" or buffer.nbytes > _SMALL


def weight_metadata(properties: dict[str, str]) -> dict[str, str]:
    """What is kept of an input's metadata: that it is a parameter or a buffer, if it is one."""
    kind = properties.get(_KIND, _OWN)
    return {} if kind == _OWN else {_KIND: kind}


def is_weight(value: Any) -> bool:
    """Whether an input of a graph, an `onnx.ValueInfoProto`, is a weight."""
    return any(entry.key == _KIND and entry.value != _OWN for entry in value.metadata_props)


def weights_to_inputs(model: Any) -> tuple[str, ...]:
    """Turn the initializers without data of an onnx_ir model into inputs; returns their names.

    Tied weights become one input.
    """
    import onnx_ir

    moved: dict[int, Any] = {}  # by the tensor: several names may share one
    for name, value in list(model.graph.initializers.items()):
        tensor = getattr(value.const_value, "raw", None)
        if not _is_without_data(tensor):
            continue
        del model.graph.initializers[name]
        value.const_value = None
        first = moved.setdefault(id(tensor), value)
        if first is value:
            model.graph.inputs.append(value)
        else:
            onnx_ir.convenience.replace_all_uses_with(value, first)
    return tuple(value.name for value in moved.values())


def _is_without_data(tensor: Any) -> bool:
    import torch
    from torch._subclasses.fake_tensor import FakeTensor

    if not isinstance(tensor, torch.Tensor):
        return False
    return isinstance(tensor, FakeTensor) or tensor.device.type == "meta"
