"""Why an export failed: the cause, the source location, and a workaround."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from reportgen.error_text import is_out_of_memory
from reportgen.forward_failure import explain_failure
from reportgen.onnx.export.source_location import (
    exception_chain,
    first_error_line,
    is_library_file,
    location_of_error,
    short_path,
)
from reportgen.onnx.export.unsupported_ops import (
    UnsupportedOperator,
    data_dependent_branches,
    unsupported_operators,
    workaround,
)
from reportgen.pytree import modules_of

if TYPE_CHECKING:
    from torch import nn

    from reportgen.onnx.export.arguments import ExportArguments

Kind = Literal[
    "own", "output", "attention", "experts", "dims", "values", "memory", "unknown", "final"
]
"""What may help: see `strategy`. `values`: Python depends on a tensor's; `final`: nothing can."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportFailure:
    """A failure of the exporter.

    Attributes:
        error: the cause and the place, a sentence.
        hint: what the user can do.
        kind: what may help without the user.
        details: everything that prevents the export, one line each.
    """

    error: str
    hint: str
    kind: Kind
    details: tuple[str, ...] = ()


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
_UNCONSUMED = {"generator": "a generator", "coroutine": "a coroutine"}
_SPECIALIZED = ("inferred a static shape", "Constraints violated", "specialized")
_MOST_NAMES = 3
_FAKE_QUANTIZER = "torch/ao/quantization/fake_quantize.py"


def explain_capture(
    error: Exception, model: nn.Module, arguments: ExportArguments, *, runnable: bool
) -> ExportFailure:
    """Explain in a sentence why torch.export could not capture `model` with `arguments`.

    Args:
        error: what it raised.
        model: the model as it was captured.
        arguments: what it was called with.
        runnable: whether the model has weights, so that it can be run to compare.
    """
    if is_out_of_memory(error):
        return _out_of_memory()
    if closed := opaque_modules(model):  # they run, so the checks below would find nothing
        return closed
    # before torch's text is read: the exporter reports a model's own error as one of tracing
    if runnable and (own := _own_failure(model, arguments)):
        return own
    chain = exception_chain(error)
    if quoted := unquotable_names(model, chain):
        return quoted
    text = "\n".join(f"{type(cause).__name__}: {cause}" for cause in chain)
    if unknown := _UNKNOWN_TYPE.search(text):
        return _unknown_output(unknown[1])
    place = location_of_error(chain, text)
    if missing := _NO_FAKE.search(text):
        return _untraceable(missing[1] or missing[2].replace("::", "."), place)
    if any(phrase in text for phrase in _DATA_DEPENDENT):
        return _fake_quantizer(chain) or _decision(text, place)
    if any(phrase in text for phrase in _SPECIALIZED):
        return ExportFailure(
            error=f"the model fixes {_fixed_dims(text, arguments) or 'a dimension'}{place}",
            hint="derive sizes from x.shape instead of writing them as numbers",
            kind="dims",
        )
    # last, since it costs a forward pass and torch's text never names packed sequences
    if runnable and (packed := find_packed_sequence(model, arguments)):
        return ExportFailure(
            error=f"{packed} takes a packed sequence, which ONNX cannot express: its layout "
            "depends on the lengths",
            hint="run the RNN on the padded sequence, and mask its output with the lengths",
            kind="final",
        )
    return _gradient_failure(model, arguments, runnable=runnable) or _unknown(chain, place)


def _decision(text: str, place: str) -> ExportFailure:
    """The failure of a model whose control flow or sizes depend on values."""
    return _number(place) if _NUMBER.search(text) else _branch(place)


def _gradient_failure(
    model: nn.Module, arguments: ExportArguments, *, runnable: bool
) -> ExportFailure | None:
    call = find_gradient_call(model, arguments) if runnable else ""
    # `unknown`: the other ways to capture are tried all the same
    return _takes_gradient(call, "unknown") if call else None


def explain_trace(error: Exception) -> ExportFailure:
    """Explain in a sentence why the TorchScript tracer could not export a model."""
    chain = exception_chain(error)
    text = f"{type(chain[-1]).__name__}: {first_error_line(chain[-1])}"
    return ExportFailure(
        error=f"the tracer failed{location_of_error(chain, '')}: {text}", hint="", kind="final"
    )


