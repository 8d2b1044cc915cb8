"""Why an export failed, in words: the cause, the place, and the way round."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from reportgen.error_text import is_out_of_memory
from reportgen.onnx.export.explained import Explained, Kind
from reportgen.onnx.export.of_modules import closed_modules, quoted_names, takes_packed_sequences
from reportgen.onnx.export.source_location import chain_of, place_of_error, telling_line
from reportgen.onnx.export.unsupported_ops import (
    Obstacle,
    data_dependent_places,
    unsupported_operators,
)
from reportgen.onnx.export.workarounds import way_round

if TYPE_CHECKING:
    from torch import nn

    from reportgen.onnx.export.arguments import Arguments

_NO_FUNCTION = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)', overload='(\w+)'")
_UNTRANSLATED = re.compile(
    r"Error when translating node %(\w+) : .*?\[target=(?:torch\.ops\.)?([\w.]+)"
)
_NO_FAKE = re.compile(
    r"(?:UnsupportedOperator|DynamicOutputShape|DataDependentOutput)Exception: ([\w.]+)"
    r"|no fake impl registered for <CustomOpDef\(([\w:]+)\)>"
)
_UNKNOWN_TYPE = re.compile(r"<class '([^']+)'> in output, which is not a known type")
_DATA_DEPENDENT = (
    "data-dependent",
    "GuardOnDataDependentSymNode",
    "unbacked",
    "dynamic control flow",
)
# int(), float() or range() of a tensor's value, where a branch asks for Eq(u0, 1)
_NUMBER = re.compile(r"data-dependent expression z?u[f\d]\w* \(|Could not extract specialized")
_FIXED = re.compile(
    r"static shape of (\d+) for dimension inputs\['?(\w+)'?\]((?:\[[^\]]*\])*)\.shape\[(\d+)\]"
)
_UNRUN = {"generator": "a generator", "coroutine": "a coroutine"}
_SPECIALIZED = ("inferred a static shape", "Constraints violated", "specialized")


def explain_capture(
    error: Exception, model: nn.Module, arguments: Arguments, *, runnable: bool
) -> Explained:
    """Say in a sentence why torch.export could not capture `model` with `arguments`.

    Args:
        error: what it raised.
        model: the model as it was captured.
        arguments: what it was called with.
        runnable: whether the model has weights, so that it can be run to compare.
    """
    if is_out_of_memory(error):
        return _out_of_memory()
    if closed := closed_modules(model):
        return closed
    if runnable and (own := _own_failure(model, arguments)):
        return own
    chain = chain_of(error)
    if quoted := quoted_names(model, chain):
        return quoted
    text = "\n".join(f"{type(cause).__name__}: {cause}" for cause in chain)
    if unknown := _UNKNOWN_TYPE.search(text):
        return _unknown_output(unknown[1])
    place = place_of_error(chain, text)
    if missing := _NO_FAKE.search(text):
        return _untraceable(missing[1] or missing[2].replace("::", "."), place)
    if any(phrase in text for phrase in _DATA_DEPENDENT):
        is_number = bool(_NUMBER.search(text))
        return _branch(place, model, arguments, runnable=runnable, is_number=is_number)
    if any(phrase in text for phrase in _SPECIALIZED):
        return Explained(
            error=f"the model fixes {_fixed_dims(text, arguments) or 'a dimension'}{place}",
            hint="derive sizes from x.shape instead of writing them as numbers",
            kind="dims",
        )
    if runnable and (packed := takes_packed_sequences(model, arguments)):
        return Explained(
            error=f"{packed} takes a packed sequence, which has no ONNX form: its layout depends "
            "on the lengths",
            hint="run the RNN on the padded sequence, and mask its output with the lengths",
            kind="final",
        )
    return _unknown(chain, place)


def explain_translation(error: Exception, model: nn.Module, program: Any, opset: int) -> Explained:
    """Say which operators of a captured `program` have no ONNX form, all of them at once."""
    if is_out_of_memory(error):
        return _out_of_memory()
    chain = chain_of(error)
    if quoted := quoted_names(model, chain):
        return quoted
    text = "\n".join(f"{type(cause).__name__}: {cause}" for cause in chain)
    obstacles = unsupported_operators(program, opset)
    if obstacles:
        return _unsupported(obstacles)
    if missing := _NO_FUNCTION.search(text):
        name = f"{missing[1]}.{missing[2]}"
        return _unsupported((Obstacle(operator=name, places=("",), way_round=way_round(name)),))
    if refused := _UNTRANSLATED.search(text):
        return _refused(refused[2], chain)
    return _unknown(chain, "")


def _out_of_memory() -> Explained:
    return Explained(
        error="ran out of memory",
        hint="raise limits.memory in the manifest, or lower the model's batch",
        kind="memory",
    )


def _unknown(chain: list[BaseException], place: str) -> Explained:
    cause = chain[-1]
    return Explained(
        error=f"the exporter gave up{place}: {type(cause).__name__}: {telling_line(cause)}",
        hint="try torch.onnx.export(model, args, dynamo=True, report=True) for the whole story",
        kind="unknown",
    )


def _fixed_dims(text: str, arguments: Arguments) -> str:
    """`axis 0 of x at 2 and axis 1 of ids at 16`, as torch.export found them."""
    found = dict.fromkeys(
        f"axis {axis} of {arguments.called.get(name, name)}{keys} at {size}"
        for size, name, keys, axis in _FIXED.findall(text)
    )
    return " and ".join(found)


def _own_failure(model: nn.Module, arguments: Arguments) -> Explained | None:
    """The model's own error when it cannot run on these inputs even without an exporter."""
    import torch

    try:
        with torch.no_grad():
            model(*arguments.args, **arguments.kwargs)
    except Exception as error:
        if is_out_of_memory(error):
            return _out_of_memory()
        place = place_of_error([error], "")
        if "does not require grad" in str(error):
            return Explained(
                error=f"forward takes gradients of its own{place}, which ONNX cannot express",
                hint="write the derivative out, or compute it outside of the model",
                kind="final",
            )
        return Explained(
            error=f"the model itself fails on its example inputs{place}: "
            f"{type(error).__name__}: {telling_line(error)}",
            hint="check the shapes and dtypes of the inputs in the manifest",
            kind="own",  # it may be made for the manifest's batch alone
        )
    return None


