"""The child process: load one model, analyze its sections, write one file per section.

`main` is run with the arguments EVENTS_FD PARENT_PID, and the job on standard input.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from reportgen.context import Context, ModelContext, OnnxFileContext
from reportgen.error_text import is_out_of_memory, one_line, user_frame
from reportgen.errors import ModelError, ReportgenError, SectionError
from reportgen.example_inputs import describe_inputs
from reportgen.known_failures import failure_hint, failure_text
from reportgen.outcome import Done, Failed, Skipped, as_failed
from reportgen.sections import SECTIONS
from reportgen.sections.section import AnySection, outcome_adapter
from reportgen.sources.imported_code import imported_code
from reportgen.units import format_bytes
from reportgen.visible_text import cut, visible
from reportgen.workers.beside import section_beside, with_export_beside
from reportgen.workers.inputs_read import InputsRead, Recorder, ignored_folders
from reportgen.workers.job import Job, Message
from reportgen.workers.limits import exit_with_parent, limit_memory
from reportgen.workers.side_process import SideProcess, can_fork

_LONGEST_INPUTS = 1000  # characters; a pipe takes 4,096 bytes in one piece
_NEW_OBJECTS = 20_000  # between collections; Python's own figure is 700
_DESCRIPTOR = 200  # the lowest for messages; shells and batch systems use those below 10


class Reporter:
    """Writes messages to the parent, one JSON line each."""

    def __init__(self, descriptor: int) -> None:
        # Programs that log to descriptor 3, say, must not find it open, nor the model's children.
        self._descriptor = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _DESCRIPTOR)
        os.close(descriptor)
        self._process = os.getpid()

    def send(self, message: Message) -> None:
        """Write `message` to the pipe in one call."""
        self.exit_if_forked()
        # Not through a buffered file: a crash would lose what is in the buffer.
        os.write(self._descriptor, message.model_dump_json().encode() + b"\n")

    def exit_if_forked(self) -> None:
        """Exit if this is a copy of the process that the model created with `os.fork`."""
        if os.getpid() != self._process:
            os._exit(0)  # sys.exit would run the model's exit handlers a second time

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Send a message when the section begins, and one with its duration when it ends."""
        self.send(Message(kind="begin", section=name))
        start = time.monotonic()
        yield
        self.send(Message(kind="end", section=name, seconds=time.monotonic() - start))


def main() -> int:
    """Analyze the job on standard input; return 0 also if the model cannot be loaded."""
    events, parent = int(sys.argv[1]), int(sys.argv[2])
    text = sys.stdin.buffer.read()
    exit_with_parent(parent)  # before any import that takes seconds
    return run(text, events)


def run(text: bytes, events: int) -> int:
    """Analyze the job in `text` within its limits; messages go to the descriptor `events`."""
    job = Job.model_validate_json(text)
    limit_memory(job.memory_bytes)
    reporter = Reporter(events)
    recorder = Recorder(ignored=ignored_folders(job.folder))
    recorder.start()  # before the import of torch, which looks for modules in the model's folder
    try:
        analyze(job, reporter, recorder)
    except ReportgenError as error:
        hint = _memory_hint(job) if is_out_of_memory(error) else error.hint
        message, hint = visible(error.message[:1500]), visible(hint[:500])
        reporter.send(Message(kind="model_error", message=message, hint=hint))
    return 0


def _memory_hint(job: Job) -> str:
    # The loader's own hint blames the model, which may load without the limit.
    return (
        f"the limit was {format_bytes(job.memory_bytes)}; raise limits.memory in the manifest, "
        "or analyze fewer models at once with --jobs 1"
    )


