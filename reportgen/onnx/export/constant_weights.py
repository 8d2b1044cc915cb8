"""Computes beforehand what an exported program computes from parameters alone."""

from __future__ import annotations

import operator
from typing import Any

_PREFIX = "computed_weight"


def fold_computed_weights(program: Any) -> int:
    """Replace the weights that `program` computes from its parameters by their values.

    Parametrizations such as `orthogonal` compute a weight in every call, often by operators without
    an ONNX form: in evaluation it is a constant. Returns the number of weights that were replaced.
    """
    values = _stored_values(program)
    stored = {node for node in program.graph.nodes if node.name in values}
    constant, computed = set(stored), set[Any]()
    for node in program.graph.nodes:
        given = set(node.all_input_nodes)
        if node.op != "call_function" or _draws(node) or not given <= constant:
            continue
        constant.add(node)
        # a transposed weight is stored as it is
        if given & computed or (given and not _is_view(node)):
            computed.add(node)
    found = [node for node in program.graph.nodes if node in computed and _is_last(node, constant)]
    for index, node in enumerate(found):
        _replace(program, node, _evaluated(node, values), f"{_PREFIX}_{index}")
    if found:
        program.graph.eliminate_dead_code()
        program.graph_module.recompile()
    return len(found)


def _is_view(node: Any) -> bool:
    schema = getattr(node.target, "_schema", None)
    is_alias = schema is not None and any(each.alias_info for each in schema.arguments)
    return is_alias or node.target is operator.getitem


def _draws(node: Any) -> bool:
    """Whether the operator draws random numbers."""
    import torch

    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def computed_weights(program: Any) -> int:
    """How many weights of `program` were replaced."""
    return sum(name.startswith(_PREFIX) for name in program.constants)


def _stored_values(program: Any) -> dict[str, Any]:
    """Parameters, buffers and constants by the name of their placeholder."""
    from torch.export.graph_signature import InputKind

    stored = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)
    tensors = {**program.constants, **program.state_dict}
    return {
        spec.arg.name: tensors[spec.target]
        for spec in program.graph_signature.input_specs
        if spec.kind in stored and spec.target in tensors
    }


def _is_last(node: Any, constant: set[Any]) -> bool:
    """Whether something that is not constant reads the tensor `node`."""
    return hasattr(node.meta.get("val"), "shape") and not constant.issuperset(node.users)


def _evaluated(node: Any, values: dict[str, Any]) -> Any:
    import torch
    from torch.fx import map_arg

    known: dict[str, Any] = dict(values)

    def value(each: Any) -> Any:
        if each.name not in known:
            args, kwargs = map_arg((each.args, each.kwargs), value)
            known[each.name] = each.target(*args, **kwargs)
        return known[each.name]

    with torch.no_grad():
        return value(node).detach().contiguous()


def _replace(program: Any, node: Any, tensor: Any, name: str) -> None:
    from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

    specs = program.graph_signature.input_specs
    at = next((i for i, spec in enumerate(specs) if spec.kind == InputKind.USER_INPUT), len(specs))
    placeholders = [each for each in program.graph.nodes if each.op == "placeholder"]
    with program.graph.inserting_before(placeholders[at]):
        made = program.graph.placeholder(name)
    made.meta = {"val": node.meta["val"]}
    argument = TensorArgument(name=made.name)
    specs.insert(at, InputSpec(InputKind.CONSTANT_TENSOR, argument, name, None))
    program.constants[name] = tensor
    node.replace_all_uses_with(made)
