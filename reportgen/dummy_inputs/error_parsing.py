"""Parses the errors of forward passes, and changes inputs to match them."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from reportgen.dummy_inputs.candidate import Dims, Inputs, every_part, parts_of, with_part
from reportgen.manifest import InputSpec

# a size, but not the digits in mat1, conv2d or 0.25; x is allowed for "(2x8 and 4x2)"
_NUMBER = re.compile(r"(?<![A-WYZa-wyz_.\d])\d+(?!\.?\d)")
# "expected input[2, 1, 8, 8] to have 3 channels, but got 1 channels instead"
_CHANNELS = re.compile(r"to have (\d+) channels, but got (\d+)")
# "mat1 and mat2 shapes cannot be multiplied (2x8 and 4x2)"
_PRODUCT = re.compile(r"\(\d+x(\d+) and (\d+)x\d+\)")
# transformers: "Image features and image tokens do not match, tokens: 0, features: 49"
_FEATURES = re.compile(r"features:?\s*\D{0,3}(\d+)", re.I)
_TOKENS = re.compile(r"(?:image|video|audio|speech|patch)\w* (?:features|tokens|embeddings)", re.I)
_NAMED_TOKEN = re.compile(r"<?(\w+)>? tokens?\b", re.I)
# "Expected tensor for argument #1 'indices' to have one of the following scalar types",
# "gather(): Expected dtype int32/int64 for index"
_INTEGERS = re.compile(r"'indices' to have|index tensor|used as indices|Int(32|64)|dtype int")
_BOOLEANS = re.compile(r"boolean masks|mask dtype to be bool|be a BoolTensor", re.I)
_RANKS: tuple[tuple[re.Pattern[str], Callable[[int], int]], ...] = (
    # "Dimension out of range (expected to be in range of [-2, 1], but got 2)"
    (re.compile(r"in range of \[-\d+, \d+\], but got (\d+)"), lambda axis: axis + 1),
    (re.compile(r"in range of \[-\d+, \d+\], but got -(\d+)"), lambda axis: axis),
    # `batch, tokens, width = x.shape`
    (re.compile(r"values to unpack \(expected (\d+)"), lambda rank: rank),
    # "Expected 3D (unbatched) or 4D (batched) input to conv2d"
    (re.compile(r"[Ee]xpected \dD \(unbatched\) or (\d)D"), lambda rank: rank),
)
# torch.cat: "Tensors must have same number of dimensions: got 3 and 2"
_JOINED = re.compile(r"same number of dimensions: got (\d+) and (\d+)")
_MAX_SIZE = 2048  # larger sizes in errors are products of sizes that were tried
_MOST_DIMS = 6  # other sizes tried after one error


def expected_names(error: Exception, absent: Iterable[str]) -> list[str]:
    """Omitted arguments that the error mentions, or that a line which failed on None reads."""
    names, text = list(absent), str(error)
    mentioned = [name for name in names if re.search(rf"\b{re.escape(name)}\b", text)]
    return mentioned if mentioned or not _met_none(error) else read_names(error, names)


def read_names(error: Exception, names: Iterable[str]) -> list[str]:
    """Those of `names` in the innermost source line of the traceback that contains any."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        read = [n for n in names if re.search(rf"\b{re.escape(n)}\b", frame.line or "")]
        if read:
            return read
    return []


def _met_none(error: Exception) -> bool:
    text = str(error)
    return "NoneType" in text or "not None" in text or "is None" in text


def expected_placeholders(error: Exception) -> int | None:
    """The number of placeholder tokens for images or audio, if the error states it."""
    text = str(error)
    if _TOKENS.search(text) is None:
        return None
    features = [int(number) for number in _FEATURES.findall(text)]
    numbers = features or [int(number) for number in _NUMBER.findall(text)]
    return max(numbers, default=0) or None


def expected_tokens(error: Exception) -> list[str]:
    """The configuration fields of special tokens that the error reports as missing."""
    return [f"{word.lower()}_token_id" for word in _NAMED_TOKEN.findall(str(error))]


