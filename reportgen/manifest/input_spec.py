"""One argument of a model's `forward`: a tensor, a constant, or a structure of them.

The grammar: an input is a text `[name=]dim,dim,...[:dtype[<high]]`, or a mapping with
`name` and `keyword` and exactly one of

- `shape` (with `dtype`, `low`, `high`): a random tensor, reproducible by the seed; with `values`
  instead of a range, those numbers along its last dim, independent of the seed;
- `file`: the array in x.npy, the only tensor of x.safetensors, or the tensor `key` of
  x.safetensors:key (`shape` and `dtype` are optional and must match the file);
- `value`: a constant: text, a number, true, false or null;
- `items`: a list of inputs; with `tuple: true` a tuple; with `per_sample: true` repeated for
  every sample of the batch, with different values;
- `fields`: a dict of inputs by key.

A dim is a positive whole number, `batch`, or a name whose size is in the model's `dims`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    model_validator,
)
from pydantic import WithJsonSchema as Schema
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from reportgen.errors import ManifestError
from reportgen.manifest.errors import did_you_mean, quote
from reportgen.manifest.fields import (
    IDENTIFIER_PATTERN,
    ExistingPath,
    Flag,
    Identifier,
    Number,
    Value,
    reading_folder,
)

Dtype = Literal[
    "float32",
    "float16",
    "bfloat16",
    "float64",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
    "complex128",
]
FORMS = ("shape", "file", "value", "items", "fields")
InputKind = Literal["tensor", "file", "constant", "items", "fields"]

_DTYPES: tuple[str, ...] = get_args(Dtype)
_INTEGER_BITS = {"int64": 64, "int32": 32, "int16": 16, "int8": 8}
_FLOATS = ("float", "bfloat")
_WITHOUT_ORDER = ("bool", "complex")
# each part excludes the separators, so matching takes linear time
_COMPACT = re.compile(
    r"(?:(?P<name>[^=:<]*)=)?(?P<shape>[^=:<]*)(?::(?P<dtype>[^=:<]*)(?:<(?P<high>[^=:<]*))?)?"
)
_COMPACT_HINT = "write it as batch,3,224,224 or ids=batch,128:int64<30522"
_MAX_COMPACT = 1000  # characters; a shape has a few dozen
_SAFETENSORS = ".safetensors"


class ArrayPath(ExistingPath):
    """A file of arrays; a colon and a key select one of several: `x.safetensors:key`."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A string that ends in .npy, .safetensors or .safetensors:key."""
        return {"type": "string", "pattern": r"(\.npy|\.safetensors(:.+)?)$"}

    def _resolve(self, value: object, info: ValidationInfo) -> object:
        file, colon, key = str(value).partition(f"{_SAFETENSORS}:")
        if reading_folder(info) is None or not colon or not isinstance(value, str):
            return super()._resolve(value, info)
        return Path(f"{super()._resolve(file + _SAFETENSORS, info)}:{key}")


def split_array_path(path: Path) -> tuple[Path, str | None]:
    """The file and the key of `x.safetensors:key`; the key is None without a colon."""
    file, colon, key = str(path).rpartition(f"{_SAFETENSORS}:")
    return (Path(file + _SAFETENSORS), key) if colon else (path, None)


def _dim(value: object) -> object:
    if isinstance(value, str) and value.isidentifier():
        return value
    # sizes of torch are int64
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**63:
        return value
    raise ValueError(
        f"a dim is a positive whole number, 'batch' or a name from dims, not {quote(value)}"
    )


def _constant(value: object, info: ValidationInfo) -> object:
    # wrapped, so that an explicit null differs from a missing value
    if reading_folder(info) is None:
        return value
    if isinstance(value, list | dict):
        raise ValueError(f"must be text, a number, true, false or null, not {quote(value)}")
    return Constant.model_construct(value=value)


class Constant(Value):
    """A constant argument; wrapped, because None is a valid constant."""

    value: str | bool | int | float | None


Dim = Annotated[
    int | str,
    BeforeValidator(_dim),
    Schema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": IDENTIFIER_PATTERN},
            ]
        }
    ),
]