def explain_translation(
    error: Exception, model: nn.Module, program: Any, opset: int
) -> ExportFailure:
    """Name all operators of a captured `program` that have no ONNX form."""
    if is_out_of_memory(error):
        return _out_of_memory()
    chain = exception_chain(error)
    if quoted := unquotable_names(model, chain):
        return quoted
    text = "\n".join(f"{type(cause).__name__}: {cause}" for cause in chain)
    obstacles = unsupported_operators(program, opset)
    if obstacles:
        return _unsupported(obstacles)
    # torch's message names only the first
    if missing := _NO_FUNCTION.search(text):
        name = f"{missing[1]}.{missing[2]}"
        return _unsupported(
            (UnsupportedOperator(operator=name, places=("",), workaround=workaround(name)),)
        )
    if refused := _UNTRANSLATED.search(text):
        return _refused(refused[2], chain)
    return _unknown(chain, "")


def _out_of_memory() -> ExportFailure:
    return ExportFailure(
        error="ran out of memory",
        hint="raise limits.memory in the manifest, or lower the model's batch",
        kind="memory",
    )


def _unknown(chain: list[BaseException], place: str) -> ExportFailure:
    cause = chain[-1]
    return ExportFailure(
        error=f"the exporter gave up{place}: {type(cause).__name__}: {first_error_line(cause)}",
        hint="try torch.onnx.export(model, args, dynamo=True, report=True) for the exporter's "
        "full report",
        kind="unknown",
    )


def _fixed_dims(text: str, arguments: ExportArguments) -> str:
    """`axis 0 of x at 2 and axis 1 of ids at 16`."""
    found = dict.fromkeys(
        f"axis {axis} of {arguments.called.get(name, name)}{keys} at {size}"
        for size, name, keys, axis in _FIXED.findall(text)
    )
    return " and ".join(found)


def _own_failure(model: nn.Module, arguments: ExportArguments) -> ExportFailure | None:
    """The model's own error if it cannot run on these inputs even without an exporter."""
    import torch

    try:
        with torch.no_grad():
            model(*arguments.args, **arguments.kwargs)
    except Exception as error:
        if is_out_of_memory(error):
            return _out_of_memory()
        # the export runs without gradients, so a forward that calls autograd fails with this text
        if "does not require grad" in str(error):
            return _takes_gradient(location_of_error([error], ""), "final")
        found = explain_failure(error)
        return ExportFailure(
            error=f"the model's forward pass fails: {found}",
            hint=found.hint,
            kind="own",  # it may be made for the manifest's batch alone
        )
    return None


def _takes_gradient(place: str, kind: Kind) -> ExportFailure:
    return ExportFailure(
        error=f"forward takes a gradient{place}, which the exporter does not trace",
        hint="write the derivative as a formula, or compute it outside the model",
        kind=kind,
    )


def find_gradient_call(model: nn.Module, arguments: ExportArguments) -> str:
    """` (torch.autograd.grad at net.py:16)`, the first gradient that forward takes; "" for none."""
    import torch

    found: list[str] = []
    own = torch.autograd.grad, torch.autograd.backward

    def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            frames = reversed(traceback.extract_stack())
            lines = (
                f"{short_path(frame.filename)}:{frame.lineno}"
                for frame in frames
                if not is_library_file(frame.filename)
            )
            found.append(f" (torch.autograd.{function.__name__} at {next(lines, 'unknown line')})")
            return function(*args, **kwargs)

        return call

    try:
        torch.autograd.grad, torch.autograd.backward = recorded(own[0]), recorded(own[1])
        model(*arguments.args, **arguments.kwargs)
    except Exception:  # what forward raises is reported elsewhere
        return ""
    finally:
        torch.autograd.grad, torch.autograd.backward = own
    return next(iter(found), "")


