"""Calls in a model's own sources whose result no file on disk explains."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

_CLOCK = "reads the clock"
_NATIVE = "reads a file through a library that Python cannot observe"
# The end of a call's dotted name -> what it does. Durations (time.monotonic) are no inputs.
_CALLS = {
    ("time", "time"): _CLOCK,
    ("time", "time_ns"): _CLOCK,
    ("time", "localtime"): _CLOCK,
    ("time", "gmtime"): _CLOCK,
    ("time", "strftime"): _CLOCK,
    ("datetime", "now"): _CLOCK,
    ("datetime", "utcnow"): _CLOCK,
    ("datetime", "today"): _CLOCK,
    ("date", "today"): _CLOCK,
    ("jit", "load"): _NATIVE,
    ("safe_open",): _NATIVE,
    ("load_file",): _NATIVE,
    ("InferenceSession",): _NATIVE,
    ("UntypedStorage", "from_file"): _NATIVE,
    ("read_image",): _NATIVE,
    ("imread",): _NATIVE,
}


def find_influences(path: Path) -> Iterator[str]:
    """What the source `path` does, a clause for each call: "net.py:12 reads the clock"."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # it did not run either
        return
    modules = _imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _dotted(node.func, modules)
            for end, what in _CALLS.items():
                if name[-len(end) :] == end:
                    yield f"{path.name}:{node.lineno} {what}"


def _imported_names(tree: ast.AST) -> dict[str, tuple[str, ...]]:
    """Names as imported -> their dotted name: `from time import time as now`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = (*node.module.split("."), alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    found[alias.asname] = tuple(alias.name.split("."))
    return found


def _dotted(node: ast.expr, modules: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    """`a.b.c` as its parts, the first replaced by what was imported; () for other expressions."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ()
    return (*modules.get(node.id, (node.id,)), *reversed(parts))
