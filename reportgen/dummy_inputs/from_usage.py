"""What an argument of `forward` is, by its annotation and by what the code does with it."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Literal

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
    """What one argument is taken for.

    Attributes:
        kind: of the manifest's forms.
        values: the constants to try.
        parts: what a list, a tuple or a dict holds; one for all where it is one.
        keys: of a dict.
        doubtful: whether it may be a tensor all the same, for the code may have two ways.
        optional: whether it may be None instead.
        foreign: the class that it must be an object of, which no manifest can write; else "".
    """

    kind: Kind = "tensor"
    values: tuple[str | bool | int | float | None, ...] = ()
    parts: tuple[Usage, ...] = ()
    keys: tuple[str, ...] = ()
    doubtful: bool = False
    optional: bool = False
    foreign: str = ""


_TENSOR = Usage()
_TENSORS_PASS = ("torch", "builtins", "typing", "numpy", "jaxtyping", "torchtyping", "tensordict")


def usages_of(forward: Callable[..., Any], names: Iterable[str]) -> dict[str, Usage]:
    """What each argument is taken for: the annotation's word first, then the code's."""
    hints, code = _hints(forward), _code(forward)
    found = {name: _of_hint(hints.get(name)) for name in names}
    return {name: _refined(usage, _Reading(name, code)) for name, usage in found.items()}


def _hints(forward: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(forward)
    except Exception:  # an annotation may be any expression
        return {}


def _code(forward: Callable[..., Any]) -> ast.AST:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(forward)))
    except (OSError, TypeError, SyntaxError):  # made at run time, or compiled
        return ast.Module(body=[], type_ignores=[])


def _of_hint(hint: Any) -> Usage:
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        usages = [_of_hint(one) for one in arguments if one is not type(None)]
        optional = len(usages) < len(arguments)
        return replace(usages[0], optional=optional) if usages else _TENSOR
    if isinstance(hint, typing.Hashable) and hint in _CONSTANTS:
        return Usage(kind="constant", values=_CONSTANTS[hint])
    origin = typing.get_origin(hint) or hint
    if origin is typing.Literal:
        return Usage(kind="constant", values=arguments)
    return _of_class(origin, arguments) if isinstance(origin, type) else _TENSOR


def _of_class(origin: type, arguments: tuple[Any, ...]) -> Usage:
    if is_dataclass(origin) or hasattr(origin, "_fields") or _has_a_life(origin):
        return Usage(foreign=origin.__name__)
    if issubclass(origin, Mapping):
        return Usage(kind="dict", parts=(_of_hint(arguments[1]),) if arguments else (_TENSOR,))
    if issubclass(origin, tuple):
        known = [_of_hint(one) for one in arguments if one is not Ellipsis]
        return Usage(kind="tuple", parts=tuple(known if len(known) > 1 else known * 2))
    if origin is list or (arguments and issubclass(origin, Iterable)):
        return Usage(kind="list", parts=(_of_hint(arguments[0]) if arguments else _TENSOR,) * 2)
    return _TENSOR


def _has_a_life(origin: type) -> bool:
    """Whether a class makes its objects itself, and is none of those that tensors pass for."""
    return "__init__" in vars(origin) and origin.__module__.split(".")[0] not in _TENSORS_PASS


def _refined(usage: Usage, reading: _Reading) -> Usage:
    """What the annotation left open: the keys of a dict, the words of a text."""
    if usage.kind == "constant" and usage.values == ("",):
        return replace(usage, values=(*reading.texts(), ""))
    if usage.kind == "dict" or (usage == _TENSOR and reading.keys()):
        keys, parts = reading.keys(), usage.parts or (_TENSOR,)
        return replace(usage, kind="dict", keys=keys, parts=parts, doubtful=not usage.parts)
    if usage == _TENSOR and reading.texts():
        return Usage(kind="constant", values=reading.texts())
    unpacked = reading.unpacked()
    if unpacked and usage == _TENSOR:
        return Usage(kind="tuple", parts=(_TENSOR,) * unpacked, doubtful=True)
    if unpacked and len(set(usage.parts)) == 1:
        return replace(usage, parts=usage.parts[:1] * unpacked)
    return usage


class _Reading:
    """What some code does with one name."""

    def __init__(self, name: str, code: ast.AST) -> None:
        self._name = name
        self._nodes = list(ast.walk(code))

    def _is_it(self, node: ast.AST | None) -> bool:
        return isinstance(node, ast.Name) and node.id == self._name

    def keys(self) -> tuple[str, ...]:
        """Texts that it is indexed by: `x["ids"]`, `x.pop("ids")`."""
        return tuple(dict.fromkeys(self._keys()))

    def _keys(self) -> Iterator[str]:
        for node in self._nodes:
            if isinstance(node, ast.Subscript) and self._is_it(node.value):
                yield from _texts_in(node.slice)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                is_look_up = node.func.attr in ("get", "pop") and self._is_it(node.func.value)
                yield from _texts_in(*node.args[:1]) if is_look_up else ()

    def texts(self) -> tuple[str, ...]:
        """Texts that it is compared with: `x == "mean"`, `x in ("mean", "sum")`."""
        compared = [n for n in self._nodes if isinstance(n, ast.Compare) and self._is_it(n.left)]
        found = [text for node in compared for text in _texts_in(*node.comparators)]
        return tuple(dict.fromkeys(found))

    def unpacked(self) -> int:
        """How many names it is unpacked into: `a, b = x`; 0 where it is not."""
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
