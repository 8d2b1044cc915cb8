"""Why a forward pass failed: the module, its line, what it expected, and what to correct.

Everything is read from the traceback, so it also works for copies of a model and under tracing.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING, Any

from reportgen.error_text import one_line, user_frame, user_location
from reportgen.known_failures import known_failure
from reportgen.pytree import named_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

_CHECK_INPUTS = "check the inputs of the model: order, names, shapes and dtypes"
# errors of the code itself, which other inputs would not avoid
_OF_THE_CODE = (AttributeError, ImportError, NameError, NotImplementedError, RecursionError)
_VARIADIC = 0x04, 0x08  # flags of a function with *args, with **kwargs


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardFailure:
    """A failed forward pass.

    Attributes:
        module: path of the innermost module that was running; "" for the model itself.
        place: `file.py:12` of the innermost line of the user's code; "" if there is none.
        reason: what the module expected and got, or torch's message with its class.
        hint: what to correct: the line of the model, or the inputs in the manifest.
    """

    module: str
    place: str
    reason: str
    hint: str

    @property
    def cause(self) -> str:
        """`classifier.1: expected 400 input features, got 576`."""
        return f"{self.module}: {self.reason}" if self.module else self.reason

    def __str__(self) -> str:
        """`classifier.1: expected 400 input features, got 576 (model.py:13)`."""
        return f"{self.cause} ({self.place})" if self.place else self.cause


def explain_failure(error: BaseException) -> ForwardFailure:
    """What the traceback of `error`, raised by a forward pass, shows."""
    found, known = _from_traceback(error), known_failure(error)
    if known is None:
        return found
    return replace(found, place="", reason=known.text, hint=known.hint)  # the text has the place


def _from_traceback(error: BaseException) -> ForwardFailure:
    calls = _module_calls(error)
    place = user_frame(error)
    generic = f"{type(error).__name__}: {one_line(error)}" if str(error) else type(error).__name__
    if not calls:
        return ForwardFailure(module="", place=place, reason=generic, hint=_CHECK_INPUTS)
    model, module = calls[0].module, calls[-1].module
    # in a fake copy the paths are those of the original
    paths = {id(part): path for path, part in reversed(list(_named_modules(model)))}
    path, received = paths.get(id(module), ""), calls[-1].tensors()
    mismatch = _mismatch(module, received[0]) if received else ""
    if isinstance(error, _OF_THE_CODE):
        hint = f"correct the line {place}" if place else f"correct {path or 'forward'}"
    elif not type(module).__module__.startswith("torch."):
        hint = _hint_of_own_code(error, place, is_call=len(calls) == 1)
    elif any(tensor.shape == given.shape for tensor in received for given in calls[0].tensors()):
        hint = _CHECK_INPUTS
    else:
        at = f", called at {place}," if place else ""
        hint = (
            f"correct {path or 'forward'}{at} or the layers before it; if the model is right for "
            "another input size, change the `inputs` in the manifest"
        )
    return ForwardFailure(module=path, place=place, reason=mismatch or generic, hint=hint)


def _hint_of_own_code(error: BaseException, place: str, *, is_call: bool) -> str:
    """What to correct after an error in a forward of the user's own code."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    # `raise` or `assert` of the model itself: it checks its inputs
    refused = (last.line or "").startswith(("raise", "assert"))
    refused = refused and bool(user_location(last.filename, last.lineno))
    wrong_call = isinstance(error, TypeError) and is_call  # a missing or an unknown argument
    if refused or wrong_call or not place:
        return _CHECK_INPUTS
    return f"correct the line {place}, or {_CHECK_INPUTS}"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _ModuleCall:
    """A call of a module in a traceback, by its outermost frame, whose arguments are unchanged."""

    module: nn.Module
    frame: FrameType

    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments."""
        code = self.frame.f_code
        count = code.co_argcount + code.co_kwonlyargcount
        count += sum(bool(code.co_flags & flag) for flag in _VARIADIC)
        held = self.frame.f_locals
        names = [name for name in code.co_varnames[:count] if name != "self" and name in held]
        return list(named_tensors({name: held[name] for name in names}).values())


def _module_calls(error: BaseException) -> list[_ModuleCall]:
    """The calls of modules in the traceback of `error`, outermost first."""
    from torch import nn

    calls: list[_ModuleCall] = []
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and not (calls and calls[-1].module is owner):
            calls.append(_ModuleCall(module=owner, frame=frame))
    return calls


def _named_modules(model: nn.Module) -> Any:
    from torch import nn

    return nn.Module.named_modules(model)


def _mismatch(module: Any, tensor: Tensor) -> str:
    """`expected 400 input features, got 576`; "" if it fits, or the module is another one."""
    from torch import nn

    if isinstance(module, nn.Linear):
        return _expected("input features", module.in_features, tensor, -1)
    if isinstance(module, nn.modules.conv._ConvNd):
        return _expected("input channels", module.in_channels, tensor, -len(module.kernel_size) - 1)
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return _expected("channels", module.num_features, tensor, 1)
    if isinstance(module, nn.GroupNorm):
        return _expected("channels", module.num_channels, tensor, 1)
    if isinstance(module, nn.RNNBase | nn.RNNCellBase):
        return _expected("input features", module.input_size, tensor, -1)
    if isinstance(module, nn.MultiheadAttention):
        return _expected("embedding features", module.embed_dim, tensor, -1)
    if isinstance(module, nn.LayerNorm):
        sizes = tuple(module.normalized_shape)
        last = tuple(tensor.shape[-len(sizes) :])
        return f"expected last dimensions {sizes}, got {last}" if last != sizes else ""
    return ""


def _expected(what: str, size: int, tensor: Tensor, axis: int) -> str:
    if tensor.ndim < (axis + 1 if axis >= 0 else -axis):
        return f"expected {size:,} {what}, got a tensor of shape {tuple(tensor.shape)}"
    found = int(tensor.shape[axis])
    return f"expected {size:,} {what}, got {found:,}" if found != size else ""
