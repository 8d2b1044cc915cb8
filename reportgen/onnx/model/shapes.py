"""The shape of every value in an ONNX graph, for given sizes of its named dimensions."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from copy import deepcopy
from fractions import Fraction
from typing import Any

from reportgen.onnx.model.protos import all_graphs, is_small

Shape = tuple[int, ...]
MakeFeed = Callable[[], Mapping[str, Any]]
"""Makes the arrays for one run of a file, by input name."""

# of text from a file: ast.parse may crash the interpreter on large or deeply nested text
_LONGEST_EXPRESSION = 300
_OPERATORS: dict[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: lambda a, b: Fraction(a // b),
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, Callable[..., Fraction]] = {
    "Max": max,
    "Min": min,
    "floor": lambda value: Fraction(math.floor(value)),
    "ceiling": lambda value: Fraction(math.ceil(value)),
}


def undeclared_types(model: Any) -> dict[str, Any]:
    """`onnx.TypeProto` by name of each value that has no declared type, by onnx's shape inference.

    Values of unknown type are left out. Symbols that inference made up have no name.
    """
    import onnx

    declared = {
        value.name
        for graph in all_graphs(model.graph)
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    made = {
        name for graph in all_graphs(model.graph) for node in graph.node for name in node.output
    }
    if made <= declared | {""}:
        return {}
    try:
        inferred = onnx.shape_inference.infer_shapes(_without_weights(model), data_prop=True)
    except Exception:  # what cannot be inferred is unknown
        return {}
    found = {
        value.name: value.type
        for graph in all_graphs(inferred.graph)
        for value in graph.value_info
        if value.name in made - declared
    }
    for kind in found.values():
        for dim in kind.tensor_type.shape.dim if kind.tensor_type.HasField("shape") else ():
            if dim.dim_param.startswith("unk__"):
                dim.ClearField("dim_param")
    return found


def _without_weights(model: Any) -> Any:
    """A copy without the contents of large tensors, which decide no shape."""
    import onnx

    copy = onnx.ModelProto(ir_version=model.ir_version)
    copy.opset_import.extend(model.opset_import)
    copy.functions.extend(model.functions)
    for field in ("node", "input", "output", "value_info"):
        getattr(copy.graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        if is_small(tensor):
            copy.graph.initializer.append(tensor)
        else:
            copy.graph.initializer.add(
                name=tensor.name, data_type=tensor.data_type, dims=tensor.dims
            )
    return copy


def value_shapes(
    model: Any, sizes: Mapping[str, int], needed: Collection[str] | None = None
) -> dict[str, Shape]:
    """Shapes by value name, of every value whose shape is known.

    Expressions of symbols that the exporter wrote (`2*batch`, `s77//16`) are evaluated first,
    onnx's shape inference fills in the rest, unless the shapes of all `needed` values are known by
    then: in a model that went through inference before, they mostly are.
    """
    import onnx

    known = {each.name: tuple(each.dims) for each in model.graph.initializer}
    model = deepcopy(model)  # the caller's keeps its symbols
    for each in all_graphs(model.graph):
        _substitute_sizes(each, sizes)
    declared = known | _declared_shapes(model)
    if needed is not None and all(name in declared for name in needed):
        return declared
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception:  # what cannot be inferred is unknown; the checker says what is invalid
        inferred = model
    return known | _declared_shapes(inferred)


def _declared_shapes(model: Any) -> dict[str, Shape]:
    known: dict[str, set[Shape]] = {}
    for each in all_graphs(model.graph):
        for value in (*each.value_info, *each.input, *each.output):
            shape = _whole_shape(value)
            if shape is not None:
                known.setdefault(value.name, set()).add(shape)
    # the branches of an If may use one name for values of different shapes
    return {name: next(iter(shapes)) for name, shapes in known.items() if len(shapes) == 1}


def _substitute_sizes(graph: Any, sizes: Mapping[str, int]) -> None:
    """Replace symbols by numbers, and drop shapes with a symbol of unknown size."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                size = evaluate(dim.dim_param, sizes)
                dim.ClearField("dim_param")
                if size is not None:
                    dim.dim_value = size
    whole = [value for value in graph.value_info if _whole_shape(value) is not None]
    del graph.value_info[:]
    graph.value_info.extend(whole)
    for value in graph.output:
        if _whole_shape(value) is None:
            value.type.tensor_type.ClearField("shape")


def _whole_shape(value: Any) -> Shape | None:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        return None
    if not all(dim.HasField("dim_value") for dim in kind.shape.dim):
        return None
    return tuple(dim.dim_value for dim in kind.shape.dim)


def evaluate(expression: str, sizes: Mapping[str, int]) -> int | None:
    """The value of a dimension such as `2*batch + 1`; None if a part of it is unknown."""
    # sympy.sympify would be shorter, but it calls `eval`: a file could run code
    if expression in sizes:
        return sizes[expression]
    if len(expression) > _LONGEST_EXPRESSION:
        return None
    try:
        value = _value(ast.parse(expression, mode="eval").body, sizes)
    except (SyntaxError, KeyError, TypeError, ZeroDivisionError, RecursionError):
        return None
    # fractions are exact, so that (s // 2) / 3 is a size only where it divides
    return int(value) if value.denominator == 1 and value >= 0 else None


def _value(node: ast.expr, sizes: Mapping[str, int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:  # a bool is an int too
        return Fraction(node.value)
    if isinstance(node, ast.Name):
        return Fraction(sizes[node.id])
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, sizes)
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](_value(node.left, sizes), _value(node.right, sizes))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        arguments = [_value(each, sizes) for each in node.args]
        return _FUNCTIONS[node.func.id](*arguments)
    raise KeyError(ast.dump(node))


def symbol_sizes_of(model: Any, feed: Mapping[str, Any]) -> dict[str, int]:
    """The size of every symbolic dimension of the inputs, taken from the arrays in `feed`."""
    sizes: dict[str, int] = {}
    for value in model.graph.input:
        if value.name in feed:
            dims = value.type.tensor_type.shape.dim
            for dim, size in zip(dims, feed[value.name].shape, strict=False):
                if dim.dim_param:
                    sizes[dim.dim_param] = int(size)
    return sizes
