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
from reportgen.onnx.export.rewriting import rules_by_operator

if TYPE_CHECKING:
    from torch import nn

    from reportgen.onnx.export.arguments import ExportArguments


def capture(model: nn.Module, arguments: ExportArguments, *, strict: bool) -> Any:
    """The ExportedProgram of one call of `model`, as `torch.onnx.export` would capture it.

    Raises:
        Exception: whatever torch.export raises.
    """
    # torch.onnx.export's own strategies rather than torch.export.export: they keep dynamic sequence
    # lengths in RNNs and retry with the dims that torch suggests. They are run apart from the
    # translation, since the program is rewritten in between and the two steps fail differently.
    from torch.onnx._internal.exporter import _capture_strategies, _dynamic_shapes, _flags

    kind = (
        _capture_strategies.TorchExportStrictStrategy
        if strict
        else _capture_strategies.TorchExportNonStrictStrategy
    )
    shapes, _ = _dynamic_shapes.convert_str_to_export_dim(arguments.dynamic_shapes)
    run = _flags.set_onnx_exporting_flag(kind(verbose=False))  # for torch.onnx.is_in_onnx_export()
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

    with use_decompositions() as decomposed_operators, rules_by_operator():
        translated = torch.onnx.export(
            program, opset_version=opset, dynamo=True, verbose=False, optimize=optimize
        )
    return translated, tuple(sorted(decomposed_operators))


@contextmanager
def export_mode() -> Iterator[None]:
    """The state in which a model is exported: silent, without gradients or fused attention.

    On one thread, so that no constant in the file depends on the number of threads. Neither the
    fused kernels nor the checks of a distribution's arguments have an ONNX counterpart. Without
    gradients only the forward pass is traced, which takes a fifth less time.
    """
    import torch
    from torch.distributions import Distribution

    # dynamo too switches it off, for the whole process and for good
    validate = Distribution._validate_args
    fast_path = torch.backends.mha.get_fastpath_enabled()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    Distribution.set_default_validate_args(False)
    torch.backends.mha.set_fastpath_enabled(False)
    gc.freeze()  # tracing makes much garbage: each collection would walk the whole process
    try:
        with torch.no_grad(), quiet():
            yield
    finally:
        gc.unfreeze()
        torch.backends.mha.set_fastpath_enabled(fast_path)
        Distribution.set_default_validate_args(validate)
        torch.set_num_threads(threads)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress prints, warnings and log records."""
    # handlers made earlier hold the real stderr: redirecting it would not silence them
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


_WITHOUT_HEADS = 3  # batch, length, width
_WITH_HEADS = 4  # batch, heads, length, width: all that torchlib's attention accepts


def rewrite_for_export(program: Any) -> None:
    """Rewrite what torch.export captures and the ONNX exporter then refuses.

    Constants among the outputs (a string, a number) become None: they are no tensors. Fused
    attention gets the four axes that the exporter requires.
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
    """Reshape fused attention with three axes, or more than four, to four axes and back."""
    import torch

    attention = torch.ops.aten.scaled_dot_product_attention.default
    changed = False
    for module in program.graph_module.modules():  # branches and loop bodies are modules too
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
    # flattening the leading axes broadcasts nothing, and `reshape_as(query)` needs the same width
    same_lead = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    return bool(same_lead and query.shape[-1] == value.shape[-1] and _axes(mask) < _WITH_HEADS)


def _axes(argument: Any) -> int:
    return getattr(getattr(argument, "meta", {}).get("val"), "ndim", 0)


def _fit(node: Any) -> None:
    """Add and remove a head axis, or merge and split the leading axes; also those of a mask."""
    import torch

    aten, graph, query = torch.ops.aten, node.graph, node.args[0]
    axes, readers = _axes(query), list(node.users)  # before `restored` becomes a reader too
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
    # the exporter reads shapes and dtypes from the metadata, not from a run
    node.meta["val"] = there[0](node.meta["val"], *there[1:])
    with graph.inserting_after(node):
        restored = _called(node, back, node)
    for reader in readers:
        reader.replace_input_with(node, restored)


def _called(node: Any, call: tuple[Any, ...], argument: Any) -> Any:
    """A new node that calls `call[0]` on `argument` and the rest of `call`."""
    operator, *rest = call
    made = node.graph.call_function(operator, (argument, *rest))
    values = [each.meta["val"] if hasattr(each, "meta") else each for each in (argument, *rest)]
    made.meta = {**node.meta, "val": operator(*values)}
    return made