class InputSpec(Value):
    """One argument of `forward`: `name=dim,dim:dtype<high`, or a mapping with one form of input.

    The forms are `shape`, `file`, `value`, `items` and `fields`; see the module's docstring.
    """

    name: Identifier | None = None
    """The argument's name; required for keywords, and used for the ONNX inputs."""
    keyword: Flag = False
    """Pass the argument by name instead of by position."""
    shape: tuple[Dim, ...] | None = None
    """Sizes, `batch`, or names from `dims`; `[]` is a scalar tensor."""
    dtype: Dtype = "float32"
    """The element type, by torch's name."""
    low: Number | None = None
    """Smallest random value, inclusive."""
    high: Number | None = None
    """Upper bound of random values, exclusive; for token ids the vocabulary size."""
    values: tuple[Number, ...] | None = None
    """Fixed numbers along the last dim, repeated over the other dims, instead of random ones."""
    file: Annotated[Path, ArrayPath(suffixes=(".npy", ".safetensors"))] | None = None
    """An array file: x.npy, x.safetensors or x.safetensors:key, relative to the manifest."""
    value: Annotated[
        Constant | None,
        BeforeValidator(_constant),
        Schema({"type": ["string", "number", "boolean", "null"]}),
    ] = None
    """A constant: text, number, true, false or null."""
    items: tuple[InputSpec, ...] | None = None
    """Nested inputs, passed as a list."""
    as_tuple: Flag = Field(default=False, validation_alias="tuple")
    """Pass `items` as a tuple, for example the state of an LSTM."""
    per_sample: Flag = False
    """Repeat `items` for every sample of the batch, for example the images of a detector."""
    fields: dict[str, InputSpec] | None = None
    """Nested inputs by key, passed as a dict."""

    @property
    def kind(self) -> InputKind:
        """The form of this input; a file with a shape is a `file`."""
        if self.file is not None:
            return "file"
        if self.value is not None:
            return "constant"
        if self.items is not None:
            return "items"
        return "fields" if self.fields is not None else "tensor"

    @property
    def lacks_dtype(self) -> bool:
        """Whether the dtype is the default one, and an input with `shape` may have another."""
        return self.kind == "tensor" and "dtype" not in self.model_fields_set

    @property
    def parts(self) -> tuple[InputSpec, ...]:
        """The inputs nested directly in this one."""
        return (*(self.items or ()), *(self.fields or {}).values())

    def named_dims(self) -> Iterator[str]:
        """Every named dim of this input and of nested ones; names may repeat."""
        yield from (dim for dim in self.shape or () if isinstance(dim, str))
        for part in self.parts:
            yield from part.named_dims()

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, data: object) -> object:
        return _compact_parts(data) if isinstance(data, str) else data

    @model_validator(mode="after")
    def _one_form(self) -> InputSpec:
        given = [form for form in FORMS if getattr(self, form) is not None]
        # a file may state its shape, which is then checked
        if len(given) != 1 and given != ["shape", "file"]:
            found = " and ".join(given) or "none"
            raise ValueError(f"needs one of shape, file, value, items or fields, has {found}")
        if self.keyword and self.name is None:
            raise ValueError("a keyword input needs a name")
        if self.as_tuple and self.items is None:
            raise ValueError("tuple: true requires items")
        if self.per_sample and self.items is None:
            raise ValueError("per_sample: true requires items")
        if any(part.keyword for part in self.parts):
            raise ValueError("only a top-level input can be a keyword")
        if self.low is not None or self.high is not None:
            _check_range(self._description(), self.dtype, self.low, self.high)
        if self.values is not None:
            _check_values(self._description(), self.dtype, self.values, self.shape or ())
            if self.low is not None or self.high is not None:
                raise ValueError("values cannot be combined with low or high")
        return self

    def _description(self) -> str:
        return self.dtype if self.kind == "tensor" else f"an input with {self.kind}"


def _check_range(what: str, dtype: str, low: float | None, high: float | None) -> None:
    """Check that `low` <= x < `high` is a non-empty range of `dtype`.

    `what` is the dtype, or describes an input that is not a random tensor.
    """
    _require_real_numbers("low and high do", what, dtype)
    bottom, top = _bounds(dtype)
    for key, bound in (("low", low), ("high", high)):
        if isinstance(bound, float) and not dtype.startswith(_FLOATS):
            raise ValueError(f"{key} of {dtype} must be a whole number, not {bound}")
        if bound is not None and not bottom <= bound <= top:
            raise ValueError(f"{key} {bound} is out of the range of {dtype}")
    least = 0 if low is None else low
    if high is not None and least >= high:
        raise ValueError(f"low {least} must be less than high {high}")


