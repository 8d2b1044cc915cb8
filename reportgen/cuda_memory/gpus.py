"""The catalog of GPUs, and GPUs described by the user; no torch."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import resources
from typing import Any

from .errors import UnknownGpuError


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One GPU.

    `usable_bytes` is `torch.cuda.get_device_properties().total_memory`, which is always less
    than the nominal memory. `usable_basis` is "measured", "approximate", "rated" or "given";
    rates are dense and rated, in operations a second, and absent where unknown or unsupported.
    """

    name: str
    usable_bytes: int
    usable_basis: str
    usable_source: str
    compute_capability: tuple[int, int] | None
    aliases: tuple[str, ...] = ()
    multiprocessors: int | None = None
    bandwidth_bytes_per_second: int | None = None
    fp32_flops_per_second: int | None = None
    tf32_flops_per_second: int | None = None
    fp16_flops_per_second: int | None = None
    bf16_flops_per_second: int | None = None
    int8_ops_per_second: int | None = None
    fp8_flops_per_second: int | None = None
    rates_basis: str = "unknown"
    rates_source: str = ""

    @property
    def tensor_cores(self) -> bool:
        """Whether convolutions and matrix products in half precision have their own units."""
        return self.compute_capability is None or self.compute_capability >= (7, 0)

    @property
    def tf32(self) -> bool:
        """Whether fp32 convolutions run on the tensor cores by default (Ampere and later)."""
        return self.compute_capability is None or self.compute_capability >= (8, 0)


@cache
def catalog() -> tuple[Gpu, ...]:
    """Every GPU of the data file `gpus.json`, in its order."""
    text = resources.files(__package__).joinpath("gpus.json").read_text(encoding="utf-8")
    return tuple(_gpu_of_row(row) for row in json.loads(text)["cards"])


def find_gpu(name: str) -> Gpu:
    """The GPU of that name or alias; case, spaces and dashes are ignored.

    Raises `UnknownGpuError` with the nearest names.
    """
    names = _names()
    found = names.get(_key(name))
    if found is None:
        raise UnknownGpuError(f"unknown GPU {name!r}", _suggestion(name, names))
    return found


def user_gpu(
    name: str,
    usable_bytes: int,
    *,
    compute_capability: tuple[int, int] | None = None,
    multiprocessors: int | None = None,
) -> Gpu:
    """A GPU that the catalog lacks: `usable_bytes` is torch's `total_memory`.

    The compute capability is 8.0 (Ampere) by default.
    """
    if usable_bytes <= 0:
        raise UnknownGpuError(
            f"GPU {name!r}: memory must be positive, got {usable_bytes}",
            "give the bytes that torch reports as total_memory",
        )
    return Gpu(
        name=name,
        usable_bytes=usable_bytes,
        usable_basis="given",
        usable_source="the caller",
        compute_capability=compute_capability or (8, 0),
        multiprocessors=multiprocessors,
    )


def _key(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    # torch and nvidia-smi put the vendor before the name: "NVIDIA GeForce RTX 3090"
    return re.sub(r"^(nvidia|amd|tesla|geforce)+", "", plain) or plain


@cache
def _names() -> dict[str, Gpu]:
    names: dict[str, Gpu] = {}
    for gpu in catalog():
        for name in (gpu.name, *gpu.aliases):
            names.setdefault(_key(name), gpu)
    return names


def _suggestion(name: str, names: dict[str, Gpu]) -> str:
    close = get_close_matches(_key(name), list(names), n=3, cutoff=0.5)
    if not close:
        return "see the catalog for the names, or give a name and a memory size"
    nearest = dict.fromkeys(names[key].name for key in close)
    return "did you mean " + ", ".join(nearest) + "?"


def _gpu_of_row(row: dict[str, Any]) -> Gpu:
    """A GPU from its JSON row; the flat fields have the same names in both."""
    capability = row.pop("compute_capability")
    major_minor = None
    if capability is not None:  # AMD's GPUs have none
        major, minor = capability.split(".")
        major_minor = (int(major), int(minor))
    rates = row.pop("peak_flops_per_second")
    return Gpu(
        compute_capability=major_minor,
        aliases=tuple(row.pop("aliases")),
        fp32_flops_per_second=rates["fp32"],
        tf32_flops_per_second=rates["tf32"],
        fp16_flops_per_second=rates["fp16"],
        bf16_flops_per_second=rates["bf16"],
        int8_ops_per_second=rates["int8"],
        fp8_flops_per_second=rates["fp8"],
        **row,
    )
