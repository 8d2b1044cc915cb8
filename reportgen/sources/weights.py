"""Weights from a file, read as tensors and nothing else."""

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

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_LISTED = 5
_PICKLE, _ZIP = b"\x80", b"PK"  # how the files of torch.save begin, old and new


def load_weights(model: nn.Module, path: Path) -> None:
    """Load every tensor of `path` into `model`, which must want exactly those.

    Raises:
        ModelError: the file is damaged, holds code, or its keys or shapes are not the model's.
    """
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    _compare(model.state_dict(), state, path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path.name} does not fit the model: {one_line(error)}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path.name} is no whole safetensors file: {one_line(error)}",
            hint="write it again with safetensors.torch.save_file(model.state_dict(), ...)",
        ) from error


def _refuse_other_files(path: Path) -> None:
    """A page or a text where weights were expected, as a download that failed leaves it."""
    with path.open("rb") as file:
        begins = file.read(2)
    if begins and begins[:1] != _PICKLE and begins != _ZIP:
        raise ModelError(
            f"{path.name} is no file of torch.save: it begins with {begins!r}, as a text does",
            hint="download or save it again",
        )


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """A `.pth` state dict; `weights_only` refuses everything that would run while being read."""
    import torch

    refuse_bombs(path)
    _refuse_other_files(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"{path.name} holds more than tensors; reading it would run code: {_culprit(error)}",
            hint="save the state dict alone: torch.save(model.state_dict(), path), "
            "or better as safetensors",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path.name} is no whole file of torch.save: {one_line(error)}"
        ) from error
    return _unwrapped(content, path)


def refuse_bombs(path: Path) -> None:
    """Torch stores its members uncompressed; a compressed one is not torch's and may explode.

    Raises:
        ModelError: the archive would be larger unpacked than it is.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    if unpacked > path.stat().st_size or any(member.compress_type for member in members):
        raise ModelError(
            f"{path.name} is compressed or larger inside than outside, as torch.save never is",
            hint="write it again with torch.save(model.state_dict(), path)",
        )


def _culprit(error: Exception) -> str:
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
        f"{path.name} holds no state dict but {type(content).__name__}",
        hint="save the state dict alone: torch.save(model.state_dict(), path)",
    )


def _compare(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path) -> None:
    """Say which keys are missing, unknown or of another shape, all at once."""
    complaints = [
        _listing("missing", [key for key in wanted if key not in given]),
        _listing("unknown", [key for key in given if key not in wanted]),
        _listing(
            "of another shape",
            [
                f"{key} {tuple(given[key].shape)} instead of {tuple(wanted[key].shape)}"
                for key in wanted
                if key in given and _shape(given[key]) != _shape(wanted[key])
            ],
        ),
    ]
    found = "; ".join(complaint for complaint in complaints if complaint)
    if found:
        prefixed = all(key.startswith("module.") for key in given)
        raise ModelError(
            f"{path.name} does not fit the model: {found}",
            hint="the keys carry DataParallel's 'module.' prefix; save model.module.state_dict()"
            if prefixed and given
            else "check 'arguments': the file was saved from another architecture or size",
        )


def _shape(tensor: Any) -> tuple[int, ...] | None:
    from torch.nn.parameter import is_lazy

    return None if is_lazy(tensor) else tuple(tensor.shape)


def _listing(kind: str, keys: list[str]) -> str:
    if not keys:
        return ""
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return f"{len(keys)} {kind}: {', '.join(keys[:_LISTED])}{more}"
