"""Field types of a manifest: strict numbers, sizes, names and paths.

Numbers are strict, because pydantic's conversions would read `batch: true` as 1. Parsers raise
`ValueError` with the message that the user sees. With a validation context (`Reading`) a manifest
file is being read; without one, the values are JSON from another process, already resolved, and
files are not looked up again.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from reportgen.manifest.errors import did_you_mean, quote
from reportgen.units import parse_bytes

# limited digits: Decimal would accept exponents and numbers of any length
_COUNT = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*([kMGT]?)")
_PLAIN_NUMBER = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")
_COUNT_FACTORS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_RESERVED = re.compile("con|prn|aux|nul|(com|lpt)[0-9¹²³]", re.IGNORECASE)
_NAME = re.compile(r"\w[\w.-]{0,63}")
# control characters, line ends, and marks that reverse the text direction
_MISLEADING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_MAX_INTEGER = 2**63 - 1  # sizes and counts of torch are int64
_MAX_SIZE_TEXT = 32


class Value(BaseModel):
    """Base class of the manifest's values: frozen, unknown keys are errors.

    Aliases are the keys in the YAML file, names the attributes in Python. Files use aliases only;
    JSON from another process uses names.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The validation context while a manifest is read."""

    folder: Path


def reading_folder(info: ValidationInfo) -> Path | None:
    """The base folder of relative paths; None if no manifest is being read."""
    return info.context.folder if isinstance(info.context, Reading) else None


def _bytes(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        if len(value) <= _MAX_SIZE_TEXT:
            return parse_bytes(value)
    except ValueError:
        pass  # one message for both causes, below
    raise ValueError(f"expected a size such as 24 GiB or 512 MB, got {quote(value)}")


def parse_amount(text: str, unit: str) -> float:
    """The amount of a budget: a size where `unit` is `bytes`, a count or both kinds otherwise.

    Raises:
        ValueError: invalid text, in words for the author of the manifest.
    """
    if unit == "bytes" or (unit == "any" and text.endswith(("B", "b"))):
        return float(_bytes(text))  # type: ignore[arg-type]
    if unit == "ms":
        if not _PLAIN_NUMBER.fullmatch(text):
            raise ValueError(f"expected a number of milliseconds such as 40, got {quote(text)}")
        return float(text)
    if (match := _COUNT.fullmatch(text)) is None:
        raise ValueError(f"expected a count such as 30M, 5G or 12000, got {quote(text)}")
    # Decimal, because 2.01M is 2009999 in floats
    return float(Decimal(match[1]) * _COUNT_FACTORS[match[2]])


def _one(value: object) -> object:
    """Accept the integer 1 only: `true` and `1.0` equal 1 in Python."""
    if isinstance(value, bool | float) or value != 1:
        raise ValueError(f"must be 1, not {quote(value)}")
    return value


def _number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, not {quote(value)}")
    return value


_POSITIVE_INTEGER = {"type": "integer", "minimum": 1}

Version = Annotated[Literal[1], BeforeValidator(_one)]
Flag = Annotated[bool, Strict()]
Positive = Annotated[int, Strict(), Field(ge=1, le=_MAX_INTEGER)]
Cores = Annotated[int, Strict(), Field(ge=1, le=4096)]
Seed = Annotated[int, Strict(), Field(ge=0, le=2**32 - 1)]  # the range of numpy.random.seed
PositiveNumber = Annotated[float, Strict(), Field(gt=0)]
NotNegative = Annotated[float, Strict(), Field(ge=0)]
Number = Annotated[int | float, BeforeValidator(_number), WithJsonSchema({"type": "number"})]
Bytes = Annotated[
    int,
    Strict(),
    Field(ge=1, le=_MAX_INTEGER),
    BeforeValidator(_bytes),
    WithJsonSchema(
        {
            "anyOf": [
                _POSITIVE_INTEGER,
                {"type": "string", "pattern": r"^\s*[0-9]+(\.[0-9]+)?\s*[kKMGTP]?i?[bB]\s*$"},
            ]
        }
    ),
]


def _single_line(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    if _MISLEADING.search(text):
        raise ValueError(f"must be one line without control characters, not {quote(text)}")
    return text


def _reason(text: str) -> str:
    if not text.strip():
        raise ValueError("must state a reason")
    return _single_line(text)


def _safe_name(text: str) -> str:
    """A name that is valid in paths, links and commands, in NFC: macOS may decompose file names."""
    name = unicodedata.normalize("NFC", text)
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{quote(text)} cannot be a folder name: use at most 64 letters, digits, '.', '_' "
            "or '-', and begin with a letter, a digit or '_'"
        )
    # Windows has devices of these names, with any extension, and drops a dot at the end
    if _RESERVED.fullmatch(name.partition(".")[0]) or name.endswith("."):
        raise ValueError(f"{quote(text)} cannot be a folder name on Windows: choose another one")
    return name


def _identifier(text: str) -> str:
    if not text.isidentifier():
        raise ValueError(f"{quote(text)} is not a valid name: use letters, digits and '_'")
    return text


# ECMAScript's \w is ASCII only, so the schema's patterns exclude ASCII characters instead.
_SAFE_PATTERN = r"^[^\s!-/:-@\[-^`{-~][^\s!-,/:-@\[-^`{-~]{0,63}$"
IDENTIFIER_PATTERN = r"^[^\s!-@\[-^`{-~][^\s!-/:-@\[-^`{-~]*$"

Line = Annotated[
    str,
    Field(max_length=200),
    AfterValidator(_single_line),
    WithJsonSchema({"type": "string", "pattern": r"^.*\S.*$", "maxLength": 200}),
]
SafeName = Annotated[
    str,
    AfterValidator(_safe_name),
    WithJsonSchema({"type": "string", "pattern": _SAFE_PATTERN}),
]
Identifier = Annotated[
    str,
    AfterValidator(_identifier),
    WithJsonSchema({"type": "string", "pattern": IDENTIFIER_PATTERN}),
]
Reason = Annotated[
    str,
    Field(max_length=500),
    AfterValidator(_reason),
    WithJsonSchema({"type": "string", "pattern": r"^.*\S.*$", "maxLength": 500}),
]
RuleCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}[0-9]{3}$")]


class OneOrMany:
    """Annotation: a tuple whose single item may be written alone; duplicates are errors."""

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The tuple's schema, between wrapping a single value and the check for duplicates."""
        listed = core_schema.no_info_before_validator_function(_listed, handler(source))
        return core_schema.no_info_after_validator_function(_distinct, listed)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """One item, or an array of them."""
        array = handler(schema)
        return {"anyOf": [array["items"], {**array, "uniqueItems": True}]}


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _distinct(values: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"{quote(value)} is listed twice")
    return values


