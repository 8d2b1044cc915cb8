"""A model as an ONNX file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.chapter import Unable
from reportgen.export.arguments import Arguments, bind_arguments, output_names
from reportgen.export.failure import Explained, explain
from reportgen.export.writing import name_parts, write_model
from reportgen.inputs import make_examples

if TYPE_CHECKING:
    from torch import nn

    from reportgen.manifest import ModelSpec

_EXAMPLE_BATCH = 2  # what is traced with a batch of one is easily taken for a constant
_CAPTURES = {
    "TorchExportNonStrictStrategy": "torch.export",
    "TorchExportStrictStrategy": "torch.export, strict",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxFile:
    """An exported file: where it is, which dimensions are dynamic, and how it was got.

    Attributes:
        path: the file; weights of more than 2 GB lie in `<name>.data` beside it.
        dynamic: the named dimensions that are symbolic in the file.
        strategy: how the export succeeded, in words.
        warnings: what a reader of the file should know, one sentence each.
        asked: the named dimensions of the inputs that the manifest wants dynamic.
        batch: the batch size that a file without a dynamic batch is made for.
    """

    path: Path
    dynamic: tuple[str, ...]
    strategy: str
    warnings: tuple[str, ...]
    asked: tuple[str, ...] = ()
    batch: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attempt:
    """One way to try: which dimensions to leave open, and the batch to trace with."""

    dynamic: tuple[str, ...]
    batch: int


def export_onnx(model: nn.Module, spec: ModelSpec, folder: Path) -> OnnxFile:
    """Export `model` to `folder/model.onnx` with the options of its manifest entry.

    The same model gives the same bytes in every process and on every path. The file appears
    whole or not at all. The model must be on loan (`undisturbed`): tracing calls it.

    Raises:
        Unable: the exporter gave up, with the reason in words.
    """
    asked = _asked_dims(spec)
    failures: list[Explained] = []
    for attempt in _attempts(asked, spec.batch):
        examples = make_examples(spec, attempt.batch, spec.seed)
        arguments = bind_arguments(
            model, spec.inputs, examples.args, examples.kwargs, attempt.dynamic
        )
        try:
            program = run_exporter(model, arguments, spec.onnx.opset)
        except Exception as error:
            failures.append(explain(error, model, arguments))
            if failures[-1].final:
                break
            continue
        file = _finish(program, arguments, attempt, asked, folder, spec.onnx.opset)
        return _told_of(file, failures)
    raise Unable(failures[-1].error, hint=failures[-1].hint)


def run_exporter(model: nn.Module, arguments: Arguments, opset: int) -> Any:
    """Torch's ONNX program of one call of `model`, without a word on stdout or stderr."""
    import torch

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the fused kernels have no ONNX counterpart
    try:
        with _quiet():
            return torch.onnx.export(
                model,
                arguments.args,
                kwargs=arguments.kwargs,
                dynamic_shapes=arguments.dynamic_shapes,
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _asked_dims(spec: ModelSpec) -> tuple[str, ...]:
    used = {dim for item in spec.inputs for dim in item.named_dims()}
    return tuple(dim for dim in spec.onnx.dynamic if dim in used)


def _attempts(asked: tuple[str, ...], batch: int) -> Iterator[_Attempt]:
    """Everything asked for; then the batch alone; then nothing dynamic."""
    if asked:
        yield _Attempt(dynamic=asked, batch=_EXAMPLE_BATCH if "batch" in asked else batch)
    if "batch" in asked and len(asked) > 1:
        yield _Attempt(dynamic=("batch",), batch=_EXAMPLE_BATCH)
    yield _Attempt(dynamic=(), batch=batch)


def _finish(
    program: Any,
    arguments: Arguments,
    attempt: _Attempt,
    asked: tuple[str, ...],
    folder: Path,
    opset: int,
) -> OnnxFile:
    capture = _CAPTURES.get(getattr(program, "_capture_strategy", ""), "torch.export")
    model = program.model
    name_parts(model, arguments, output_names(program.exported_program))
    dynamic = arguments.symbolic_dims(model)
    path = write_model(model, folder / "model.onnx")
    found = int(model.opset_imports.get("", opset))
    notes = [] if found == opset else [f"asked for opset {opset}, the exporter could give {found}"]
    open_dims = f"dynamic {', '.join(dynamic)}" if dynamic else "all dimensions fixed"
    return OnnxFile(
        path=path,
        dynamic=dynamic,
        strategy=f"{capture}, {open_dims}",
        warnings=tuple(notes),
        asked=asked,
        batch=None if "batch" in dynamic else attempt.batch,
    )


def _told_of(file: OnnxFile, failures: list[Explained]) -> OnnxFile:
    """`file` with a warning of the dimensions that had to be given up."""
    lost = [dim for dim in file.asked if dim not in file.dynamic]
    if not lost:
        return file
    reason = f": {failures[0].error}" if failures else ""
    names = " and ".join(lost)
    told = f"{names} could not be made dynamic{reason}"
    return replace(file, warnings=(*file.warnings, told))


@contextmanager
def _quiet() -> Iterator[None]:
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