def _check_values(
    what: str, dtype: str, values: tuple[float, ...], shape: tuple[int | str, ...]
) -> None:
    _require_real_numbers("values do", what, dtype)
    last = shape[-1] if shape else "none"
    if last != len(values):
        raise ValueError(
            f"values needs one number per element of the last dim ({last}), has {len(values)}"
        )
    bottom, top = _bounds(dtype)
    for value in values:
        if isinstance(value, float) and not dtype.startswith(_FLOATS):
            raise ValueError(f"values of {dtype} must be whole numbers, not {value}")
        if not bottom <= value < top:
            raise ValueError(f"value {value} is out of the range of {dtype}")


def _require_real_numbers(keys_do: str, what: str, dtype: str) -> None:
    if what != dtype or dtype.startswith(_WITHOUT_ORDER):
        raise ValueError(f"{keys_do} not apply to {what}")


def _bounds(dtype: str) -> tuple[float, float]:
    """The smallest value of the dtype, and the exclusive upper bound."""
    if dtype.startswith("uint"):
        return 0, 2 ** min(int(dtype.removeprefix("uint")), 63)  # torch.randint draws int64
    if dtype in _INTEGER_BITS:
        half: int = 2 ** (_INTEGER_BITS[dtype] - 1)
        return -half, half
    return float("-inf"), float("inf")


def parse_shape_argument(text: str) -> InputSpec:
    """Parse an input in its compact form, as on the command line.

    `batch,3,224,224` · `ids=batch,128:int64` · `ids=batch,128:int64<30522` (values below 30522).

    Raises:
        ManifestError: the text is not a valid compact form.
    """
    try:
        return InputSpec.model_validate(_compact_parts(text))
    except ValueError as error:
        # pydantic's ValidationError is a ValueError too; it keeps our message in its context
        details = getattr(error, "errors", None)
        reason = details()[0].get("ctx", {}).get("error", error) if details else error
        hint = "" if _COMPACT_HINT in str(reason) else _COMPACT_HINT
        raise ManifestError(f"input {quote(text)}: {reason}", hint=hint) from error


def compact_dims(text: str) -> tuple[str, ...]:
    """The dims of a compact form, not validated; () if the text is not a compact form."""
    match = _COMPACT.fullmatch(text[:_MAX_COMPACT])
    return tuple(dim.strip() for dim in match["shape"].split(",")) if match else ()


def compact_name(text: str) -> str | None:
    """The name in a compact form, not validated; None without a name."""
    match = _COMPACT.fullmatch(text[:_MAX_COMPACT])
    return match["name"].strip() if match and match["name"] else None


def _compact_parts(text: str) -> dict[str, object]:
    match = _COMPACT.fullmatch(text) if len(text) <= _MAX_COMPACT else None
    if match is None:
        raise ValueError(f"{quote(text)} is not a valid shape: {_COMPACT_HINT}")
    parts: dict[str, object] = {"shape": [_compact_dim(dim) for dim in match["shape"].split(",")]}
    if match["name"] is not None:
        parts["name"] = _checked_name(match["name"].strip())
    if match["dtype"] is not None:
        parts["dtype"] = _checked_dtype(match["dtype"].strip())
    if match["high"] is not None:
        parts["high"] = _checked_high(match["high"].strip())
    return parts


def _compact_dim(text: str) -> int | str:
    dim = text.strip()
    # 18 digits fit in int64; str.isdigit() accepts digits of other scripts
    if re.fullmatch("[0-9]{1,18}", dim) and int(dim) > 0:
        return int(dim)
    if dim.isidentifier():
        return dim
    raise ValueError(f"a dim is a positive whole number or a name, not {quote(dim)}")


def _checked_name(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(f"{quote(name)} is not a valid name: use letters, digits and '_'")
    return name


def _checked_dtype(dtype: str) -> str:
    if dtype not in _DTYPES:
        raise ValueError(
            f"{quote(dtype)} is not a dtype: use one of {', '.join(_DTYPES)}"
            f"{did_you_mean(dtype, _DTYPES)}"
        )
    return dtype


def _checked_high(high: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", high):
        raise ValueError(f"the upper bound must be a whole number, not {quote(high)}")
    return int(high)
