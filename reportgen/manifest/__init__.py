"""Reads a YAML manifest into a `Manifest`; errors state file, line and key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from pydantic import ValidationError

from reportgen.manifest.budget import Bound, Budget, Side
from reportgen.manifest.errors import KeyPath, Problem, manifest_error
from reportgen.manifest.fields import Reading
from reportgen.manifest.input_spec import (
    Constant,
    Dtype,
    InputSpec,
    parse_shape_argument,
    split_array_path,
)
from reportgen.manifest.logs import LogOptions, LogSource
from reportgen.manifest.pydantic_errors import problems_of
from reportgen.manifest.schema import manifest_schema
from reportgen.manifest.source import Loss, Source, parse_source
from reportgen.manifest.validators import (
    find_inconsistencies,
    find_unknown_rules,
    find_unknown_sections,
)
from reportgen.manifest.values import (
    Budgets,
    CacheOptions,
    Document,
    Limits,
    Manifest,
    ModelSpec,
    OnnxOptions,
    Optimizer,
    Precision,
    Target,
    Tolerance,
    TrainingSetup,
    with_shared_settings,
)
from reportgen.manifest.waiver import Waiver, find_waiver
from reportgen.manifest.yaml_reader import YamlDocument, read_yaml

__all__ = [
    "Bound",
    "Budget",
    "Budgets",
    "CacheOptions",
    "Constant",
    "Dtype",
    "InputSpec",
    "Limits",
    "LogOptions",
    "LogSource",
    "Loss",
    "Manifest",
    "ModelSpec",
    "OnnxOptions",
    "Optimizer",
    "Precision",
    "Side",
    "Source",
    "Target",
    "Tolerance",
    "TrainingSetup",
    "Waiver",
    "find_waiver",
    "load_manifest",
    "manifest_schema",
    "parse_shape_argument",
    "parse_source",
    "split_array_path",
]


def load_manifest(
    path: Path,
    *,
    rule_codes: Callable[[], Collection[str]] | None = None,
    section_names: Callable[[], Collection[str]] | None = None,
) -> Manifest:
    """Read and validate the manifest at `path`; each model includes the shared settings.

    Args:
        path: the YAML file; paths in it are relative to its folder.
        rule_codes: gives the codes that `ignore` and `waivers` may name; called only where they
            name some. Without it any code is accepted.
        section_names: gives the names that `sections` may list; called only where it lists some.

    Raises:
        ManifestError: lists every problem, one per line, as `file:line: key: message`.
    """
    read = read_yaml(path)
    problems = list(read.problems)
    document, invalid = _validate(read, Reading(folder=path.absolute().parent))
    reported = {problem.path for problem in problems}
    # a key that could not be read is null, which would be a second problem
    problems += _independent(invalid, reported)
    reported |= {problem.path for problem in invalid}
    problems += _independent(find_inconsistencies(read.data, read.lines), reported)
    if rule_codes is not None:
        problems += _independent(find_unknown_rules(read.data, read.lines, rule_codes), reported)
    if section_names is not None and "sections" in read.data:
        unknown = find_unknown_sections(read.data, read.lines, section_names())
        problems += _independent(unknown, reported)
    if document is None or problems:
        raise manifest_error(path, problems)
    return _finish(document, path, read.lines)


def _validate(read: YamlDocument, reading: Reading) -> tuple[Document | None, list[Problem]]:
    try:
        document = Document.model_validate(read.data, context=reading, by_alias=True, by_name=False)
    except ValidationError as error:
        return None, problems_of(error, read.lines)
    return document, []


def _independent(problems: Iterable[Problem], reported: set[KeyPath]) -> list[Problem]:
    """The `problems` whose key and parent keys have no problem that was reported before."""
    return [
        problem
        for problem in problems
        if not any(problem.path[:depth] in reported for depth in range(len(problem.path) + 1))
    ]


def _finish(document: Document, path: Path, lines: dict[KeyPath, int]) -> Manifest:
    places = {
        spec.name: lines.get(("models", number), 1) for number, spec in enumerate(document.models)
    }
    models = tuple(with_shared_settings(spec, document) for spec in document.models)
    values = {name: getattr(document, name) for name in Document.model_fields}
    # not validated again: the values are, and `path` has no place in a file
    return Manifest.model_construct(
        **{**values, "models": models, "path": path.absolute(), "lines": places}
    )