def analyze(job: Job, reporter: Reporter, recorder: Recorder) -> None:
    """Load the model, then analyze and save every section of `job`.

    Raises:
        ModelError: the model or its inputs cannot be created.
    """
    context = load_context(job)
    _collect_seldom()
    inputs = describe_inputs(context.spec.inputs, context.spec.dims)
    reporter.send(Message(kind="loaded", message=cut(visible(inputs), _LONGEST_INPUTS)))
    job.outcomes.mkdir(parents=True, exist_ok=True)
    # the modules of the model's classes are imported by now, and few others
    job.code_file.write_text(json.dumps([str(file) for file in imported_code()]), encoding="utf-8")
    sections = _Sections(job=job, context=context, recorder=recorder, shared=recorder.take())
    chosen = [section for section in SECTIONS if section.name in job.sections]
    with _preserve_state(context):
        beside = None
        if isinstance(context, ModelContext):
            beside = section_beside(job, chosen)
            sections.context = with_export_beside(job, chosen, context, recorder)
        if beside is None:
            sections.analyze_all(chosen, reporter)
        else:
            others = [section for section in chosen if section is not beside]
            sections.analyze_in_fork(beside, others, reporter)


@dataclass(kw_only=True, slots=True)
class _Sections:
    """Analyzes sections, and saves each outcome with the files that it depends on.

    Attributes:
        shared: read while the model was loaded, and by the sections before.
    """

    job: Job
    context: Any
    recorder: Recorder
    shared: InputsRead

    def analyze_all(self, chosen: Iterable[AnySection], reporter: Reporter) -> None:
        """Analyze and save these sections in order."""
        for section in chosen:
            with reporter.section(section.name):
                self.analyze(section, reporter)

    def analyze_in_fork(
        self, beside: AnySection, others: Sequence[AnySection], reporter: Reporter
    ) -> None:
        """Analyze and save `beside` in a fork of this process, and the others here."""
        first, *rest = others
        with reporter.section(first.name):
            # before the fork, so that it is computed once; and before any backward pass, after
            # which torch refuses one in a fork
            with contextlib.suppress(Exception, SystemExit):
                first.share(self.context)
            side = None
            if can_fork():  # the model may have started a thread just now
                side = SideProcess(partial(self.analyze, beside), seconds=self.job.seconds)
                self.context = replace(self.context, wait_for_quiet=side.wait)
            self.analyze(first, reporter)
        self.analyze_all(rest, reporter)
        if side is None:
            self.analyze_all([beside], reporter)
            return
        reporter.send(Message(kind="begin", section=beside.name))
        finished = side.wait()
        if finished is None:
            self.analyze_all([beside], reporter)
        else:
            reporter.send(Message(kind="end", section=beside.name, seconds=finished.seconds))

    def analyze(self, section: AnySection, reporter: Reporter | None = None) -> None:
        """Analyze and save `section`."""
        analyze_section(section, self.context, self.job, reporter)
        read = self.recorder.take()
        if section.uses_model:
            # What an earlier section computed once for all, it read for all as well.
            read = self.shared = self.shared | read
        self.job.inputs_file(section.name).write_text(read.model_dump_json())


def _collect_seldom() -> None:
    # A collection visits every object that torch and the model consist of: 5 to 10 % of the time.
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)
    gc.enable()


def _preserve_state(context: Any) -> AbstractContextManager[Any]:
    # Around all sections, so that the weights are copied once: the blocks around single sections
    # compare with this copy.
    model = getattr(context, "model", None)
    if model is None:
        return nullcontext()
    from reportgen.model_state import preserve_model_state  # torch is not needed for logs

    return preserve_model_state(model)


def load_context(job: Job) -> Any:
    """The context of `job`, with its model or file loaded and its inputs created once.

    Raises:
        ModelError: the model or its inputs cannot be created.
    """
    try:
        return _load_context(job)
    except ReportgenError:
        raise
    except Exception as error:  # a model whose class PyTorch itself cannot use
        raise ModelError(
            f"while loading the model, {failure_text(error)}", hint=failure_hint(error, "")
        ) from error


def _load_context(job: Job) -> Any:
    chosen = [section for section in SECTIONS if section.name in job.sections]
    if not any(section.uses_model for section in chosen):
        return load_log_context(job)
    if job.spec.source.kind == "onnx":
        return load_onnx_file_context(job)
    import torch

    from reportgen.dummy_inputs import with_dummy_inputs
    from reportgen.sources import load_model

    torch.set_num_threads(job.threads)
    loaded = load_model(job.spec)
    spec, input_notes = with_dummy_inputs(job.spec, loaded)
    context = ModelContext(
        spec=spec,
        model=loaded.model,
        targets=job.targets,
        folder=job.folder,
        timings=job.timings,
        source_notes=(*loaded.notes, *input_notes),
    )
    context.examples()  # an error in the inputs fails the model and not each of its sections
    return with_lazy_layers_materialized(context)


