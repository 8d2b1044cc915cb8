"""The kernels of onnxruntime's CUDA provider, from the data file `cuda_kernels.txt`.

onnxruntime's CPU build contains no CUDA kernels to list. Operators that the table does not list
have no CUDA kernel: such nodes run on the CPU. `13+` fits nodes whose operator last changed in
opset 13, `6-12` those of 6 to 12. No row contains a dtype without a code (float8, 4 bits,
sequences): whether a kernel supports it is unknown.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

SOURCE = "onnxruntime's OperatorKernels.md, commit d31426f"

NEWEST_OPSET = 27
"""The newest standard operators that the table covers."""

CODES = {
    "?": "bool",
    "b": "int8",
    "B": "uint8",
    "h": "int16",
    "H": "uint16",
    "i": "int32",
    "I": "uint32",
    "q": "int64",
    "Q": "uint64",
    "e": "float16",
    "f": "float",
    "d": "double",
    "E": "bfloat16",
    "S": "string",
}
_SETS = {"*": "?bBhHiIqQefdE", "#": "bBhHiIqQefdE"}

Row = tuple[int, int | None, dict[str, frozenset[str]]]


@cache
def cuda_rows() -> dict[str, tuple[Row, ...]]:
    """Per operator its kernels: first version, last one (None: the newest), dtypes by slot."""
    text = resources.files(__package__).joinpath("cuda_kernels.txt").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if line and not line.startswith("//"))
    split = (line.partition(" ") for line in lines)
    return {name: tuple(map(_row, rest.split("; "))) for name, _, rest in split}


def _row(text: str) -> Row:
    versions, *slots = text.split()
    first, _, last = versions.rstrip("+").partition("-")
    until = None if versions.endswith("+") else int(last or first)
    dtypes = (slot.partition("=") for slot in slots)
    return int(first), until, {name: _dtypes(codes) for name, _, codes in dtypes}


def _dtypes(codes: str) -> frozenset[str]:
    for short, full in _SETS.items():
        codes = codes.replace(short, full)
    return frozenset(CODES[code] for code in codes)