def _unknown_output(type_name: str) -> ExportFailure:
    short = type_name.rsplit(".", 1)[-1]
    if short in _UNCONSUMED:
        return ExportFailure(
            error=f"forward returns {_UNCONSUMED[short]} that was never consumed, not a tensor",
            hint="return what it yields, in a list or a tuple",
            kind="final",
        )
    article = "an" if short[0] in "AEIOU" else "a"
    if "cache" in short.lower():
        return ExportFailure(
            error=f"the model returns {article} {short}, which has no place in an ONNX graph: "
            "turn the cache off",
            hint="turn the cache off: use_cache=False in the model's arguments or configuration",
            kind="output",
        )
    return ExportFailure(
        error=f"the model returns {article} {short}, which the exporter cannot look into",
        hint="return tensors, tuples, lists or dicts, or register the class with "
        "torch.utils._pytree.register_pytree_node",
        kind="output",
    )


_WHY_BRANCH = ": what runs next depends on a tensor's values"


def _branch(place: str) -> ExportFailure:
    return ExportFailure(
        error=f"data-dependent branch{place}{_WHY_BRANCH}, which an ONNX graph cannot follow",
        hint="replace the branch by torch.where or torch.cond, or keep it out of forward; "
        "torch.onnx.export(dynamo=False) exports only the branch that the example input takes",
        kind="values",
    )


def _fake_quantizer(chain: list[BaseException]) -> ExportFailure | None:
    """The failure if the branch is in PyTorch's FakeQuantize and in no line of the model."""
    frames = (f for error in chain for f in traceback.extract_tb(error.__traceback__))
    files = [frame.filename.replace("\\", "/") for frame in frames]
    if not any(_FAKE_QUANTIZER in text for text in (*files, *map(str, chain))):
        return None
    return ExportFailure(
        error="the model is prepared for quantization-aware training: FakeQuantize branches on "
        "whether its observer is on, which an ONNX graph cannot follow",
        hint=workaround("quantized.linear"),
        kind="final",
    )


def with_every_branch(
    why: ExportFailure, model: nn.Module, bind: Callable[[], ExportArguments]
) -> ExportFailure:
    """`why` with all branches on values in its details, if it is the failure of one branch.

    Costs a draft export, which for a detector takes minutes.
    """
    if _WHY_BRANCH not in why.error:
        return why
    places = data_dependent_branches(model, bind())
    others = len(places) - 1
    if others < 1:
        return why
    error = why.error.replace(_WHY_BRANCH, f" (and {others} more){_WHY_BRANCH}")
    return replace(why, error=error, details=places)


def _number(place: str) -> ExportFailure:
    return ExportFailure(
        error=f"data-dependent number{place}: forward makes a Python number of a tensor's value, "
        "which an ONNX graph cannot hold",
        hint="keep it a tensor (x * x.max(), not x * float(x.max())), or pass it in as an input",
        kind="values",
    )


def _untraceable(operator: str, place: str) -> ExportFailure:
    """An operator that torch.export cannot trace: no fake kernel, or a data-dependent size."""
    is_own = operator.partition(".")[0] not in ("aten", "prims")
    return ExportFailure(
        error=f"unsupported operator {operator}{place}: torch.export cannot tell what it returns",
        hint="give it a fake kernel (torch.library.register_fake), the exporter a translation "
        "(custom_translation_table), and every runtime a kernel"
        if is_own
        else workaround(operator),
        kind="final",
    )


def _kind_of(*operators: str) -> Kind:
    """`attention` or `experts` if the layer has an implementation without these operators."""
    if any("attention" in operator for operator in operators):
        return "attention"
    return "experts" if any("grouped_mm" in operator for operator in operators) else "final"


def _unsupported(obstacles: tuple[UnsupportedOperator, ...]) -> ExportFailure:
    kind = _kind_of(*(obstacle.operator for obstacle in obstacles))
    if len(obstacles) == 1:
        only = obstacles[0]
        where, total = only.places[0], len(only.places)
        count = f", {total} times in all" if total > 1 else ""
        return ExportFailure(
            error=f"unsupported operator {only.operator}{where}{count}: ONNX has no equivalent",
            hint=only.workaround,
            kind=kind,
            details=(only.line(),) if total > 1 else (),
        )
    names = ", ".join(obstacle.operator for obstacle in obstacles[:5])
    more = f" and {len(obstacles) - 5} more" if len(obstacles) > 5 else ""
    return ExportFailure(
        error=f"{len(obstacles)} unsupported operators: ONNX has no equivalent of {names}{more}",
        hint="remove or replace each of them, or register a translation (custom_translation_table)",
        kind=kind,
        details=tuple(obstacle.line() for obstacle in obstacles),
    )


