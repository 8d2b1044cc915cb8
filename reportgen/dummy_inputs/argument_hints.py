"""Hints on an argument of `forward` from its name, annotation, documentation and use."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Literal

from reportgen.dummy_inputs.candidate import constant, filled, indices, tensor
from reportgen.dummy_inputs.from_layers import LENGTH, ones
from reportgen.manifest import InputSpec

NODES, EDGES = 16, 32
GRAPH_DIMS = {"nodes": NODES, "edges": EDGES}
_FEWEST_NODES = 4  # edges connect the first nodes only, so that smaller graphs are valid too
_SAMPLES = 16_000  # one second of sound at 16 kHz

Tables = list[int]
"""The number of rows of each embedding of the model."""


def is_edge_list(name: str) -> bool:
    """Whether the name is that of an edge list, such as `edge_index`."""
    return re.fullmatch(r"edge_?(index|indices|list)|edges", name.lower()) is not None


def options_of_name(name: str, tables: Tables) -> list[InputSpec]:
    """The usual options for an argument `name`; [] for an unknown name."""
    for pattern, make in _BY_NAME:
        if re.fullmatch(pattern, name.lower()):
            return list(make(tables))
    return []


def prefers(name: str) -> Callable[[InputSpec], bool] | None:
    """A predicate for the options that match the name; None for an unknown name."""
    lowered = name.lower()
    if re.fullmatch(_INDICES, lowered):
        return lambda item: item.dtype == "int64"
    if re.fullmatch(_PICTURES, lowered):
        return lambda item: len(item.shape or ()) == 4
    if re.fullmatch(_SEQUENCES, lowered):
        return lambda item: len(item.shape or ()) == 3
    return None


def is_state(name: str) -> bool:
    """Whether the name is that of the state of a recurrent layer."""
    return (
        re.fullmatch(r"([hc]_?[0nx]?|hc|hiddens?|(\w+_)?states?|memory)", name.lower()) is not None
    )


_INDICES = r".*(ids|tokens|index|indices|idx)|text|words?|src|tgt|source|target|sentences?|query"
_PICTURES = r"images?|imgs?|pictures?|pixels?|pixel_values|frames?|photos?"
_SEQUENCES = r"sequences?|seq|embeddings?|embeds?|.*_embeds|hidden_states"


def _masks(_: Tables) -> Iterator[InputSpec]:
    yield ones("batch", LENGTH)
    yield tensor(None, "batch", LENGTH, dtype="bool")
    yield tensor(None, LENGTH, LENGTH, dtype="bool")
    yield tensor(None, "batch", 1, 224, 224)


def _times(_: Tables) -> Iterator[InputSpec]:
    yield indices(None, "batch", count=1000)
    yield tensor(None, "batch", low=0.0, high=1.0)
    yield tensor(None, "batch", 1, low=0.0, high=1.0)


def _labels(tables: Tables) -> Iterator[InputSpec]:
    for count in sorted(tables) or [2]:
        yield indices(None, "batch", count=count)


def _offsets(_: Tables) -> Iterator[InputSpec]:
    yield filled(None, "batch", value=0)


def _lengths(_: Tables) -> Iterator[InputSpec]:
    yield filled(None, "batch", value=LENGTH)


def _sound(_: Tables) -> Iterator[InputSpec]:
    yield tensor(None, "batch", _SAMPLES)
    yield tensor(None, "batch", 1, _SAMPLES)


def _factors(_: Tables) -> Iterator[InputSpec]:
    yield constant(None, 1.0, keyword=False)


def _counts(_: Tables) -> Iterator[InputSpec]:
    yield constant(None, 1, keyword=False)
    yield constant(None, 2, keyword=False)


def _edges(_: Tables) -> Iterator[InputSpec]:
    yield indices(None, 2, "edges", count=_FEWEST_NODES)


def _of_edges(_: Tables) -> Iterator[InputSpec]:
    yield tensor(None, "edges", low=0.0, high=1.0)
    yield tensor(None, "edges", 1)


def _adjacency(_: Tables) -> Iterator[InputSpec]:
    yield tensor(None, "nodes", "nodes", low=0.0, high=1.0)


# the first match wins: `max_length` is a count, not the length of each sample
_BY_NAME: tuple[tuple[str, Callable[[Tables], Iterator[InputSpec]]], ...] = (
    (r".*mask", _masks),
    (r"t|times?|time_?steps?|sigmas?|noise_levels?", _times),
    (r"y|(class_?)?labels?|class(es)?|class_id|targets?|cond", _labels),
    (r"(.*_)?scale|temperature|alpha|beta|gamma|eps(ilon)?|rate", _factors),
    (r"k|n|top_?k|(num|n)_\w+|max_\w+", _counts),
    (r"offsets?", _offsets),
    (r"(.*_)?(lengths?|lens)", _lengths),
    (r"wave(form)?s?|audios?|speech|sound|signals?", _sound),
    (r"edge_?(index|indices|list)|edges", _edges),
    (r"edge_(attrs?|weights?|features?)", _of_edges),
    (r"adj(acency)?(_matrix)?", _adjacency),
)


Kind = Literal["tensor", "constant", "list", "tuple", "dict"]
_CONSTANTS: dict[object, tuple[Any, ...]] = {
    str: ("",),
    bool: (True, False),
    int: (1, 2),
    float: (1.0, 0.5),
    type(None): (None,),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """The form of one argument.

    Attributes:
        kind: the form of input in the manifest.
        values: the constants to try.
        parts: the elements of a list, tuple or dict; a single one applies to all.
        keys: the keys of a dict.
        doubtful: whether it may also be a tensor, because the code may handle both.
        optional: whether it may be None instead.
        unsupported_class: the class of object it requires, which a manifest cannot describe; or "".
    """

    kind: Kind = "tensor"
    values: tuple[str | bool | int | float | None, ...] = ()
    parts: tuple[Usage, ...] = ()
    keys: tuple[str, ...] = ()
    doubtful: bool = False
    optional: bool = False
    unsupported_class: str = ""


_TENSOR = Usage()
_ARRAY_LIBRARIES = (
    "torch",
    "builtins",
    "typing",
    "numpy",
    "jaxtyping",
    "torchtyping",
    "tensordict",
)


def usages_of(forward: Callable[..., Any], names: Iterable[str]) -> dict[str, Usage]:
    """The usage of each argument: from its annotation, refined by the code of forward."""
    hints, code = _hints(forward), _code(forward)
    found = {name: _of_hint(hints.get(name)) for name in names}
    return {name: _refined(usage, _NameUsage(name, code)) for name, usage in found.items()}


def unsupported_argument(usages: Mapping[str, Usage], required: Iterable[str]) -> str:
    """The first of `required` that has a custom class, as `a Foo for 'x'`; "" for none."""
    for name in required:
        if usages[name].unsupported_class:
            return f"a {usages[name].unsupported_class} for {name!r}"
    return ""


def _hints(forward: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(forward)
    except Exception:  # an annotation may be any expression
        return {}


def _code(forward: Callable[..., Any]) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(forward)))
    except (OSError, TypeError, SyntaxError):  # generated at run time, or compiled
        return ast.Module(body=[], type_ignores=[])


def _of_hint(hint: Any) -> Usage:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        # the first alternative of a union; None is the only one that is tried beside it
        usages = [_of_hint(one) for one in arguments if one is not type(None)]
        optional = len(usages) < len(arguments)
        return replace(usages[0], optional=optional) if usages else _TENSOR
    # an annotation may be any object, so it may be unhashable
    if isinstance(hint, typing.Hashable) and hint in _CONSTANTS:
        return Usage(kind="constant", values=_CONSTANTS[hint])
    origin = typing.get_origin(hint) or hint
    if origin is typing.Literal:
        return Usage(kind="constant", values=arguments)
    return _of_class(origin, arguments) if isinstance(origin, type) else _TENSOR


def _of_class(origin: type, arguments: tuple[Any, ...]) -> Usage:
    # first, because a NamedTuple is a tuple too, and a ModelOutput a dict
    if is_dataclass(origin) or hasattr(origin, "_fields") or _is_custom_class(origin):
        return Usage(unsupported_class=origin.__name__)
    if issubclass(origin, Mapping):
        return Usage(kind="dict", parts=(_of_hint(arguments[1]),) if arguments else (_TENSOR,))
    if issubclass(origin, tuple):
        # `tuple[Tensor, ...]` has no length; the code of forward may show it (`_refined`)
        known = [_of_hint(one) for one in arguments if one is not Ellipsis]
        return Usage(kind="tuple", parts=tuple(known if len(known) > 1 else known * 2))
    if origin is list or (arguments and issubclass(origin, Iterable)):
        return Usage(kind="list", parts=(_of_hint(arguments[0]) if arguments else _TENSOR,) * 2)
    return _TENSOR


def _is_custom_class(origin: type) -> bool:
    return "__init__" in vars(origin) and origin.__module__.split(".")[0] not in _ARRAY_LIBRARIES


def _refined(usage: Usage, usage_in_code: _NameUsage) -> Usage:
    """`usage` with what the code shows: keys of a dict, values of a string, length of a tuple."""
    # the code may reject a text that it compares with none of its own
    if usage.kind == "constant" and usage.values == ("",):
        return replace(usage, values=(*usage_in_code.texts(), ""))
    if usage.kind == "dict" or (usage == _TENSOR and usage_in_code.keys()):
        keys, parts = usage_in_code.keys(), usage.parts or (_TENSOR,)
        return replace(usage, kind="dict", keys=keys, parts=parts, doubtful=not usage.parts)
    if usage == _TENSOR and usage_in_code.texts():
        return Usage(kind="constant", values=usage_in_code.texts())
    unpacked = usage_in_code.unpacked()
    # `a, b = x` also works for a tensor whose first dim is 2, hence doubtful
    if unpacked and usage == _TENSOR:
        return Usage(kind="tuple", parts=(_TENSOR,) * unpacked, doubtful=True)
    if unpacked and len(set(usage.parts)) == 1:
        return replace(usage, parts=usage.parts[:1] * unpacked)
    return usage


class _NameUsage:
    def __init__(self, name: str, code: ast.AST) -> None:
        self._name = name
        self._nodes = list(ast.walk(code))

    def _is_it(self, node: ast.AST | None) -> bool:
        return isinstance(node, ast.Name) and node.id == self._name

    def keys(self) -> tuple[str, ...]:
        """Strings that index it: `x["ids"]`, `x.pop("ids")`."""
        return tuple(dict.fromkeys(self._keys()))

    def _keys(self) -> Iterator[str]:
        for node in self._nodes:
            if isinstance(node, ast.Subscript) and self._is_it(node.value):
                yield from _texts_in(node.slice)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                is_look_up = node.func.attr in ("get", "pop") and self._is_it(node.func.value)
                yield from _texts_in(*node.args[:1]) if is_look_up else ()

    def texts(self) -> tuple[str, ...]:
        """Strings that it is compared with: `x == "mean"`, `x in ("mean", "sum")`."""
        compared = [n for n in self._nodes if isinstance(n, ast.Compare) and self._is_it(n.left)]
        found = [text for node in compared for text in _texts_in(*node.comparators)]
        return tuple(dict.fromkeys(found))

    def unpacked(self) -> int:
        """The number of names that it is unpacked into: `a, b = x`; 0 if it is not."""
        for node in self._nodes:
            if isinstance(node, ast.Assign) and self._is_it(node.value):
                for target in node.targets:
                    if isinstance(target, ast.Tuple | ast.List):
                        return len(target.elts)
        return 0


def _texts_in(*nodes: ast.AST) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            yield from _texts_in(*node.elts)


_OF_SHAPE = re.compile(r"^\s*(\w+) \([^()]*of shape `\(([^()]+)\)`", re.M)


def documented_ranks(forward: Callable[..., Any]) -> dict[str, int]:
    """The number of dimensions of each argument whose line ends in "of shape `(a, b)`".

    transformers documents most arguments this way; the names of the dims give no sizes.
    """
    lines = _OF_SHAPE.findall(inspect.getdoc(forward) or "")
    return {name: len([dim for dim in dims.split(",") if dim.strip()]) for name, dims in lines}
