"""One argument of a model's `forward`: a tensor, a constant, or a structure of them.

The grammar, whole. An input is a text `[name=]dim,dim,...[:dtype[<high]]`, or a mapping with
`name` and `keyword` and exactly one of

- `shape` (with `dtype`, `low`, `high`): a random tensor, the same for the same seed; with
  `values` in place of a range, those along its last dim, whatever the seed;
- `file`: the array in x.npy, the only tensor of x.safetensors, or the one called so of
  x.safetensors:key (`shape` and `dtype` may stand beside it and must then agree);
- `value`: a constant, which is text, a number, true, false or null;
- `items`: a list of inputs; with `tuple: true` a tuple; with `per_sample: true` repeated for
  every sample of the batch, each time with other values;
- `fields`: a dict of inputs by key.

A dim is a positive whole number, `batch`, or a name given a size by the model's `dims`.
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
from reportgen.manifest.dtype_ranges import check_range, check_values
from reportgen.manifest.fields import (
    IDENTIFIER_PATTERN,
    ExistingPath,
    Flag,
    Identifier,
    Number,
    Value,
    reading_folder,
)
from reportgen.manifest.formatting import did_you_mean, quote

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
_COMPACT = re.compile(
    r"(?:(?P<name>[^=:<]*)=)?(?P<shape>[^=:<]*)(?::(?P<dtype>[^=:<]*)(?:<(?P<high>[^=:<]*))?)?"
)
_COMPACT_FORM = "write it as batch,3,224,224 or ids=batch,128:int64<30522"
_LONGEST_COMPACT = 1000
_KEYED = ".safetensors"


class ArrayPath(ExistingPath):
    """A file of arrays, with the key of one of them behind a colon where it holds several."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A string that ends as such a file, or in a key of it."""
        return {"type": "string", "pattern": r"(\.npy|\.safetensors(:.+)?)$"}

    def _resolve(self, value: object, info: ValidationInfo) -> object:
        file, colon, key = str(value).partition(f"{_KEYED}:")
        if reading_folder(info) is None or not colon or not isinstance(value, str):
            return super()._resolve(value, info)
        return Path(f"{super()._resolve(file + _KEYED, info)}:{key}")


def split_array_path(path: Path) -> tuple[Path, str | None]:
    """The file that `path` names, and the key behind its colon if it has one."""
    file, colon, key = str(path).rpartition(f"{_KEYED}:")
    return (Path(file + _KEYED), key) if colon else (path, None)


def _dim(value: object) -> object:
    if isinstance(value, str) and value.isidentifier():
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 2**63:
        return value
    raise ValueError(
        f"a dim is a positive whole number, 'batch' or a name from dims, not {quote(value)}"
    )


def _constant(value: object, info: ValidationInfo) -> object:
    """Wrap what `value:` holds, so that null given is not null missing."""
    if reading_folder(info) is None:
        return value
    if isinstance(value, list | dict):
        raise ValueError(f"must be text, a number, true, false or null, not {quote(value)}")
    return Constant.model_construct(value=value)