@dataclass(frozen=True, kw_only=True, slots=True)
class ExistingPath:
    """Annotation: a path that must exist, relative to the manifest; stored as absolute."""

    suffixes: tuple[str, ...] = ()
    folders: bool = False
    reason: str = ""

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Resolve the text before pydantic converts it to `Path`."""
        return core_schema.with_info_before_validator_function(self._resolve, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A string that ends in one of `suffixes`."""
        endings = "|".join(re.escape(suffix) for suffix in self.suffixes)
        return {"type": "string", "minLength": 1} | (
            {"pattern": f"({endings})$"} if endings else {}
        )

    def _resolve(self, value: object, info: ValidationInfo) -> object:
        folder = reading_folder(info)
        if folder is None:
            return value
        if not isinstance(value, str) or not value:
            raise ValueError(f"must be a path, not {quote(value)}")
        if self.suffixes and not value.endswith(self.suffixes):
            allowed = " or ".join(self.suffixes)
            raise ValueError(f"must end in {allowed}, not {quote(value)}{self.reason}")
        return existing_path(value, folder, folders=self.folders)


def existing_path(text: str, folder: Path, *, folders: bool = False) -> Path:
    """`text` as an absolute path, resolved against `folder`.

    Raises:
        ValueError: there is no such file (or folder, if `folders` is set).
    """
    path = (folder / text).absolute()
    try:
        if path.is_file() or (folders and path.is_dir()):
            return path
        found = path.is_dir()
        siblings = (
            # a folder of training data may have millions of files
            [near.name for near in islice(path.parent.iterdir(), 1000)]
            if path.parent.is_dir()
            else []
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot read {quote(text)}: {reason.lower()}") from None
    if found:
        raise ValueError(f"{quote(text)} is a folder, not a file")
    raise ValueError(f"file not found: {quote(text)}{did_you_mean(path.name, siblings)}")
