"""The two steps of torch's exporter: a model to a program, a program to ONNX; in silence."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

from reportgen.onnx.export.decompositions import own_forms

if TYPE_CHECKING:
    from torch import nn

    from reportgen.onnx.export.arguments import Arguments


def capture(model: nn.Module, arguments: Arguments, *, strict: bool) -> Any:
    """The ExportedProgram of one call of `model`, as `torch.onnx.export` would capture it.

    Raises:
        Exception: whatever torch.export has to say.
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
        raise result.exception or RuntimeError("torch.export gave no program and no reason")
    return result.exported_program


def translate(program: Any, opset: int, *, optimize: bool = True) -> tuple[Any, tuple[str, ...]]:
    """Torch's ONNX program of an ExportedProgram, and which operators `own_forms` wrote out.

    Raises:
        Exception: whatever the exporter has to say, a ConversionError mostly.
    """
    import torch

    with own_forms() as written_out:
        translated = torch.onnx.export(
            program, opset_version=opset, dynamo=True, verbose=False, optimize=optimize
        )
    return translated, tuple(sorted(written_out))


@contextmanager
def exporting() -> Iterator[None]:
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