def with_lazy_layers_materialized(context: ModelContext) -> ModelContext:
    """`context` with lazy layers materialized by a forward pass on the example inputs.

    If that pass fails, the layers stay lazy and the sections report the error.
    """
    from reportgen.fake_model import materialize_lazy

    with contextlib.suppress(Exception):  # forward may raise anything
        model = materialize_lazy(
            context.model, lambda: context.arguments(1), lambda: context.arguments(context.batch)
        )
        if model is not context.model:
            note = "lazy layers were materialized by a forward pass on the example inputs"
            return replace(context, model=model, source_notes=(*context.source_notes, note))
    return context


def load_log_context(job: Job) -> Any:
    """The context of sections that read logs only; does not load the model or import torch."""
    return Context(spec=job.spec, targets=job.targets, folder=job.folder, timings=job.timings)


def load_onnx_file_context(job: Job) -> Any:
    """The context of a job whose source is an ONNX file."""
    import torch

    from reportgen.onnx.export import OnnxFile
    from reportgen.sources.from_onnx import inputs_of, read_onnx_source, with_file_inputs

    torch.set_num_threads(job.threads)
    path = Path(job.spec.source.target)
    model = read_onnx_source(path)
    context = OnnxFileContext(
        spec=with_file_inputs(job.spec, model),
        targets=job.targets,
        folder=job.folder,
        timings=job.timings,
        source_notes=(
            "ONNX file without a PyTorch module: parameters are its stored initializers",
        ),
        file=OnnxFile(path=path, dynamic=(), strategy="", warnings=()),
        inputs=inputs_of(model),
    )
    context.feed()  # as above, an error in the inputs fails the model
    return context


def analyze_section(
    section: AnySection, context: Any, job: Job, reporter: Reporter | None = None
) -> None:
    """Analyze `section` and save its outcome."""
    outcome = outcome_of(section, context)
    if reporter is not None:
        reporter.exit_if_forked()  # a copy must not write the outcome as well
    save(job, section, outcome)


def outcome_of(section: AnySection, context: Any) -> Done[Any] | Skipped | Failed:
    """The outcome of `section`; the state of the model is restored afterwards."""
    try:
        result = run_section(section, context)
    except SectionError as section_error:
        # The section's message blames the model; memory depends on the limit instead.
        return (
            failed_with(section_error)
            if is_out_of_memory(section_error)
            else as_failed(section_error)
        )
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # forward may call sys.exit
        return failed_with(error)
    return result if isinstance(result, Skipped) else Done(result=result)


def run_section(section: AnySection, context: Any) -> Any:
    """The result of `section`, or `Skipped` if it does not apply."""
    if not isinstance(context, ModelContext | OnnxFileContext):
        assert section.analyze_logs is not None  # see pipeline.applicable_sections
        return section.analyze_logs(context)
    if isinstance(context, ModelContext):
        if not section.uses_model:
            return section.analyze(context)
        from reportgen.model_state import preserve_model_state

        with preserve_model_state(context.model):
            return section.analyze(context)
    if section.analyze_file is None:
        return Skipped(reason="the source is an ONNX file without a PyTorch module")
    return section.analyze_file(context)


def failed_with(error: BaseException) -> Failed:
    """The outcome of a section that raised `error`."""
    if is_out_of_memory(error):
        return Failed(
            error="ran out of memory" + (f": {one_line(error)}" if str(error).strip() else ""),
            hint="raise limits.memory in the manifest, or reduce the model's batch",
        )
    advice = "call the model in Python with the inputs of the manifest for a full traceback"
    return Failed(
        error=failure_text(error), hint=failure_hint(error, advice if user_frame(error) else "")
    )


def save(job: Job, section: AnySection, outcome: Done[Any] | Skipped | Failed) -> None:
    """Write the outcome to `<section>.json`, completely or not at all."""
    target = job.outcome_file(section.name)
    part = target.with_suffix(".part")
    part.write_bytes(outcome_adapter(section).dump_json(outcome))
    part.replace(target)
