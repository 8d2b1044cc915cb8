"""What was asked: YAML -> `Manifest`; every complaint names its file, line and key."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from reportgen.manifest.errors import Complaint, KeyPath, complaints_of, manifest_error
from reportgen.manifest.fields import Reading
from reportgen.manifest.input_spec import (
    Constant,
    Dtype,
    InputSpec,
    parse_shape_argument,
    split_array_path,
)
from reportgen.manifest.logs import LogOptions, LogSource
from reportgen.manifest.schema import manifest_schema
from reportgen.manifest.source import Loss, Source, parse_source
from reportgen.manifest.validators import inconsistencies
from reportgen.manifest.values import (
    Budgets,
    Document,
    Limits,
    Manifest,
    ModelSpec,
    OnnxOptions,
    Optimizer,
    Precision,
    Target,
    Tolerance,
    Training,
    with_shared_settings,
)
from reportgen.manifest.yaml_reader import YamlDocument, read_yaml

__all__ = [
    "Budgets",
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
    "Source",
    "Target",
    "Tolerance",
    "Training",
    "load_manifest",
    "manifest_schema",
    "parse_shape_argument",
    "parse_source",
    "split_array_path",
]


def load_manifest(path: Path) -> Manifest:
    """The manifest at `path`, complete: files found, names told apart, shared settings applied.

    Args:
        path: the YAML file; paths inside are relative to its folder.

    Raises:
        ManifestError: everything that is wrong at once, each on a line `file:line: key: message`.
    """
    read = read_yaml(path)
    complaints = list(read.complaints)
    document, invalid = _validate(read, Reading(folder=path.absolute().parent))
    judged = {complaint.path for complaint in complaints}
    complaints += _elsewhere(invalid, judged)
    complaints += _elsewhere(inconsistencies(read.data, read.lines), judged)
    if document is None or complaints:
        raise manifest_error(path, complaints)
    return _finish(document, path)


def _validate(read: YamlDocument, reading: Reading) -> tuple[Document | None, list[Complaint]]:
    try:
        document = Document.model_validate(read.data, context=reading, by_alias=True, by_name=False)
    except ValidationError as error:
        return None, complaints_of(error, read.lines)
    return document, []


def _elsewhere(complaints: Iterable[Complaint], judged: set[KeyPath]) -> list[Complaint]:
    """Those `complaints` that do not follow from one about the same key or a key above it."""
    return [
        complaint
        for complaint in complaints
        if not any(complaint.path[:depth] in judged for depth in range(len(complaint.path) + 1))
    ]


def _finish(document: Document, path: Path) -> Manifest:
    models = tuple(with_shared_settings(spec, document) for spec in document.models)
    values = {name: getattr(document, name) for name in Document.model_fields}
    return Manifest.model_construct(**{**values, "models": models, "path": path.absolute()})
