"""Models in a dtype that onnxruntime's CPU kernels lack: compared as a float32 copy."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reportgen.errors import ReportgenError, SectionError
from reportgen.onnx.export import export_onnx
from reportgen.onnx.runtime import CannotRunError, Runtime
from reportgen.pytree import buffers_of
from reportgen.sections.onnx.parity.analysis import check_parity
from reportgen.sections.onnx.result import Parity

if TYPE_CHECKING:
    from torch import nn

    from reportgen.context import ModelContext
    from reportgen.manifest import InputSpec, ModelSpec

_HALF = ("bfloat16", "float16")


def compare_in_float32(context: ModelContext, not_run: Parity) -> Parity:
    """The comparison of a float32 copy of a model whose own file could not be run.

    The copy has the same values, is exported by the same function, and is thrown away. What
    `not_run` says stays as it is if the model is in no half precision, or its copy fails too.
    """
    dtype = half_dtype(context.model, context.spec)
    if dtype is None:
        return not_run
    context.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".float32-", dir=context.folder))
    try:
        spec = in_float32(context.spec)
        wide = replace(
            context, model=copy.deepcopy(context.model).float(), spec=spec, folder=folder
        )
        file = export_onnx(wide.model, wide.spec, folder)
        parity = check_parity(wide, file, Runtime(file.path))
    except (SectionError, CannotRunError, ReportgenError, RuntimeError, TypeError) as error:
        parity = replace(not_run, not_run=str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    reason = f"not runnable in {dtype} on CPU onnxruntime ({not_run.not_run})"
    if parity.not_run:
        return replace(not_run, not_run=f"{reason}; nor as a copy in float32 ({parity.not_run})")
    note = f"{reason}; compared in float32 instead, on an exported copy with the same values"
    return replace(
        parity,
        note="; ".join(filter(None, (note, parity.note))),
        compared_dtype="float32",
    )


def half_dtype(model: nn.Module, spec: ModelSpec) -> str | None:
    """The half precision that most of a model's parameters are in, or else its inputs; or None."""
    elements: Counter[str] = Counter()
    for tensor in (*model.parameters(), *buffers_of(model)):
        elements[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    halves = [name for name, _ in elements.most_common() if name in _HALF]
    inputs = [dtype for item in spec.inputs for dtype in _dtypes(item) if dtype in _HALF]
    return next(iter((*halves, *inputs)), None)


def in_float32(spec: ModelSpec) -> ModelSpec:
    """The manifest entry with every input of half precision in float32."""
    inputs = tuple(map(_widened, spec.inputs))
    return spec.model_copy(update={"inputs": inputs})


def _dtypes(item: InputSpec) -> tuple[str, ...]:
    parts = (*(item.items or ()), *(item.fields or {}).values())
    return (item.dtype, *(dtype for part in parts for dtype in _dtypes(part)))


def _widened(item: InputSpec) -> InputSpec:
    changes: dict[str, object] = {}
    if item.dtype in _HALF:
        changes["dtype"] = "float32"
    if item.items is not None:
        changes["items"] = tuple(map(_widened, item.items))
    if item.fields is not None:
        changes["fields"] = {key: _widened(part) for key, part in item.fields.items()}
    return item.model_copy(update=changes)
