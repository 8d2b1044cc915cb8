"""Why an export failed, in words: the cause, the place, and the way round."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from reportgen.export.arguments import Arguments

_LONGEST = 240
_FILE_LINE = re.compile(r'File "([^"]+)", line (\d+)')
_NO_FUNCTION = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)', overload='(\w+)'")
_UNKNOWN_TYPE = re.compile(r"<class '([^']+)'> in output, which is not a known type")
_PATHS = re.compile(r"(?:/[^\s/:'\"]+)+/([^\s/:'\"]+)")
_DATA_DEPENDENT = (
    "data-dependent",
    "GuardOnDataDependentSymNode",
    "unbacked",
    "dynamic control flow",
)
_FIXED = re.compile(
    r"static shape of (\d+) for dimension inputs\['?(\w+)'?\]((?:\[[^\]]*\])*)\.shape\[(\d+)\]"
)
_SPECIALISED = ("inferred a static shape", "Constraints violated", "specialized")


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """A failure in words; `final` when another strategy cannot help."""

    error: str
    hint: str
    final: bool


def explain(error: Exception, model: nn.Module, arguments: Arguments) -> Explained:
    """Say in a sentence why exporting `model` with `arguments` raised `error`."""
    chain = list(_chain(error))
    text = "\n".join(f"{type(cause).__name__}: {cause}" for cause in chain)
    if own := _own_failure(model, arguments):
        return own
    if unknown := _UNKNOWN_TYPE.search(text):
        return _unknown_output(unknown[1])
    if missing := _NO_FUNCTION.search(text):
        return _unsupported(f"{missing[1]}.{missing[2]}", model, arguments)
    place = _place(chain, text)
    if any(phrase in text for phrase in _DATA_DEPENDENT):
        return Explained(
            error=f"data-dependent branch{place}: what runs next depends on a tensor's values, "
            "which an ONNX graph cannot follow",
            hint="replace the branch by torch.where or torch.cond, or keep it out of forward",
            final=True,
        )
    if any(phrase in text for phrase in _SPECIALISED):
        return Explained(
            error=f"the model fixes {_fixed_dims(text) or 'a dimension'}{place}",
            hint="derive sizes from x.shape instead of writing them as numbers",
            final=False,
        )
    cause = chain[-1]
    return Explained(
        error=f"the exporter gave up{place}: {type(cause).__name__}: {_line(cause)}",
        hint="try torch.onnx.export(model, args, dynamo=True, report=True) for the whole story",
        final=not arguments.dynamic_shapes,
    )


def _fixed_dims(text: str) -> str:
    """`axis 0 of x at 2 and axis 1 of ids at 16`, as torch.export found them."""
    found = dict.fromkeys(
        f"axis {axis} of {name}{keys} at {size}" for size, name, keys, axis in _FIXED.findall(text)
    )
    return " and ".join(found)


def _own_failure(model: nn.Module, arguments: Arguments) -> Explained | None:
    """The model's own error when it cannot run on these inputs even without an exporter."""
    import torch

    try:
        with torch.no_grad():
            model(*arguments.args, **arguments.kwargs)
    except Exception as error:
        place = _place([error], "")
        return Explained(
            error=f"the model itself fails on its example inputs{place}: "
            f"{type(error).__name__}: {_line(error)}",
            hint="check the shapes and dtypes of the inputs in the manifest",
            final=not arguments.dynamic_shapes,  # it may be made for the manifest's batch alone
        )
    return None


def _unknown_output(type_name: str) -> Explained:
    short = type_name.rsplit(".", 1)[-1]
    if "cache" in short.lower():
        return Explained(
            error=f"the model returns a {short}, which has no place in an ONNX graph: "
            "turn the cache off",
            hint="turn the cache off: use_cache=False in the model's arguments or configuration",
            final=True,
        )
    return Explained(
        error=f"the model returns a {short}, which the exporter cannot look into",
        hint="return tensors, tuples, lists or dicts, or register the class with "
        "torch.utils._pytree.register_pytree_node",
        final=True,
    )


def _unsupported(operator: str, model: nn.Module, arguments: Arguments) -> Explained:
    where = _occurrences(operator, model, arguments)
    return Explained(
        error=f"unsupported operator {operator}{where}: there is no ONNX form of it",
        hint="replace it by supported operations, or give the exporter a translation "
        "(custom_translation_table)",
        final=True,
    )


def _occurrences(operator: str, model: nn.Module, arguments: Arguments) -> str:
    """` in encoder.fft (net.py:12), 2 times` found by tracing once more; "" when that fails."""
    import torch

    try:
        program = torch.export.export(
            model, arguments.args, arguments.kwargs, strict=False
        ).run_decompositions()
        nodes = [node for node in program.graph.nodes if str(node.target) == operator]
        places = Counter(map(_node_place, nodes))
    except Exception:
        return ""
    if not places:
        return ""
    (first, _), total = places.most_common(1)[0], places.total()
    return first if total == 1 else f"{first}, {total} times in all"


def _node_place(node: Any) -> str:
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    module = str(stack[-1][0]).removeprefix("L['self']").strip(".") if stack else ""
    owner = f" in {module}" if module else ""
    lines = _FILE_LINE.findall(node.meta.get("stack_trace") or "")
    ours = [(file, line) for file, line in lines if not _is_torch(file)]
    return f"{owner} at {_relative(ours[-1][0])}:{ours[-1][1]}" if ours else owner


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__


def _place(chain: list[BaseException], text: str) -> str:
    """` at net.py:12`, the innermost line of the model's code on the way to the error."""
    for error in reversed(chain):
        frames = [
            (frame.filename, frame.lineno)
            for frame in traceback.extract_tb(error.__traceback__)
            if not _is_torch(frame.filename)
        ]
        if frames:
            return f" at {_relative(frames[-1][0])}:{frames[-1][1]}"
    for file, line in reversed(_FILE_LINE.findall(text)):
        if not _is_torch(file):
            return f" at {_relative(file)}:{line}"
    return ""


def _is_torch(file: str) -> bool:
    """Whether a frame is the machinery's rather than the model's."""
    if file.startswith(("<", str(Path(__file__).parents[1]))):
        return True
    return "/site-packages/torch/" in file or ("/lib/python" in file and "-packages/" not in file)


def _relative(file: str) -> str:
    """A file below site-packages with its package, any other by its name alone."""
    _, found, below = file.replace("\\", "/").rpartition("-packages/")
    return below if found else Path(file).name


def _line(error: BaseException) -> str:
    """The error's first telling line, without addresses of this machine, cut to size."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.endswith(":")] or lines
    text = _PATHS.sub(r"\1", telling[0]) if telling else "no message"
    text = re.sub(r"0x[0-9a-f]{6,}", "0x…", re.sub(r"\x1b\[[0-9;]*m", "", text))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
