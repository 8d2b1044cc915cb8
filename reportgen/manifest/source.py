"""Where a model or a loss comes from, as written in one string."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import ValidationInfo, model_validator

from reportgen.errors import ManifestError
from reportgen.file_kind import EMPTY, SAFETENSORS, TORCH, TORCHSCRIPT, UNKNOWN, ZIP, file_kind
from reportgen.manifest.errors import did_you_mean, quote
from reportgen.manifest.fields import Value, existing_path, reading_folder

SourceKind = Literal[
    "torchvision", "timm", "transformers", "python", "module", "pt2", "onnx", "object", "none"
]
LossKind = Literal["cross_entropy", "sum", "python", "object"]

LIBRARIES: tuple[Literal["torchvision", "timm", "transformers"], ...] = (
    "torchvision",
    "timm",
    "transformers",
)
_FORMS = (
    "torchvision:NAME, timm:NAME, transformers:NAME, file.py:factory, package.module:factory, "
    "file.pt2 or file.onnx"
)
_WEIGHTS = (".pt", ".pth", ".safetensors", ".ckpt", ".bin")
_OTHER_FORMATS = {
    ".torchscript": "TorchScript",
    ".ptl": "a TorchScript file for mobile",
    ".h5": "a Keras model",
    ".keras": "a Keras model",
    ".tflite": "a TensorFlow Lite model",
    ".pb": "a TensorFlow graph",
    ".mlmodel": "a Core ML model",
    ".gguf": "a GGUF file of llama.cpp",
    ".engine": "a TensorRT engine",
    ".npz": "a NumPy archive",
}
_HUBS = ("hf", "huggingface")
# a slash for checkpoints of the hub: google-bert/bert-base-uncased
_LIBRARY_NAME = re.compile(r"[A-Za-z0-9_][\w./-]*")


class Source(Value):
    """Where a model comes from: torchvision:NAME, file.py:factory, file.onnx and others.

    Attributes:
        kind: `torchvision`, `timm`, `transformers`, `python` (a file), `module`, `pt2`, `onnx`;
            `object` if the model exists in this process only; `none` if the entry has training
            logs only.
        target: the model's name in the library, the dotted module, or the file's absolute path.
        factory: the class or function in a `python` file or `module`, may be dotted; for
            `object` the class; for
            `transformers` the absolute path of the config.json, if the source is one.
        text: the source as written; shown in reports, equal on every machine.
    """

    kind: SourceKind
    target: str
    factory: str | None = None
    text: str

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, data: object, info: ValidationInfo) -> object:
        folder = reading_folder(info)
        if folder is None:
            return data
        if not isinstance(data, str):
            raise ValueError(f"must be text such as torchvision:resnet50, not {quote(data)}")
        return source_parts(data, folder)


NO_SOURCE = Source(kind="none", target="", text="")
"""The source of an entry that has training logs only."""


class Loss(Value):
    """What a training step minimizes: cross_entropy, sum, or file.py:function.

    Attributes:
        kind: `cross_entropy`, `sum` (of all floating-point outputs), `python`, or `object` for a
            function that the caller of the Python interface passes.
        target: for `python` the file's absolute path.
        factory: for `python` the function, called with outputs; returns a scalar.
        text: the loss as written.
    """

    kind: LossKind
    target: str | None = None
    factory: str | None = None
    text: str

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, data: object, info: ValidationInfo) -> object:
        folder = reading_folder(info)
        if folder is None:
            return data
        if data in ("cross_entropy", "sum"):
            return {"kind": data, "text": data}
        if not isinstance(data, str) or not _names_python_file(data):
            guess = did_you_mean(str(data), ("cross_entropy", "sum"))
            raise ValueError(
                f"must be cross_entropy, sum or file.py:function, not {quote(data)}{guess}"
            )
        return {"kind": "python", "text": data, **_python_file(data, folder)}


def parse_source(text: str, folder: Path) -> Source:
    """Parse a source, as on the command line; relative paths are resolved against `folder`.

    Raises:
        ManifestError: the text is not a valid source, or the file does not exist.
    """
    try:
        return Source.model_validate(source_parts(text, folder))
    except ValueError as error:
        raise ManifestError(f"source: {error}") from error


def source_parts(text: str, folder: Path) -> dict[str, str]:
    """The fields of `Source` for `text`; raises ValueError if it is not a valid source."""
    library, colon, name = text.partition(":")
    if colon and library in LIBRARIES:
        local = _config_file(name, folder) if library == "transformers" else None
        if local is not None:
            return {"kind": library, "target": name, "factory": str(local), "text": text}
        if not _LIBRARY_NAME.fullmatch(name):
            raise ValueError(f"{quote(text)} has no model name: write it as {library}:NAME")
        return {"kind": library, "target": name, "text": text}
    if _names_python_file(text):
        return {"kind": "python", "text": text, **_python_file(text, folder)}
    suffix = Path(text).suffix
    if suffix in (".pt2", ".onnx"):
        return {"kind": suffix[1:], "target": str(existing_path(text, folder)), "text": text}
    if problem := _other_file(text, suffix, folder):
        raise ValueError(problem)
    if library in _HUBS and name:
        raise ValueError(f"{quote(text)} is not a valid source: write transformers:{name}")
    if colon and _is_dotted(library) and _is_dotted(name):
        return {"kind": "module", "target": library, "factory": name, "text": text}
    is_name = text.isidentifier() and len(text) <= 64
    guess = f"; did you mean 'torchvision:{text}'?" if is_name else ""
    raise ValueError(f"{quote(text)} is not a valid source: write {_FORMS}{guess}")


def _other_file(text: str, suffix: str, folder: Path) -> str:
    """Why a file that is not a source is none, by its content or its suffix; "" for other texts."""
    path = folder / text
    is_file = path.is_file()
    if suffix not in (*_WEIGHTS, *_OTHER_FORMATS) and not is_file:
        return ""
    kind = file_kind(path) if is_file else None
    if kind == TORCHSCRIPT:
        return (
            f"{quote(text)} is a TorchScript archive: write a file.py with a function that returns "
            f"torch.jit.load({path.name!r}), and use file.py:function as source"
        )
    if suffix in _WEIGHTS and kind in (None, TORCH, SAFETENSORS, EMPTY, UNKNOWN):
        return (
            f"{quote(text)} contains weights, not a model: set 'source' to its factory "
            "and 'weights' to this file"
        )
    if kind is not None and kind not in (TORCH, UNKNOWN, ZIP):
        return f"{quote(text)} is {kind.text}, not a model: {kind.remedy}"
    what = _OTHER_FORMATS.get(suffix, "a file of unknown format")
    return f"{quote(text)} is {what}, which is not read: write {_FORMS}"


def _config_file(name: str, folder: Path) -> Path | None:
    """The config.json if `name` is its path or its folder, else None.

    Raises:
        ValueError: `name` is a path, but no such file exists.
    """
    # a bare name may be a model type as well as a folder; only an existing file makes it a path
    written_as_path = name.startswith((".", "/", "~")) or name.endswith(".json")
    inside = f"{name}/config.json"
    if not written_as_path and not (folder / inside).is_file():
        return None
    is_folder = (folder / name).is_dir()
    return existing_path(inside if is_folder else name, folder)


def _names_python_file(text: str) -> bool:
    return text.endswith(".py") or ".py:" in text  # `.py` alone lacks a name, see `_python_file`


def _python_file(text: str, folder: Path) -> dict[str, str]:
    file, _, factory = text.rpartition(":") if ".py:" in text else (text, "", "")
    if not _is_dotted(factory):
        raise ValueError(f"{quote(text)} has no class or function name: write file.py:name")
    return {"target": str(existing_path(file, folder)), "factory": factory}


def _is_dotted(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