def expected_sizes(error: Exception, inputs: tuple[InputSpec, ...]) -> Iterator[tuple[int, int]]:
    """Pairs of a size that occurs in the inputs and the error, and another size in the error.

    Most errors contain the actual and the expected size and few other numbers, so their wording
    need not be known.
    """
    stated = list(dict.fromkeys(int(number) for number in _NUMBER.findall(str(error))))
    had = {dim for item in inputs for dim in item.shape or () if isinstance(dim, int)}
    # not 1, which broadcasts
    sizes = [n for n in stated if 1 < n <= _MAX_SIZE]
    pairs = [(a, b) for a in stated if a in had and a > 1 for b in sizes if b != a]
    yield from (pair for pair in found_and_expected(error) if pair[0] in had)
    yield from pairs[:_MOST_DIMS]


def found_and_expected(error: Exception) -> Iterator[tuple[int, int]]:
    """The actual and the expected size of errors whose wording is known."""
    text = str(error)
    product, channels = _PRODUCT.search(text), _CHANNELS.search(text)
    if product is not None:
        yield int(product[1]), int(product[2])
    if channels is not None:
        yield int(channels[2]), int(channels[1])


def expects_floats(error: Exception) -> bool:
    """Whether integers were passed to a layer with float weights."""
    text = str(error)
    return "Long" in text and "Float" in text and not expects_integers(error)


def expects_integers(error: Exception) -> bool:
    """Whether floats were passed as indices."""
    return _INTEGERS.search(str(error)) is not None


def expects_booleans(error: Exception) -> bool:
    """Whether integers were passed as a boolean mask."""
    return _BOOLEANS.search(str(error)) is not None


def missing_arguments(error: Exception) -> list[str]:
    """The arguments in Python's error for missing positional arguments."""
    text = str(error)
    return re.findall(r"'(\w+)'", text.partition("required positional argument")[2])


def expected_rank(error: Exception) -> int | None:
    """The expected rank of a tensor, if the error states it."""
    text = str(error)
    for pattern, rank_of in _RANKS:
        if match := pattern.search(text):
            return rank_of(int(match[1]))
    return None


def excess_dims(error: Exception) -> int:
    """The difference in rank between concatenated tensors; 0 if the error does not state it."""
    match = _JOINED.search(str(error))
    return int(match[1]) - int(match[2]) if match else 0


def expected_key(error: Exception) -> str | None:
    """The key of a KeyError: missing in a dict input."""
    missing = error.args[0] if isinstance(error, KeyError) and error.args else None
    return missing if isinstance(missing, str) else None


def resized(item: InputSpec, size: int, other: int) -> InputSpec:
    """`item` with all dims of `size` changed to `other`, and the reverse."""
    if item.shape is None or size not in item.shape:
        return item
    swaps = {size: other, other: size}
    shape: Dims = tuple(swaps.get(d, d) if isinstance(d, int) else d for d in item.shape)
    return item.model_copy(update={"shape": shape})


def error_signature(error: Exception) -> tuple[str, str]:
    """The location and the message without numbers: equal for errors with the same cause."""
    frames = traceback.extract_tb(error.__traceback__)
    # one line of torch raises for many layers; the line of the model distinguishes them
    outside = [f for f in frames if "/torch/" not in f.filename] or frames
    place = f"{outside[-1].filename}:{outside[-1].lineno}" if outside else ""
    return place, _NUMBER.sub("#", str(error))


_MAX_SIDE = 100_000
_ROUND = (32, 16, 8, 4, 2, 1)


class SizeChanges:
    """Proposes inputs from the sizes in errors; records the result of each image side."""

    def __init__(self) -> None:
        self._points: dict[tuple[int, int], list[tuple[int, float]]] = {}

    def after(self, error: Exception, inputs: Inputs) -> list[Inputs]:
        """The inputs to try after `error`, the most likely first."""
        suggested = [*_exchanged(error, inputs)]
        for found, expected in found_and_expected(error):
            shifted = [*_shifted(inputs, expected - found)]
            sides = [*self._of_sides(inputs, found, expected)]
            suggested += [*shifted, *sides] if len(parts_of(inputs)) > 1 else [*sides, *shifted]
        return list({repr(one): one for one in suggested if one != inputs}.values())

    def _of_sides(self, inputs: Inputs, found: int, expected: int) -> Iterator[Inputs]:
        """Inputs with another image side, if a flattened image has the wrong number of values.

        The rank-th root of that number is linear in the side, except for rounding in the layers.
        """
        for place, (_, part) in enumerate(parts_of(inputs)):
            side, rank = _side_of(part)
            if not side:
                continue
            points = self._points.setdefault((place, expected), [])
            points.append((side, found ** (1 / rank)))
            other = _round_untried(
                _interpolated_side(points, expected ** (1 / rank)), {s for s, _ in points}
            )
            if 1 <= other <= _MAX_SIDE:
                yield with_part(inputs, place, resized_sides(part, side, other))


