"""The two steps of torch's exporter: a model to a program, a program to ONNX; in silence."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

from reportgen.onnx.export.decompositions import use_decompositions

if TYPE_CHECKING:
    from torch import nn

    from reportgen.onnx.export.arguments import ExportArguments


def capture(model: nn.Module, arguments: ExportArguments, *, strict: bool) -> Any:
    """The ExportedProgram of one call of `model`, as `torch.onnx.export` would capture it.

    Raises:
        Exception: whatever torch.export raises.
    """
    from torch.onnx._internal.exporter import _capture_strategies, _dynamic_shapes, _flags

    kind = (
        _capture_strategies.TorchExportStrictStrategy
        if strict
        else _capture_strategies.TorchExportNonStrictStrategy
    )
    shapes, _ = _dynamic_shapes.convert_str_to_export_dim(arguments.dynamic_shapes)
    run = _flags.set_onnx_exporting_flag(kind(verbose=False))  # torch.onnx.is_in_onnx_export()
    result = run(model, arguments.args, arguments.kwargs, shapes)
    if result.exported_program is None:
        raise result.exception or RuntimeError(
            "torch.export returned neither a program nor an error"
        )
    return result.exported_program


def translate(program: Any, opset: int, *, optimize: bool = True) -> tuple[Any, tuple[str, ...]]:
    """The ONNX program of an ExportedProgram, and the operators that were decomposed.

    Raises:
        Exception: whatever the exporter raises, usually a ConversionError.
    """
    import torch

    with use_decompositions() as decomposed_operators:
        translated = torch.onnx.export(
            program, opset_version=opset, dynamo=True, verbose=False, optimize=optimize
        )
    return translated, tuple(sorted(decomposed_operators))


@contextmanager
def export_mode() -> Iterator[None]:
    """The state in which a model is exported: silent, without gradients or fused attention.

    The fused kernels have no ONNX counterpart, and the checks of a distribution's arguments none
    that a file could act on. Without gradients the graph is traced for the
    forward pass alone, which takes a fifth less time. What lives already is kept out of the
    garbage collector's sight, since tracing makes enough garbage to have it walk everything.
    """
    import torch
    from torch.distributions import Distribution

    validate = Distribution._validate_args  # dynamo switches it off for the whole process
    fast_path = torch.backends.mha.get_fastpath_enabled()
    Distribution.set_default_validate_args(False)
    torch.backends.mha.set_fastpath_enabled(False)
    gc.freeze()
    try:
        with torch.no_grad(), quiet():
            yield
    finally:
        gc.unfreeze()
        torch.backends.mha.set_fastpath_enabled(fast_path)
        Distribution.set_default_validate_args(validate)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back prints, warnings and log records, also those of handlers made long before."""
    threshold = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(StringIO()),
            redirect_stderr(StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(threshold)


# Rewrites of a captured program -------------------------------------------------------------


_WITHOUT_HEADS = 3  # batch, length, width
_WITH_HEADS = 4  # what the exporter's attention takes


def rewrite_for_export(program: Any) -> None:
    """Change an ExportedProgram where the exporter would stumble over what it takes itself for.

    Constants among the outputs (a string, a number) are dropped, as None is: there is no tensor
    to put in the file. Fused attention gets the four axes that the exporter knows it with.
    """
    _drop_constants(program)
    _fit_attention(program)


def _drop_constants(program: Any) -> None:
    from torch.export.graph_signature import ConstantArgument, OutputKind

    output = next(node for node in program.graph.nodes if node.op == "output")
    leaves = list(output.args[0])
    for index, spec in enumerate(program.graph_signature.output_specs):
        if spec.kind == OutputKind.USER_OUTPUT and isinstance(spec.arg, ConstantArgument):
            spec.arg = ConstantArgument(name=spec.arg.name, value=None)
            leaves[index] = None
    output.args = (tuple(leaves),)


def _fit_attention(program: Any) -> None:
    """Fused attention over another number of axes than four, between two reshapes."""
    import torch

    attention = torch.ops.aten.scaled_dot_product_attention.default
    changed = False
    for module in program.graph_module.modules():
        graph = getattr(module, "graph", None)
        for node in list(graph.nodes) if graph is not None else ():
            if node.op == "call_function" and node.target is attention and _can_be_fitted(node):
                _fit(node)
                changed = True
    if changed:
        program.graph_module.recompile()


def _can_be_fitted(node: Any) -> bool:
    """Whether all have three axes, or more than four that can be merged and split again."""
    query, key, value = (argument.meta.get("val") for argument in node.args[:3])
    axes = _axes(node.args[0])
    if {_axes(argument) for argument in node.args[:3]} != {axes}:
        return False
    if axes <= _WITH_HEADS:
        return axes == _WITHOUT_HEADS
    same_lead = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    return bool(same_lead and query.shape[-1] == value.shape[-1] and _axes(mask) < _WITH_HEADS)


def _axes(argument: Any) -> int:
    return getattr(getattr(argument, "meta", {}).get("val"), "ndim", 0)


def _fit(node: Any) -> None:
    """A head is added and taken off, or the leading axes merged and split; so are a mask's."""
    import torch

    aten, graph, query = torch.ops.aten, node.graph, node.args[0]
    axes, readers = _axes(query), list(node.users)
    there: tuple[Any, ...]
    if axes == _WITHOUT_HEADS:
        there, back = (aten.unsqueeze.default, 1), (aten.squeeze.dim, 1)
    else:
        there, back = (
            (aten.flatten.using_ints, 0, axes - _WITH_HEADS),
            (aten.reshape_as.default, query),
        )

    def moved(argument: Any) -> Any:
        return _called(node, there, argument) if _axes(argument) == axes else argument

    with graph.inserting_before(node):
        node.args = tuple(map(moved, node.args))
        node.kwargs = {key: moved(argument) for key, argument in node.kwargs.items()}
    node.meta["val"] = there[0](node.meta["val"], *there[1:])
    with graph.inserting_after(node):
        restored = _called(node, back, node)
    for reader in readers:
        reader.replace_input_with(node, restored)


def _called(node: Any, call: tuple[Any, ...], argument: Any) -> Any:
    """A new node that calls an operator on `argument` and what follows in `call`."""
    operator, *rest = call
    made = node.graph.call_function(operator, (argument, *rest))
    values = [each.meta["val"] if hasattr(each, "meta") else each for each in (argument, *rest)]
    made.meta = {**node.meta, "val": operator(*values)}
    return made
