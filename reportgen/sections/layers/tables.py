"""The text files `layers.csv` and `summary.txt`."""

from __future__ import annotations

import csv
import io
from collections.abc import Hashable
from dataclasses import dataclass

from torch import nn

from reportgen.sections.layers.modules import own_tensors, walk
from reportgen.sections.layers.outline import Branch, outline, rows
from reportgen.sections.layers.result import Layer, Layers, Shape
from reportgen.sections.layers.tracing.measure import Measured
from reportgen.sections.layers.tracing.module_tracker import LayerCall
from reportgen.units import format_bound
from reportgen.visible_text import visible

_MIB = 2**20
# Spreadsheets evaluate cells that begin with one of these (CSV injection).
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_COLUMN_NAMES = """
    path type depth calls executed_via shared_with input_shapes output_shapes dtype output_dtype
    kernel groups parameters parameters_share own_parameters trainable_parameters unused_parameters
    macs macs_share own_macs lower_bound forward_backward_macs own_forward_backward_macs
    trainable leaf output_bytes masked_parameters zero_share
"""
_COLUMNS = _COLUMN_NAMES.split()


def layers_csv(layers: tuple[Layer, ...]) -> str:
    """`layers.csv`: one line per layer; cells that look like formulas are quoted."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for layer in layers:
        writer.writerow(_cell(_column(layer, name, layers[0])) for name in _COLUMNS)
    return text.getvalue()


def _column(layer: Layer, name: str, whole: Layer) -> object:
    if name == "zero_share":
        return None if layer.zero_share is None else f"{layer.zero_share:.6f}"
    if name.endswith("_share"):
        figure = name.removesuffix("_share")
        all_of_it: int = getattr(whole, figure)
        return f"{getattr(layer, figure) / all_of_it:.6f}" if all_of_it else None
    if name == "kernel":
        return "x".join(map(str, layer.kernel))
    if name == "input_shapes":
        return _shapes_cell(layer.input_keys, layer.input_shapes)
    if name == "output_shapes":
        return _shapes_cell(layer.output_keys, layer.output_shapes)
    return getattr(layer, name)


def _shapes_cell(keys: tuple[str, ...], shapes: tuple[Shape, ...]) -> str:
    """`8x3x224x224`, or `logits: 8x10; hidden: 8x64` for several or named tensors."""
    texts = ["x".join(map(str, shape)) or "scalar" for shape in shapes]
    if keys in ((), ("",), ("0",)) or len(keys) != len(texts):
        return "; ".join(texts)
    return "; ".join(f"{key}: {text}" for key, text in zip(keys, texts, strict=True))


def _cell(value: object) -> str:
    """`value` as text; a leading quote prevents spreadsheets from evaluating it."""
    if value is None:
        return ""
    text = visible(str(value).lower() if isinstance(value, bool) else str(value))
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatRow:
    """One call of one module; parameters are counted in their first row."""

    name: str  # "Conv2d-1"
    shapes: str  # "[-1, 64, 224, 224]"
    parameters: int
    shared: bool  # its parameters are counted in an earlier row
    output_bytes: int


def flat_rows(model: nn.Module, calls: tuple[LayerCall, ...], batch: int) -> list[FlatRow]:
    """The calls in the order in which they ended, without the model itself and containers.

    Parameters of modules without a row (such as the projection of an attention) are counted in
    the row of the nearest module above, so the column adds up to the total.
    """
    nodes = walk(model)
    modules = {node.path: node.module for node in nodes}
    hidden = {path for path, module in modules.items() if _has_no_row(path, module, len(nodes))}
    shown = [call for call in calls if call.path not in hidden]
    charge = _charged(model, {call.path for call in shown})
    rows: list[FlatRow] = []
    counted: set[Hashable] = set()
    for number, call in enumerate(shown, start=1):
        held = charge.get(call.path, {})
        new = {key: size for key, size in held.items() if key not in counted}
        counted.update(new)
        rows.append(
            FlatRow(
                name=f"{type(modules[call.path]).__name__}-{number}",
                shapes=_flat_shapes(call.outputs, batch),
                parameters=sum(new.values()),
                shared=bool(held) and not new,
                output_bytes=call.output_bytes,
            )
        )
    return rows


def _has_no_row(path: str, module: nn.Module, count: int) -> bool:
    if path == "":
        return count > 1  # a model that is a single layer has its row
    return isinstance(module, nn.Sequential | nn.ModuleList)


def _charged(model: nn.Module, with_row: set[str]) -> dict[str, dict[Hashable, int]]:
    """For each path with a row, the tensors to count there: identity and size."""
    charge: dict[str, dict[Hashable, int]] = {}
    for node in walk(model):
        home = node.path
        while home and home not in with_row:
            home = home.rpartition(".")[0]
        held = charge.setdefault(home, {})
        held.update({key: tensor.numel() for key, tensor in own_tensors(node).items()})
    return charge


def _flat_shapes(outputs: dict[str, Shape], batch: int) -> str:
    texts = []
    for key, shape in outputs.items():
        sizes = list(shape)
        if sizes and sizes[0] == batch:
            sizes[0] = -1  # as torchsummary writes the batch
        worded = len(outputs) > 1 and not key.replace(".", "").isdigit()
        texts.append(f"{key}: {sizes}" if worded else str(sizes))
    return ", ".join(texts) or "–"


def flat_table(
    rows: list[FlatRow], parameters: int, trainable: int, parameter_bytes: int, input_bytes: int,
    batch: int,
) -> str:  # fmt: skip
    """A table in the format of torchsummary, sizes for one sample in MiB (labeled MB)."""
    name = max([len(row.name) for row in rows] + [20])
    shape = max([len(row.shapes) for row in rows] + [26])
    rule, double = "-" * (name + shape + 20), "=" * (name + shape + 20)
    lines = [rule, f"{'Layer (type)':>{name}}  {'Output Shape':>{shape}}  {'Param #':>14}", double]
    for row in rows:
        count = "(shared)" if row.shared else f"{row.parameters:,}"
        lines.append(f"{row.name:>{name}}  {row.shapes:>{shape}}  {count:>14}")
    outside = parameters - sum(row.parameters for row in rows)
    if outside:
        lines.append(f"{'(not in a row above)':>{name}}  {'–':>{shape}}  {outside:>14,}")
    sample = input_bytes / batch / _MIB
    passes = 2 * sum(row.output_bytes for row in rows) / batch / _MIB  # 2: with their gradients
    weights = parameter_bytes / _MIB
    lines += [
        double,
        f"Total params: {parameters:,}",
        f"Trainable params: {trainable:,}",
        f"Non-trainable params: {parameters - trainable:,}",
        rule,
        f"Input size (MB): {sample:.2f}",
        f"Forward/backward pass size (MB): {passes:.2f}",
        f"Params size (MB): {weights:.2f}",
        f"Estimated Total Size (MB): {sample + passes + weights:.2f}",
        rule,
    ]
    return "\n".join(lines) + "\n"


def tree_totals(result: Layers, input_bytes: int) -> str:
    """The totals of torchinfo's tree as reportgen counts them, in MiB."""
    passes = result.torchinfo.forward_backward_bytes
    total = input_bytes + passes + result.parameter_bytes
    figures = [
        ("Total parameters", f"{result.parameters:,}"),
        ("Trainable parameters", f"{result.trainable_parameters:,}"),
        (
            "Multiply-adds",
            "unknown" if result.failure else format_bound(result.macs, result.lower_bound),
        ),
        ("Input size (MiB)", f"{input_bytes / _MIB:,.2f}"),
        ("Forward/backward pass size (MiB)", f"{passes / _MIB:,.2f}"),
        ("Parameter size (MiB)", f"{result.parameter_bytes / _MIB:,.2f}"),
        ("Total size (MiB)", f"{total / _MIB:,.2f}"),
    ]
    return "".join(f"{name:<34}{value:>20}\n" for name, value in figures)