def _exchanged(error: Exception, inputs: Inputs) -> Iterator[Inputs]:
    """Inputs with a size from the error replaced by another size from it."""
    given = tuple(part for _, part in parts_of(inputs))
    for size, other in dict.fromkeys(expected_sizes(error, given)):
        yield every_part(inputs, partial(resized, size=size, other=other))
        places = [place for place, part in enumerate(given) if size in (part.shape or ())]
        for place in places if len(places) > 1 else ():
            yield with_part(inputs, place, resized(given[place], size, other))


def _shifted(inputs: Inputs, more: int) -> Iterator[Inputs]:
    """Inputs with `more` features in one of them, for models that concatenate inputs."""
    for place, (_, part) in enumerate(parts_of(inputs)):
        shape = part.shape or ()
        # the channels of an image, else the last dim
        axis = 1 if len(shape) > 3 else len(shape) - 1
        size = shape[axis] if shape and part.dtype.startswith("float") else None
        if isinstance(size, int) and size + more > 0:
            longer = (*shape[:axis], size + more, *shape[axis + 1 :])
            yield with_part(inputs, place, part.model_copy(update={"shape": longer}))


def _side_of(part: InputSpec) -> tuple[int, int]:
    """The size of the spatial dims, and the number of spatial dims of this size; else (0, 0)."""
    sides = [dim for dim in (part.shape or ())[2:] if isinstance(dim, int)]
    if not sides or part.dtype == "int64":
        return 0, 0
    return sides[-1], sum(side == sides[-1] for side in sides)


def resized_sides(part: InputSpec, side: int, other: int) -> InputSpec:
    """`part` with spatial dims of size `side` changed to `other`."""
    shape = part.shape or ()
    changed = tuple(other if dim == side else dim for dim in shape[2:])
    return part.model_copy(update={"shape": (*shape[:2], *changed)})


def _interpolated_side(points: list[tuple[int, float]], expected: float) -> int:
    """The side where the line through the two nearest points reaches `expected`."""
    # not proportional: a convolution without padding subtracts a constant from the side
    nearest = sorted(points, key=lambda point: abs(point[1] - expected))[:2]
    (side, found), *others = nearest
    if others and others[0][1] != found:
        return round(side + (expected - found) * (others[0][0] - side) / (others[0][1] - found))
    return round(side * expected / found) if found else side + 1


def _round_untried(side: int, tried: set[int]) -> int:
    """An untried number near `side`, preferably divisible by a high power of 2."""
    # several sides may give the same number of values; powers of 2 are the usual ones
    near = [side, side + 1, side - 1, side + 2, side - 2]
    left = [number for number in near if number not in tried] or [side]
    return next(n for step in _ROUND for n in left if n % step == 0)


def is_index_out_of_range(error: Exception) -> bool:
    """Whether an index was out of range."""
    # of an embedding: "index out of range in self"; of a tensor: "index 9 is out of bounds"
    return "out of range" in str(error) or "out of bounds" in str(error)


def lower_indices(inputs: Inputs, tables: list[int]) -> Iterator[Inputs]:
    """Inputs with indices below the next smaller table, then inputs with half as many indices."""
    highs = {int(part.high) for _, part in parts_of(inputs) if part.high and part.high > 1}
    for high in sorted(highs, reverse=True):
        smaller = max((size for size in tables if size < high), default=1)
        yield every_part(inputs, partial(_lower, high=high, smaller=smaller))
    if highs:
        yield every_part(inputs, _halved)


def _lower(part: InputSpec, *, high: int, smaller: int) -> InputSpec:
    is_of_it = part.high == high and smaller > (part.low or 0)
    return part.model_copy(update={"high": smaller}) if is_of_it else part


def _halved(part: InputSpec) -> InputSpec:
    if part.shape is None or part.dtype != "int64":
        return part
    shape = tuple(dim // 2 if isinstance(dim, int) and dim > 1 else dim for dim in part.shape)
    return part.model_copy(update={"shape": shape})
