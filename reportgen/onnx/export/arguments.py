"""The arguments of one export: in the signature's order, each tensor with its name and dims."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reportgen.pytree import named_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reportgen.manifest import InputSpec

Axes = dict[int, str]  # axis -> the name of the dynamic dimension there


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ExportArguments:
    """The arguments of one call, in the form that torch.export expects.

    Attributes:
        args: the positional arguments.
        kwargs: the keyword arguments, in the order of the signature.
        dynamic_shapes: which axes stay open, in the structure of the call; None for none.
        names: a name for every tensor, in the order of the exported graph's inputs.
        axes: the dynamic axes of every tensor, in the same order.
        called: torch.export's name of each positional argument -> its name in the manifest.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: dict[str, Any] | None
    names: tuple[str, ...]
    axes: tuple[Axes, ...]
    called: dict[str, str] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the call by its name, in the order of the exported graph's inputs."""
        leaves = named_tensors([*self.args, *self.kwargs.values()])
        return dict(zip(self.names, leaves.values(), strict=True))

    def symbolic_dims(self, model: Any) -> tuple[str, ...]:
        """The dims that really are symbolic wherever they stand in the inputs of an ONNX model."""
        found: dict[str, bool] = {}
        # not strict: weights may follow as further inputs (`weights_to_inputs`)
        for value, axes in zip(model.graph.inputs, self.axes, strict=False):
            for axis, dim in axes.items():
                fixed = isinstance(value.shape[axis], int)
                found[dim] = found.get(dim, True) and not fixed
        return tuple(dim for dim, is_symbolic in found.items() if is_symbolic)


def bind_arguments(
    model: nn.Module,
    inputs: tuple[InputSpec, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    dynamic: tuple[str, ...],
) -> ExportArguments:
    """The call `model(*args, **kwargs)`, made of `inputs`, with the dims `dynamic` left open.

    Raises:
        TypeError: the model's forward does not take these arguments.
    """
    signature = inspect.signature(model.forward)
    # torch.export keeps the caller's order of keywords; the file's inputs follow the signature
    order = list(signature.parameters)
    rank = {name: order.index(name) if name in order else len(order) for name in kwargs}
    kwargs = {name: kwargs[name] for name in sorted(kwargs, key=lambda name: rank[name])}
    specs = [item for item in inputs if not item.keyword]
    by_keyword = {str(item.name): item for item in inputs if item.keyword}
    trees = [_axes_tree(value, item, dynamic) for value, item in zip(args, specs, strict=True)]
    keyword_trees = {
        name: _axes_tree(value, by_keyword[name], dynamic) for name, value in kwargs.items()
    }
    names = [
        item.name or _parameter_name(order, signature, index) for index, item in enumerate(specs)
    ]
    bound = signature.bind(*trees, **keyword_trees).arguments  # torch.export gets dims by parameter
    given = zip([*names, *kwargs], [*args, *kwargs.values()], strict=True)
    return ExportArguments(
        args=args,
        kwargs=kwargs,
        dynamic_shapes=dict(bound) if dynamic else None,
        names=tuple(key for name, value in given for key in named_tensors(value, name)),
        axes=tuple(axes for tree in (*trees, *keyword_trees.values()) for axes in _leaves(tree)),
        called={_torch_name(signature, index): name for index, name in enumerate(names)},
    )


def _torch_name(signature: inspect.Signature, index: int) -> str:
    """torch.export's name of the positional argument `index`: `x`, or `args_0` of `*args`."""
    for place, (name, parameter) in enumerate(signature.parameters.items()):
        if parameter.kind == inspect.Parameter.VAR_POSITIONAL:
            return f"{name}_{index - place}"
        if place == index:
            return name
    return ""


def _parameter_name(order: list[str], signature: inspect.Signature, index: int) -> str:
    positional = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY
    if index < len(order) and signature.parameters[order[index]].kind in positional:
        return order[index]
    return f"input{index}"


def _axes_tree(value: Any, item: InputSpec, dynamic: tuple[str, ...]) -> Any:
    """The structure of `value`, each tensor replaced by its dynamic axes, all else by None."""
    if item.items is not None:
        # a list with one entry per sample repeats its specs once per sample
        specs = item.items * (len(value) // len(item.items)) if item.per_sample else item.items
        parts = [_axes_tree(v, part, dynamic) for v, part in zip(value, specs, strict=True)]
        return tuple(parts) if item.as_tuple else parts
    if item.fields is not None:
        return {key: _axes_tree(value[key], part, dynamic) for key, part in item.fields.items()}
    if item.value is not None:  # a constant: torch.export requires None in its place
        return None
    return {axis: dim for axis, dim in enumerate(item.shape or ()) if dim in dynamic}


def _leaves(tree: Any) -> Iterator[Axes]:
    if isinstance(tree, dict) and all(isinstance(key, int) for key in tree):
        yield tree
    elif isinstance(tree, dict):
        for part in tree.values():
            yield from _leaves(part)
    elif isinstance(tree, list | tuple):
        for part in tree:
            yield from _leaves(part)


def output_names(program: Any) -> tuple[str, ...]:
    """A name for every tensor that an ExportedProgram returns: its key, or `output`.

    A key that is a number gets `output.` before it, as in `output.0`.
    """
    import torch
    from torch.export.graph_signature import ConstantArgument, OutputKind
    from torch.utils._pytree import tree_unflatten

    # an empty tensor stands for each tensor, since `named_tensors` names nothing else; constants
    # have been dropped from the graph (`rewrite_for_export`)
    leaves = [
        None if isinstance(spec.arg, ConstantArgument) else torch.empty(0)
        for spec in program.graph_signature.output_specs
        if spec.kind == OutputKind.USER_OUTPUT
    ]
    keys = named_tensors(tree_unflatten(leaves, program.call_spec.out_spec))
    return tuple(output_name(key) for key in keys)


def output_name(key: str) -> str:
    """The name in the file of the output tensor with this key of `named_tensors`."""
    if not key:  # a single tensor
        return "output"
    return f"output.{key}" if key[0].isdigit() else key