def _refused(operator: str, chain: list[BaseException]) -> ExportFailure:
    """An operator that has an ONNX form, but not with these arguments."""
    cause = chain[-1]
    return ExportFailure(
        error=f"unsupported use of {operator}: {type(cause).__name__}: {first_error_line(cause)}",
        hint=workaround(operator),
        kind=_kind_of(operator),
    )


def opaque_modules(model: nn.Module) -> ExportFailure | None:
    """TorchScript and packed quantized modules: torch.export cannot look into them."""
    script = [n for n, m in model.named_modules() if _is_script(m, is_root=not n)]
    if script:
        outer = [name for name in script if not _is_below(name, script)]
        return ExportFailure(
            error=f"{_names(outer)} {_is_or_are(outer)} TorchScript (torch.jit), which the "
            "exporter cannot look into",
            hint="export the Python module that it was scripted or traced from",
            kind="final",
        )
    packed = {
        name: f"{type(m).__module__}.{type(m).__name__}"
        for name, m in model.named_modules()
        # torch.ao's quantized modules keep their weights in an opaque TorchScript object
        if ".quantized" in type(m).__module__ and hasattr(m, "_packed_params")
    }
    if packed:
        outer = [name for name in packed if not _is_below(name, list(packed))]
        return ExportFailure(
            error=f"{_names(outer)} {_is_or_are(outer)} quantized: packed weights cannot be "
            "exported",
            hint=workaround("quantized.linear"),
            kind="final",
            details=tuple(f"{name or 'the model'}: {packed[name]}" for name in outer),
        )
    return None


def unquotable_names(model: nn.Module, chain: list[BaseException]) -> ExportFailure | None:
    """Module names that break the Python code that torch generates from the graph."""
    if not any(isinstance(error, SyntaxError) for error in chain):
        return None
    odd = [
        key
        for module in modules_of(model)
        for key in module._modules
        if '"' in key or "\\" in key or not key.isprintable()
    ]
    if not odd:
        return None
    names = ", ".join(map(repr, dict.fromkeys(odd[:_MOST_NAMES])))
    return ExportFailure(
        error=f"torch.export cannot write these names of modules into its code: {names}",
        hint="name modules without quotes, backslashes and line ends",
        kind="final",
    )


def _is_script(module: nn.Module, *, is_root: bool) -> bool:
    import torch
    from torch.jit._trace import TracedModule

    # torch.export follows traced modules within another, but not scripted ones
    is_script = isinstance(module, torch.jit.ScriptModule)
    return is_script and (is_root or not isinstance(module, TracedModule))


def _is_below(name: str, others: list[str]) -> bool:
    return any(name != other and (not other or name.startswith(f"{other}.")) for other in others)


def _names(paths: list[str]) -> str:
    """`the model`, `module 0`, `modules 0, 2 and 7 more`."""
    if paths == [""]:
        return "the model"
    shown = ", ".join(paths[:_MOST_NAMES])
    more = f" and {len(paths) - _MOST_NAMES} more" if len(paths) > _MOST_NAMES else ""
    return f"{'module' if len(paths) == 1 else 'modules'} {shown}{more}"


def _is_or_are(items: list[Any]) -> str:
    return "is" if len(items) == 1 else "are"


def find_packed_sequence(model: nn.Module, arguments: ExportArguments) -> str:
    """The first recurrent module that is called with a packed sequence; "" for none."""
    import torch
    from torch.nn.utils.rnn import PackedSequence

    found: list[str] = []
    handles = [
        module.register_forward_pre_hook(
            lambda _module, given, name=name: (
                found.append(name) if isinstance(given[0], PackedSequence) else None
            )
        )
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.RNNBase)
    ]
    try:
        if handles:
            model(*arguments.args, **arguments.kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return _names(found[:1]) if found else ""