def plain_tree(layers: tuple[Layer, ...]) -> str:
    """The tree of our rows, for models on which torchinfo fails."""
    names = [
        f"{'  ' * row.depth}{row.path.rpartition('.')[2] or 'model'}: {row.type}" for row in layers
    ]
    width = max(map(len, names))
    lines = [f"{'Layer':<{width}}  {'Output shape':<28}  {'Parameters':>14}  {'MACs':>18}"]
    for name, row in zip(names, layers, strict=True):
        shape = _shapes_cell(row.output_keys, row.output_shapes) or "–"
        macs = format_bound(row.macs, row.lower_bound)
        lines.append(f"{name:<{width}}  {shape:<28}  {row.parameters:>14,}  {macs:>18}")
    return "\n".join(lines) + "\n"


def layer_table(result: Layers, *, depth: int | None = None) -> str:
    """The tree of layers with shapes and counts, and the totals below it, as plain text.

    Rows deeper than `depth` are left out; None shows all. Equal neighbors are one row: `×3`.
    """
    shown = [b for b in rows(outline(result.layers)) if depth is None or b.depth <= depth]
    table = [("Layer", "Input", "Output", "Parameters", "Trainable", "MACs")]
    table += [_table_row(branch, result.layers[0]) for branch in shown]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = [
        "  ".join(
            text.ljust(width) if column < _TEXT_COLUMNS else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]
    rule = "─" * max(map(len, lines))
    return "\n".join([rule, lines[0], rule, *lines[1:], rule, *_totals(result), rule])


_Cells = tuple[str, str, str, str, str, str]
_TEXT_COLUMNS = 3  # of `layer_table`, flush left; numbers are flush right


def _table_row(branch: Branch, whole: Layer) -> _Cells:
    layer = branch.layer
    name = branch.name or layer.class_name or "model"
    times = f" ×{branch.times}" if branch.times > 1 else ""
    kind = "" if not branch.name else f": {layer.type}"
    counted = layer.shared_with is None
    return (
        f"{'  ' * branch.depth}{name}{times}{kind}",
        _shapes_cell(layer.input_keys, layer.input_shapes) or "–",
        _shapes_cell(layer.output_keys, layer.output_shapes) or "–",
        f"{layer.parameters:,}" if counted else "(shared)",
        "" if not layer.parameters else "yes" if layer.trainable_parameters == layer.parameters
        else "partly" if layer.trainable else "no",
        format_bound(layer.macs, layer.lower_bound) if layer.macs or layer is whole else "–",
    )  # fmt: skip


def _totals(result: Layers) -> list[str]:
    macs = "unknown" if result.failure else format_bound(result.macs, result.lower_bound)
    figures = [
        ("Parameters", f"{result.parameters:,}"),
        ("  trainable", f"{result.trainable_parameters:,}"),
        ("  not trainable", f"{result.parameters - result.trainable_parameters:,}"),
        (f"MACs, batch of {result.batch}", macs),
        ("Parameter size (MiB)", f"{result.parameter_bytes / _MIB:,.2f}"),
        ("Buffer size (MiB)", f"{result.buffers_bytes / _MIB:,.2f}"),
        (
            "Forward/backward pass size (MiB)",
            f"{torchinfo_forward_backward_bytes(result.layers) / _MIB:,.2f}",
        ),
    ]
    lines = [f"{name:<34}{value:>18}" for name, value in figures]
    if result.uncounted:
        names = ", ".join(each.operator for each in result.uncounted[:5])
        lines.append(f"MACs are a lower bound: no formula for {names}")
    if result.failure:
        place = result.failure.module or "the model itself"
        lines.append(f"The forward pass fails in {place}: {result.failure.message}")
    return lines


def torchinfo_forward_backward_bytes(layers: tuple[Layer, ...]) -> int:
    """Torchinfo's "Forward/backward pass size": twice the outputs of leaves with parameters."""
    return 2 * sum(row.output_bytes for row in layers if row.leaf and row.parameters)


def summary_text(model: nn.Module, measured: Measured, result: Layers, input_bytes: int) -> str:
    """`summary.txt`: the flat table, torchinfo's tree, and the totals as reportgen counts them."""
    rows = flat_rows(model, measured.trace.calls, measured.batch)
    flat = flat_table(
        rows,
        parameters=result.parameters,
        trainable=result.trainable_parameters,
        parameter_bytes=result.parameter_bytes,
        input_bytes=input_bytes,
        batch=measured.batch,
    )
    torchinfo = measured.torchinfo
    if measured.failure is not None:
        tree = f"The layers as reportgen counts them, up to the failure of {measured.failure}"
        tree += f"\n\n{plain_tree(result.layers)}"
    elif torchinfo.error is None:
        tree = f"The tree as torchinfo prints it (MB of 1,000,000 bytes)\n\n{torchinfo.table}\n"
    else:
        tree = f"torchinfo fails on this model ({torchinfo.error}); the tree as reportgen counts it"
        tree += f"\n\n{plain_tree(result.layers)}"
    return (
        "Layers in the order in which they ran, sizes for one sample (MB of 1,048,576 bytes)\n\n"
        f"{flat}\n{tree}\n"
        f"The totals as reportgen counts them, batch of {result.batch}\n\n"
        f"{tree_totals(result, input_bytes)}"
    )
