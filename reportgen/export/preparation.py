"""A captured program made such that torch's exporter can translate it; what it computes stays."""

from __future__ import annotations

from typing import Any

_FLAT = 3  # batch, length, width: the exporter's attention wants heads as well


def prepare(program: Any) -> None:
    """Change an ExportedProgram where the exporter would stumble over what it takes itself for.

    Constants among the outputs (a string, a number) are dropped, as None is: there is no tensor
    to put in the file. Fused attention of three dimensions gets a fourth.
    """
    _drop_constants(program)
    _add_heads(program)


def _drop_constants(program: Any) -> None:
    from torch.export.graph_signature import ConstantArgument, OutputKind

    output = next(node for node in program.graph.nodes if node.op == "output")
    leaves = list(output.args[0])
    for index, spec in enumerate(program.graph_signature.output_specs):
        if spec.kind == OutputKind.USER_OUTPUT and isinstance(spec.arg, ConstantArgument):
            spec.arg = ConstantArgument(name=spec.arg.name, value=None)
            leaves[index] = None
    output.args = (tuple(leaves),)


def _add_heads(program: Any) -> None:
    """Attention over (batch, length, width) as attention with one head, and back."""
    import torch

    attention = torch.ops.aten.scaled_dot_product_attention.default
    changed = False
    for module in program.graph_module.modules():
        graph = getattr(module, "graph", None)
        for node in list(graph.nodes) if graph is not None else ():
            if node.op == "call_function" and node.target is attention and _is_flat(node):
                _with_one_head(node)
                changed = True
    if changed:
        program.graph_module.recompile()


def _is_flat(node: Any) -> bool:
    values = [argument.meta.get("val") for argument in node.args[:3]]
    return all(getattr(value, "ndim", 0) == _FLAT for value in values)


def _with_one_head(node: Any) -> None:
    import torch

    def reshaped(argument: Any, operator: Any) -> Any:
        made = graph.call_function(operator, (argument, 1))
        made.meta = {**node.meta, "val": operator(argument.meta["val"], 1)}
        return made

    graph = node.graph
    arguments, options = list(node.args), dict(node.kwargs)
    with graph.inserting_before(node):
        for place in range(3):
            arguments[place] = reshaped(arguments[place], torch.ops.aten.unsqueeze.default)
        mask = arguments[3] if len(arguments) > 3 else options.get("attn_mask")
        if mask is not None and mask.meta["val"].ndim == _FLAT:
            mask = reshaped(mask, torch.ops.aten.unsqueeze.default)
            if len(arguments) > 3:
                arguments[3] = mask
            else:
                options["attn_mask"] = mask
    readers = list(node.users)
    node.args, node.kwargs = tuple(arguments), options
    node.meta["val"] = node.meta["val"].unsqueeze(1)
    with graph.inserting_after(node):
        flat = reshaped(node, torch.ops.aten.squeeze.dim)
    for reader in readers:
        reader.replace_input_with(node, flat)
