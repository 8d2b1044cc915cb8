"""The state dicts in a file, read without running code in it."""

from __future__ import annotations

import json
import pickle
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.error_text import one_line
from reportgen.errors import ModelError
from reportgen.file_kind import SAFETENSORS, TORCH, TORCHSCRIPT, UNKNOWN, FileKind, file_kind

if TYPE_CHECKING:
    from torch import Tensor

StateDicts = dict[str, dict[str, "Tensor"]]
"""State dicts by their key in the file, such as `model.ema`; "" if the file is one itself."""

_SHARD = re.compile(r"(.+)-(\d+)-of-(\d+)(\.\w+)")
_DEPTH = 3  # of nested dicts that are searched: {"ema": {"model": state_dict}}
_LISTED = 5
_RESAVE = "torch.save(torch.load({name!r}, weights_only=False){part}, 'weights.pth')"


def read_state_dicts(path: Path) -> StateDicts:
    """Every state dict in `path`: torch.save, safetensors, or the index of shards.

    Raises:
        ModelError: the file is of another kind, damaged, would run code, or has no state dict.
    """
    if path.name.endswith(".index.json"):
        return {"": _read_shards(path)}
    if (shard := _SHARD.fullmatch(path.name)) and int(shard[3]) > 1:
        raise ModelError(
            f"{path.name} is part {int(shard[2])} of {int(shard[3])} of a checkpoint",
            hint=f"name the index instead, which lists all parts: {shard[1]}{shard[4]}.index.json",
        )
    return _read_one(path)


def _read_one(path: Path) -> StateDicts:
    try:
        kind = file_kind(path)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {one_line(error)}") from error
    # the suffix does not decide: .bin and .ckpt files of both kinds exist
    if kind == SAFETENSORS or (kind == UNKNOWN and path.suffix == ".safetensors"):
        return {"": _read_safetensors(path)}
    if kind != TORCH:
        raise _other_kind(path, kind)
    check_uncompressed(path)
    return _state_dicts(_load_tensors(path), path)


def _other_kind(path: Path, kind: FileKind) -> ModelError:
    remedy = kind.remedy
    if kind == TORCHSCRIPT:
        remedy += (
            "; or save its weights: "
            f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pth')"
        )
    return ModelError(f"{path.name} is {kind.text}; expected a state dict", hint=remedy)


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(files.values()))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{index.name} is not the index of a checkpoint: it has no 'weight_map'",
            hint="name the .index.json file that save_pretrained wrote, or the weights themselves",
        ) from error
    state: dict[str, Tensor] = {}
    for name in names:
        # an index must not name files elsewhere
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(f"{index.name} names a file outside its folder: {name!r}")
        shard = index.parent / name
        if not shard.is_file():
            raise ModelError(
                f"{index.name} lists {name}, which is not in its folder",
                hint=f"put all {len(names)} parts of the checkpoint beside the index",
            )
        for part in _read_one(shard).values():
            state |= part
    return state


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


def _load_tensors(path: Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _needs_code(path, error) from error
    except Exception as error:  # a damaged pickle raises anything, TypeError included
        raise ModelError(
            f"{path.name} is not a valid torch.save file (truncated?): {one_line(error)}",
            hint="download or save it again",
        ) from error


def _needs_code(path: Path, error: Exception) -> ModelError:
    """The error for objects that weights_only=True rejects, by what they are."""
    objects = _rejected_objects(path, error)
    listed = ", ".join(objects[:_LISTED]) or "unknown objects"
    what, part = f"Python objects besides tensors ({listed})", "['state_dict']"
    has_model = any(name.startswith("torch.nn.modules.") for name in objects)
    if has_model and not _has_state_dict(path):
        own = [name for name in objects if not name.startswith("torch.")]
        what = f"a pickled model ({', '.join(own[:_LISTED]) or objects[0]}), not its state dict"
        part = ".state_dict()"
    elif any(name.startswith("numpy.") for name in objects):
        what = f"NumPy arrays or numbers ({listed})"
        part = ""
    resave = _RESAVE.format(name=path.name, part=part)
    if part == "":
        resave = (
            f"arrays = torch.load({path.name!r}, weights_only=False); "
            "torch.save({key: torch.from_numpy(a) for key, a in arrays.items()}, 'weights.pth')"
        )
    return ModelError(
        f"{path.name} contains {what}; loading it would run code",
        hint=f"save only the state dict, if the file is from a trusted source: {resave}",
    )


def _has_state_dict(path: Path) -> bool:
    """Whether there is a `state_dict` beside a model, as with the hyperparameters of Lightning."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        pickles = [archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl")]
    values = (value for each in pickles for _, value, _ in pickletools.genops(each))
    return "state_dict" in values


def _rejected_objects(path: Path, error: Exception) -> list[str]:
    from torch.serialization import get_unsafe_globals_in_checkpoint

    try:
        if zipfile.is_zipfile(path):
            return sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:  # noqa: S110 - the error text below names at least the first
        pass
    found = re.findall(r"(?:GLOBAL|function|class) ([\w.]*\w)", str(error))
    return [name for name in dict.fromkeys(found) if "." in name]


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


def _state_dicts(content: Any, path: Path) -> StateDicts:
    found = dict(_nested("", content, _DEPTH))
    if found:
        return found
    # the state dict of a model without parameters
    if isinstance(content, Mapping) and not content:
        return {"": {}}
    raise ModelError(
        f"{path.name} contains {_description(content)}; expected a state dict",
        hint="save only the state dict: torch.save(model.state_dict(), path)",
    )


def _nested(key: str, content: Any, depth: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    import torch

    if not isinstance(content, Mapping) or not content or depth == 0:
        return
    if all(isinstance(value, torch.Tensor) for value in content.values()):
        yield key, dict(content)
        return
    for name, value in content.items():
        yield from _nested(f"{key}.{name}".lstrip("."), value, depth - 1)


def _description(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = ", ".join(repr(key) for key in list(content)[:_LISTED])
        more = ", …" if len(content) > _LISTED else ""
        return f"a dict without tensors, with the keys {keys}{more}"
    if isinstance(content, list | tuple):
        return f"a {type(content).__name__} of length {len(content)}"
    return f"one object of type {type(content).__name__}"
