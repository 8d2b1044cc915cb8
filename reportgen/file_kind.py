"""What a file is by its content, whatever its name says."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HEAD = 512  # bytes; tar's signature ends at 262
_DOWNLOAD = "download or save it again"
_UNPACK = "unpack it first"
_CONVERT = "convert it to PyTorch or ONNX first"


@dataclass(frozen=True, slots=True)
class FileKind:
    """One kind of file.

    Attributes:
        text: what the file is, to follow "x.pth is".
        remedy: what to do if another kind was expected.
    """

    text: str
    remedy: str = ""


UNKNOWN = FileKind("a file of unknown format", _DOWNLOAD)
EMPTY = FileKind("empty (0 bytes)", _DOWNLOAD)
TORCHSCRIPT = FileKind(
    "a TorchScript archive",
    "use as source a file.py with a function that returns torch.jit.load(...)",
)
PROGRAM = FileKind("an exported program", "name it x.pt2 and use it as source")
TORCH = FileKind("a file of torch.save", "use it as 'weights'")
SAFETENSORS = FileKind("a safetensors file", "use it as 'weights'")
CUT_ZIP = FileKind("an incomplete zip archive: its end is missing", _DOWNLOAD)
ZIP = FileKind("a zip archive, but not of torch.save", _UNPACK)

_LFS = FileKind("a Git LFS pointer, not the file itself", "fetch the file: git lfs pull")
_SIGNATURES = (
    (0, b"version https://git-lfs", _LFS),
    (0, b"\x89HDF\r\n\x1a\n", FileKind("an HDF5 file, as Keras writes", _CONVERT)),
    (
        0,
        b"GGUF",
        FileKind("a GGUF file of llama.cpp", "use the PyTorch checkpoint"),
    ),
    (4, b"TFL3", FileKind("a TensorFlow Lite model", "convert it to ONNX first")),
    (0, b"\x93NUMPY", FileKind("a NumPy array", "save it as a state dict with torch.save")),
    (0, b"\x1f\x8b", FileKind("a gzip archive", _UNPACK)),
    (257, b"ustar", FileKind("a tar archive", _UNPACK)),
    (0, b"7z\xbc\xaf", FileKind("a 7z archive", _UNPACK)),
    (0, b"\x80", TORCH),  # a pickle: torch.save before 1.6
)


def file_kind(path: Path) -> FileKind:
    """The kind of the file at `path`; `UNKNOWN` if neither signature nor members tell.

    Raises:
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return EMPTY
    if head.startswith(b"PK"):
        return _zip_kind(path)
    # 8 bytes of length, then a JSON header
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return SAFETENSORS
    return next(_signed(head), _text_kind(head))


def _signed(head: bytes) -> Iterator[FileKind]:
    return (kind for offset, signature, kind in _SIGNATURES if head.startswith(signature, offset))


def _text_kind(head: bytes) -> FileKind:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"<"):
        remedy = "download the file itself; the page may report an error or ask for a login"
        return FileKind("a web page (HTML or XML)", remedy)
    if start.startswith((b"{", b"[")):
        return FileKind("a JSON file", _DOWNLOAD)
    if start and all(byte >= 0x20 or byte in b"\t\r\n" for byte in start):
        return FileKind("a text file", _DOWNLOAD)
    return UNKNOWN


def _zip_kind(path: Path) -> FileKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return CUT_ZIP
    # all members are below one folder, named like the file
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return TORCHSCRIPT
    if "data.pkl" in inner:
        return TORCH
    if "archive_format" in inner | set(names):
        return PROGRAM
    if "model.weights.h5" in names:
        return FileKind("a Keras model", _CONVERT)
    if names and all(name.endswith(".npy") for name in names):
        remedy = "save its arrays as a state dict with torch.save"
        return FileKind("a NumPy archive", remedy)
    return ZIP
