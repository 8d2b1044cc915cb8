"""How the figures came about, a sentence each."""

from __future__ import annotations

from reportgen.sections.layers.measure import Measured
from reportgen.sections.layers.result import Layers
from reportgen.sections.layers.trace import Trace
from reportgen.sections.layers.tree import Weights


def notes_of(result: Layers, measured: Measured) -> list[str]:
    """How the figures were counted, and where others count differently."""
    notes = [measured.note]
    if result.uncounted:
        names = ", ".join(item.operator for item in result.uncounted[:5])
        notes.append(
            f"without a FLOP formula and therefore in no count: {names}; "
            "reportgen.register_flops(operator, formula) gives them one"
        )
    if result.forward_backward_uncounted:
        names = ", ".join(item.operator for item in result.forward_backward_uncounted[:5])
        notes.append(f"in the backward pass without a FLOP formula: {names}")
    if measured.trace.conventional:
        names = ", ".join(measured.trace.conventional[:5])
        notes.append(
            f"{names}: counted to leading order by the real operations of the classic algorithm "
            "(an FFT of n complex numbers is 5·n·log2 n, of n real ones half of it), two of them "
            "to a multiply-add"
        )
    if any(row.kernel and row.own_macs and "complex" in row.dtype for row in result.layers):
        notes.append("a complex convolution counts as the three real ones that torch makes of it")
    if measured.trace.complex_products:
        notes.append("a complex multiply-add counts as one, as in torch's counter")
    if result.quantized_parameters:
        notes.append(
            f"{result.quantized_parameters:,} parameters are quantized: counted by their logical "
            "number, in bytes as packed, scales and zero points left out"
        )
    bypassed = [row.path for row in result.layers if row.reached == "forward"]
    if bypassed:
        notes.append(f"hooks were bypassed by a direct .forward(): {', '.join(bypassed[:5])}")
    if result.torchinfo_parameters not in (None, result.parameters):
        notes.append(
            f"torchinfo counts {result.torchinfo_parameters:,} parameters; "
            f"{result.parameters:,} is the number of distinct ones that are registered"
        )
    if result.torchinfo_macs not in (None, result.macs):
        notes.append(
            f"torchinfo counts {result.torchinfo_macs:,} multiply-adds from the sizes of layers; "
            f"{result.macs:,} is the sum over the operators that ran: attention, functional and "
            "repeated products are in it, biases and look-ups are not"
        )
    return notes


def structural_notes(trace: Trace, weights: Weights, built: tuple[str, ...]) -> list[str]:
    """What the figures of parameters do not say of the model's structure."""
    notes = []
    if built:
        notes.append(
            f"the first forward pass builds parameters, which are counted here: {_some(built)}; "
            "before that pass no optimizer sees them and no checkpoint of them can be loaded: "
            "build them in __init__"
        )
    if trace.added:
        notes.append(
            f"a forward pass adds parameters, which are in no figure here: {_some(trace.added)}; "
            "build them in __init__, or give reportgen a model that has seen an input"
        )
    if trace.threaded:
        notes.append("modules run in threads of their own: counted there, sorted by their paths")
    if weights.in_code:
        notes.append(
            f"TorchScript keeps {weights.in_code:,} numbers as constants of its code, as freezing "
            "does with weights: they are no parameters and in no figure of them"
        )
    if trace.to_numpy:
        places = _some(tuple(path or "the model itself" for path in trace.to_numpy))
        notes.append(f"tensors go to NumPy in {places}: what it computes is in no count")
    groups = tuple(" and ".join(group) for group in weights.overlapping)
    if groups:
        notes.append(
            "distinct parameters share memory and are not tied, so that every one of them is "
            f"counted, saved and given optimizer state: {_some(groups)}"
        )
    return notes


def _some(items: tuple[str, ...]) -> str:
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return ", ".join(items[:5]) + more