def _unknown_output(type_name: str) -> Explained:
    short = type_name.rsplit(".", 1)[-1]
    if short in _UNRUN:
        return Explained(
            error=f"forward returns {_UNRUN[short]} that nobody has run, and no tensor",
            hint="return what it yields, in a list or a tuple",
            kind="final",
        )
    article = "an" if short[0] in "AEIOU" else "a"
    if "cache" in short.lower():
        return Explained(
            error=f"the model returns {article} {short}, which has no place in an ONNX graph: "
            "turn the cache off",
            hint="turn the cache off: use_cache=False in the model's arguments or configuration",
            kind="output",
        )
    return Explained(
        error=f"the model returns {article} {short}, which the exporter cannot look into",
        hint="return tensors, tuples, lists or dicts, or register the class with "
        "torch.utils._pytree.register_pytree_node",
        kind="output",
    )


def _branch(
    place: str, model: nn.Module, arguments: Arguments, *, runnable: bool, is_number: bool
) -> Explained:
    if is_number:
        return _number(place)
    places = data_dependent_places(model, arguments) if runnable else ()
    others = len(places) - 1
    also = f" (and {others} more)" if others > 0 else ""
    return Explained(
        error=f"data-dependent branch{place}{also}: what runs next depends on a tensor's values, "
        "which an ONNX graph cannot follow",
        hint="replace the branch by torch.where or torch.cond, or keep it out of forward; "
        "torch.onnx.export(dynamo=False) writes a file that always takes its example's course",
        kind="final",
        details=places if others > 0 else (),
    )


def _number(place: str) -> Explained:
    return Explained(
        error=f"data-dependent number{place}: forward makes a Python number of a tensor's value, "
        "which an ONNX graph cannot hold",
        hint="keep it a tensor (x * x.max(), not x * float(x.max())), or pass it in as an input",
        kind="final",
    )


def _untraceable(operator: str, place: str) -> Explained:
    """An operator that torch.export cannot even trace: no fake kernel, or a size from values."""
    is_own = operator.partition(".")[0] not in ("aten", "prims")
    return Explained(
        error=f"unsupported operator {operator}{place}: torch.export cannot tell what it returns",
        hint="give it a fake kernel (torch.library.register_fake), the exporter a translation "
        "(custom_translation_table), and every runtime a kernel"
        if is_own
        else way_round(operator),
        kind="final",
    )


def _kind_of(*operators: str) -> Kind:
    """Whether another implementation of the same layer may do without these operators."""
    if any("attention" in operator for operator in operators):
        return "attention"
    return "experts" if any("grouped_mm" in operator for operator in operators) else "final"


def _unsupported(obstacles: tuple[Obstacle, ...]) -> Explained:
    kind = _kind_of(*(obstacle.operator for obstacle in obstacles))
    if len(obstacles) == 1:
        only = obstacles[0]
        where, total = only.places[0], len(only.places)
        count = f", {total} times in all" if total > 1 else ""
        return Explained(
            error=f"unsupported operator {only.operator}{where}{count}: there is no ONNX form "
            "of it",
            hint=only.way_round,
            kind=kind,
            details=(only.line(),) if total > 1 else (),
        )
    names = ", ".join(obstacle.operator for obstacle in obstacles[:5])
    more = f" and {len(obstacles) - 5} more" if len(obstacles) > 5 else ""
    return Explained(
        error=f"{len(obstacles)} unsupported operators: there is no ONNX form of {names}{more}",
        hint="each of them must go, or be given a translation (custom_translation_table)",
        kind=kind,
        details=tuple(obstacle.line() for obstacle in obstacles),
    )


def _refused(operator: str, chain: list[BaseException]) -> Explained:
    """An operator that has an ONNX form, but not with these arguments."""
    cause = chain[-1]
    return Explained(
        error=f"unsupported use of {operator}: {type(cause).__name__}: {telling_line(cause)}",
        hint=way_round(operator),
        kind=_kind_of(operator),
    )
