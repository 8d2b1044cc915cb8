"""How each figure of a model was made: the methods of its sections, with what they share."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from reportgen.environment import version
from reportgen.manifest import ModelSpec
from reportgen.metrics import Evidence, Method


def evidence_of(
    spec: ModelSpec,
    methods: Iterable[tuple[str, Method]],
    *,
    manifest: str,
    inputs: str,
    timings: bool,
) -> Iterator[Evidence]:
    """Complete the `methods` of a model, each with the name of its section.

    Args:
        spec: the manifest's entry of the model.
        methods: how the metrics were made.
        manifest: its file name.
        inputs: the example inputs, see `describe_inputs`.
        timings: whether times were measured, so that the command measures them again.
    """
    for section, method in methods:
        runs = method.inputs is None
        yield Evidence(
            keys=method.keys,
            method=method.text,
            tools=tuple(f"{tool} {version(tool) or 'not installed'}" for tool in method.tools),
            inputs=inputs if method.inputs is None else method.inputs,
            batch=method.batch,
            seed=spec.seed if runs else None,
            command=f"reportgen.analyze(model, inputs, sections=({section!r},))"
            if spec.source.kind == "object"
            else _command(manifest, spec.name, section, timings=timings),
        )


def _command(manifest: str, model: str, section: str, *, timings: bool) -> str:
    """The build of one section alone.

    It names a folder of its own: a report of one section would replace the one that it checks.
    """
    parts = ["reportgen", "build", manifest, "--model", model, "--section", section]
    parts += ["--format", "json", "--output", "reproduced"]
    return shlex.join(parts if timings else [*parts, "--no-timings"])
