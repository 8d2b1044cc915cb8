"""Locations in the model's own code: file, line, module path."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import Any

from reportgen.error_text import shown_text

_FILE_LINE = re.compile(r'File "([^"]+)", line (\d+)')
_LONGEST = 240


def exception_chain(error: BaseException) -> list[BaseException]:
    """The error and what caused it, the first cause last."""
    found: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in found:  # causes may form a circle
        found.append(current)
        current = current.__cause__
    return found


def location_of_error(chain: list[BaseException], text: str) -> str:
    """` at net.py:12`, the innermost line of the model's code on the way to the error."""
    for error in reversed(chain):  # the first cause is nearest to the model's line
        frames = [
            (frame.filename, frame.lineno)
            for frame in traceback.extract_tb(error.__traceback__)
            if not is_library_file(frame.filename)
        ]
        if frames:
            return f" at {short_path(frames[-1][0])}:{frames[-1][1]}"
    found = _own_lines(text)  # dynamo does not run the model's frames, it quotes them
    return f" at {found[-1]}" if found else ""


def location_of_node(node: Any) -> str:
    """` in encoder.fft at net.py:12`, where a node of a traced graph comes from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    # dynamo's name of the root is L['self']
    module = str(stack[-1][0]).removeprefix("L['self']").strip(".") if stack else ""
    owner = f" in {module}" if module else ""
    lines = _own_lines(node.meta.get("stack_trace") or "")
    return f"{owner} at {lines[-1]}" if lines else owner


def _own_lines(text: str) -> list[str]:
    return [
        f"{short_path(f)}:{line}" for f, line in _FILE_LINE.findall(text) if not is_library_file(f)
    ]


def is_library_file(file: str) -> bool:
    """Whether a file is torch's, Python's or ours rather than the model's."""
    if file.startswith(("<", str(Path(__file__).parents[2]))):
        return True
    # other packages (timm, transformers) hold models, whose lines the user wants to see
    return "/site-packages/torch/" in file or ("/lib/python" in file and "-packages/" not in file)


def short_path(file: str) -> str:
    """A file below site-packages with its package, any other by its name alone."""
    _, found, below = file.replace("\\", "/").rpartition("-packages/")
    return below if found else Path(file).name


def first_error_line(error: BaseException) -> str:
    """The error's first informative line, without folders and addresses of this machine."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    # torch often begins with a heading ("While executing ...:")
    informative = [line for line in lines if not line.endswith(":")] or lines
    return shown_text(informative[0] if informative else "no message", _LONGEST)
