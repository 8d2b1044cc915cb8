"""What the error of a forward pass teaches about the inputs that the pass wanted."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator

from reportgen.dummy_inputs.candidate import Dims
from reportgen.manifest import InputSpec

_NUMBER = re.compile(r"(?<![A-WYZa-wyz_.\d])\d+(?!\.?\d)")  # a size: no mat1, conv2d or 0.25
_CHANNELS = re.compile(r"to have (\d+) channels, but got (\d+)")
_PRODUCT = re.compile(r"\(\d+x(\d+) and (\d+)x\d+\)")
_FEATURES = re.compile(r"features:?\s*\D{0,3}(\d+)", re.I)
_TOKENS = re.compile(r"(?:image|video|audio|speech|patch)\w* (?:features|tokens|embeddings)", re.I)
_NAMED_TOKEN = re.compile(r"<?(\w+)>? tokens?\b", re.I)
_INTEGERS = re.compile(r"'indices' to have|index tensor|used as indices|Int(32|64)|dtype int")
_BOOLEANS = re.compile(r"boolean masks|mask dtype to be bool|be a BoolTensor", re.I)
_RANKS: tuple[tuple[re.Pattern[str], Callable[[int], int]], ...] = (
    (re.compile(r"in range of \[-\d+, \d+\], but got (\d+)"), lambda axis: axis + 1),
    (re.compile(r"in range of \[-\d+, \d+\], but got -(\d+)"), lambda axis: axis),
    (re.compile(r"values to unpack \(expected (\d+)"), lambda rank: rank),
    (re.compile(r"[Ee]xpected \dD \(unbatched\) or (\d)D"), lambda rank: rank),
)
_JOINED = re.compile(r"same number of dimensions: got (\d+) and (\d+)")
_LONGEST = 2048  # a size that an error states and is longer grew out of one of our own
_MOST_DIMS = 6  # other sizes tried after one error


def wanted_names(error: Exception, absent: Iterable[str]) -> list[str]:
    """Arguments left out that the error names, or that the code which met a None reads."""
    names, text = list(absent), str(error)
    said = [name for name in names if re.search(rf"\b{re.escape(name)}\b", text)]
    return said if said or not _met_none(error) else read_names(error, names)


def read_names(error: Exception, names: Iterable[str]) -> list[str]:
    """Those of `names` that the innermost line reads which reads any of them."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        read = [n for n in names if re.search(rf"\b{re.escape(n)}\b", frame.line or "")]
        if read:
            return read
    return []


def _met_none(error: Exception) -> bool:
    text = str(error)
    return "NoneType" in text or "not None" in text or "is None" in text


def wanted_placeholders(error: Exception) -> int | None:
    """How many tokens must stand for an image or a sound, where the error counts them."""
    text = str(error)
    if _TOKENS.search(text) is None:
        return None
    features = [int(number) for number in _FEATURES.findall(text)]
    numbers = features or [int(number) for number in _NUMBER.findall(text)]
    return max(numbers, default=0) or None


def wanted_tokens(error: Exception) -> list[str]:
    """The fields of a configuration that hold a token which the error misses in the text."""
    return [f"{word.lower()}_token_id" for word in _NAMED_TOKEN.findall(str(error))]


def wanted_sizes(error: Exception, inputs: tuple[InputSpec, ...]) -> Iterator[tuple[int, int]]:
    """A size that an input has and the error states, with another that it states.

    Whatever words an error is in, the size that was found and the size that was expected both
    stand in it, and little else does.
    """
    stated = list(dict.fromkeys(int(number) for number in _NUMBER.findall(str(error))))
    had = {dim for item in inputs for dim in item.shape or () if isinstance(dim, int)}
    pairs = [(a, b) for a in stated if a in had and a > 1 for b in stated if _may_be(b, a)]
    yield from (pair for pair in found_and_wanted(error) if pair[0] in had)
    yield from pairs[:_MOST_DIMS]


def found_and_wanted(error: Exception) -> Iterator[tuple[int, int]]:
    """The size that an error found and the one it wanted, where its words tell which is which."""
    text = str(error)
    product, channels = _PRODUCT.search(text), _CHANNELS.search(text)
    if product is not None:
        yield int(product[1]), int(product[2])
    if channels is not None:
        yield int(channels[2]), int(channels[1])


def wants_floats(error: Exception) -> bool:
    """Whether whole numbers were given where a layer has weights of floats."""
    text = str(error)
    return "Long" in text and "Float" in text and not wants_integers(error)


def wants_integers(error: Exception) -> bool:
    """Whether floats were given where something is looked up by them."""
    return _INTEGERS.search(str(error)) is not None


def wants_booleans(error: Exception) -> bool:
    """Whether whole numbers were given where a mask has to be of booleans."""
    return _BOOLEANS.search(str(error)) is not None


def missing_arguments(error: Exception) -> list[str]:
    """The arguments that a call lacks, by Python's own words."""
    text = str(error)
    return re.findall(r"'(\w+)'", text.partition("required positional argument")[2])


def wanted_rank(error: Exception) -> int | None:
    """How many dimensions a tensor should have had, where the error says so."""
    text = str(error)
    for pattern, rank_of in _RANKS:
        if match := pattern.search(text):
            return rank_of(int(match[1]))
    return None


def spare_dims(error: Exception) -> int:
    """How many dimensions too many a tensor had that was joined with another; 0 if not told."""
    match = _JOINED.search(str(error))
    return int(match[1]) - int(match[2]) if match else 0


def wanted_key(error: Exception) -> str | None:
    """The key that a dict of inputs lacks."""
    missing = error.args[0] if isinstance(error, KeyError) and error.args else None
    return missing if isinstance(missing, str) else None


def _may_be(size: int, instead_of: int) -> bool:
    return size != instead_of and 1 < size <= _LONGEST


def resized(item: InputSpec, size: int, other: int) -> InputSpec:
    """`item` with `other` wherever `size` stood; swapped where both stood, as in a transpose."""
    if item.shape is None or size not in item.shape:
        return item
    swaps = {size: other, other: size}
    shape: Dims = tuple(swaps.get(d, d) if isinstance(d, int) else d for d in item.shape)
    return item.model_copy(update={"shape": shape})


def signature_of(error: Exception) -> tuple[str, str]:
    """Where and of what a pass died, whatever the sizes were: equal for errors of one cause."""
    frames = traceback.extract_tb(error.__traceback__)
    outside = [f for f in frames if "/torch/" not in f.filename] or frames
    place = f"{outside[-1].filename}:{outside[-1].lineno}" if outside else ""
    return place, _NUMBER.sub("#", str(error))
