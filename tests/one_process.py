"""Commands and builds without new processes: torch is imported once for all of them.

For tests of what is reported. What a process does for others is tested with real ones.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from unittest.mock import patch

import torch

from reportgen import cli, pipeline
from reportgen.errors import ModelError
from reportgen.example_inputs import describe_inputs
from reportgen.manifest import Manifest
from reportgen.outcome import Failed, SectionOutcome
from reportgen.sections import SECTIONS
from reportgen.workers import Job, ModelOutcomes
from reportgen.workers.child import load_context, outcome_of

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # those that the command line handles


def run_here(*arguments: Any, folder: Path) -> CompletedProcess[str]:
    """What `reportgen ARGUMENTS` prints in `folder`, and its exit status.

    An exception that the command line does not handle is raised here.
    """
    words = ["reportgen", *map(str, arguments)]
    handlers = [signal.getsignal(number) for number in _SIGNALS]
    out, err = io.StringIO(), io.StringIO()
    try:
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            patch.object(sys, "argv", words),
        ):
            cli.main()
    except SystemExit as end:
        return CompletedProcess(words, int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        for number, handler in zip(_SIGNALS, handlers, strict=True):
            signal.signal(number, handler)
    raise AssertionError("the command line always exits")


@contextmanager
def analyzed_here() -> Iterator[None]:
    """Builds in this block analyze their models in this process, and none comes from the cache."""

    def analyze_all(
        jobs: Sequence[Job], *, finished: Callable[[Job, ModelOutcomes], None], **_: Any
    ) -> tuple[ModelOutcomes, ...]:
        outcomes = tuple(map(_outcomes_of, jobs))
        for job, found in zip(jobs, outcomes, strict=True):
            finished(job, found)
        return outcomes

    threads = torch.get_num_threads()
    try:
        with patch.object(pipeline, "analyze_all", analyze_all):
            yield
    finally:
        torch.set_num_threads(threads)


def build_here(manifest: Manifest, **options: Any) -> pipeline.Built:
    """`pipeline.build`, with its models analyzed in this process."""
    with analyzed_here():
        return pipeline.build(manifest, **options)


def _outcomes_of(job: Job) -> ModelOutcomes:
    job.folder.mkdir(parents=True, exist_ok=True)
    chosen = [section for section in SECTIONS if section.name in job.sections]
    failed, inputs = None, ""
    try:
        context = load_context(job)
        inputs = describe_inputs(context.spec.inputs, context.spec.dims)
    except ModelError as error:
        failed = Failed(error=error.message, hint=error.hint)
    return ModelOutcomes(
        name=job.spec.name,
        sections=tuple(
            SectionOutcome(
                name=section.name,
                title=section.title,
                outcome=failed or outcome_of(section, context),
            )
            for section in chosen
        ),
        seconds={},
        load_error=failed,
        inputs=inputs,
    )
