"""Loads weights from a file without running code in it."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.error_text import one_line
from reportgen.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

# keys under which training scripts store the state dict in a checkpoint
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_LISTED = 5
_PICKLE, _ZIP = b"\x80", b"PK"  # first bytes of torch.save files, before and since torch 1.6


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the tensors of `path` into `model`; keys and shapes must match exactly.

    Raises:
        ModelError: the file is damaged, contains code, or does not match the model.
    """
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    _check_match(model.state_dict(), state, path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path.name} does not match the model: {one_line(error)}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path.name} is not a valid safetensors file (truncated?): {one_line(error)}",
            hint="write it again with safetensors.torch.save_file(model.state_dict(), ...)",
        ) from error


def _check_magic(path: Path) -> None:
    """Raise for text, such as an HTML error page that was saved instead of the weights."""
    with path.open("rb") as file:
        begins = file.read(2)
    if begins and begins[:1] != _PICKLE and begins != _ZIP:
        raise ModelError(
            f"{path.name} is not a file written by torch.save: it begins with {begins!r}",
            hint="download or save it again",
        )


def _read_pickle(path: Path) -> dict[str, Tensor]:
    import torch

    check_uncompressed(path)
    # torch.load takes text for a pickle, and its error would say that the file would run code
    _check_magic(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path.name} contains more than tensors; loading it would run code: "
            f"{_rejected_global(error)}",
            hint="save only the state dict: torch.save(model.state_dict(), path), "
            "or better as safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path.name} is not a valid torch.save file (truncated?): {one_line(error)}"
        ) from error
    return _unwrapped(content, path)


def check_uncompressed(path: Path) -> None:
    """Reject compressed zip archives, which may be zip bombs: torch.save does not compress.

    Raises:
        ModelError: the archive is compressed, or larger when unpacked.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    # the sizes are those that the archive declares, so nothing is unpacked for the check
    unpacked = sum(member.file_size for member in members)
    if unpacked > path.stat().st_size or any(member.compress_type for member in members):
        raise ModelError(
            f"{path.name} is a compressed zip, not a file written by torch.save",
            hint="write it again with torch.save(model.state_dict(), path)",
        )


def _rejected_global(error: Exception) -> str:
    # torch's message goes on with advice to disable the check
    for line in str(error).splitlines():
        if "GLOBAL" in line or "Unsupported" in line:
            return line.strip()[:200]
    return one_line(error)


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    import torch

    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if isinstance(content, Mapping) and all(isinstance(v, torch.Tensor) for v in content.values()):
        return dict(content)
    raise ModelError(
        f"{path.name} contains {type(content).__name__}, expected a state dict",
        hint="save only the state dict: torch.save(model.state_dict(), path)",
    )


def _check_match(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> None:
    problems = [
        _listing("missing", [key for key in expected if key not in given]),
        _listing("unknown", [key for key in given if key not in expected]),
        _listing(
            "with a different shape",
            [
                f"{key} {tuple(given[key].shape)} instead of {tuple(expected[key].shape)}"
                for key in expected
                if key in given and _shape(given[key]) != _shape(expected[key])
            ],
        ),
    ]
    found = "; ".join(problem for problem in problems if problem)
    if found:
        prefixed = all(key.startswith("module.") for key in given)
        raise ModelError(
            f"{path.name} does not match the model: {found}",
            hint="the keys have DataParallel's 'module.' prefix; save model.module.state_dict()"
            if prefixed and given  # all() of nothing is true
            else "check 'arguments': the file was saved from another architecture or size",
        )


def _shape(tensor: Any) -> tuple[int, ...] | None:
    from torch.nn.parameter import is_lazy

    # a lazy parameter raises for `shape`
    return None if is_lazy(tensor) else tuple(tensor.shape)


def _listing(kind: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{len(keys)} {kind}: {', '.join(keys[:_LISTED])}{more}"
