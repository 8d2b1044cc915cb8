"""What the child computes in forks beside its sections, if it has the cores for it."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.context import ModelContext
from reportgen.errors import SectionError
from reportgen.onnx.export import OnnxFile, export_onnx
from reportgen.sections.section import AnySection
from reportgen.sources.weightless import weight_bytes
from reportgen.workers.inputs_read import InputsRead, Recorder
from reportgen.workers.job import Job
from reportgen.workers.side_process import SideProcess, can_fork

if TYPE_CHECKING:
    from torch import nn

_CORES_FOR_TWO = 2  # with fewer, two processes would take the cores of other models
# the job's memory over the weights, from which on an export and a backward pass fit side by side
_HEADROOM = 16
# between collections: the garbage of an export holds no values, and the process ends with it
_NEW_OBJECTS = 200_000


def section_beside(job: Job, chosen: Sequence[AnySection]) -> AnySection | None:
    """The section to analyze in a process beside the others; None if nothing is gained by it."""
    if not _has_cores(job):
        return None
    users = [section for section in chosen if section.uses_model]
    return next((s for s in users if s.runs_beside), None) if len(users) > 1 else None


def with_export_beside(
    job: Job, chosen: Sequence[AnySection], context: ModelContext, recorder: Recorder
) -> ModelContext:
    """`context` whose ONNX file a fork of this process exports from now on, if that saves time."""
    exports = any(section.exports for section in chosen)
    others = any(s.uses_model and not s.exports and not s.runs_beside for s in chosen)
    # a model that fills the memory is exported after its passes, not beside them
    heavy = _HEADROOM * weight_bytes(context.model) > job.memory_bytes
    if not (exports and others) or heavy or not _has_cores(job):
        return context
    side = SideProcess(partial(_export, context, recorder), seconds=job.seconds)

    def receive(model: nn.Module, spec: Any, folder: Path) -> OnnxFile:
        finished = side.wait()
        if finished is None:
            return export_onnx(model, spec, folder)
        outcome, read = finished.result
        recorder.add(read)
        if isinstance(outcome, SectionError):
            raise outcome
        return outcome

    return replace(context, export=receive)


def _export(
    context: ModelContext, recorder: Recorder
) -> tuple[OnnxFile | SectionError, InputsRead]:
    gc.set_threshold(_NEW_OBJECTS)
    try:
        outcome: OnnxFile | SectionError = context.onnx_file()
    except SectionError as error:
        outcome = error
    return outcome, recorder.take()


def _has_cores(job: Job) -> bool:
    return job.threads * job.shares >= _CORES_FOR_TWO and can_fork()
