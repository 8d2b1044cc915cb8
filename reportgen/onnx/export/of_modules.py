"""Failures that lie in the modules a model is made of, whatever its forward does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reportgen.onnx.export.explained import Explained
from reportgen.onnx.export.workarounds import way_round
from reportgen.pytree import modules_of

if TYPE_CHECKING:
    from torch import nn

    from reportgen.onnx.export.arguments import Arguments

_MOST_NAMES = 3


def closed_modules(model: nn.Module) -> Explained | None:
    """TorchScript and packed quantized modules: torch.export cannot look into them."""
    script = [n for n, m in model.named_modules() if _is_script(m, is_root=not n)]
    if script:
        outer = [name for name in script if not _is_below(name, script)]
        return Explained(
            error=f"{_names(outer)} {_is_or_are(outer)} TorchScript (torch.jit), which the "
            "exporter cannot look into",
            hint="export the Python module that it was scripted or traced from",
            kind="final",
        )
    packed = {
        name: f"{type(m).__module__}.{type(m).__name__}"
        for name, m in model.named_modules()
        if ".quantized" in type(m).__module__ and hasattr(m, "_packed_params")
    }
    if packed:
        outer = [name for name in packed if not _is_below(name, list(packed))]
        return Explained(
            error=f"{_names(outer)} {_is_or_are(outer)} quantized: packed weights cannot be "
            "exported",
            hint=way_round("quantized.linear"),
            kind="final",
            details=tuple(f"{name or 'the model'}: {packed[name]}" for name in outer),
        )
    return None


def quoted_names(model: nn.Module, chain: list[BaseException]) -> Explained | None:
    """Names that do not fit between quotes, where torch writes them into its own code."""
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
    return Explained(
        error=f"torch.export cannot write these names of modules into its code: {names}",
        hint="name modules without quotes, backslashes and line ends",
        kind="final",
    )


def _is_script(module: nn.Module, *, is_root: bool) -> bool:
    """Traced modules within another are followed by torch.export; scripted ones are not."""
    import torch
    from torch.jit._trace import TracedModule

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


def takes_packed_sequences(model: nn.Module, arguments: Arguments) -> str:
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