class Constant(Value):
    """A constant argument; wrapped, since `null` is one of the values it may have."""

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

    The forms are `shape`, `file`, `value`, `items` and `fields`; the module's first lines say more.
    """

    name: Identifier | None = None
    """The argument's name; needed for keywords, and used for the ONNX inputs."""
    keyword: Flag = False
    """Pass it by name instead of by position."""
    shape: tuple[Dim, ...] | None = None
    """Sizes, `batch`, or names from `dims`; `[]` is a scalar tensor."""
    dtype: Dtype = "float32"
    """The element type, by torch's name."""
    low: Number | None = None
    """Smallest random value, included."""
    high: Number | None = None
    """Upper end of random values, excluded; for token ids the size of the vocabulary."""
    values: tuple[Number, ...] | None = None
    """The numbers along the last dim, the same for every place of the others; nothing is random."""
    file: Annotated[Path, ArrayPath(suffixes=(".npy", ".safetensors"))] | None = None
    """The array: x.npy, x.safetensors or x.safetensors:key, relative to the manifest."""
    value: Annotated[
        Constant | None,
        BeforeValidator(_constant),
        Schema({"type": ["string", "number", "boolean", "null"]}),
    ] = None
    """A constant: text, number, true, false or null."""
    items: tuple[InputSpec, ...] | None = None
    """Nested inputs, passed as a list."""
    as_tuple: Flag = Field(default=False, validation_alias="tuple")
    """Pass `items` as a tuple, which an LSTM's state must be."""
    per_sample: Flag = False
    """Repeat `items` for every sample of the batch, as detectors take their images."""
    fields: dict[str, InputSpec] | None = None
    """Nested inputs by key, passed as a dict."""

    @property
    def kind(self) -> InputKind:
        """Which of the five forms this is; a file with a shape is a `file`."""
        if self.file is not None:
            return "file"
        if self.value is not None:
            return "constant"
        if self.items is not None:
            return "items"
        return "fields" if self.fields is not None else "tensor"

    @property
    def parts(self) -> tuple[InputSpec, ...]:
        """The inputs nested in this one."""
        return (*(self.items or ()), *(self.fields or {}).values())

    def named_dims(self) -> Iterator[str]:
        """Every symbolic dim of this input and of those nested in it, repeats included."""
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
        if len(given) != 1 and given != ["shape", "file"]:
            found = " and ".join(given) or "none"
            raise ValueError(f"needs one of shape, file, value, items or fields, has {found}")
        if self.keyword and self.name is None:
            raise ValueError("a keyword input needs a name")
        if self.as_tuple and self.items is None:
            raise ValueError("tuple: true belongs beside items")
        if self.per_sample and self.items is None:
            raise ValueError("per_sample: true belongs beside items")
        if any(part.keyword for part in self.parts):
            raise ValueError("only an outermost input can be a keyword")
        if self.low is not None or self.high is not None:
            check_range(self._of_what(), self.dtype, self.low, self.high)
        if self.values is not None:
            check_values(self._of_what(), self.dtype, self.values, self.shape or ())
            if self.low is not None or self.high is not None:
                raise ValueError("values stand in place of low and high")
        return self

    def _of_what(self) -> str:
        return self.dtype if self.kind == "tensor" else f"an input with {self.kind}"


def parse_shape_argument(text: str) -> InputSpec:
    """An input from its compact form, as the command line takes it.

    `batch,3,224,224` · `ids=batch,128:int64` · `ids=batch,128:int64<30522` (values below 30522).

    Raises:
        ManifestError: the text is no such form; one line that quotes it.
    """
    try:
        return InputSpec.model_validate(_compact_parts(text))
    except ValueError as error:
        # pydantic's ValidationError is a ValueError too, with our own words in its context
        details = getattr(error, "errors", None)
        words = details()[0].get("ctx", {}).get("error", error) if details else error
        hint = "" if _COMPACT_FORM in str(words) else _COMPACT_FORM
        raise ManifestError(f"input {quote(text)}: {words}", hint=hint) from error


def compact_dims(text: str) -> tuple[str, ...]:
    """The dims that stand in a compact form, unchecked; nothing if it is no such form."""
    match = _COMPACT.fullmatch(text[:_LONGEST_COMPACT])
    return tuple(dim.strip() for dim in match["shape"].split(",")) if match else ()


def compact_name(text: str) -> str | None:
    """The name in a compact form, unchecked; None if it has none."""
    match = _COMPACT.fullmatch(text[:_LONGEST_COMPACT])
    return match["name"].strip() if match and match["name"] else None


def _compact_parts(text: str) -> dict[str, object]:
    match = _COMPACT.fullmatch(text) if len(text) <= _LONGEST_COMPACT else None
    if match is None:
        raise ValueError(f"{quote(text)} is no shape: {_COMPACT_FORM}")
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
    if re.fullmatch("[0-9]{1,18}", dim) and int(dim) > 0:
        return int(dim)
    if dim.isidentifier():
        return dim
    raise ValueError(f"a dim is a positive whole number or a name, not {quote(dim)}")


def _checked_name(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(f"{quote(name)} is no name: use letters, digits and '_'")
    return name


def _checked_dtype(dtype: str) -> str:
    if dtype not in _DTYPES:
        raise ValueError(
            f"{quote(dtype)} is no dtype: use one of {', '.join(_DTYPES)}"
            f"{did_you_mean(dtype, _DTYPES)}"
        )
    return dtype


def _checked_high(high: str) -> int:
    if not re.fullmatch("[0-9]{1,18}", high):
        raise ValueError(f"the values must be below a whole number, not {quote(high)}")
    return int(high)
